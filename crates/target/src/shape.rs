//! The shape of a change: everything that its SQL depends on, and nothing of its values but which are NULL or
//! unsent. Changes of one shape share one prepared statement.
//!
//! What may not enter: SQL text.

use relevo_model::{Cell, Change, OldRow, Row};

use crate::error::TargetError;
use crate::mapping::TableMap;

/// A set of columns, by their place in the relation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Mask(Vec<u64>);

impl Mask {
    pub(crate) fn insert(&mut self, index: usize) {
        if self.0.len() <= index / 64 {
            self.0.resize(index / 64 + 1, 0);
        }
        self.0[index / 64] |= 1 << (index % 64);
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        // No bit is ever taken out, so a word is there only because a bit is.
        self.0.is_empty()
    }

    fn of(row: &Row, wanted: impl Fn(&Cell) -> bool) -> Self {
        let places = row.0.iter().enumerate();
        places.filter(|(_, cell)| wanted(cell)).map(|(index, _)| index).collect()
    }
}

impl FromIterator<usize> for Mask {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        let mut mask = Self::default();
        places.into_iter().for_each(|index| mask.insert(index));
        mask
    }
}

/// How the row is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Find {
    /// By the identity columns of the old row.
    OldKey,
    /// By the identity columns of the new row, which the change left as they were.
    NewKey,
    /// By every column of the old row; duplicates count one at a time.
    WholeRow {
        /// Columns that are NULL in the old row.
        nulls: Mask,
        /// Columns that the old row does not say.
        unsent: Mask,
    },
}

/// What a statement depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// One row by INSERT.
    Insert,
    /// Rows by COPY.
    Copy,
    /// One row changed.
    Update {
        /// The columns that get a value.
        set: Mask,
        /// Which row.
        find: Find,
        /// An identity column that is GENERATED ALWAYS gets a value: UPDATE cannot do that.
        replace: bool,
    },
    /// One row deleted.
    Delete {
        /// Which row.
        find: Find,
    },
}

impl Shape {
    /// The shape of a row change; `None` for what is no row change.
    ///
    /// # Errors
    /// [`TargetError::Contract`] when the rows do not fit the relation, [`TargetError::NoIdentity`] when nothing
    /// says which row is meant.
    pub(crate) fn of(map: &TableMap, change: &Change) -> Result<Option<Self>, TargetError> {
        match change {
            Change::Insert { new, .. } => {
                check_width(map, new)?;
                Ok(Some(Self::Insert))
            }
            Change::Update { old, new, .. } => {
                check_width(map, new)?;
                let find = Self::find(map, old.as_ref(), Some(new))?;
                let (set, replace) = assignments(map, &find, old.as_ref(), new);
                Ok(Some(Self::Update { set, find, replace }))
            }
            Change::Delete { old, .. } => Ok(Some(Self::Delete { find: Self::find(map, Some(old), None)? })),
            Change::Truncate { .. } | Change::Message { .. } => Ok(None),
        }
    }

    fn find(map: &TableMap, old: Option<&OldRow>, new: Option<&Row>) -> Result<Find, TargetError> {
        let (row, find) = match (old, new) {
            (Some(OldRow::Full(row)), _) if map.full_by_key => (row, Find::OldKey),
            (Some(OldRow::Full(row)), _) => {
                check_width(map, row)?;
                return Ok(Find::WholeRow {
                    nulls: Mask::of(row, |cell| *cell == Cell::Null),
                    unsent: Mask::of(row, |cell| *cell == Cell::Unchanged),
                });
            }
            (Some(OldRow::Key(row)), _) => (row, Find::OldKey),
            (None, Some(row)) => (row, Find::NewKey),
            (None, None) => return Err(TargetError::NoIdentity { table: map.name().clone() }),
        };
        check_width(map, row)?;
        let unsent = map.identity.iter().any(|index| row.0[*index] == Cell::Unchanged);
        if map.identity.is_empty() || unsent {
            return Err(TargetError::NoIdentity { table: map.name().clone() });
        }
        Ok(find)
    }
}

/// The columns that an update sets, and whether it must replace the row to do so.
fn assignments(map: &TableMap, find: &Find, old: Option<&OldRow>, new: &Row) -> (Mask, bool) {
    let (mut set, mut replace) = (Mask::default(), false);
    for (index, cell) in new.0.iter().enumerate() {
        let in_identity = map.identity.contains(&index);
        // The source sends no old row when the identity did not change, byte for byte.
        if *cell == Cell::Unchanged || (*find == Find::NewKey && in_identity) {
            continue;
        }
        if map.is_always_identity(index) {
            let before = match old {
                Some(OldRow::Full(row)) => Some(&row.0[index]),
                Some(OldRow::Key(row)) if in_identity => Some(&row.0[index]),
                Some(OldRow::Key(_)) | None => None,
            };
            if before == Some(cell) {
                continue;
            }
            replace = true;
        }
        set.insert(index);
    }
    (set, replace)
}

