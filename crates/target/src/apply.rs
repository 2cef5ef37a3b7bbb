//! Applies batches: one transaction of the target for each, sent without waiting for the answers in between.
//!
//! Changes go in the source's order, row by row; only runs of inserts into one table go by COPY. What may not
//! enter: how SQL for a change looks, and how a session is opened.

use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use relevo_catalog::TableName;
use relevo_model::{
    Applied, Batch, Change, ChangeTarget, FlowName, Progress, Relation, SourceLsn, TargetLsn, TransactionHeader,
};
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, Error, Statement};
use tracing::info;

use crate::blame::{Item, column_of_statement, line_of_copy, operation, size_bytes};
use crate::cell::RawCell;
use crate::copy;
use crate::error::{FailedChange, TargetError, is_altered, is_read_only};
use crate::flight::{Flight, Reply};
use crate::known::{Known, Prepared, same};
use crate::mapping::TableMap;
use crate::missing::Missing;
use crate::open::PgTarget;
use crate::shape::Shape;
use crate::statement::{RowOf, Slot, Sql};
use crate::truncate::emptying;

/// The session's transactions are read-only by default. So if this statement alone failed (somebody cancels it),
/// the changes behind it in the pipeline would be refused, instead of being committed one by one.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// From how many inserts in a row COPY pays for the extra round trip of its start.
const COPY_FROM_ROWS: usize = 16;
/// How much COPY data goes in one message, in bytes.
const COPY_CHUNK_BYTES: usize = 64 << 10;

/// What a request under way was for.
enum Tag<'a> {
    /// A statement that belongs to no change.
    Session(&'static str),
    /// One row change.
    Row { item: Item<'a>, map: Arc<TableMap>, slots: Arc<[Slot]> },
    /// Inserts by COPY.
    Copy { items: &'a [Item<'a>], map: Arc<TableMap> },
    /// Emptying tables, of which the first is named.
    Truncate { item: Item<'a>, map: Arc<TableMap> },
    /// The progress.
    Progress { expected: SourceLsn },
}

impl ChangeTarget for PgTarget {
    type Error = TargetError;

    fn progress(&self) -> &Progress {
        &self.progress
    }

    async fn apply(&mut self, batch: Batch) -> Result<Applied, TargetError> {
        if self.spent {
            return Err(TargetError::Spent);
        }
        // Stays set when this future is dropped half-way.
        self.spent = true;
        let applied = self.apply_batch(&batch).await?;
        self.spent = false;
        Ok(applied)
    }
}

impl PgTarget {
    async fn apply_batch(&mut self, batch: &Batch) -> Result<Applied, TargetError> {
        self.check_contract(batch)?;
        self.batch_number += 1;
        let items: Vec<Item<'_>> = batch
            .parts
            .iter()
            .flat_map(|part| part.changes.iter().map(|change| Item { header: &part.header, change }))
            .collect();
        let mut run = Run {
            client: &self.session,
            flow: &self.flow,
            known: &mut self.known,
            missing: &mut self.missing,
            flight: Flight::new(),
            batch_number: self.batch_number,
            written_to: None,
        };
        if !self.in_transaction {
            run.session(BEGIN, "beginning a transaction").await?;
        }
        run.changes(&items).await?;
        if batch.unfinished() {
            run.finish().await?;
            self.in_transaction = true;
            return Ok(Applied { position: None, durable_at: None, missing_rows: self.missing.end_batch() });
        }
        let ended = batch.parts.iter().rev().find(|part| part.end.is_some());
        let next = next_progress(&self.progress, batch, ended.map(|part| &*part.header));
        run.advance(&self.advance, &self.progress, &next, ended.is_some()).await?;
        run.session("COMMIT", "committing").await?;
        if let Some(statement) = &self.insert_position {
            run.ask_position(statement).await?;
        }
        let written_to = run.finish().await?;
        self.in_transaction = false;
        self.progress = next;
        self.missing.record(&self.session, &self.flow).await;
        Ok(Applied {
            position: Some(self.progress.applied),
            durable_at: written_to.map(|lsn| lsn.flush_bound(self.wal.block_bytes, self.wal.segment_bytes)),
            missing_rows: self.missing.end_batch(),
        })
    }

    fn check_contract(&self, batch: &Batch) -> Result<(), TargetError> {
        let part_continues = batch.continues();
        if self.in_transaction != part_continues {
            return Err(TargetError::Contract(if part_continues {
                "a batch continues a transaction that was not begun"
            } else {
                "a transaction was left unfinished"
            }));
        }
        if batch.unfinished() {
            return Ok(());
        }
        match batch.position.or_else(|| batch.parts.last().and_then(|part| part.end)) {
            Some(position) if position >= self.progress.applied => Ok(()),
            Some(_) => Err(TargetError::Contract("a batch lies before what was applied already")),
            None => Err(TargetError::Contract("a batch has neither changes nor a position")),
        }
    }
}

/// Where the progress stands after the batch.
fn next_progress(now: &Progress, batch: &Batch, ended: Option<&TransactionHeader>) -> Progress {
    let end = batch.parts.last().and_then(|part| part.end);
    Progress {
        applied: batch.position.or(end).unwrap_or(now.applied),
        commit_lsn: ended.map(|header| header.commit_lsn).or(now.commit_lsn),
        commit_time: ended.map(|header| header.commit_time).or(now.commit_time),
    }
}

/// One batch on its way.
struct Run<'a> {
    client: &'a Client,
    flow: &'a FlowName,
    known: &'a mut Known,
    missing: &'a mut Missing,
    flight: Flight<'a, Tag<'a>>,
    batch_number: u64,
    /// How far the target's WAL was written after the commit.
    written_to: Option<TargetLsn>,
}

