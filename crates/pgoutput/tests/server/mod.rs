//! A small server that plays random transactions, streamed ones among them, and speaks pgoutput as the real one does; and
//! what puts assembled parts together again. What may not enter: assertions about one store.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use relevo_model::{
    Cell, Change, Column, OldRow, Origin, Relation, RelationId, ReplicaIdentity, Row, SourceLsn, Timestamp,
    TransactionHeader, TransactionPart, Xid,
};
use relevo_pgoutput::{AbortPoint, ColumnDescription, Message, RelationDescription, encode};

const TABLES: u32 = 3;
const STREAMS: usize = 3;

/// What one command of a client does.
#[derive(Debug, Clone)]
pub enum Edit {
    Insert { table: u32, value: u8 },
    Update { table: u32, value: u8, old: u8 },
    Delete { table: u32, value: u8 },
    Truncate,
    Emit { value: u8 },
    Alter { table: u32 },
}

/// In which subtransaction a command of a running transaction is given.
#[derive(Debug, Clone, Copy)]
pub enum Savepoint {
    /// The current one.
    Keep,
    /// `SAVEPOINT` before it.
    Set,
    /// `RELEASE` of the last savepoint before it.
    Release,
}

/// What happens next on the server.
#[derive(Debug, Clone)]
pub enum Step {
    /// A transaction that is sent whole.
    Whole {
        edits: Vec<Edit>,
        origin: bool,
    },
    /// The next block of a running transaction.
    Block {
        stream: usize,
        edits: Vec<(Savepoint, Edit)>,
        origin: bool,
    },
    /// `ROLLBACK TO` the savepoint at this depth.
    RollBackTo {
        stream: usize,
        depth: usize,
    },
    AbortAll {
        stream: usize,
    },
    Commit {
        stream: usize,
    },
    /// A message that belongs to no transaction.
    Emit,
}

fn edits() -> impl Strategy<Value = Edit> {
    let (table, value) = (|| 0..TABLES, any::<u8>);
    prop_oneof![
        4 => (table(), value()).prop_map(|(table, value)| Edit::Insert { table, value }),
        3 => (table(), value(), 0..3_u8).prop_map(|(table, value, old)| Edit::Update { table, value, old }),
        2 => (table(), value()).prop_map(|(table, value)| Edit::Delete { table, value }),
        1 => Just(Edit::Truncate),
        1 => value().prop_map(|value| Edit::Emit { value }),
        1 => table().prop_map(|table| Edit::Alter { table }),
    ]
}

pub fn steps() -> impl Strategy<Value = Step> {
    let stream = || 0..STREAMS;
    let whole = prop::collection::vec(edits(), 0..6);
    let savepoint = prop_oneof![Just(Savepoint::Keep), Just(Savepoint::Set), Just(Savepoint::Release)];
    let block = prop::collection::vec((savepoint, edits()), 0..6);
    prop_oneof![
        4 => (whole, any::<bool>()).prop_map(|(edits, origin)| Step::Whole { edits, origin }),
        6 => (stream(), block, any::<bool>())
            .prop_map(|(stream, edits, origin)| Step::Block { stream, edits, origin }),
        3 => (stream(), 1..4_usize).prop_map(|(stream, depth)| Step::RollBackTo { stream, depth }),
        1 => stream().prop_map(|stream| Step::AbortAll { stream }),
        3 => stream().prop_map(|stream| Step::Commit { stream }),
        1 => Just(Step::Emit),
    ]
}

/// A transaction that is being streamed.
#[derive(Debug)]
struct Stream {
    xid: Xid,
    origin: bool,
    /// The savepoints that are set, below them the transaction itself: each with its own id and those of the
    /// savepoints that were released into it.
    savepoints: Vec<Vec<Xid>>,
    changes: Vec<(Xid, Change)>,
}

impl Stream {
    fn release(&mut self) {
        if self.savepoints.len() > 1 {
            let released = self.savepoints.pop().unwrap();
            self.savepoints.last_mut().unwrap().extend(released);
        }
    }
}

#[derive(Debug, Default, Clone)]
struct Table {
    /// Columns added so far.
    version: u32,
    /// A running transaction has altered it: which, in which subtransactions, and what it was before each.
    altered: Vec<(Xid, Xid, u32)>,
    /// The running (sub)transactions that have used it.
    users: BTreeSet<(Xid, Xid)>,
    /// pgoutput's `schema_sent` and `streamed_txns`.
    described: bool,
    described_in: BTreeSet<Xid>,
}

