//! Segments: stretches of a batch within which the order of changes of different tables does not matter, and what
//! is sent for one.
//!
//! A segment ends where somebody could see the order: at a TRUNCATE, at a table whose triggers or rules fire, where a
//! table is described anew, and where a partitioned table meets its own partitions. Pure. What may not enter: asking
//! the server, and sending anything.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use relevo_catalog::{TableKind, TableName};
use relevo_model::{Cell, Change, OldRow, Relation, Row};

use crate::blame::Item;
use crate::copy;
use crate::fold::{Cells, Fold, Key, Net, Way};
use crate::known::same;
use crate::mapping::TableMap;
use crate::record::Records;
use crate::set_statement as sql;
use crate::shape::Mask;

/// From how many rows one statement for all of them costs less than one for each: it is parsed and planned anew.
const SET_FROM_ROWS: usize = 16;
/// The same for a partitioned table, where a plan names every partition.
const SET_FROM_ROWS_PARTITIONED: usize = 256;
/// From how many updated rows a temporary table costs less than an array.
const STAGE_FROM_ROWS: usize = 1000;
/// A row with more bytes than this goes alone: what is copied a few times over on its way should be small.
const LARGE_ROW_BYTES: usize = 64 << 10;
/// How much COPY data goes in one message, in bytes.
pub(crate) const COPY_CHUNK_BYTES: usize = 64 << 10;

/// A stretch of changes, by the tables that they are of.
#[derive(Default)]
pub(crate) struct Segment<'a> {
    pub(crate) tables: Vec<OfTable<'a>>,
    /// The table of the change before.
    last: usize,
    /// How many changes it has.
    pub(crate) changes: usize,
    /// The partition trees that are touched: by one partitioned table, or by partitions alone.
    trees: HashMap<TableName, bool>,
}

/// The changes of one table, in order.
pub(crate) struct OfTable<'a> {
    pub(crate) map: Arc<TableMap>,
    pub(crate) items: Vec<Item<'a>>,
}

impl<'a> Segment<'a> {
    /// The table of this relation, if the segment has seen it.
    pub(crate) fn table_of(&self, relation: &Arc<Relation>) -> Option<usize> {
        let is = |table: &usize| self.tables.get(*table).is_some_and(|of| same(&of.map.relation, relation));
        Some(self.last).filter(is).or_else(|| (0..self.tables.len()).find(is))
    }

    /// Whether a table that it has not seen fits in. One that does not begins another segment.
    pub(crate) fn admit(&mut self, map: &Arc<TableMap>) -> Option<usize> {
        if map.table.fires_in_replica || self.tables.iter().any(|of| of.map.table.oid == map.table.oid) {
            return None;
        }
        let root = map.table.partition_root.as_ref();
        let partitioned = map.table.kind == TableKind::Partitioned;
        if let Some(tree) = root.or(partitioned.then_some(&map.table.name)) {
            match self.trees.get(tree) {
                Some(had) if *had || partitioned => return None,
                Some(_) => {}
                None => drop(self.trees.insert(tree.clone(), partitioned)),
            }
        }
        self.tables.push(OfTable { map: Arc::clone(map), items: Vec::new() });
        Some(self.tables.len() - 1)
    }

    /// Adds a row change of a table that was admitted.
    pub(crate) fn push(&mut self, table: usize, item: Item<'a>) {
        self.last = table;
        self.changes += 1;
        self.tables[table].items.push(item);
    }
}

impl<'a> OfTable<'a> {
    /// What is sent for the table. It goes `in_order` when asked to, like one that cannot be folded.
    pub(crate) fn steps(self, in_order: bool, staged: Staged) -> Vec<Step<'a>> {
        let folded =
            (self.map.folds() && !in_order).then(|| folded(&self.map, &self.items, staged)).flatten();
        folded.unwrap_or_else(|| vec![Step::InOrder(self.items)])
    }
}

/// Which updated rows go through a temporary table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Staged {
    /// None: it would be made for too little.
    Never,
    /// Many.
    IfMany,
    /// All that go together: the temporary table is there.
    Always,
}

/// What is sent.
pub(crate) enum Step<'a> {
    /// One statement for many rows.
    Set {
        /// The word for it.
        operation: &'static str,
        sql: String,
        /// Its parameter.
        rows: Bytes,
        /// How many rows it must touch.
        expected: u64,
    },
    /// Updates of many rows, which go through a temporary table.
    Staged {
        /// The columns that they set.
        set: Mask,
        /// Those that are sent: these and the identity.
        sent: Mask,
        chunks: Vec<Bytes>,
        /// How many rows there are.
        expected: u64,
    },
    /// So many inserts by COPY.
    Copy { chunks: Vec<Bytes>, expected: u64 },
    /// A net change of one row, which must be there.
    Row(Change),
    /// Changes of one table, one by one.
    InOrder(Vec<Item<'a>>),
}

