//! Random histories of three tables that arrive at random moments, over a target in memory that refuses every change
//! that does not fit exactly: a row too many, a row too few, an update of what is not there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use relevo_arrivals::{ArrivalTarget, Arrivals, SharedSpool};
use relevo_model::{
    Applied, Batch, Cell, Change, ChangeTarget, Column, Fault, FaultClass, OldRow, Progress, QualifiedName,
    Relation, RelationId, ReplicaIdentity, Row, Side, SourceLsn, Timestamp, TransactionHeader,
    TransactionPart, Xid,
};

const TABLES: usize = 3;
/// Positions of transactions are so far apart.
const STEP: u64 = 0x100;

type Rows = BTreeMap<u8, u8>;
type Content = BTreeMap<QualifiedName, Rows>;

fn table(number: usize) -> QualifiedName {
    // Names that only differ in where the dot stands.
    let (schema, name) = [("a", "b.c"), ("a.b", "c"), ("S/x", "t")][number];
    QualifiedName { schema: schema.into(), name: name.into() }
}

fn relation(number: usize) -> Arc<Relation> {
    let column = |name: &str, identity| Column {
        name: name.into(),
        identity,
        type_oid: 21,
        type_modifier: -1,
        type_name: None,
    };
    let QualifiedName { schema, name } = table(number);
    Arc::new(Relation {
        id: RelationId(u32::try_from(number).unwrap() + 1),
        schema,
        name,
        replica_identity: ReplicaIdentity::Default,
        columns: vec![column("id", true), column("v", false)],
    })
}

fn row(id: u8, value: Option<u8>) -> Row {
    let cell = |value: u8| Cell::Text(Bytes::from(value.to_string()));
    Row(vec![cell(id), value.map_or(Cell::Null, cell)])
}