pub type Transaction = (TransactionHeader, Vec<Change>, SourceLsn);

/// The server: tables, locks, what it has described, the frames it has sent, and what was committed.
pub struct Server {
    abort_point: bool,
    tables: Vec<Table>,
    streams: Vec<Option<Stream>>,
    pub frames: Vec<Bytes>,
    pub committed: Vec<Transaction>,
    lsn: u64,
    next_xid: u32,
    next_version: u32,
}

impl Server {
    pub fn new(abort_point: bool) -> Self {
        Self {
            abort_point,
            tables: vec![Table::default(); TABLES as usize],
            streams: (0..STREAMS).map(|_| None).collect(),
            frames: Vec::new(),
            committed: Vec::new(),
            lsn: 0,
            next_xid: 700,
            next_version: 0,
        }
    }

    fn xid(&mut self) -> Xid {
        self.next_xid += 1;
        Xid(self.next_xid)
    }

    fn send(&mut self, message: &Message) {
        self.frames.push(encode(message).unwrap());
    }

    pub fn play(&mut self, step: Step) {
        match step {
            Step::Whole { edits, origin } => self.whole(edits, origin),
            Step::Block { stream, edits, origin } => self.block(stream, edits, origin),
            Step::RollBackTo { stream, depth } => {
                let Some(open) = &mut self.streams[stream] else { return };
                if depth >= open.savepoints.len() {
                    return;
                }
                let (xid, aborted) = (open.xid, open.savepoints.split_off(depth).concat());
                open.changes.retain(|(of, _)| !aborted.contains(of));
                self.abort(xid, &aborted);
            }
            Step::AbortAll { stream } => {
                let Some(open) = self.streams[stream].take() else { return };
                let mut aborted = open.savepoints.concat();
                aborted.rotate_left(1);
                self.abort(open.xid, &aborted);
            }
            Step::Commit { stream } => self.commit_stream(stream),
            Step::Emit => {
                let lsn = SourceLsn::new(self.lsn);
                self.send(&emit(lsn, false, 0));
            }
        }
    }

    fn whole(&mut self, edits: Vec<Edit>, origin: bool) {
        let xid = self.xid();
        let header = self.header(xid, origin.then_some(4711));
        self.send(&Message::Begin { final_lsn: header.commit_lsn, commit_time: header.commit_time, xid });
        if origin {
            self.send(&Message::Origin { commit_lsn: 4711, name: "far".to_owned() });
        }
        let mut changes = Vec::new();
        for edit in edits {
            if let Some((message, change)) = self.edit(&edit, None, xid) {
                self.send(&message);
                changes.push(change);
            }
        }
        self.release(|of, _| of == xid, false);
        let end_lsn = self.end();
        let (commit_lsn, commit_time) = (header.commit_lsn, header.commit_time);
        self.send(&Message::Commit { commit_lsn, end_lsn, commit_time });
        self.committed.push((header, changes, end_lsn));
    }

    fn block(&mut self, stream: usize, edits: Vec<(Savepoint, Edit)>, origin: bool) {
        let mut open = self.streams[stream].take();
        let first_segment = open.is_none();
        if open.is_none() {
            let xid = self.xid();
            open = Some(Stream { xid, origin, savepoints: vec![vec![xid]], changes: Vec::new() });
        }
        let mut open = open.unwrap();
        let xid = open.xid;
        self.send(&Message::StreamStart { xid, first_segment });
        if first_segment && open.origin {
            self.send(&Message::Origin { commit_lsn: 0, name: "far".to_owned() });
        }
        for (savepoint, edit) in edits {
            match savepoint {
                Savepoint::Keep => {}
                Savepoint::Set => open.savepoints.push(vec![self.xid()]),
                Savepoint::Release => open.release(),
            }
            let subxid = open.savepoints.last().unwrap()[0];
            if let Some((message, change)) = self.edit(&edit, Some(subxid), xid) {
                self.send(&message.in_stream_of(subxid));
                open.changes.push((subxid, change));
            }
        }
        self.send(&Message::StreamStop);
        self.streams[stream] = Some(open);
    }