impl Step<'_> {
    /// Whether it can only be sent once everything before has been answered.
    pub(crate) fn waits(&self) -> bool {
        match self {
            Self::Set { .. } | Self::Row(_) => false,
            Self::Staged { .. } | Self::Copy { .. } | Self::InOrder(_) => true,
        }
    }
}

/// The steps for the changes of one table; `None`: one of them does not fold.
fn folded<'a>(map: &TableMap, items: &[Item<'a>], staged: Staged) -> Option<Vec<Step<'a>>> {
    let mut fold = Fold::new(&map.identity, map.relation.columns.len());
    for item in items {
        fold.add(item.change).ok()?;
    }
    let nets = fold.finish();
    let mut groups = Groups::new(map);
    nets.nets.into_iter().for_each(|net| groups.add(net));
    groups.vacant = nets.vacant;
    groups.puts_moves_in_order().then(|| groups.steps(staged))
}

/// The net changes of a table by the statements that do them.
struct Groups<'m, 'a> {
    map: &'m TableMap,
    fills_rows: bool,
    deletes: Vec<Key<'a>>,
    /// By the columns that are set.
    updates: Vec<(Mask, Vec<Cells<'a>>)>,
    /// Where in `updates` those are that set everything.
    whole: Option<usize>,
    inserts: Vec<Cells<'a>>,
    /// What goes as a statement of its own whatever the number: rows that move, and behind them large ones.
    moves: Vec<(Way, Change)>,
    single: Vec<Change>,
    vacant: Vec<Key<'a>>,
}

impl<'m, 'a> Groups<'m, 'a> {
    fn new(map: &'m TableMap) -> Self {
        Self {
            map,
            fills_rows: map.fills_rows(),
            deletes: Vec::new(),
            updates: Vec::new(),
            whole: None,
            inserts: Vec::new(),
            moves: Vec::new(),
            single: Vec::new(),
            vacant: Vec::new(),
        }
    }

    fn add(&mut self, net: Net<'a>) {
        match net {
            Net::Delete(key) => self.deletes.push(key),
            Net::Insert(cells) if is_large(&cells) => self.single.push(insert(self.map, &cells)),
            Net::Insert(cells) => self.inserts.push(cells),
            // Whatever else moves, a key that was given up is free once all deletes are done.
            Net::Move(key, cells, _) if self.fills_rows && !is_large(&cells) && is_whole(&cells) => {
                self.deletes.push(key);
                self.inserts.push(cells);
            }
            Net::Move(key, cells, way) => self.moves.push((way, update(self.map, Some(key), &cells))),
            Net::Update(_, cells) => self.update(cells),
        }
    }

    fn update(&mut self, cells: Cells<'a>) {
        if is_large(&cells) {
            return self.single.push(update(self.map, None, &cells));
        }
        let whole = is_whole(&cells);
        if let Some(at) = self.whole.filter(|_| whole) {
            return self.updates[at].1.push(cells);
        }
        let set: Mask = cells
            .iter()
            .enumerate()
            .filter(|(index, cell)| **cell != Cell::Unchanged && !self.map.identity.contains(index))
            .map(|(index, _)| index)
            .collect();
        if set.is_empty() {
            return self.single.push(update(self.map, None, &cells));
        }
        let known = self.updates.iter().position(|(have, _)| *have == set);
        let at = known.unwrap_or_else(|| {
            self.updates.push((set, Vec::new()));
            self.updates.len() - 1
        });
        if whole {
            self.whole = Some(at);
        }
        self.updates[at].1.push(cells);
    }

    /// Whether the rows that move can do so one after the other, each by all of its way at once.
    fn puts_moves_in_order(&mut self) -> bool {
        self.moves.sort_unstable_by_key(|(way, _)| way.left);
        self.moves.is_sorted_by(|(before, _), (next, _)| before.entered < next.left)
    }

