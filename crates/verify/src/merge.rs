//! What two sorted streams of row hashes say of the rows. Pure.
//!
//! Rows come by the hash of their key, then by that of their values. A group is what has one key: usually one row on
//! either side. Without a key both hashes are the same, and a group is so many rows alike.

use crate::report::{DifferenceKind, RowDifference, TableReport};

/// Rows alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) key_hash: String,
    pub(crate) row_hash: String,
    pub(crate) count: u64,
    pub(crate) key: Vec<Option<String>>,
    /// The hash of each column.
    pub(crate) columns: Vec<Option<String>>,
}

/// Takes groups and keeps the book.
pub(crate) struct Merge<'a> {
    pub(crate) report: &'a mut TableReport,
    pub(crate) columns: &'a [String],
    /// So many rows are listed, the others only counted.
    pub(crate) limit: usize,
}

impl Merge<'_> {
    /// The rows of one key on either side.
    pub(crate) fn group(&mut self, source: Vec<Hashed>, target: Vec<Hashed>) {
        let keyed = !self.report.key.is_empty();
        let (mut source, mut target) = without_equal(source, target);
        while let (true, Some(here), Some(there)) = (keyed, source.last_mut(), target.last_mut()) {
            let count = here.count.min(there.count);
            let columns = here.columns.iter().zip(&there.columns).zip(self.columns);
            let names = columns.filter(|((here, there), _)| here != there).map(|(_, name)| name.clone());
            let names: Vec<String> = names.collect();
            self.report.differing += count;
            let row = here.clone();
            here.count -= count;
            there.count -= count;
            self.list(DifferenceKind::Differing, row, names, count);
            source.retain(|row| row.count > 0);
            target.retain(|row| row.count > 0);
        }
        for row in source {
            let count = row.count;
            self.report.missing += count;
            self.list(DifferenceKind::Missing, row, Vec::new(), count);
        }
        for row in target {
            let count = row.count;
            self.report.extra += count;
            self.list(DifferenceKind::Extra, row, Vec::new(), count);
        }
    }

    fn list(&mut self, kind: DifferenceKind, row: Hashed, columns: Vec<String>, count: u64) {
        if self.report.rows.len() < self.limit {
            let Hashed { key, key_hash: hash, .. } = row;
            self.report.rows.push(RowDifference { kind, key, columns, count, hash });
        }
    }
}

/// What is left when rows that both sides have are taken away, as often as both have them.
fn without_equal(mut source: Vec<Hashed>, mut target: Vec<Hashed>) -> (Vec<Hashed>, Vec<Hashed>) {
    for here in &mut source {
        if let Some(there) = target.iter_mut().find(|there| there.row_hash == here.row_hash) {
            let both = here.count.min(there.count);
            here.count -= both;
            there.count -= both;
        }
    }
    source.retain(|row| row.count > 0);
    target.retain(|row| row.count > 0);
    (source, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(key: &str, row: &str, count: u64) -> Hashed {
        let columns = row.split(',').map(|value| Some(value.to_owned())).collect();
        let key = vec![Some(key.to_owned())];
        Hashed { key_hash: format!("{key:?}"), row_hash: row.to_owned(), count, key, columns }
    }

    fn merged(keyed: bool, groups: Vec<(Vec<Hashed>, Vec<Hashed>)>) -> TableReport {
        let key = if keyed { vec!["a".to_owned()] } else { Vec::new() };
        let mut report = TableReport::new(relevo_catalog::TableName::new("s", "t"), key);
        let columns = ["a".to_owned(), "b".to_owned()];
        let mut merge = Merge { report: &mut report, columns: &columns, limit: 3 };
        groups.into_iter().for_each(|(source, target)| merge.group(source, target));
        report
    }

    #[test]
    fn one_row_of_each_kind() {
        let report = merged(
            true,
            vec![
                (vec![hashed("1", "1,x", 1)], vec![hashed("1", "1,x", 1)]),
                (vec![hashed("2", "2,x", 1)], vec![hashed("2", "2,y", 1)]),
                (vec![hashed("3", "3,x", 1)], vec![]),
                (vec![], vec![hashed("4", "4,x", 1)]),
                (vec![], vec![hashed("5", "5,x", 1)]),
            ],
        );
        assert_eq!((report.missing, report.extra, report.differing), (1, 2, 1));
        let kinds: Vec<_> = report.rows.iter().map(|row| row.kind).collect();
        use DifferenceKind::{Differing, Extra, Missing};
        assert_eq!(kinds, [Differing, Missing, Extra], "the fourth is only counted");
        assert_eq!(report.rows[0].columns, ["b"]);
    }

    #[test]
    fn without_a_key_rows_are_counted() {
        let report = merged(
            false,
            vec![
                (vec![hashed("", "1,x", 5)], vec![hashed("", "1,x", 3)]),
                (vec![hashed("", "2,x", 1)], vec![hashed("", "2,x", 4)]),
            ],
        );
        assert_eq!((report.missing, report.extra, report.differing), (2, 3, 0));
        assert_eq!(report.rows.iter().map(|row| row.count).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_key_that_the_target_has_twice_is_one_row_too_many() {
        let report = merged(
            true,
            vec![(vec![hashed("1", "1,x", 1)], vec![hashed("1", "1,x", 1), hashed("1", "1,y", 1)])],
        );
        assert_eq!((report.missing, report.extra, report.differing), (0, 1, 0));
    }
}
