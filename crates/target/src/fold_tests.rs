//! The fold against a model: what a table holds after all changes in order, and after the net changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use relevo_model::RelationId;

use super::*;

/// Two identity columns, then two others.
const IDENTITY: [usize; 2] = [2, 0];
const WIDTH: usize = 4;

type Table = BTreeMap<(u8, u8), [Option<u8>; 2]>;

fn relation() -> Arc<Relation> {
    Arc::new(Relation {
        id: RelationId(1),
        schema: "s".into(),
        name: "t".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: Vec::new(),
    })
}

fn text(value: u8) -> Cell {
    Cell::Text(Bytes::from(value.to_string()))
}

fn number(cell: &Cell) -> Option<u8> {
    match cell {
        Cell::Text(bytes) => std::str::from_utf8(bytes).unwrap().parse().ok(),
        Cell::Null => None,
        other => panic!("{other:?}"),
    }
}

fn row(key: (u8, u8), a: Cell, b: Cell) -> Row {
    Row(vec![text(key.1), a, text(key.0), b])
}

fn key_row(key: (u8, u8)) -> Row {
    row(key, Cell::Null, Cell::Null)
}

fn key_of(row: &Row) -> (u8, u8) {
    (number(&row.0[2]).unwrap(), number(&row.0[0]).unwrap())
}

/// What a source that holds `table` might do next. Choices that it could not make are skipped.
#[derive(Debug, Clone)]
enum Op {
    Insert((u8, u8), Option<u8>, Option<u8>),
    /// A `None` outside is a cell that is not sent.
    Update((u8, u8), Option<Option<u8>>, Option<Option<u8>>),
    Move((u8, u8), (u8, u8), Option<Option<u8>>, Option<u8>),
    Delete((u8, u8)),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || (0..2u8, 0..4u8);
    let value = || prop::option::of(0..9u8);
    let op = prop_oneof![
        (key(), value(), value()).prop_map(|(key, a, b)| Op::Insert(key, a, b)),
        (key(), prop::option::of(value()), prop::option::of(value()))
            .prop_map(|(key, a, b)| Op::Update(key, a, b)),
        (key(), key(), prop::option::of(value()), value())
            .prop_map(|(from, to, a, b)| Op::Move(from, to, a, b)),
        key().prop_map(Op::Delete),
    ];
    prop::collection::vec(op, 0..40)
}

fn cell(value: Option<u8>) -> Cell {
    value.map_or(Cell::Null, text)
}

fn sent(value: Option<Option<u8>>) -> Cell {
    value.map_or(Cell::Unchanged, cell)
}

/// The changes that a source sends for those of the ops that it can do, and what it holds then.
fn run(ops: &[Op], table: &mut Table) -> Vec<Change> {
    let relation = relation();
    let mut changes = Vec::new();
    for op in ops {
        let relation = Arc::clone(&relation);
        match *op {
            Op::Insert(key, a, b) if !table.contains_key(&key) => {
                table.insert(key, [a, b]);
                changes.push(Change::Insert { relation, new: row(key, cell(a), cell(b)) });
            }
            Op::Update(key, a, b) => {
                let Some(have) = table.get_mut(&key) else { continue };
                *have = [a.unwrap_or(have[0]), b.unwrap_or(have[1])];
                changes.push(Change::Update { relation, old: None, new: row(key, sent(a), sent(b)) });
            }
            Op::Move(from, to, a, b) if from != to && !table.contains_key(&to) => {
                let Some(have) = table.remove(&from) else { continue };
                table.insert(to, [a.unwrap_or(have[0]), b]);
                let old = Some(OldRow::Key(key_row(from)));
                changes.push(Change::Update { relation, old, new: row(to, sent(a), cell(b)) });
            }
            Op::Delete(key) if table.remove(&key).is_some() => {
                changes.push(Change::Delete { relation, old: OldRow::Key(key_row(key)) });
            }
            Op::Insert(..) | Op::Move(..) | Op::Delete(_) => {}
        }
    }
    changes
}