fn number(cell: &Cell) -> u8 {
    match cell {
        Cell::Text(text) => std::str::from_utf8(text).unwrap().parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Does a change, which must fit.
fn change(content: &mut Content, change: &Change) {
    let of = |content: &mut Content, relation: &Relation, edit: &mut dyn FnMut(&mut Rows)| {
        edit(content.entry(relation.qualified_name()).or_default());
    };
    match change {
        Change::Insert { relation, new } => of(content, relation, &mut |rows| {
            let old = rows.insert(number(&new.0[0]), number(&new.0[1]));
            assert_eq!(old, None, "a row of {relation} was inserted twice");
        }),
        Change::Update { relation, new, .. } => of(content, relation, &mut |rows| {
            let old = rows.insert(number(&new.0[0]), number(&new.0[1]));
            assert!(old.is_some(), "a row of {relation} that is not there was updated");
        }),
        Change::Delete { relation, old } => of(content, relation, &mut |rows| {
            let old = rows.remove(&number(&old.row().0[0]));
            assert!(old.is_some(), "a row of {relation} that is not there was deleted");
        }),
        Change::Truncate { relations, .. } => {
            for relation in relations {
                of(content, relation, &mut Rows::clear);
            }
        }
        Change::Message { .. } => {}
    }
}

/// One step of a generated transaction.
#[derive(Debug, Clone)]
enum Step {
    /// Insert, update or delete this row of this table, whichever is possible.
    Row(usize, u8, u8),
    /// TRUNCATE of these tables.
    Truncate(Vec<usize>),
}

/// The changes that the steps make, in the state that they find.
fn changes(content: &mut Content, steps: &[Step]) -> Vec<Change> {
    let mut out = Vec::new();
    for step in steps {
        let next = match step {
            Step::Row(number, id, value) => {
                let relation = relation(*number);
                let there = content.get(&table(*number)).is_some_and(|rows| rows.contains_key(id));
                match (there, value % 3) {
                    (false, _) => Change::Insert { relation, new: row(*id, Some(*value)) },
                    (true, 0) => Change::Delete { relation, old: OldRow::Key(row(*id, None)) },
                    (true, _) => Change::Update { relation, old: None, new: row(*id, Some(*value)) },
                }
            }
            Step::Truncate(numbers) => {
                let relations: BTreeSet<usize> = numbers.iter().copied().collect();
                Change::Truncate {
                    relations: relations.into_iter().map(relation).collect(),
                    cascade: false,
                    restart_identity: false,
                }
            }
        };
        change(content, &next);
        out.push(next);
    }
    out
}

/// What outlives a session.
#[derive(Debug, Clone)]
struct Stored {
    content: Content,
    progress: Progress,
    following: BTreeSet<QualifiedName>,
}

/// A target in memory. It fails once, when the countdown reaches zero.
struct Memory {
    stored: Arc<Mutex<Stored>>,
    open: Option<Stored>,
    progress: Progress,
    countdown: Arc<Mutex<Option<u32>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the link was lost")]
struct Lost;

impl Fault for Lost {
    fn class(&self) -> FaultClass {
        FaultClass::Transient
    }

    fn side(&self) -> Side {
        Side::Target
    }

    fn kind(&self) -> &'static str {
        "lost"
    }
}

impl ChangeTarget for Memory {
    type Error = Lost;

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn moved(&mut self, progress: Progress) {
        self.progress = progress;
    }

    async fn apply(&mut self, batch: Batch) -> Result<Applied, Lost> {
        assert_eq!(self.open.is_some(), batch.continues(), "the contract of batches");
        let mut open = self.open.take().unwrap_or_else(|| self.stored.lock().unwrap().clone());
        for part in &batch.parts {
            for done in &part.changes {
                change(&mut open.content, done);
            }
        }
        if let Some(left) = self.countdown.lock().unwrap().as_mut() {
            if *left == 0 {
                *left = u32::MAX;
                return Err(Lost);
            }
            *left -= 1;
        }
        if batch.unfinished() {
            self.open = Some(open);
            return Ok(Applied { position: None, durable_at: None, missing_rows: 0, reapplied_changes: 0 });
        }
        let position = batch.position.unwrap();
        assert!(position >= self.progress.applied);
        open.progress.applied = position;
        open.following.extend(batch.joins);
        self.progress = open.progress.clone();
        *self.stored.lock().unwrap() = open;
        Ok(Applied { position: Some(position), durable_at: None, missing_rows: 0, reapplied_changes: 0 })
    }
}

/// A whole run.
#[derive(Debug, Clone)]
struct Plan {
    transactions: Vec<Vec<Step>>,
    /// For each table: of which position its rows are, and before which batch it arrives (both in transactions).
    arrivals: Vec<(usize, usize)>,
    /// How many transactions a batch holds at most, and how large parts are.
    batch: usize,
    part_changes: usize,
    /// After how many batches the target fails.
    fails_after: Option<u32>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let step = prop_oneof![
        12 => (0..TABLES, 0..6_u8, any::<u8>()).prop_map(|(table, id, value)| Step::Row(table, id, value)),
        1 => prop::collection::vec(0..TABLES, 1..TABLES + 1).prop_map(Step::Truncate),
    ];
    let transactions = prop::collection::vec(prop::collection::vec(step, 0..6), 1..25);
    (transactions, 1..4_usize, 1..4_usize, prop::option::of(0..20_u32)).prop_flat_map(
        |(transactions, batch, part_changes, fails_after)| {
            let count = transactions.len();
            // The rows may be of a later position than the stream has reached, or of an earlier one.
            let arrival = (0..=count, 0..=count);
            (prop::collection::vec(arrival, TABLES), Just((transactions, batch, part_changes, fails_after)))
                .prop_map(|(arrivals, (transactions, batch, part_changes, fails_after))| Plan {
                    transactions,
                    arrivals,
                    batch,
                    part_changes,
                    fails_after,
                })
        },
    )
}

fn position(transaction: usize) -> u64 {
    STEP * (transaction as u64 + 1)
}

/// The parts of a transaction, as a source gives them.
fn parts(transaction: usize, changes: &[Change], part_changes: usize) -> Vec<TransactionPart> {
    let header = Arc::new(TransactionHeader {
        xid: Xid(u32::try_from(transaction).unwrap() + 3),
        commit_lsn: SourceLsn::new(position(transaction)),
        commit_time: Timestamp::from_postgres_us(5),
        origin: None,
    });
    let chunks: Vec<&[Change]> =
        if changes.is_empty() { vec![&[]] } else { changes.chunks(part_changes).collect() };
    let last = chunks.len() - 1;
    chunks
        .iter()
        .enumerate()
        .map(|(at, chunk)| TransactionPart {
            header: Arc::clone(&header),
            first: at == 0,
            changes: chunk.to_vec(),
            end: (at == last).then(|| SourceLsn::new(position(transaction) + STEP / 2)),
            size_bytes: chunk.iter().map(Change::size_bytes).sum(),
        })
        .collect()
}

/// The source before each transaction, and what each of them does.
fn history(plan: &Plan) -> (Vec<Content>, Vec<Vec<Change>>) {
    let mut content: Content = (0..TABLES).map(|number| (table(number), Rows::new())).collect();
    let mut before = vec![content.clone()];
    let mut all = Vec::new();
    for steps in &plan.transactions {
        all.push(changes(&mut content, steps));
        before.push(content.clone());
    }
    (before, all)
}

/// The copy of a table, as it is committed beside the stream.
fn arrive(stored: &Mutex<Stored>, arrivals: &Arrivals, number: usize, before: &[Content], at: usize) {
    let table = table(number);
    stored.lock().unwrap().content.insert(table.clone(), before[at][&table].clone());
    // The consistent point of a slot: anywhere behind the last transaction that its snapshot shows.
    arrivals.arrived(&table, SourceLsn::new(position(at) - STEP / 2));
}

async fn run(plan: &Plan, directory: &Path) -> Result<(), TestCaseError> {
    let (before, all) = history(plan);
    let stored = Arc::new(Mutex::new(Stored {
        content: Content::new(),
        progress: Progress { applied: SourceLsn::new(1), commit_lsn: None, commit_time: None },
        following: BTreeSet::new(),
    }));
    let countdown = Arc::new(Mutex::new(plan.fails_after));
    let arrivals = Arrivals::default();
    (0..TABLES).for_each(|number| arrivals.expect(table(number)));
    let spool = SharedSpool::new(relevo_spool::SharedSpool::new(directory.to_path_buf(), 1 << 30));
    let open = || {
        let progress = stored.lock().unwrap().progress.clone();
        let (stored, countdown) = (Arc::clone(&stored), Arc::clone(&countdown));
        let memory = Memory { stored, open: None, progress, countdown };
        ArrivalTarget::open(memory, arrivals.clone(), spool.clone(), 100).unwrap()
    };
    let mut arrived = [false; TABLES];
    'sessions: loop {
        let mut target = open();
        let applied = target.progress().applied.as_u64();
        let mut next = (0..all.len()).find(|at| position(*at) >= applied).unwrap_or(all.len());
        while next < all.len() {
            for (number, arrived) in arrived.iter_mut().enumerate() {
                let (at, when) = plan.arrivals[number];
                if when <= next && !*arrived {
                    *arrived = true;
                    arrive(&stored, &arrivals, number, &before, at);
                }
            }
            let batches = batches(plan, &all, next);
            next = (next + plan.batch).min(all.len());
            for batch in batches {
                if target.apply(batch).await.is_err() {
                    continue 'sessions;
                }
            }
        }
        for (number, arrived) in arrived.iter_mut().enumerate() {
            if !std::mem::replace(arrived, true) {
                arrive(&stored, &arrivals, number, &before, plan.arrivals[number].0);
            }
        }
        if arrivals.waiting() > 0 {
            target.wanting().await;
        }
        if target.apply(Batch::default()).await.is_ok() {
            break;
        }
    }
    let stored = stored.lock().unwrap();
    prop_assert_eq!(&stored.content, before.last().unwrap());
    prop_assert_eq!(stored.following.len(), TABLES);
    prop_assert_eq!(arrivals.waiting(), 0);
    Ok(())
}

/// The next transactions: together if each is one part, else one after the other.
fn batches(plan: &Plan, all: &[Vec<Change>], next: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (at, changes) in all.iter().enumerate().skip(next).take(plan.batch) {
        let parts = parts(at, changes, plan.part_changes);
        let whole = parts.len() == 1;
        for part in parts {
            match batches.last_mut() {
                Some(batch) if whole && batch.position.is_some() => {
                    batch.position = part.end;
                    batch.parts.push(part);
                }
                _ => batches.push(Batch { position: part.end, parts: vec![part], ..Batch::default() }),
            }
        }
    }
    batches
}

proptest! {
    #[test]
    fn every_table_ends_as_the_source_has_it_whenever_it_arrives(plan in plan()) {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&plan, &directory.path().join("spool")))?;
    }
}
