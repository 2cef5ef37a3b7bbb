//! Tables as they are added and removed: an ordinary table for itself, a partitioned one with all its partitions,
//! because it is published as a whole.
//!
//! Pure. What may not enter: either database.

use std::collections::{BTreeMap, BTreeSet};

use relevo_catalog::{Pattern, TableName};

use crate::error::CliError;

/// Tables by the one at the top of their tree.
pub struct Trees(BTreeMap<TableName, BTreeSet<TableName>>);

impl Trees {
    /// Tables, each with the top of its tree if that is another one. What is said first of a table counts.
    pub fn new(tables: impl IntoIterator<Item = (TableName, Option<TableName>)>) -> Self {
        let mut trees: BTreeMap<TableName, BTreeSet<TableName>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (name, top) in tables {
            if seen.insert(name.clone()) {
                trees.entry(top.unwrap_or_else(|| name.clone())).or_default().insert(name);
            }
        }
        Self(trees)
    }

    /// Only the trees of which a table is among these.
    pub fn with_any_of(mut self, names: &BTreeSet<TableName>) -> Self {
        self.0.retain(|_, members| !members.is_disjoint(names));
        self
    }

    /// The tables at the top, each with all that belong to it, itself included.
    pub fn iter(&self) -> impl Iterator<Item = (&TableName, &BTreeSet<TableName>)> {
        self.0.iter()
    }

    /// For each pattern the tables at the top that it names.
    ///
    /// # Errors
    /// [`CliError::Failed`]: a pattern names no table; [`CliError::Refused`]: it names a partition, and none of them names
    /// what that is a part of.
    pub fn chosen<'p>(
        &self,
        patterns: &'p [Pattern],
        of: &str,
    ) -> Result<Vec<(&'p Pattern, BTreeSet<&TableName>)>, CliError> {
        let named = |top: &TableName| patterns.iter().any(|pattern| pattern.matches(top));
        let mut chosen = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            let mut tops = BTreeSet::new();
            for (top, members) in &self.0 {
                let Some(member) = members.iter().chain([top]).find(|member| pattern.matches(member)) else {
                    continue;
                };
                if !named(top) {
                    return Err(CliError::refused(format!(
                        "{member} is a partition of {top}, which is replicated as a whole: give {top} instead; nothing \
                         was changed"
                    )).of_kind("partition_alone"));
                }
                tops.insert(top);
            }
            if tops.is_empty() {
                return Err(CliError::failed(format!(
                    "no table of {of} matches the pattern {pattern}; nothing was changed"
                ))
                .of_kind("no_such_table"));
            }
            chosen.push((pattern, tops));
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> TableName {
        TableName::new("public", name)
    }

    fn trees() -> Trees {
        let part = |part: &str| (name(part), Some(name("p")));
        Trees::new([(name("t"), None), (name("p"), None), part("p_1"), part("p_2"), (name("p_1"), None)])
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_partitioned_table_stands_for_all_of_it() {
        let trees = trees();
        let everything = patterns(&["public.*"]);
        let chosen = trees.chosen(&everything, "the source").unwrap();
        assert_eq!(chosen[0].1, BTreeSet::from([&name("p"), &name("t")]));
        let members: Vec<_> = trees.iter().map(|(_, members)| members.len()).collect();
        assert_eq!(members, [3, 1]);
        assert_eq!(trees.with_any_of(&BTreeSet::from([name("p_2")])).iter().count(), 1);
    }

    #[test]
    fn a_partition_is_refused_with_what_it_is_a_part_of() {
        let one = patterns(&["public.p_1"]);
        let error = trees().chosen(&one, "the source").unwrap_err();
        assert!(
            matches!(&error, CliError::Refused(said) if said.text.contains("give public.p instead")),
            "{error}"
        );
        let both = patterns(&["public.p_1", "public.p"]);
        assert_eq!(trees().chosen(&both, "the source").unwrap().len(), 2);
    }

    #[test]
    fn a_pattern_that_names_nothing_is_said() {
        let typo = patterns(&["public.t", "public.orderz"]);
        let error = trees().chosen(&typo, "the source").unwrap_err().to_string();
        assert!(error.contains("public.orderz") && error.contains("the source"), "{error}");
    }
}
