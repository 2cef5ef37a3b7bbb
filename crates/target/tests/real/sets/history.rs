//! Histories: what a source does with its rows, as the changes that it sends, cut into batches.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use relevo_model::{Batch, Cell, Change, OldRow, Relation, Row, TransactionPart};

use super::designs::{DESIGNS, Design, Identity, Kind};
use crate::fixture::Fixture;

type Values = Vec<Option<String>>;

/// A case of the test.
#[derive(Debug, Clone)]
pub struct Case {
    pub tables: Vec<Start>,
    ops: Vec<(usize, Op)>,
    /// After which changes a transaction ends, as a share of all.
    ends: Vec<u8>,
    /// Whether each transaction begins a batch, and where, if at all, it is cut into two parts.
    cuts: Vec<(bool, Option<u8>)>,
}

/// A table at the beginning.
#[derive(Clone)]
pub struct Start {
    pub design: usize,
    on_source: Vec<Values>,
    pub on_target: Vec<Values>,
}

/// Long values by their beginnings: a failed case should fit on a page.
impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |cell: &Option<String>| match cell {
            Some(text) => format!("{:.12}", text.escape_debug().to_string()),
            None => "NULL".into(),
        };
        let row = |row: &Values| row.iter().map(cell).collect::<Vec<_>>().join("|");
        let rows = |rows: &[Values]| rows.iter().map(row).collect::<Vec<_>>().join("  ");
        let (source, target) = (rows(&self.on_source), rows(&self.on_target));
        write!(f, "d{}; on the source: {source}; on the target: {target}", self.design)
    }
}

/// What the source does next, if it can.
#[derive(Debug, Clone)]
enum Op {
    Insert(Vec<u8>),
    /// Of a row by its number, some columns.
    Update(usize, Vec<(usize, u8)>),
    Delete(usize),
    /// Inserts of many rows, seeds counting up.
    InsertMany(u8, u8),
    /// One column of many rows.
    UpdateMany(usize, u8, usize, u8),
    DeleteMany(usize, u8),
    /// Two rows change the values of a column, by way of another value if it is unique.
    Swap(usize, usize, usize),
    Truncate,
}

impl Case {
    /// Whether the target began with what the source had.
    pub fn faithful(&self) -> bool {
        self.tables.iter().all(|table| table.on_source == table.on_target)
    }
}

pub fn case() -> impl Strategy<Value = Case> {
    let tables = prop::sample::subsequence((0..DESIGNS.len()).collect::<Vec<_>>(), 1..3);
    tables.prop_flat_map(|designs| {
        let starts: Vec<_> = designs.into_iter().map(start).collect();
        let count = starts.len();
        (
            starts,
            prop::collection::vec((0..count, op()), 1..25),
            prop::collection::vec(any::<u8>(), 0..6),
            prop::collection::vec((any::<bool>(), prop::option::weighted(0.3, any::<u8>())), 7),
        )
            .prop_map(|(tables, ops, ends, cuts)| Case { tables, ops, ends, cuts })
    })
}

fn start(design: usize) -> impl Strategy<Value = Start> {
    let lost =
        prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(any::<prop::sample::Index>(), 1..3)];
    let more = prop_oneof![6 => Just(None), 1 => any::<u8>().prop_map(Some)];
    (0..40u8, any::<u8>(), lost, more).prop_map(move |(rows, seed, lost, more)| {
        let mut table = Table::new(design, Vec::new());
        for n in 0..rows {
            table.insert(&[seed.wrapping_add(n)]);
        }
        let on_source = table.rows.clone();
        for lost in lost.into_iter().filter(|_| !on_source.is_empty()) {
            if !table.rows.is_empty() {
                table.rows.remove(lost.index(table.rows.len()));
            }
        }
        if let Some(seed) = more {
            table.insert(&[seed]);
        }
        Start { design, on_source, on_target: table.rows }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let row = || any::<usize>();
    let columns = prop::collection::vec((0..4usize, any::<u8>()), 1..3);
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 1..4).prop_map(Op::Insert),
        6 => (row(), columns).prop_map(|(row, columns)| Op::Update(row, columns)),
        3 => row().prop_map(Op::Delete),
        2 => (any::<u8>(), 10..60u8).prop_map(|(seed, count)| Op::InsertMany(seed, count)),
        3 => (row(), 10..60u8, 0..4usize, any::<u8>())
            .prop_map(|(row, count, column, seed)| Op::UpdateMany(row, count, column, seed)),
        2 => (row(), 10..60u8).prop_map(|(row, count)| Op::DeleteMany(row, count)),
        2 => (row(), row(), 0..4usize).prop_map(|(a, b, column)| Op::Swap(a, b, column)),
        1 => Just(Op::Truncate),
    ]
}

