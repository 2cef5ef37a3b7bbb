//! One batch on its way: its changes sent in the source's order, and the answers taken in the same order.
//!
//! Here changes go row by row; only runs of inserts into one table go by COPY. [`crate::by_sets`] sends what many changes
//! amount to. What may not enter: how the SQL for a change looks, and when a transaction begins and ends.

use std::borrow::Cow;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use relevo_catalog::TableName;
use relevo_model::{Cell, Change, FlowName, Progress, QualifiedName, Relation, SourceLsn, TargetLsn};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{PgLsn, ToSql};
use tokio_postgres::{Client, CopyInSink, Error, SimpleQueryMessage, Statement};
use tracing::info;

use crate::blame::{Item, column_of_statement, line_of_copy, operation, size_bytes};
use crate::by_sets::Stretches;
use crate::cell::RawCell;
use crate::copy;
use crate::distrust::Distrust;
use crate::error::{FailedChange, TargetError, is_altered, is_read_only};
use crate::flight::{Flight, Reply};
use crate::known::{Known, Prepared, same};
use crate::mapping::TableMap;
use crate::missing::Missing;
use crate::segment::COPY_CHUNK_BYTES;
use crate::shape::Shape;
use crate::stamp::{Touched, stamps};
use crate::statement::{RowOf, Slot, Sql};
use crate::truncate::emptying;

/// From how many inserts in a row COPY pays for the extra round trip of its start.
const COPY_FROM_ROWS: usize = 16;
const FLUSH_THIS: &str = "SET LOCAL synchronous_commit = on";
/// Both in one message: what is asked behind it holds up the next transaction less.
const COMMIT_AND_ASK: &str = "COMMIT; SELECT pg_catalog.pg_current_wal_insert_lsn()";

