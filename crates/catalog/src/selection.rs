//! Which tables take part: patterns over `schema.table`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::{TableInfo, TableName};

/// A pattern over a table's schema and name: `*` stands for any characters, `?` for one.
///
/// Each part may be quoted as SQL quotes it: `"Odd Schema"."t.x"`; within quotes a dot is a plain character and
/// `""` a quote, while `*` and `?` keep their meaning. Without quotes the text is taken as it is: the case counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    schema: String,
    name: String,
}

/// The text is no pattern over tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectionError {
    pattern: String,
    fault: &'static str,
}

impl fmt::Display for SelectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the table pattern {:?} {}: expected schema.table, such as public.orders, public.* or \"Odd Schema\".t?",
            self.pattern, self.fault
        )
    }
}

impl std::error::Error for SelectionError {}

impl FromStr for Pattern {
    type Err = SelectionError;

    fn from_str(text: &str) -> Result<Self, SelectionError> {
        let fail = |fault| SelectionError { pattern: text.to_owned(), fault };
        let mut parts = vec![String::new()];
        let mut quoted = false;
        let mut chars = text.trim().chars().peekable();
        while let Some(c) = chars.next() {
            let last = parts.len() - 1;
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    parts[last].push('"');
                }
                '"' => quoted = !quoted,
                '.' if !quoted => parts.push(String::new()),
                c => parts[last].push(c),
            }
        }
        if quoted {
            return Err(fail("has a quote that is not closed"));
        }
        let [schema, name] = <[String; 2]>::try_from(parts).map_err(|parts| {
            fail(if parts.len() < 2 { "names no schema" } else { "has more than one dot" })
        })?;
        if schema.is_empty() || name.is_empty() {
            return Err(fail("has an empty part"));
        }
        Ok(Self { text: text.to_owned(), schema, name })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    /// Whether the table's schema and name both match.
    #[must_use]
    pub fn matches(&self, table: &TableName) -> bool {
        wildcard(&self.schema, &table.schema) && wildcard(&self.name, &table.name)
    }
}

/// Whether `text` matches `pattern`, in time proportional to the product of their lengths at worst: on a mismatch
/// only the last `*` is widened, since widening an earlier one could match nothing that this does not.
fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The tables that take part in a flow: those that an include pattern matches (all, when there is none) and no
/// exclude pattern does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    /// These tables and no others, whatever the patterns say.
    only: Option<BTreeSet<TableName>>,
}

impl Selection {
    /// A selection from patterns. No include pattern means every table.
    #[must_use]
    pub fn new(include: Vec<Pattern>, exclude: Vec<Pattern>) -> Self {
        Self { include, exclude, only: None }
    }

    /// A selection from the patterns' texts.
    ///
    /// # Errors
    /// When a text is no pattern.
    pub fn parse<I, E>(include: I, exclude: E) -> Result<Self, SelectionError>
    where
        I: IntoIterator<Item: AsRef<str>>,
        E: IntoIterator<Item: AsRef<str>>,
    {
        Ok(Self {
            include: include.into_iter().map(|text| text.as_ref().parse()).collect::<Result<_, _>>()?,
            exclude: exclude.into_iter().map(|text| text.as_ref().parse()).collect::<Result<_, _>>()?,
            only: None,
        })
    }

    /// Exactly the tables of these names; of a tree of partitions, the one at its top.
    #[must_use]
    pub fn exactly(tables: impl IntoIterator<Item = TableName>) -> Self {
        Self { only: Some(tables.into_iter().collect()), ..Self::default() }
    }

    /// The tables of a flow that was begun: those that it has recorded, of `all` tables of the source, with the whole trees
    /// of partitions that they belong to. Patterns do not choose them any more, but one that is excluded now is left out.
    #[must_use]
    pub fn of_recorded(&self, all: &[TableInfo], recorded: &BTreeSet<TableName>) -> Self {
        let tops = all
            .iter()
            .filter(|table| recorded.contains(&table.name))
            .map(|table| table.partition_root.as_ref().unwrap_or(&table.name));
        Self::exactly(tops.filter(|top| !self.excludes(top)).cloned())
    }

    /// Whether tables were chosen one by one, so that no pattern can surprise anybody.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.only.is_some()
    }

    /// Whether an exclude pattern names the table.
    #[must_use]
    pub fn excludes(&self, table: &TableName) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(table))
    }

    /// Whether every table takes part.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty() && self.only.is_none()
    }

    /// Whether the table takes part.
    #[must_use]
    pub fn matches(&self, table: &TableName) -> bool {
        if let Some(only) = &self.only {
            return only.contains(table);
        }
        let included = self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(table));
        included && !self.exclude.iter().any(|pattern| pattern.matches(table))
    }

    /// Whether the table takes part. A partition goes where the table at the top of its tree goes, because partitions
    /// are published by that table; so one that is created later takes part as well.
    #[must_use]
    pub fn includes(&self, table: &TableInfo) -> bool {
        self.matches(table.partition_root.as_ref().unwrap_or(&table.name))
    }

    /// The include patterns that match none of `tables`: most often a typing error.
    pub fn unmatched<'a>(&'a self, tables: &'a [TableName]) -> impl Iterator<Item = &'a Pattern> {
        self.include.iter().filter(|pattern| !tables.iter().any(|table| pattern.matches(table)))
    }
}

#[cfg(test)]
#[path = "selection_tests.rs"]
mod tests;