/// A table of the source.
struct Table {
    design: usize,
    rows: Vec<Values>,
}

impl Table {
    fn new(design: usize, rows: Vec<Values>) -> Self {
        Self { design, rows }
    }

    fn design(&self) -> &'static Design {
        &DESIGNS[self.design]
    }

    /// Whether all its unique keys hold with this row, beside those but number `without`.
    fn allows(&self, row: &Values, without: Option<usize>) -> bool {
        let design = self.design();
        design.unique.iter().all(|key| {
            let of = |row: &Values| -> Option<Vec<String>> {
                let text =
                    |column: &usize| Some(design.columns[*column].comparable(row[*column].as_deref()?));
                key.iter().map(text).collect()
            };
            let Some(wanted) = of(row) else { return true };
            let others = self.rows.iter().enumerate().filter(|(n, _)| Some(*n) != without);
            !others.into_iter().any(|(_, other)| of(other).as_ref() == Some(&wanted))
        })
    }

    fn insert(&mut self, seeds: &[u8]) -> Option<Values> {
        let design = self.design();
        let row: Values =
            (0..design.columns.len()).map(|n| design.value(n, seeds[n % seeds.len()])).collect();
        self.allows(&row, None).then(|| {
            self.rows.push(row.clone());
            row
        })
    }

    /// The row before and after.
    fn update(&mut self, at: usize, columns: &[(usize, Option<String>)]) -> Option<(Values, Values)> {
        let old = self.rows[at].clone();
        let mut new = old.clone();
        for (column, value) in columns {
            new[*column].clone_from(value);
        }
        self.allows(&new, Some(at)).then(|| {
            self.rows[at].clone_from(&new);
            (old, new)
        })
    }
}

/// What the source sent, and what it holds in the end.
pub struct History {
    changes: Vec<Change>,
    tables: Vec<Table>,
    ends: Vec<usize>,
    cuts: Vec<(bool, Option<u8>)>,
}

struct Writer<'r> {
    relation: &'r Arc<Relation>,
    changes: &'r mut Vec<Change>,
}

impl Writer<'_> {
    fn insert(&mut self, new: &Values) {
        let new = Row(new.iter().map(cell).collect());
        self.changes.push(Change::Insert { relation: Arc::clone(self.relation), new });
    }

    fn update(&mut self, design: &Design, (old, new): (Values, Values)) {
        let cells = new.iter().enumerate().map(|(n, value)| {
            let stays = design.columns[n] == Kind::Toast && *value == old[n];
            let long = value.as_ref().is_some_and(|text| text.len() > 2000);
            if stays && long { Cell::Unchanged } else { cell(value) }
        });
        let new_row = Row(cells.collect());
        let moved = |columns: &[usize]| columns.iter().any(|n| old[*n] != new[*n]);
        let old_row = match design.identity {
            Identity::Full => Some(old_row(design, &old)),
            Identity::Columns(columns) if moved(columns) => Some(old_row(design, &old)),
            Identity::Columns(_) => None,
        };
        let relation = Arc::clone(self.relation);
        self.changes.push(Change::Update { relation, old: old_row, new: new_row });
    }

    fn delete(&mut self, design: &Design, old: &Values) {
        let old = old_row(design, old);
        self.changes.push(Change::Delete { relation: Arc::clone(self.relation), old });
    }
}

fn cell(value: &Option<String>) -> Cell {
    value.as_ref().map_or(Cell::Null, |text| Cell::Text(Bytes::copy_from_slice(text.as_bytes())))
}

fn old_row(design: &Design, row: &Values) -> OldRow {
    match design.identity {
        Identity::Full => OldRow::Full(Row(row.iter().map(cell).collect())),
        Identity::Columns(columns) => {
            let key = |(n, value)| if columns.contains(&n) { cell(value) } else { Cell::Null };
            OldRow::Key(Row(row.iter().enumerate().map(key).collect()))
        }
    }
}

impl History {
    pub fn of(case: &Case, relations: &[Arc<Relation>]) -> Self {
        let mut tables: Vec<Table> =
            case.tables.iter().map(|start| Table::new(start.design, start.on_source.clone())).collect();
        let mut changes = Vec::new();
        for (number, op) in &case.ops {
            let table = &mut tables[*number];
            let relation = &relations[table.design];
            run(table, op, &mut Writer { relation, changes: &mut changes });
        }
        let ends: HashSet<usize> =
            case.ends.iter().map(|end| usize::from(*end) * changes.len() / 256).collect();
        let mut ends: Vec<usize> = ends.into_iter().filter(|end| *end > 0).collect();
        ends.sort_unstable();
        ends.push(changes.len());
        Self { changes, tables, ends, cuts: case.cuts.clone() }
    }