fn check_width(map: &TableMap, row: &Row) -> Result<(), TargetError> {
    if row.0.len() == map.relation.columns.len() {
        Ok(())
    } else {
        Err(TargetError::Contract("a row has another number of cells than its relation has columns"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::tests::{column, relation, table};
    use bytes::Bytes;
    use relevo_catalog::{ColumnIdentity, ColumnInfo};

    fn map(columns: &[&str], always: &[&str]) -> TableMap {
        let target = columns
            .iter()
            .map(|name| ColumnInfo {
                identity: if always.contains(name) { ColumnIdentity::Always } else { ColumnIdentity::None },
                ..column(name, 23)
            })
            .collect();
        TableMap::new(&relation(columns), table(target, &[&["k"]]), (0, 0)).unwrap()
    }

    fn text(value: &str) -> Cell {
        Cell::Text(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn update(
        map: &TableMap,
        old: Option<OldRow>,
        new: Vec<Cell>,
    ) -> Result<(Vec<usize>, Find, bool), TargetError> {
        let width = new.len();
        let change = Change::Update { relation: map.relation.clone(), old, new: Row(new) };
        match Shape::of(map, &change)? {
            Some(Shape::Update { set, find, replace }) => {
                Ok(((0..width).filter(|index| set.contains(*index)).collect(), find, replace))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unsent_columns_and_an_unchanged_key_are_not_set() {
        let map = map(&["k", "a", "b"], &[]);
        let (set, find, replace) = update(&map, None, vec![text("1"), Cell::Unchanged, Cell::Null]).unwrap();
        assert_eq!((set, find, replace), (vec![2], Find::NewKey, false));
    }

    #[test]
    fn a_changed_key_is_set_and_found_by_its_old_value() {
        let map = map(&["k", "a"], &[]);
        let old = OldRow::Key(Row(vec![text("1"), Cell::Null]));
        let (set, find, replace) = update(&map, Some(old), vec![text("2"), text("x")]).unwrap();
        assert_eq!((set, find, replace), (vec![0, 1], Find::OldKey, false));
    }

    #[test]
    fn a_whole_old_row_says_which_columns_are_null() {
        let map = map(&["k", "a"], &[]);
        let old = OldRow::Full(Row(vec![text("1"), Cell::Null]));
        let (_, find, _) = update(&map, Some(old), vec![text("1"), text("x")]).unwrap();
        let Find::WholeRow { nulls, unsent } = find else { panic!() };
        assert!(nulls.contains(1) && !nulls.contains(0) && unsent.is_empty());
    }

    #[test]
    fn a_generated_always_identity_is_set_only_by_replacing_the_row() {
        let map = map(&["k", "a"], &["k"]);
        let key = |value| OldRow::Key(Row(vec![text(value), Cell::Null]));
        assert_eq!(update(&map, None, vec![text("1"), text("x")]).unwrap().0, [1]);
        assert_eq!(
            update(&map, Some(key("1")), vec![text("1"), text("x")]).unwrap(),
            (vec![1], Find::OldKey, false)
        );
        assert_eq!(
            update(&map, Some(key("1")), vec![text("2"), text("x")]).unwrap(),
            (vec![0, 1], Find::OldKey, true)
        );
    }

    #[test]
    fn a_generated_always_identity_outside_the_key_is_replaced_when_its_old_value_is_unknown() {
        let map = map(&["k", "a"], &["a"]);
        let new = || vec![text("1"), text("5")];
        assert!(update(&map, None, new()).unwrap().2);
        let old = OldRow::Full(Row(new()));
        assert!(!update(&map, Some(old), new()).unwrap().2);
    }

    #[test]
    fn a_change_that_says_no_row_is_refused() {
        let map = map(&["a", "b"], &[]);
        let error = update(&map, None, vec![text("1"), text("2")]);
        assert!(matches!(error, Err(TargetError::NoIdentity { .. })));
        let error = update(&map, None, vec![text("1")]);
        assert!(matches!(error, Err(TargetError::Contract(_))));
    }

    #[test]
    fn masks_hold_more_than_one_word() {
        let mut mask = Mask::default();
        assert!(mask.is_empty());
        mask.insert(1599);
        assert!(mask.contains(1599) && !mask.contains(1598) && !mask.contains(5000) && !mask.is_empty());
    }
}