    fn commit_stream(&mut self, stream: usize) {
        let Some(open) = self.streams[stream].take() else { return };
        let xid = open.xid;
        let header = self.header(xid, open.origin.then_some(0));
        let end_lsn = self.end();
        let (commit_lsn, commit_time) = (header.commit_lsn, header.commit_time);
        self.send(&Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time });
        for table in &mut self.tables {
            table.described |= table.described_in.remove(&xid);
        }
        self.release(|of, _| of == xid, false);
        let changes = open.changes.into_iter().map(|(_, change)| change).collect();
        self.committed.push((header, changes, end_lsn));
    }

    fn abort(&mut self, xid: Xid, aborted: &[Xid]) {
        let point = AbortPoint { lsn: SourceLsn::new(self.lsn), time: Timestamp::default() };
        for subxid in aborted {
            self.send(&Message::StreamAbort { xid, subxid: *subxid, at: self.abort_point.then_some(point) });
        }
        for table in &mut self.tables {
            table.described_in.remove(&xid);
        }
        self.release(|of, sub| of == xid && aborted.contains(&sub), true);
    }

    /// Gives up locks, and takes back what was altered under them if `undo`.
    fn release(&mut self, whose: impl Fn(Xid, Xid) -> bool, undo: bool) {
        for table in &mut self.tables {
            table.users.retain(|(xid, subxid)| !whose(*xid, *subxid));
            let first = table.altered.iter().find(|(xid, subxid, _)| whose(*xid, *subxid));
            let Some((_, _, before)) = first.copied() else { continue };
            table.altered.retain(|(xid, subxid, _)| !whose(*xid, *subxid));
            if undo {
                table.version = before;
                table.described = false;
                table.described_in.clear();
            }
        }
    }

    fn header(&mut self, xid: Xid, origin: Option<u64>) -> TransactionHeader {
        self.lsn += 16;
        TransactionHeader {
            xid,
            commit_lsn: SourceLsn::new(self.lsn),
            commit_time: Timestamp::from_postgres_us(i64::from(xid.0)),
            origin: origin.map(|commit_lsn| Origin { name: "far".to_owned(), commit_lsn }),
        }
    }

    fn end(&mut self) -> SourceLsn {
        self.lsn += 8;
        SourceLsn::new(self.lsn)
    }

    /// The message of an edit and the change it is; `None` when a lock forbids it, or it changes no row.
    fn edit(&mut self, edit: &Edit, subxid: Option<Xid>, xid: Xid) -> Option<(Message, Change)> {
        let who = (xid, subxid.unwrap_or(xid));
        Some(match *edit {
            Edit::Alter { table } => {
                self.alter(table, who);
                return None;
            }
            Edit::Insert { table, value } => {
                let relation = self.used(table, who, subxid)?;
                let new = row(&relation, value);
                let message = Message::Insert { xid: None, relation: relation.id, new: new.clone() };
                (message, Change::Insert { relation, new })
            }
            Edit::Update { table, value, old } => {
                let relation = self.used(table, who, subxid)?;
                let mut new = row(&relation, value);
                if value.is_multiple_of(5) {
                    *new.0.last_mut().unwrap() = Cell::Unchanged;
                }
                let old = match old {
                    0 => None,
                    1 => Some(OldRow::Key(row(&relation, old))),
                    _ => Some(OldRow::Full(row(&relation, old))),
                };
                let id = relation.id;
                let message = Message::Update { xid: None, relation: id, old: old.clone(), new: new.clone() };
                (message, Change::Update { relation, old, new })
            }
            Edit::Delete { table, value } => {
                let relation = self.used(table, who, subxid)?;
                let old = OldRow::Key(row(&relation, value));
                let message = Message::Delete { xid: None, relation: relation.id, old: old.clone() };
                (message, Change::Delete { relation, old })
            }
            Edit::Truncate => {
                let used: Vec<_> = (0..TABLES).filter_map(|table| self.used(table, who, subxid)).collect();
                let relations = used.iter().map(|relation| relation.id).collect();
                let (cascade, restart_identity) = (true, false);
                let message = Message::Truncate { xid: None, cascade, restart_identity, relations };
                (message, Change::Truncate { relations: used, cascade, restart_identity })
            }
            Edit::Emit { value } => {
                let message = emit(SourceLsn::new(self.lsn), true, value);
                let Message::Logical { transactional, lsn, prefix, content, .. } = message.clone() else {
                    return None;
                };
                (message, Change::Message { lsn, transactional, prefix, content })
            }
        })
    }

    fn alter(&mut self, table: u32, who: (Xid, Xid)) {
        let table = &mut self.tables[table as usize];
        let others = table.users.iter().map(|(xid, _)| xid).chain(table.altered.iter().map(|(xid, ..)| xid));
        if others.into_iter().any(|xid| *xid != who.0) {
            return;
        }
        self.next_version += 1;
        table.altered.push((who.0, who.1, table.version));
        table.version = self.next_version;
        table.described = false;
        table.described_in.clear();
    }

    /// Locks the table for a change and describes it if need be (`maybe_send_schema` of pgoutput).
    fn used(&mut self, id: u32, who: (Xid, Xid), subxid: Option<Xid>) -> Option<Arc<Relation>> {
        let table = &mut self.tables[id as usize];
        if table.altered.iter().any(|(xid, ..)| *xid != who.0) {
            return None;
        }
        table.users.insert(who);
        let described = match subxid {
            None => std::mem::replace(&mut table.described, true),
            Some(_) => !table.described_in.insert(who.0),
        };
        let relation = Arc::new(relation(id, table.version));
        if !described {
            let message = Message::Relation { xid: None, relation: description(&relation) };
            let message = subxid.map_or(message.clone(), |subxid| message.in_stream_of(subxid));
            self.send(&message);
        }
        Some(relation)
    }
}

