//! Folding: what many changes of one table's rows amount to, one net change for each row.
//!
//! A row is named by the text of its identity columns: the source's unique key allows no two living rows with the same
//! text, and it sends the old key whenever a byte of it changes. The net changes have the effect of the changes in
//! their order, provided that the deletes go first, then the updates, then what moves, one after the other as it did, then
//! the inserts; where a unique key of the target does not allow this order it says so, and nothing is wrong in silence.
//! Pure. What may not enter: SQL, and the question which tables may be folded.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use relevo_model::{Cell, Change, OldRow, Relation, ReplicaIdentity, Row};

/// A row by the text of its identity columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key<'a> {
    row: &'a Row,
    identity: &'a [usize],
}

impl<'a> Key<'a> {
    fn cells(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let row = self.row;
        // `of` has seen that every one of them is text.
        self.identity.iter().filter_map(move |index| match &row.0[*index] {
            Cell::Text(bytes) => Some(&bytes[..]),
            Cell::Null | Cell::Unchanged | Cell::Binary(_) => None,
        })
    }

    /// The row that the key was taken from; its other columns mean nothing.
    pub(crate) fn row(&self) -> &'a Row {
        self.row
    }

    /// The key of a row, unless one of its columns has no text.
    fn of(row: &'a Row, identity: &'a [usize]) -> Option<Self> {
        let texts = identity.iter().all(|index| matches!(row.0.get(*index), Some(Cell::Text(_))));
        (texts && !identity.is_empty()).then_some(Self { row, identity })
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cells().eq(other.cells())
    }
}

impl Eq for Key<'_> {}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // A slice hashes its length too, so ("a", "bc") and ("ab", "c") differ.
        self.cells().for_each(|cell| cell.hash(state));
    }
}

/// The cells of a row, which may come from several changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cells<'a> {
    /// One change says them all.
    Sent(&'a Row),
    /// The latest of each column that was sent.
    Merged(Vec<&'a Cell>),
}

impl<'a> Cells<'a> {
    /// The cell of a column of the relation.
    pub(crate) fn get(&self, index: usize) -> &'a Cell {
        match self {
            Self::Sent(row) => &row.0[index],
            Self::Merged(cells) => cells[index],
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a Cell> + '_ {
        let width = match self {
            Self::Sent(row) => row.0.len(),
            Self::Merged(cells) => cells.len(),
        };
        (0..width).map(|index| self.get(index))
    }

    /// Takes over what a later change says.
    fn overlay(&mut self, later: &'a Row) {
        let unsent = |cell: &Cell| *cell == Cell::Unchanged;
        if !later.0.iter().any(unsent) {
            *self = Self::Sent(later);
            return;
        }
        let merged = later.0.iter().enumerate();
        let merged = merged.map(|(index, cell)| if unsent(cell) { self.get(index) } else { cell }).collect();
        *self = Self::Merged(merged);
    }
}

/// What the changes of one row amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Net<'a> {
    /// The row goes.
    Delete(Key<'a>),
    /// The row stays under its key. Unchanged cells are those that nobody sent.
    Update(Key<'a>, Cells<'a>),
    /// The row gets another key.
    Move(Key<'a>, Cells<'a>, Way),
    /// A row that was not there.
    Insert(Cells<'a>),
}

/// When a row that got another key left its own and came to its last, by the numbers of the changes.
///
/// A move may take a key that another has left, and on a target that has lost a row nothing is in the way of its coming too
/// early: whoever leaves that key then is the wrong one. So moves may be done whole, in this order, only if none begins
/// before the one in front of it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) left: usize,
    pub(crate) entered: usize,
}

/// The net changes of one table.
#[derive(Debug, Default)]
pub(crate) struct Nets<'a> {
    /// One for each row that is not as it was.
    pub(crate) nets: Vec<Net<'a>>,
    /// Keys that were taken and given up again, and nobody has now. Row by row, taking them would have failed if the
    /// target had such a row: so it may have none in the end.
    pub(crate) vacant: Vec<Key<'a>>,
}

/// The change is of a kind that does not fold; the table goes row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfoldable;

/// A row that changes were about.
struct Entry<'a> {
    /// Its key before them; `None`: it was not there.
    before: Option<Key<'a>>,
    /// Its cells after them; `None`: it is not there.
    now: Option<Cells<'a>>,
    /// Its key after them, or the last that it had.
    key: Key<'a>,
    /// It came to its key by one of the changes.
    entered: bool,
    /// From its key before them; the first and the last that it got by an update.
    way: Option<Way>,
}

