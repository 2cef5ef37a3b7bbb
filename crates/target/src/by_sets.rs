//! A batch by sets: each segment's changes are folded, and what they amount to is sent.
//!
//! What may not enter: what a segment is, how changes fold, and what happens when this fails.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt;
use relevo_model::{Cell, Change};
use tokio::task::JoinError;
use tokio_postgres::{Client, CopyInSink, Error};
use tokio_util::task::AbortOnDropHandle;

use crate::blame::{Item, operation, size_bytes};
use crate::cell::RawCell;
use crate::error::TargetError;
use crate::flight::Reply;
use crate::known::Prepared;
use crate::mapping::TableMap;
use crate::run::{Run, Tag, cells};
use crate::segment::{COPY_CHUNK_BYTES, Segment, Staged, Step};
use crate::set_statement as sql;
use crate::shape::{Mask, Shape};

/// From how many changes folding can pay.
pub(crate) const FOLD_FROM: usize = 16;
/// How many bytes of changes are made ready before they are sent, roughly, and how many changes at most.
const STRETCH: (usize, usize) = (8 << 20, 65536);
/// The same within a large transaction: the server needs longer for such a stretch than it takes to make the next one ready.
const STAGED_STRETCH: (usize, usize) = (1 << 20, 8192);

/// How many changes are made ready before they are sent: few at first, so that the server has something to do soon. Not so
/// within a large transaction, where more at once go a better way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretches {
    next: usize,
    most: usize,
}

impl Stretches {
    /// For this many changes of this size, beginning with `first`, or within a large transaction.
    pub(crate) fn new(first: Option<usize>, changes: usize, size_bytes: usize) -> Self {
        let change_bytes = (size_bytes / changes.max(1)).max(1);
        let (bytes, most) = if first.is_some() { STRETCH } else { STAGED_STRETCH };
        let most = (bytes / change_bytes).clamp(FOLD_FROM, most);
        Self { next: first.unwrap_or(most).clamp(1, most), most }
    }

    fn grow(&mut self) {
        self.next = (self.next * 4).min(self.most);
    }
}

/// Changes that go together, ready to be sent.
enum Ready<'a, 'i> {
    /// One by one: at a barrier, or too few.
    InOrder(&'i [Item<'a>]),
    /// By what they amount to.
    Net(Vec<TableReady<'a>>),
}

struct TableReady<'a> {
    map: Arc<TableMap>,
    /// Stands for the table's changes should the server not even begin.
    first: Item<'a>,
    steps: VecDeque<Step<'a>>,
}

/// Why a segment ends.
enum End {
    /// Nothing follows, or a barrier.
    Here,
    /// A relation whose table has to be looked up, which may replace what is known of another.
    Unknown,
}