impl<'a> Run<'a> {
    /// Sends a request, and takes answers when many are under way.
    async fn send(
        &mut self,
        tag: Tag<'a>,
        bytes: usize,
        request: impl Future<Output = Result<Reply, Error>> + Send + 'a,
    ) -> Result<(), TargetError> {
        self.flight.push(tag, bytes, request).await;
        while self.flight.is_full() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Takes the oldest answer. Returns whether there was one.
    async fn settle(&mut self) -> Result<bool, TargetError> {
        let Some((tag, answer)) = self.flight.next().await else { return Ok(false) };
        match (answer, tag) {
            // Answers come in order, so this is the first error and not one that follows from it.
            (Err(error), tag) => return Err(self.blame(tag, error)),
            (Ok(Reply::Rows(0)), Tag::Row { item, map, .. })
                if !matches!(item.change, Change::Insert { .. }) =>
            {
                self.missing.note(self.flow, &item, &map);
            }
            (Ok(Reply::Position(position)), _) => self.written_to = Some(position),
            (Ok(Reply::Rows(_) | Reply::Done), _) => {}
        }
        Ok(true)
    }

    /// Takes all answers.
    async fn land(&mut self) -> Result<(), TargetError> {
        while self.settle().await? {}
        Ok(())
    }

    /// Takes all answers. Returns how far the WAL was written, if that was asked.
    async fn finish(mut self) -> Result<Option<TargetLsn>, TargetError> {
        self.land().await?;
        Ok(self.written_to)
    }

    async fn session(&mut self, sql: &'static str, action: &'static str) -> Result<(), TargetError> {
        let client = self.client;
        let request = async move { client.batch_execute(sql).await.map(|()| Reply::Done) };
        self.send(Tag::Session(action), sql.len(), request).await
    }

    async fn changes(&mut self, items: &'a [Item<'a>]) -> Result<(), TargetError> {
        let mut rest = items;
        while let Some((item, after)) = rest.split_first() {
            match item.change {
                Change::Insert { relation, .. } => {
                    let map = self.map(relation).await?;
                    let (run, behind) = rest.split_at(run_of_inserts(rest, relation));
                    // Rules and triggers that fire here expect the statement that the source ran.
                    let plain = !map.table.fires_in_replica && !relation.columns.is_empty();
                    if run.len() >= COPY_FROM_ROWS && plain {
                        self.copy(map, run).await?;
                        rest = behind;
                        continue;
                    }
                    // Those of a short run go singly, without looking at each again.
                    let (singles, behind) = rest.split_at(run.len().clamp(1, rest.len()));
                    for item in singles {
                        self.row(Arc::clone(&map), *item).await?;
                    }
                    rest = behind;
                    continue;
                }
                Change::Update { relation, .. } | Change::Delete { relation, .. } => {
                    let map = self.map(relation).await?;
                    self.row(map, *item).await?;
                }
                Change::Truncate { relations, restart_identity, .. } => {
                    self.truncate(*item, relations, *restart_identity).await?;
                }
                // Changes nothing. It counts towards the position like everything else.
                Change::Message { .. } => {}
            }
            rest = after;
        }
        Ok(())
    }