/// The order that the target uses: deletes, updates, moves (all at once, as far as the model goes), inserts.
fn apply(nets: &Nets<'_>, table: &mut Table) {
    let rank = |net: &&Net<'_>| match net {
        Net::Delete(_) => 0,
        Net::Update(..) => 1,
        Net::Move(..) => 2,
        Net::Insert(_) => 3,
    };
    let mut sorted: Vec<&Net<'_>> = nets.nets.iter().collect();
    sorted.sort_by_key(rank);
    let overlay = |have: [Option<u8>; 2], cells: &Cells<'_>| {
        let pick = |old, cell: &Cell| if *cell == Cell::Unchanged { old } else { number(cell) };
        [pick(have[0], cells.get(1)), pick(have[1], cells.get(3))]
    };
    let new_key = |cells: &Cells<'_>| (number(cells.get(2)).unwrap(), number(cells.get(0)).unwrap());
    let mut moved = Vec::new();
    for net in &sorted {
        match net {
            Net::Delete(key) => assert!(table.remove(&key_of(key.row())).is_some(), "deleted twice"),
            Net::Update(key, cells) => {
                let have = table.get_mut(&key_of(key.row())).expect("the row is there");
                *have = overlay(*have, cells);
            }
            Net::Move(key, cells, _) => {
                let have = table.remove(&key_of(key.row())).expect("the row is there");
                moved.push((new_key(cells), overlay(have, cells)));
            }
            Net::Insert(_) => {}
        }
    }
    for (key, values) in moved {
        assert!(table.insert(key, values).is_none(), "moved over another");
    }
    for net in sorted {
        if let Net::Insert(cells) = net {
            let values = [number(cells.get(1)), number(cells.get(3))];
            assert!(table.insert(new_key(cells), values).is_none(), "inserted over another");
        }
    }
    for key in &nets.vacant {
        assert!(!table.contains_key(&key_of(key.row())), "a key that was left is taken");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1024), ..ProptestConfig::default() })]

    #[test]
    fn net_changes_do_what_all_changes_do(
        start in prop::collection::btree_map((0..2u8, 0..4u8), [prop::option::of(0..9u8), prop::option::of(0..9u8)], 0..8),
        ops in ops(),
    ) {
        let (mut source, mut target) = (start.clone(), start);
        let changes = run(&ops, &mut source);
        let mut fold = Fold::new(&IDENTITY, WIDTH);
        for change in &changes {
            prop_assert_eq!(fold.add(change), Ok(()));
        }
        apply(&fold.finish(), &mut target);
        prop_assert_eq!(source, target);
    }
}

fn nets(changes: &[Change]) -> Nets<'_> {
    let mut fold = Fold::new(&IDENTITY, WIDTH);
    for change in changes {
        fold.add(change).unwrap();
    }
    fold.finish()
}

fn insert(key: (u8, u8)) -> Change {
    Change::Insert { relation: relation(), new: row(key, text(1), text(1)) }
}

fn delete(key: (u8, u8)) -> Change {
    Change::Delete { relation: relation(), old: OldRow::Key(key_row(key)) }
}

fn update(old: Option<(u8, u8)>, key: (u8, u8), a: Cell) -> Change {
    let old = old.map(|old| OldRow::Key(key_row(old)));
    Change::Update { relation: relation(), old, new: row(key, a, Cell::Unchanged) }
}

#[test]
fn a_row_that_comes_and_goes_leaves_a_key_that_must_be_vacant() {
    let changes = [insert((0, 1)), delete((0, 1))];
    let nets = nets(&changes);
    assert!(nets.nets.is_empty());
    assert_eq!(key_of(nets.vacant[0].row()), (0, 1));
    let changes = [insert((0, 1)), delete((0, 1)), insert((0, 1))];
    assert!(super::tests::nets(&changes).vacant.is_empty());
}

#[test]
fn an_unsent_cell_is_never_made_up() {
    let changes = [update(None, (0, 1), text(5)), update(None, (0, 1), Cell::Unchanged)];
    let nets = nets(&changes);
    let [Net::Update(_, cells)] = &nets.nets[..] else { panic!("{nets:?}") };
    assert_eq!((cells.get(1), cells.get(3)), (&text(5), &Cell::Unchanged));
}

#[test]
fn a_second_delete_of_a_row_stays_one_more_delete() {
    let changes = [delete((0, 1)), delete((0, 1))];
    assert_eq!(nets(&changes).nets.len(), 2, "so that the target finds one row too few");
}

#[test]
fn a_row_that_returns_to_its_key_was_not_moved() {
    let changes = [update(Some((0, 1)), (0, 2), text(1)), update(Some((0, 2)), (0, 1), text(2))];
    let nets = nets(&changes);
    assert!(matches!(&nets.nets[..], [Net::Update(..)]), "{nets:?}");
    assert_eq!(key_of(nets.vacant[0].row()), (0, 2));
}

#[test]
fn keys_of_the_same_letters_are_told_apart() {
    let ten = Change::Insert { relation: relation(), new: row((1, 11), text(1), text(1)) };
    let eleven = Change::Insert { relation: relation(), new: row((11, 1), text(1), text(1)) };
    assert_eq!(nets(&[ten, eleven]).nets.len(), 2);
}

#[test]
fn a_key_without_text_does_not_fold() {
    let mut fold = Fold::new(&IDENTITY, WIDTH);
    let mut nameless = row((0, 1), text(1), text(1));
    nameless.0[0] = Cell::Null;
    let change = Change::Insert { relation: relation(), new: nameless };
    assert_eq!(fold.add(&change), Err(Unfoldable));
    let truncate = Change::Truncate { relations: Vec::new(), cascade: false, restart_identity: false };
    assert_eq!(fold.add(&truncate), Err(Unfoldable));
}

#[test]
fn a_move_knows_its_first_and_its_last_change() {
    let changes = [
        update(Some((0, 1)), (0, 9), text(1)),
        update(Some((0, 2)), (0, 1), text(2)),
        update(None, (0, 1), text(2)),
        update(Some((0, 9)), (0, 2), text(1)),
    ];
    let ways: Vec<_> = nets(&changes)
        .nets
        .iter()
        .map(|net| match net {
            Net::Move(_, _, way) => (way.left, way.entered),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ways, [(1, 4), (2, 2)]);
}