fn emit(lsn: SourceLsn, transactional: bool, value: u8) -> Message {
    let content = Bytes::from(vec![value; usize::from(value)]);
    Message::Logical { xid: None, transactional, lsn, prefix: "test".to_owned(), content }
}

/// Every version of a table has another width and other names, so that a wrong one is noticed.
fn relation(id: u32, version: u32) -> Relation {
    let columns = (0..=version % 4 + 1).map(|index| Column {
        name: format!("column_{version}_{index}"),
        identity: index == 0,
        type_oid: 25,
        type_modifier: -1,
        type_name: None,
    });
    Relation {
        id: RelationId(id),
        schema: "public".to_owned(),
        name: format!("table_{id}"),
        replica_identity: ReplicaIdentity::Default,
        columns: columns.collect(),
    }
}

fn description(relation: &Relation) -> RelationDescription {
    let columns = relation.columns.iter().map(|column| ColumnDescription {
        identity: column.identity,
        name: column.name.clone(),
        type_oid: column.type_oid,
        type_modifier: column.type_modifier,
    });
    RelationDescription {
        id: relation.id,
        namespace: relation.schema.clone(),
        name: relation.name.clone(),
        replica_identity: relation.replica_identity,
        columns: columns.collect(),
    }
}

fn row(relation: &Relation, value: u8) -> Row {
    let cell = |index: usize| {
        if (usize::from(value) + index).is_multiple_of(7) {
            Cell::Null
        } else {
            Cell::Text(Bytes::from(format!("{index}:{value}")))
        }
    };
    Row((0..relation.columns.len()).map(cell).collect())
}

/// Puts the parts together again, and checks that each is what a part promises to be.
pub fn join(parts: Vec<TransactionPart>, part_bytes: usize) -> Vec<Transaction> {
    let mut whole = Vec::new();
    let mut open: Option<(Arc<TransactionHeader>, Vec<Change>)> = None;
    for part in parts {
        let size_bytes: usize = part.changes.iter().map(Change::size_bytes).sum();
        assert_eq!(part.size_bytes, size_bytes);
        assert!(size_bytes <= part_bytes || part.changes.len() == 1, "{size_bytes} bytes in a part");
        assert_eq!(part.first, open.is_none());
        assert!(
            !part.changes.is_empty() || (part.first && part.end.is_some()),
            "an empty part of a transaction"
        );
        let (header, mut changes) = open.take().unwrap_or_else(|| (Arc::clone(&part.header), Vec::new()));
        assert_eq!(header, part.header);
        changes.extend(part.changes);
        match part.end {
            None => open = Some((header, changes)),
            Some(end) => whole.push(((*header).clone(), changes, end)),
        }
    }
    assert!(open.is_none(), "the last transaction has no end");
    whole
}