    async fn row(&mut self, map: Arc<TableMap>, item: Item<'a>) -> Result<(), TargetError> {
        let Some(shape) = Shape::of(&map, item.change)? else { return Ok(()) };
        let Prepared { statement, slots } = self.statement(&map, shape, &item).await?;
        let cells = cells(item.change, &slots)?;
        let client = self.client;
        let request = async move { client.execute_raw(&statement, cells).await.map(Reply::Rows) };
        self.send(Tag::Row { item, map, slots }, size_bytes(item.change), request).await
    }

    async fn copy(&mut self, map: Arc<TableMap>, items: &'a [Item<'a>]) -> Result<(), TargetError> {
        let Some(first) = items.first() else { return Ok(()) };
        for item in items {
            Shape::of(&map, item.change)?;
        }
        let Prepared { statement, .. } = self.statement(&map, Shape::Copy, first).await?;
        let client = self.client;
        // Runs until the server is ready for data, and is finished when its turn comes.
        self.send(Tag::Copy { items, map }, COPY_CHUNK_BYTES, copy_rows(client, statement, items)).await
    }

    async fn truncate(
        &mut self,
        item: Item<'a>,
        relations: &[Arc<Relation>],
        restart_identity: bool,
    ) -> Result<(), TargetError> {
        let mut maps: Vec<Arc<TableMap>> = Vec::with_capacity(relations.len());
        for relation in relations {
            let map = self.map(relation).await?;
            // Several partitions on the source may be one table here.
            if maps.iter().all(|have| have.table.oid != map.table.oid) {
                maps.push(map);
            }
        }
        let Some(first) = maps.first().cloned() else { return Ok(()) };
        self.land().await?;
        let tables: Vec<_> = maps.iter().map(|map| &map.table).collect();
        let tag = || Tag::Truncate { item, map: Arc::clone(&first) };
        let emptying =
            emptying(self.client, &tables, restart_identity).await.map_err(|error| self.blame(tag(), error))?;
        if let Some(key) = &emptying.blocked_by {
            info!(
                flow = %self.flow, table = %first.name(), foreign_key = key,
                "target: a foreign key keeps TRUNCATE out; the rows are deleted instead"
            );
        }
        let client = self.client;
        for sql in emptying.statements {
            let request = async move { client.batch_execute(&sql).await.map(|()| Reply::Done) };
            self.send(tag(), 0, request).await?;
        }
        Ok(())
    }

    /// Moves the progress. The server itself refuses the transaction when the progress is not where it should be.
    async fn advance(
        &mut self,
        statement: &Statement,
        now: &Progress,
        next: &Progress,
        moves_commit: bool,
    ) -> Result<(), TargetError> {
        let (client, statement, flow) = (self.client, statement.clone(), self.flow.as_str());
        let lsn = |lsn: SourceLsn| PgLsn::from(lsn.as_u64());
        let (from, to) = (lsn(now.applied), lsn(next.applied));
        let commit_lsn = next.commit_lsn.filter(|_| moves_commit).map(lsn);
        let commit_time = next.commit_time.filter(|_| moves_commit).map(SystemTime::from);
        let request = async move {
            let done = client.execute(&statement, &[&flow, &from, &to, &commit_lsn, &commit_time]).await;
            done.map(|_| Reply::Done)
        };
        self.send(Tag::Progress { expected: now.applied }, 128, request).await
    }

    async fn ask_position(&mut self, statement: &Statement) -> Result<(), TargetError> {
        let (client, statement) = (self.client, statement.clone());
        let request = async move {
            let row = client.query_one(&statement, &[]).await?;
            let lsn: PgLsn = row.try_get(0)?;
            Ok(Reply::Position(TargetLsn::new(lsn.into())))
        };
        self.send(Tag::Session("asking for the WAL position"), 16, request).await
    }

    /// The table that the relation means.
    async fn map(&mut self, relation: &Arc<Relation>) -> Result<Arc<TableMap>, TargetError> {
        if let Some(map) = self.known.map(relation) {
            return Ok(Arc::clone(map));
        }
        self.land().await?;
        let name = TableName::new(&relation.schema, &relation.name);
        let table = relevo_catalog::table(self.client, &name)
            .await
            .map_err(|source| TargetError::Catalog { table: name.clone(), source })?
            .ok_or(TargetError::MissingTable { table: name })?;
        let map = Arc::new(TableMap::new(relation, table, self.batch_number)?);
        self.known.learn_map(Arc::clone(&map));
        Ok(map)
    }

    /// The statement for the shape, prepared when it is the first time.
    async fn statement(
        &mut self,
        map: &TableMap,
        shape: Shape,
        item: &Item<'a>,
    ) -> Result<Prepared, TargetError> {
        let key = (map.relation.id, shape);
        if let Some(prepared) = self.known.statement(&key) {
            return Ok(prepared.clone());
        }
        self.land().await?;
        let sql = Sql::new(map, &key.1);
        let prepared = self.client.prepare_typed(&sql.text, &sql.types(map)).await;
        let statement = prepared.map_err(|source| self.failed(item.failed(map, None), map, source))?;
        let prepared = Prepared { statement, slots: sql.slots.into() };
        self.known.learn_statement(key, prepared.clone());
        Ok(prepared)
    }

    /// Says which change an error is about.
    fn blame(&self, tag: Tag<'a>, source: Error) -> TargetError {
        let (change, map): (FailedChange, _) = match tag {
            Tag::Session(action) => return TargetError::session(action)(source),
            Tag::Progress { expected } => {
                let moved = source.code() == Some(&tokio_postgres::error::SqlState::DIVISION_BY_ZERO);
                return if moved {
                    TargetError::ProgressMoved { flow: self.flow.clone(), expected, source }
                } else {
                    TargetError::session("recording the progress")(source)
                };
            }
            Tag::Row { item, map, slots } => {
                let column = source.as_db_error().and_then(|error| column_of_statement(error, &map, &slots));
                (item.failed(&map, column), map)
            }
            Tag::Truncate { item, map } => (item.failed(&map, None), map),
            Tag::Copy { items, map } => {
                let (line, column) = source.as_db_error().map_or((None, None), |error| line_of_copy(error, &map));
                let Some(first) = items.first() else { return TargetError::session("copying rows")(source) };
                let failed = match line.and_then(|line| items.get(line)) {
                    Some(item) => item.failed(&map, column),
                    None => FailedChange { key: String::new(), ..first.failed(&map, column) },
                };
                (failed, map)
            }
        };
        self.failed(change, &map, source)
    }

    fn failed(&self, change: FailedChange, map: &TableMap, source: Error) -> TargetError {
        if is_read_only(&source) {
            return TargetError::ReadOnly { source };
        }
        let outdated = is_altered(&source) && map.read_in_batch != self.batch_number;
        TargetError::Change { change: Box::new(change), outdated, source }
    }
}