impl<'a> Run<'a> {
    /// Sends what the changes amount to, and takes all answers.
    ///
    /// They go in stretches, which are to one another what batches are: while the server works on one, the next is made
    /// ready.
    pub(crate) async fn net_changes(&mut self, items: &[Item<'a>]) -> Result<(), TargetError> {
        let (mut rest, mut ahead) = (items, None);
        while !rest.is_empty() {
            let Some((ready, behind)) = ahead.take().or_else(|| self.make_ready(rest)) else {
                self.learn(rest).await?;
                continue;
            };
            rest = behind;
            self.stretches.grow();
            match ready {
                // What is known may change with it.
                Ready::InOrder(items) => self.changes(items).await?,
                Ready::Net(mut tables) => {
                    self.send_ready(&mut tables, |step| !step.waits()).await?;
                    ahead = self.make_ready(rest);
                    self.send_ready(&mut tables, |_| true).await?;
                }
            }
        }
        self.land().await
    }

    /// The next stretch, and what is behind it; `None`: it begins with a relation whose table has to be looked up first.
    fn make_ready<'i>(&mut self, items: &'i [Item<'a>]) -> Option<(Ready<'a, 'i>, &'i [Item<'a>])> {
        let (here, _) = items.split_at(self.stretches.next.min(items.len()));
        let (segment, taken, end) = self.segment(here);
        if taken == 0 && matches!(end, End::Unknown) {
            return None;
        }
        // At a barrier the next change goes alone.
        let (here, behind) = items.split_at(taken.max(1).min(items.len()));
        if segment.changes < FOLD_FROM {
            return Some((Ready::InOrder(here), behind));
        }
        let tables = segment.tables.into_iter().filter_map(|of_table| {
            let (first, map) = (*of_table.items.first()?, Arc::clone(&of_table.map));
            let in_order = self.distrust.holds(map.name(), self.batch_number);
            let staged = match self.staged {
                false => Staged::Never,
                true if self.stages.contains(&map.table.oid) => Staged::Always,
                true => Staged::IfMany,
            };
            Some(TableReady { map, first, steps: of_table.steps(in_order, staged).into() })
        });
        Some((Ready::Net(tables.collect()), behind))
    }

    /// The segment that begins here, how many changes it takes, and why it ends.
    fn segment(&mut self, items: &[Item<'a>]) -> (Segment<'a>, usize, End) {
        let mut segment = Segment::default();
        for (taken, item) in items.iter().enumerate() {
            let relation = match item.change {
                Change::Insert { relation, .. }
                | Change::Update { relation, .. }
                | Change::Delete { relation, .. } => relation,
                Change::Message { .. } => continue,
                Change::Truncate { .. } => return (segment, taken, End::Here),
            };
            let table = match segment.table_of(relation) {
                Some(table) => table,
                None => {
                    let Some(map) = self.known.map(relation) else { return (segment, taken, End::Unknown) };
                    self.touched.add(map);
                    match segment.admit(map) {
                        Some(table) => table,
                        None => return (segment, taken, End::Here),
                    }
                }
            };
            segment.push(table, *item);
        }
        (segment, items.len(), End::Here)
    }

    /// Looks up the table of the next change.
    async fn learn(&mut self, items: &[Item<'a>]) -> Result<(), TargetError> {
        match items.first().map(|item| item.change) {
            Some(
                Change::Insert { relation, .. }
                | Change::Update { relation, .. }
                | Change::Delete { relation, .. },
            ) => self.map(relation, items).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Sends the steps of each table up to the first that may not go now.
    async fn send_ready(
        &mut self,
        tables: &mut [TableReady<'a>],
        may_go: fn(&Step<'a>) -> bool,
    ) -> Result<(), TargetError> {
        for TableReady { map, first, steps } in tables {
            while steps.front().is_some_and(may_go) {
                let Some(step) = steps.pop_front() else { break };
                self.send_step(map, *first, step).await?;
            }
        }
        Ok(())
    }

    async fn send_step(
        &mut self,
        map: &Arc<TableMap>,
        first: Item<'a>,
        step: Step<'a>,
    ) -> Result<(), TargetError> {
        match step {
            Step::Set { operation, sql, rows, expected } => {
                self.set(map, operation, sql, rows, expected).await
            }
            Step::Staged { set, sent, chunks, expected } => {
                self.stage(map, &sent, chunks, expected).await?;
                let sql = sql::update_from_stage(map, &set);
                self.send(net(map, "update", expected), sql.len(), run_sql(self.client, sql)).await
            }
            Step::Copy { chunks, expected } => self.copy_net(map, first, chunks, expected).await,
            Step::Row(change) => self.net_row(map, change).await,
            Step::InOrder(items) => self.changes(&items).await,
        }
    }

    async fn set(
        &mut self,
        map: &Arc<TableMap>,
        operation: &'static str,
        text: String,
        rows: Bytes,
        expected: u64,
    ) -> Result<(), TargetError> {
        let (client, bytes) = (self.client, rows.len());
        let request = async move {
            let rows = RawCell(Cow::Owned(Cell::Text(rows)));
            client.execute_typed(&text, &[(&rows, sql::PARAMETER)]).await.map(Reply::Rows)
        };
        self.send(net(map, operation, expected), bytes, request).await
    }

    /// Fills the table's temporary table, which is made at the first time in a transaction.
    async fn stage(
        &mut self,
        map: &Arc<TableMap>,
        sent: &Mask,
        chunks: Vec<Bytes>,
        expected: u64,
    ) -> Result<(), TargetError> {
        let failed = |source| TargetError::Set { table: map.name().clone(), operation: "update", source };
        self.land().await?;
        let new = self.stages.insert(map.table.oid);
        let empty = if new { sql::create_stage(map) } else { sql::empty_stage(map) };
        self.client.batch_execute(&empty).await.map_err(failed)?;
        let statement = self.client.prepare(&sql::fill_stage(map, sent)).await.map_err(failed)?;
        let sink = self.begin_copy(&statement).await?.map_err(failed)?;
        self.send(net(map, "update", expected), COPY_CHUNK_BYTES, copy_chunks(sink, chunks)).await
    }

    async fn copy_net(
        &mut self,
        map: &Arc<TableMap>,
        first: Item<'a>,
        chunks: Vec<Bytes>,
        expected: u64,
    ) -> Result<(), TargetError> {
        let tag = || Tag::Copy { items: vec![first], map: Arc::clone(map) };
        let Prepared { statement, .. } = self.statement(map, Shape::Copy, tag).await?;
        let sink = self.begin_copy(&statement).await?.map_err(|source| self.blame(tag(), source))?;
        self.send(net(map, "insert", expected), COPY_CHUNK_BYTES, copy_chunks(sink, chunks)).await
    }

    async fn net_row(&mut self, map: &Arc<TableMap>, change: Change) -> Result<(), TargetError> {
        let Some(shape) = Shape::of(map, &change)? else { return Ok(()) };
        let tag = || net(map, operation(&change), 1);
        let Prepared { statement, slots } = self.statement(map, shape, tag).await?;
        let cells = cells(&change, &slots)?.into_iter().map(|cell| RawCell(Cow::Owned(cell.clone())));
        let cells: Vec<RawCell<'static>> = cells.collect();
        let client = self.client;
        let request = async move { client.execute_raw(&statement, cells).await.map(Reply::Rows) };
        self.send(tag(), size_bytes(&change), request).await
    }
}

fn net<'a>(map: &Arc<TableMap>, operation: &'static str, expected: u64) -> Tag<'a> {
    Tag::Net { map: Arc::clone(map), operation, expected }
}

async fn run_sql(client: &Client, sql: String) -> Result<Reply, Error> {
    client.execute_typed(&sql, &[]).await.map(Reply::Rows)
}

/// The rows go by a task of their own, so that they do not wait until somebody asks for the answer.
async fn copy_chunks(sink: CopyInSink<Bytes>, chunks: Vec<Bytes>) -> Result<Reply, Error> {
    let sent = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut sink = pin!(sink);
        for chunk in chunks {
            sink.feed(chunk).await?;
        }
        sink.finish().await.map(Reply::Rows)
    }));
    match sent.await.map_err(JoinError::try_into_panic) {
        Ok(reply) => reply,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends, and this with it.
        Err(Err(_)) => pending().await,
    }
}
