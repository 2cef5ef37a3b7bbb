//! What PostgreSQL 18 writes and earlier servers cannot read: constraints NOT NULL that stand by themselves,
//! virtual generated columns, and constraints that are not enforced.

use std::ops::Range;

use super::statement::Statement;

/// What an earlier server can take in place of a statement.
pub(super) enum Older {
    /// The statement itself.
    Same,
    /// Another text; with a reason when it does not mean quite the same.
    Instead(String, Option<String>),
    /// Nothing, for a reason.
    Nothing(String),
}

/// Rewrites a statement of a PostgreSQL 18 dump for a server before 18.
pub(super) fn before_18(statement: &Statement<'_>) -> Older {
    let create_table =
        [&["create", "table"][..], &["create", "unlogged", "table"], &["create", "foreign", "table"]];
    if let Some(head) = create_table.into_iter().find(|head| statement.begins(head)) {
        return create(statement, head.len());
    }
    if !statement.begins(&["alter", "table"]) {
        return Older::Same;
    }
    if statement.after(&["add", "constraint"]).is_some() && statement.after(&["not", "enforced"]).is_some() {
        return Older::Nothing(
            "left out, because constraints that are not enforced need PostgreSQL 18 on the target".to_owned(),
        );
    }
    // ALTER TABLE [ONLY] t ADD CONSTRAINT name NOT NULL column [NO INHERIT] [NOT VALID];
    let Some(name) = statement.after(&["add", "constraint"]) else { return Older::Same };
    let is = |at: usize, keyword: &str| statement.tokens.get(at).is_some_and(|token| token.is(keyword));
    if !is(name + 1, "not") || !is(name + 2, "null") {
        return Older::Same;
    }
    if statement.after(&["not", "valid"]).is_some() {
        let reason =
            "left out, because constraints NOT NULL that are not valid need PostgreSQL 18 on the target";
        return Older::Nothing(reason.to_owned());
    }
    let (Some(add), Some(column)) = (statement.tokens.get(name - 2), statement.tokens.get(name + 3)) else {
        return Older::Same;
    };
    let table = &statement.body()[..add.start - statement.start()];
    Older::Instead(format!("{}\n    ALTER COLUMN {} SET NOT NULL;", table.trim_end(), column.text), None)
}

/// CREATE TABLE: looks through the list of columns and constraints.
fn create(statement: &Statement<'_>, head: usize) -> Older {
    let Some(open) = statement.tokens.iter().position(|token| token.is_symbol('(')) else {
        return Older::Same;
    };
    let mut elements: Vec<Range<usize>> = Vec::new();
    let mut depth = 0_usize;
    let mut first = open + 1;
    for (at, token) in statement.tokens.iter().enumerate().skip(open) {
        if token.is_symbol('(') {
            depth += 1;
        } else if token.is_symbol(')') {
            depth = depth.saturating_sub(1);
        }
        if depth == 0 || (depth == 1 && token.is_symbol(',')) {
            elements.push(first..at);
            first = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    let mut edits = Edits { statement, changes: Vec::new(), not_null: Vec::new(), virtual_columns: 0 };
    let last_kept = elements.iter().rposition(|element| edits.constraint_not_null(element).is_none());
    for (index, element) in elements.iter().enumerate() {
        match edits.constraint_not_null(element) {
            None => edits.column(element),
            Some(column) => {
                // With one comma: the one behind it, or the one before when nothing that stays follows.
                let with_comma = match last_kept {
                    Some(kept) if index > kept => element.start - 1..element.end,
                    None if index + 1 == elements.len() => element.clone(),
                    _ => element.start..element.end + 1,
                };
                edits.not_null.push(column);
                edits.changes.push((edits.bytes(with_comma), ""));
            }
        }
    }
    edits.finish(head, open)
}

struct Edits<'s, 'a> {
    statement: &'s Statement<'a>,
    /// Stretches of the body, in bytes, and what comes in their place. In order, without overlaps.
    changes: Vec<(Range<usize>, &'static str)>,
    /// Columns that have to be NOT NULL.
    not_null: Vec<&'a str>,
    virtual_columns: usize,
}

impl<'a> Edits<'_, 'a> {
    fn is(&self, at: usize, keywords: &[&str]) -> bool {
        keywords
            .iter()
            .enumerate()
            .all(|(i, keyword)| self.statement.tokens.get(at + i).is_some_and(|token| token.is(keyword)))
    }

    fn bytes(&self, tokens: Range<usize>) -> Range<usize> {
        let offset = self.statement.start();
        let all = &self.statement.tokens;
        let start = all.get(tokens.start).map_or(0, |token| token.start - offset);
        let end = tokens.end.checked_sub(1).and_then(|last| all.get(last));
        start..end.map_or(start, |token| token.start + token.text.len() - offset)
    }

    /// The column, when the element is `[CONSTRAINT name] NOT NULL column …`.
    fn constraint_not_null(&self, element: &Range<usize>) -> Option<&'a str> {
        let first = element.start;
        let unnamed = self.is(first, &["not", "null"]).then_some(first + 2);
        let named = self.is(first, &["constraint"]) && self.is(first + 2, &["not", "null"]);
        let column = unnamed.or(named.then_some(first + 4))?;
        self.statement.tokens.get(column).filter(|_| column < element.end).map(|token| token.text)
    }

    /// A column, or a constraint of another kind.
    fn column(&mut self, tokens: &Range<usize>) {
        let mut depth = 0_usize;
        for at in tokens.clone() {
            let Some(token) = self.statement.tokens.get(at) else { break };
            if token.is_symbol('(') {
                depth += 1;
            } else if token.is_symbol(')') {
                depth = depth.saturating_sub(1);
                // … GENERATED ALWAYS AS (expression) of a virtual column.
                if depth == 0 && self.generated(tokens.start, at) && !self.is(at + 1, &["stored"]) {
                    let end = self.bytes(at..at + 1).end;
                    self.changes.push((end..end, " STORED"));
                    self.virtual_columns += 1;
                }
            } else if depth == 0 && self.is(at, &["not", "null", "no", "inherit"]) {
                self.changes.push((self.bytes(at + 2..at + 4), ""));
            }
        }
    }

    /// Whether the parentheses that close at `close` are those of a generation expression.
    fn generated(&self, start: usize, close: usize) -> bool {
        let mut depth = 0_usize;
        for at in (start..=close).rev() {
            let Some(token) = self.statement.tokens.get(at) else { return false };
            if token.is_symbol(')') {
                depth += 1;
            } else if token.is_symbol('(') {
                depth -= 1;
                if depth == 0 {
                    return at >= start + 3 && self.is(at - 3, &["generated", "always", "as"]);
                }
            }
        }
        false
    }

    fn finish(self, head: usize, open: usize) -> Older {
        if self.changes.is_empty() {
            return Older::Same;
        }
        let body = self.statement.body();
        let (mut sql, mut at) = (String::with_capacity(body.len()), 0);
        for (range, text) in &self.changes {
            sql.push_str(&body[at..range.start]);
            sql.push_str(text);
            at = range.end;
        }
        sql.push_str(&body[at..]);
        let table = &body[self.bytes(head..open)];
        for column in &self.not_null {
            sql.push_str(&format!("\nALTER TABLE ONLY {table} ALTER COLUMN {column} SET NOT NULL;"));
        }
        let reason = (self.virtual_columns > 0)
            .then(|| "stored on the target, because virtual generated columns need PostgreSQL 18".to_owned());
        Older::Instead(sql, reason)
    }
}