/// How many of the first items are inserts into the relation that COPY can carry.
fn run_of_inserts(items: &[Item<'_>], relation: &Arc<Relation>) -> usize {
    let belongs = |item: &&Item<'_>| match item.change {
        Change::Insert { relation: of, new } => same(of, relation) && copy::carries(new),
        _ => false,
    };
    items.iter().take_while(belongs).count()
}

/// The parameters in the order of the statement.
fn cells<'a>(change: &'a Change, slots: &[Slot]) -> Result<Vec<RawCell<'a>>, TargetError> {
    let (old, new) = match change {
        Change::Insert { new, .. } => (None, Some(new)),
        Change::Update { old, new, .. } => (old.as_ref().map(|old| old.row()), Some(new)),
        Change::Delete { old, .. } => (Some(old.row()), None),
        Change::Truncate { .. } | Change::Message { .. } => (None, None),
    };
    slots
        .iter()
        .map(|slot| {
            let row = if slot.row == RowOf::Old { old } else { new };
            row.and_then(|row| row.0.get(slot.column)).map(RawCell)
        })
        .collect::<Option<_>>()
        .ok_or_else(|| TargetError::Contract(operation_lacks_row(change)))
}

fn operation_lacks_row(change: &Change) -> &'static str {
    match operation(change) {
        "update" => "an update lacks a row that its statement needs",
        "delete" => "a delete lacks a row that its statement needs",
        _ => "a change lacks a row that its statement needs",
    }
}

async fn copy_rows(client: &Client, statement: Statement, items: &[Item<'_>]) -> Result<Reply, Error> {
    let mut sink = pin!(client.copy_in::<_, Bytes>(&statement).await?);
    let mut chunk = BytesMut::with_capacity(COPY_CHUNK_BYTES + COPY_CHUNK_BYTES / 4);
    for item in items {
        if let Change::Insert { new, .. } = item.change {
            copy::put_row(new, &mut chunk);
        }
        if chunk.len() >= COPY_CHUNK_BYTES {
            sink.feed(chunk.split().freeze()).await?;
        }
    }
    if !chunk.is_empty() {
        sink.feed(chunk.freeze()).await?;
    }
    sink.finish().await.map(Reply::Rows)
}