/// What a request under way was for.
pub(crate) enum Tag<'a> {
    /// A statement that belongs to no change.
    Session(&'static str),
    /// One row change.
    Row { item: Item<'a>, map: Arc<TableMap>, slots: Arc<[Slot]> },
    /// Inserts by COPY.
    Copy { items: Vec<Item<'a>>, map: Arc<TableMap> },
    /// What changes amount to.
    Net { map: Arc<TableMap>, operation: &'static str, expected: u64 },
    /// Emptying tables, of which the first is named.
    Truncate { item: Item<'a>, map: Arc<TableMap> },
    /// The progress, and whether the tables are as they were.
    Progress { expected: SourceLsn },
    /// The COMMIT with the question how far the WAL was written.
    Commit,
}

/// One batch on its way.
pub(crate) struct Run<'a> {
    pub(crate) client: &'a Client,
    pub(crate) flow: &'a FlowName,
    pub(crate) known: &'a mut Known,
    pub(crate) missing: &'a mut Missing,
    pub(crate) touched: &'a mut Touched,
    pub(crate) distrust: &'a Distrust,
    pub(crate) flight: Flight<'a, Tag<'a>>,
    pub(crate) batch_number: u64,
    /// How far the target's WAL was written after the commit.
    pub(crate) written_to: Option<TargetLsn>,
    /// Whether rows may go through temporary tables, and the tables that have one.
    pub(crate) staged: bool,
    pub(crate) stages: &'a mut HashSet<u32>,
    /// How much is made ready at once.
    pub(crate) stretches: Stretches,
    /// Whether the session must outlive an error, see [`Run::begin_copy`].
    pub(crate) can_fail: bool,
    /// A row that is missing is an error.
    pub(crate) exact: bool,
    /// The session did not outlive it.
    pub(crate) broken: &'a mut bool,
}

impl<'a> Run<'a> {
    /// Sends a request, and takes answers when many are under way.
    pub(crate) async fn send(
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
                if self.exact {
                    let (table, operation) = (map.name().clone(), operation(item.change));
                    return Err(TargetError::SetCount { table, operation, expected: 1, found: 0 });
                }
                self.missing.note(self.flow, &item, &map);
            }
            (Ok(Reply::Rows(found)), Tag::Net { map, operation, expected }) if found != expected => {
                return Err(TargetError::SetCount { table: map.name().clone(), operation, expected, found });
            }
            (Ok(Reply::Position(position)), _) => self.written_to = Some(position),
            // Without it the commit would pass for one that was flushed.
            (Ok(Reply::Done), Tag::Commit) => {
                return Err(TargetError::Contract("the target did not say how far its WAL was written"));
            }
            (Ok(Reply::Rows(_) | Reply::Done), _) => {}
        }
        Ok(true)
    }

    /// Takes all answers.
    pub(crate) async fn land(&mut self) -> Result<(), TargetError> {
        while self.settle().await? {}
        Ok(())
    }

    /// Takes all answers. Returns how far the WAL was written, if that was asked.
    pub(crate) async fn finish(mut self) -> Result<Option<TargetLsn>, TargetError> {
        self.land().await?;
        Ok(self.written_to)
    }

    pub(crate) async fn session(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
        action: &'static str,
    ) -> Result<(), TargetError> {
        let (client, sql) = (self.client, sql.into());
        let bytes = sql.len();
        let request = async move { client.batch_execute(&sql).await.map(|()| Reply::Done) };
        self.send(Tag::Session(action), bytes, request).await
    }

    /// Sends changes one by one.
    pub(crate) async fn changes(&mut self, items: &[Item<'a>]) -> Result<(), TargetError> {
        let mut rest = items;
        while let Some((item, after)) = rest.split_first() {
            match item.change {
                Change::Insert { relation, .. } => {
                    let map = self.map(relation, rest).await?;
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
                    let map = self.map(relation, rest).await?;
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
        let tag = || Tag::Row { item, map: Arc::clone(&map), slots: Arc::default() };
        let Prepared { statement, slots } = self.statement(&map, shape, tag).await?;
        let cells = cells(item.change, &slots)?.into_iter().map(|cell| RawCell(Cow::Borrowed(cell)));
        let client = self.client;
        let request = async move { client.execute_raw(&statement, cells).await.map(Reply::Rows) };
        self.send(Tag::Row { item, map, slots }, size_bytes(item.change), request).await
    }

    async fn copy(&mut self, map: Arc<TableMap>, items: &[Item<'a>]) -> Result<(), TargetError> {
        for item in items {
            Shape::of(&map, item.change)?;
        }
        let tag = || Tag::Copy { items: items.to_vec(), map: Arc::clone(&map) };
        let Prepared { statement, .. } = self.statement(&map, Shape::Copy, tag).await?;
        let (tag, items) = (tag(), items.to_vec());
        if self.can_fail {
            let sink = self.begin_copy(&statement).await?.map_err(|source| self.blame(tag, source))?;
            let tag = Tag::Copy { items: items.clone(), map: Arc::clone(&map) };
            return self.send(tag, COPY_CHUNK_BYTES, copy_rows(sink, items)).await;
        }
        let client = self.client;
        // Runs until the server is ready for data, and is finished when its turn comes.
        let request = async move { copy_rows(client.copy_in(&statement).await?, items).await };
        self.send(tag, COPY_CHUNK_BYTES, request).await
    }

    /// Begins a COPY with nothing else under way, and waits until the server takes data.
    ///
    /// A COPY that the server refuses to begin, be it only because an earlier statement has failed, leaves tokio-postgres
    /// with one answer more than it expects, and the session is of no use any more.
    pub(crate) async fn begin_copy(
        &mut self,
        statement: &Statement,
    ) -> Result<Result<CopyInSink<Bytes>, Error>, TargetError> {
        self.land().await?;
        let begun = self.client.copy_in(statement).await;
        *self.broken |= begun.is_err();
        Ok(begun)
    }

    async fn truncate(
        &mut self,
        item: Item<'a>,
        relations: &[Arc<Relation>],
        restart_identity: bool,
    ) -> Result<(), TargetError> {
        let mut maps: Vec<Arc<TableMap>> = Vec::with_capacity(relations.len());
        for relation in relations {
            let map = self.map(relation, &[]).await?;
            // Several partitions on the source may be one table here.
            if maps.iter().all(|have| have.table.oid != map.table.oid) {
                maps.push(map);
            }
        }
        let Some(first) = maps.first().cloned() else { return Ok(()) };
        self.land().await?;
        let tables: Vec<_> = maps.iter().map(|map| &map.table).collect();
        let tag = || Tag::Truncate { item, map: Arc::clone(&first) };
        let emptying = emptying(self.client, &tables, restart_identity)
            .await
            .map_err(|error| self.blame(tag(), error))?;
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
        for map in &maps {
            self.touched.remove(map);
        }
        for relation in relations {
            self.known.forget_map(relation);
        }
        Ok(())
    }

    /// Lets arrived tables follow the stream from the end of this transaction on. It is flushed with its commit: what
    /// the tables have missed may be forgotten after it.
    pub(crate) async fn join(&mut self, tables: &[QualifiedName]) -> Result<(), TargetError> {
        self.session(FLUSH_THIS, "joining tables").await?;
        self.land().await?;
        let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.flow.as_str(), &schemas, &names];
        let done = self.client.execute(relevo_state::JOIN_TABLES, &parameters).await;
        done.map(drop).map_err(|source| {
            if !raised_by_us(&source) {
                return TargetError::session("joining tables")(source);
            }
            let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
            TargetError::NotCopied { flow: self.flow.clone(), tables: tables.join(", "), source }
        })
    }

    /// Moves the progress. The server itself refuses the transaction when the progress is not where it should be, or when a
    /// table of the transaction was altered since it was read.
    pub(crate) async fn advance(
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
        let (oids, stamps) = self.touched.stamps();
        let bytes = 128 + 16 * oids.len();
        let request = async move {
            let parameters: [&(dyn ToSql + Sync); 7] =
                [&flow, &from, &to, &commit_lsn, &commit_time, &oids, &stamps];
            client.execute(&statement, &parameters).await.map(|_| Reply::Done)
        };
        self.send(Tag::Progress { expected: now.applied }, bytes, request).await
    }

    /// Commits, and asks how far the WAL was written if it is `asynchronous`.
    pub(crate) async fn commit(&mut self, asynchronous: bool) -> Result<(), TargetError> {
        if !asynchronous {
            return self.session("COMMIT", "committing").await;
        }
        let client = self.client;
        let request = async move {
            let answer = client.simple_query(COMMIT_AND_ASK).await?;
            Ok(position(&answer).map_or(Reply::Done, Reply::Position))
        };
        self.send(Tag::Commit, COMMIT_AND_ASK.len(), request).await
    }

    /// The table that the relation means, which the transaction touches from now on. When it has to be looked up, so are those
    /// of the changes `behind` it: a question about many tables takes the server little longer than one about one, and it
    /// is asked when a session is new.
    pub(crate) async fn map(
        &mut self,
        relation: &Arc<Relation>,
        behind: &[Item<'a>],
    ) -> Result<Arc<TableMap>, TargetError> {
        let map = match self.known.map(relation) {
            Some(map) => Arc::clone(map),
            None => self.look_up(self.known.unknown(relation, behind)).await?,
        };
        self.touched.add(&map);
        Ok(map)
    }

    /// Looks up the tables of these relations. The first has to be there and fit; if another does not, its own turn will say
    /// so.
    async fn look_up(
        &mut self,
        (first, others): (&Arc<Relation>, Vec<&'a Arc<Relation>>),
    ) -> Result<Arc<TableMap>, TargetError> {
        self.land().await?;
        let name_of = |relation: &Arc<Relation>| TableName::new(&relation.schema, &relation.name);
        let name = name_of(first);
        let names: Vec<TableName> =
            std::iter::once(name.clone()).chain(others.iter().map(|other| name_of(other))).collect();
        let stamps = stamps(self.client, &names)
            .await
            .map_err(TargetError::session("reading the tables' catalog rows"))?;
        let tables = relevo_catalog::tables(self.client, &names)
            .await
            .map_err(|source| TargetError::Catalog { table: name.clone(), source })?;
        let map_of = |relation: &Arc<Relation>| {
            let name = name_of(relation);
            let table = tables.iter().find(|table| table.name == name).cloned();
            let table = table.ok_or(TargetError::MissingTable { table: name.clone() })?;
            let stamp = stamps.get(&name).copied().unwrap_or_default();
            Ok::<_, TargetError>(Arc::new(TableMap::new(relation, table, (self.batch_number, stamp))?))
        };
        let map = map_of(first)?;
        let others: Vec<Arc<TableMap>> = others.into_iter().filter_map(|other| map_of(other).ok()).collect();
        for map in others.into_iter().chain([Arc::clone(&map)]) {
            self.known.learn_map(map);
        }
        Ok(map)
    }

    /// The statement for the shape, prepared when it is the first time. `tag` says what it is for.
    pub(crate) async fn statement(
        &mut self,
        map: &TableMap,
        shape: Shape,
        tag: impl FnOnce() -> Tag<'a>,
    ) -> Result<Prepared, TargetError> {
        let key = (map.relation.id, shape);
        if let Some(prepared) = self.known.statement(&key) {
            return Ok(prepared.clone());
        }
        self.land().await?;
        let sql = Sql::new(map, &key.1);
        let prepared = self.client.prepare_typed(&sql.text, &sql.types(map)).await;
        let statement = prepared.map_err(|source| self.blame(tag(), source))?;
        let prepared = Prepared { statement, slots: sql.slots.into() };
        self.known.learn_statement(key, prepared.clone());
        Ok(prepared)
    }

    /// Says which change an error is about.
    pub(crate) fn blame(&self, tag: Tag<'a>, source: Error) -> TargetError {
        let (change, map): (FailedChange, _) = match tag {
            Tag::Session(action) => return TargetError::session(action)(source),
            Tag::Commit => return TargetError::session("committing")(source),
            Tag::Progress { expected } => {
                return match source.code() {
                    Some(&SqlState::INVALID_TEXT_REPRESENTATION) => {
                        TargetError::TableAltered { tables: self.touched.names(), source }
                    }
                    _ if raised_by_us(&source) => {
                        TargetError::ProgressMoved { flow: self.flow.clone(), expected, source }
                    }
                    _ => TargetError::session("recording the progress")(source),
                };
            }
            Tag::Net { map, operation, .. } => {
                return TargetError::Set { table: map.name().clone(), operation, source };
            }
            Tag::Row { item, map, slots } => {
                let column = source.as_db_error().and_then(|error| column_of_statement(error, &map, &slots));
                (item.failed(&map, column), map)
            }
            Tag::Truncate { item, map } => (item.failed(&map, None), map),
            Tag::Copy { items, map } => {
                let (line, column) =
                    source.as_db_error().map_or((None, None), |error| line_of_copy(error, &map));
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

/// The way in which our own statements refuse a transaction.
fn raised_by_us(error: &Error) -> bool {
    error.code() == Some(&SqlState::DIVISION_BY_ZERO)
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
pub(crate) fn cells<'a>(change: &'a Change, slots: &[Slot]) -> Result<Vec<&'a Cell>, TargetError> {
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
            row.and_then(|row| row.0.get(slot.column))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| TargetError::Contract(operation_lacks_row(change)))
}

/// The position that [`COMMIT_AND_ASK`] brings.
fn position(answer: &[SimpleQueryMessage]) -> Option<TargetLsn> {
    let value = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    })?;
    value.parse::<PgLsn>().ok().map(|lsn| TargetLsn::new(lsn.into()))
}

fn operation_lacks_row(change: &Change) -> &'static str {
    match operation(change) {
        "update" => "an update lacks a row that its statement needs",
        "delete" => "a delete lacks a row that its statement needs",
        _ => "a change lacks a row that its statement needs",
    }
}

async fn copy_rows(sink: CopyInSink<Bytes>, items: Vec<Item<'_>>) -> Result<Reply, Error> {
    let mut sink = pin!(sink);
    let mut chunk = BytesMut::with_capacity(COPY_CHUNK_BYTES + COPY_CHUNK_BYTES / 4);
    for item in items {
        if let Change::Insert { new, .. } = item.change {
            copy::put_row(new.0.iter(), &mut chunk);
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