/// Folds the changes of one table.
pub(crate) struct Fold<'a> {
    identity: &'a [usize],
    width: usize,
    entries: Vec<Entry<'a>>,
    /// The living rows.
    living: HashMap<Key<'a>, usize>,
    left: Vec<Key<'a>>,
    /// How many changes were added.
    changes: usize,
}

impl<'a> Fold<'a> {
    /// A fold for rows of `width` cells with these identity columns.
    pub(crate) fn new(identity: &'a [usize], width: usize) -> Self {
        Self { identity, width, entries: Vec::new(), living: HashMap::new(), left: Vec::new(), changes: 0 }
    }

    /// Adds the next change of the table.
    pub(crate) fn add(&mut self, change: &'a Change) -> Result<(), Unfoldable> {
        self.changes += 1;
        match change {
            Change::Insert { new, .. } => self.insert(new),
            Change::Update { relation, old, new } => {
                let old = old.as_ref().map(|old| old_row(relation, old)).transpose()?;
                self.update(old, new)
            }
            Change::Delete { relation, old } => self.delete(old_row(relation, old)?),
            Change::Truncate { .. } | Change::Message { .. } => Err(Unfoldable),
        }
    }

    fn key(&self, row: &'a Row) -> Result<Key<'a>, Unfoldable> {
        Key::of(row, self.identity).filter(|_| row.0.len() == self.width).ok_or(Unfoldable)
    }

    fn new_row(&self, row: &'a Row) -> Result<Key<'a>, Unfoldable> {
        if row.0.iter().any(|cell| matches!(cell, Cell::Binary(_))) {
            return Err(Unfoldable);
        }
        self.key(row)
    }

    fn insert(&mut self, new: &'a Row) -> Result<(), Unfoldable> {
        let key = self.new_row(new)?;
        if new.0.contains(&Cell::Unchanged) {
            return Err(Unfoldable);
        }
        let entry = Entry { before: None, now: Some(Cells::Sent(new)), key, entered: true, way: None };
        // Over a living row it is a conflict, which the target will find.
        self.living.insert(key, self.entries.len());
        self.entries.push(entry);
        Ok(())
    }

    fn update(&mut self, old: Option<&'a Row>, new: &'a Row) -> Result<(), Unfoldable> {
        let key = self.new_row(new)?;
        let from = match old {
            Some(old) => self.key(old)?,
            None => key,
        };
        let at = match self.living.get(&from) {
            Some(at) => *at,
            None => {
                // Not seen before: it is on the target, with what this change does not say.
                self.entries.push(Entry {
                    before: Some(from),
                    now: Some(Cells::Sent(new)),
                    key: from,
                    entered: false,
                    way: None,
                });
                self.entries.len() - 1
            }
        };
        let entry = &mut self.entries[at];
        if let Some(now) = &mut entry.now {
            now.overlay(new);
        }
        if from != key {
            self.living.remove(&from);
            if entry.entered {
                self.left.push(from);
            }
            (entry.key, entry.entered) = (key, true);
            let left = entry.way.map_or(self.changes, |way| way.left);
            entry.way = Some(Way { left, entered: self.changes });
        }
        self.living.insert(key, at);
        Ok(())
    }

    fn delete(&mut self, old: &'a Row) -> Result<(), Unfoldable> {
        let key = self.key(old)?;
        match self.living.remove(&key) {
            Some(at) => {
                let entry = &mut self.entries[at];
                entry.now = None;
                if entry.entered {
                    self.left.push(key);
                }
            }
            None => self.entries.push(Entry { before: Some(key), now: None, key, entered: false, way: None }),
        }
        Ok(())
    }

    /// What all of it amounts to.
    pub(crate) fn finish(self) -> Nets<'a> {
        let Self { entries, living, left, .. } = self;
        let nets = entries.into_iter().filter_map(|entry| match (entry.before, entry.now) {
            (None, None) => None,
            (None, Some(now)) => Some(Net::Insert(now)),
            (Some(before), None) => Some(Net::Delete(before)),
            (Some(before), Some(now)) => match entry.way.filter(|_| before != entry.key) {
                Some(way) => Some(Net::Move(before, now, way)),
                None => Some(Net::Update(before, now)),
            },
        });
        let nets = nets.collect();
        let vacant = left.into_iter().filter(|key| !living.contains_key(key)).collect();
        Nets { nets, vacant }
    }
}

/// The old row that names the row. One that is whole although the source sends keys means itself, not its key.
fn old_row<'a>(relation: &Relation, old: &'a OldRow) -> Result<&'a Row, Unfoldable> {
    match old {
        OldRow::Full(_) if relation.replica_identity != ReplicaIdentity::Full => Err(Unfoldable),
        OldRow::Key(row) | OldRow::Full(row) => Ok(row),
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