    /// The batches, at positions behind the fixture's.
    pub fn batches(&self, fixture: &mut Fixture) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        let mut from = 0;
        for (end, (begins, cut)) in self.ends.iter().zip(&self.cuts) {
            let changes = self.changes[from..*end].to_vec();
            from = *end;
            if let Some(cut) = cut.filter(|_| changes.len() > 1) {
                let at = (usize::from(cut) * changes.len() / 256).clamp(1, changes.len() - 1);
                let (first, second) = changes.split_at(at);
                batches.push(batch(fixture.part(first.to_vec(), true, false)));
                batches.push(batch(fixture.part(second.to_vec(), false, true)));
                continue;
            }
            let part = fixture.part(changes, true, true);
            match batches.last_mut().filter(|_| !*begins) {
                Some(last) => {
                    last.position = part.end;
                    last.size_bytes += part.size_bytes;
                    last.parts.push(part);
                }
                None => batches.push(batch(part)),
            }
        }
        batches
    }

    /// What the tables hold in the end, in the form of [`Design::select`].
    pub fn expected(&self) -> Vec<Vec<String>> {
        let shown = |table: &Table| {
            let mut rows: Vec<String> = table.rows.iter().map(|row| shown(table.design(), row)).collect();
            rows.sort();
            rows
        };
        self.tables.iter().map(shown).collect()
    }
}

fn batch(part: TransactionPart) -> Batch {
    Batch { position: part.end, size_bytes: part.size_bytes, parts: vec![part], ..Batch::default() }
}

fn shown(design: &Design, row: &Values) -> String {
    let mut cells: Vec<String> =
        row.iter().map(|cell| cell.clone().unwrap_or_else(|| "NULL".into())).collect();
    if design.clauses.contains("more") {
        let twice = row[1].as_ref().map(|n| (n.parse::<i32>().unwrap() * 2).to_string());
        cells.extend(["default".to_owned(), twice.unwrap_or_else(|| "NULL".into())]);
    }
    cells.join("|")
}

fn run(table: &mut Table, op: &Op, writer: &mut Writer<'_>) {
    let design = table.design();
    let width = design.columns.len();
    let wrap = |row: usize, table: &Table| (!table.rows.is_empty()).then(|| row % table.rows.len());
    match op {
        Op::Insert(seeds) => drop(table.insert(seeds).map(|row| writer.insert(&row))),
        Op::InsertMany(seed, count) => {
            for n in 0..*count {
                let _ = table.insert(&[seed.wrapping_add(n)]).map(|row| writer.insert(&row));
            }
        }
        Op::Update(row, columns) => {
            let Some(at) = wrap(*row, table) else { return };
            let columns: Vec<_> =
                columns.iter().map(|(n, seed)| (n % width, design.value(n % width, *seed))).collect();
            let _ = table.update(at, &columns).map(|rows| writer.update(design, rows));
        }
        Op::UpdateMany(row, count, column, seed) => {
            for n in 0..*count {
                let Some(at) = wrap(row.wrapping_add(n.into()), table) else { return };
                let value = design.value(column % width, seed.wrapping_add(n));
                let _ = table.update(at, &[(column % width, value)]).map(|rows| writer.update(design, rows));
            }
        }
        Op::Delete(row) => {
            let Some(at) = wrap(*row, table) else { return };
            writer.delete(design, &table.rows.swap_remove(at));
        }
        Op::DeleteMany(row, count) => {
            for _ in 0..*count {
                let Some(at) = wrap(*row, table) else { return };
                writer.delete(design, &table.rows.swap_remove(at));
            }
        }
        Op::Swap(a, b, column) => {
            let (Some(a), Some(b)) = (wrap(*a, table), wrap(*b, table)) else { return };
            swap(table, (a, b), column % width, writer);
        }
        Op::Truncate => {
            table.rows.clear();
            let relations = vec![Arc::clone(writer.relation)];
            writer.changes.push(Change::Truncate { relations, cascade: false, restart_identity: false });
        }
    }
}

fn swap(table: &mut Table, (a, b): (usize, usize), column: usize, writer: &mut Writer<'_>) {
    let design = table.design();
    let (value_a, value_b) = (table.rows[a][column].clone(), table.rows[b][column].clone());
    let free = design.value(column, 254);
    for (row, value) in [(a, free), (b, value_a), (a, value_b)] {
        let Some(rows) = table.update(row, &[(column, value)]) else { return };
        writer.update(design, rows);
    }
}