    /// Deletes, then updates, then moves, then inserts: what is given up is free before it is taken.
    fn steps<'s>(self, staged: Staged) -> Vec<Step<'s>> {
        let Self { map, deletes, updates, inserts, moves, single, vacant, .. } = self;
        let partitioned = map.table.kind == TableKind::Partitioned;
        let from = if partitioned { SET_FROM_ROWS_PARTITIONED } else { SET_FROM_ROWS };
        let mut steps = Vec::new();
        if deletes.len() >= from {
            let rows = records(map, deletes.iter().map(|key| Cells::Sent(key.row())));
            steps.push(set("delete", sql::delete(map), rows));
        } else {
            steps.extend(deletes.iter().map(|key| Step::Row(delete(map, *key))));
        }
        for (mask, rows) in updates {
            let stage_from = match staged {
                Staged::Never => usize::MAX,
                Staged::IfMany => STAGE_FROM_ROWS,
                Staged::Always => from,
            };
            if rows.len() >= stage_from {
                steps.push(stage(map, mask, &rows));
            } else if rows.len() >= from {
                steps.push(set("update", sql::update(map, &mask), records(map, rows.into_iter())));
            } else {
                steps.extend(rows.iter().map(|cells| Step::Row(update(map, None, cells))));
            }
        }
        steps.extend(moves.into_iter().map(|(_, change)| change).chain(single).map(Step::Row));
        if inserts.len() >= SET_FROM_ROWS {
            let expected = inserts.len() as u64;
            steps.push(Step::Copy { chunks: copy(inserts.iter().map(Cells::iter)), expected });
        } else {
            steps.extend(inserts.iter().map(|cells| Step::Row(insert(map, cells))));
        }
        if !vacant.is_empty() {
            let rows = records(map, vacant.iter().map(|key| Cells::Sent(key.row())));
            let rows = rows.finish();
            steps.push(Step::Set { operation: "insert", sql: sql::taken(map), rows, expected: 0 });
        }
        steps
    }
}

fn set<'a>(operation: &'static str, sql: String, records: Records) -> Step<'a> {
    let expected = records.rows();
    Step::Set { operation, sql, rows: records.finish(), expected }
}

fn records<'a>(map: &TableMap, rows: impl Iterator<Item = Cells<'a>>) -> Records {
    let mut records = Records::new();
    for cells in rows {
        records.push(map.sources().iter().map(|source| source.map(|index| cells.get(index))));
    }
    records
}

fn stage<'s>(map: &TableMap, set: Mask, rows: &[Cells<'_>]) -> Step<'s> {
    let sent: Vec<usize> = (0..map.relation.columns.len())
        .filter(|index| set.contains(*index) || map.identity.contains(index))
        .collect();
    let chunks = copy(rows.iter().map(|cells| sent.iter().map(|index| cells.get(*index))));
    Step::Staged { set, sent: sent.into_iter().collect(), chunks, expected: rows.len() as u64 }
}

/// The rows in COPY's format.
fn copy<'c>(rows: impl Iterator<Item = impl Iterator<Item = &'c Cell>>) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut chunk = BytesMut::with_capacity(COPY_CHUNK_BYTES + COPY_CHUNK_BYTES / 4);
    for cells in rows {
        copy::put_row(cells, &mut chunk);
        if chunk.len() >= COPY_CHUNK_BYTES {
            chunks.push(chunk.split().freeze());
            chunk.reserve(COPY_CHUNK_BYTES + COPY_CHUNK_BYTES / 4);
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk.freeze());
    }
    chunks
}

fn is_large(cells: &Cells<'_>) -> bool {
    let bytes = |cell: &Cell| match cell {
        Cell::Text(bytes) | Cell::Binary(bytes) => bytes.len(),
        Cell::Null | Cell::Unchanged => 0,
    };
    cells.iter().map(bytes).sum::<usize>() > LARGE_ROW_BYTES
}

fn is_whole(cells: &Cells<'_>) -> bool {
    cells.iter().all(|cell| *cell != Cell::Unchanged)
}

fn owned(cells: &Cells<'_>) -> Row {
    Row(cells.iter().cloned().collect())
}

fn insert(map: &TableMap, cells: &Cells<'_>) -> Change {
    Change::Insert { relation: Arc::clone(&map.relation), new: owned(cells) }
}

fn update(map: &TableMap, from: Option<Key<'_>>, cells: &Cells<'_>) -> Change {
    let old = from.map(|key| OldRow::Key(key.row().clone()));
    Change::Update { relation: Arc::clone(&map.relation), old, new: owned(cells) }
}

fn delete(map: &TableMap, key: Key<'_>) -> Change {
    Change::Delete { relation: Arc::clone(&map.relation), old: OldRow::Key(key.row().clone()) }
}
