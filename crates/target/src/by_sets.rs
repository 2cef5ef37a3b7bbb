//! A batch by sets: each segment's changes are folded, and what they amount to is sent.
//!
//! What may not enter: what a segment is, how changes fold, and what happens when this fails.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt;
use relevo_model::{Cell, Change};
use tokio_postgres::{Client, CopyInSink, Error};

use crate::blame::{Item, operation, size_bytes};
use crate::cell::RawCell;
use crate::error::TargetError;
use crate::flight::Reply;
use crate::known::Prepared;
use crate::mapping::TableMap;
use crate::run::{Run, Tag, cells};
use crate::segment::{COPY_CHUNK_BYTES, Segment, Step};
use crate::set_statement as sql;
use crate::shape::{Mask, Shape};

/// From how many changes folding can pay.
pub(crate) const FOLD_FROM: usize = 16;

impl<'a> Run<'a> {
    /// Sends what the changes amount to, and takes all answers.
    pub(crate) async fn net_changes(&mut self, items: &[Item<'a>]) -> Result<(), TargetError> {
        let mut rest = items;
        while !rest.is_empty() {
            let (segment, taken) = self.segment(rest).await?;
            // At a barrier the next change goes alone.
            let (here, behind) = rest.split_at(taken.max(1));
            if segment.changes < FOLD_FROM {
                self.changes(here).await?;
            } else {
                self.tables(segment).await?;
            }
            rest = behind;
        }
        self.land().await
    }

    /// The segment that begins here, and how many changes it takes.
    async fn segment(&mut self, items: &[Item<'a>]) -> Result<(Segment<'a>, usize), TargetError> {
        let mut segment = Segment::default();
        for (taken, item) in items.iter().enumerate() {
            let relation = match item.change {
                Change::Insert { relation, .. }
                | Change::Update { relation, .. }
                | Change::Delete { relation, .. } => relation,
                Change::Message { .. } => continue,
                Change::Truncate { .. } => return Ok((segment, taken)),
            };
            let table = match segment.table_of(relation) {
                Some(table) => table,
                None => match segment.admit(&self.map(relation).await?) {
                    Some(table) => table,
                    None => return Ok((segment, taken)),
                },
            };
            segment.push(table, *item);
        }
        Ok((segment, items.len()))
    }

    async fn tables(&mut self, segment: Segment<'a>) -> Result<(), TargetError> {
        for of_table in segment.tables {
            let Some(first) = of_table.items.first().copied() else { continue };
            let map = Arc::clone(&of_table.map);
            let in_order = self.distrust.holds(map.name(), self.batch_number);
            for step in of_table.steps(in_order, self.staged) {
                match step {
                    Step::Set { operation, sql, rows, expected } => {
                        self.set(&map, operation, sql, rows, expected).await?;
                    }
                    Step::Staged { set, sent, chunks, expected } => {
                        self.stage(&map, &sent, chunks, expected).await?;
                        let sql = sql::update_from_stage(&map, &set);
                        self.send(net(&map, "update", expected), sql.len(), run_sql(self.client, sql))
                            .await?;
                    }
                    Step::Copy { chunks, expected } => self.copy_net(&map, first, chunks, expected).await?,
                    Step::Row(change) => self.net_row(&map, change).await?,
                    Step::InOrder(items) => self.changes(&items).await?,
                }
            }
        }
        Ok(())
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

    /// `first` stands for the table's changes should the server not even begin.
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

async fn copy_chunks(sink: CopyInSink<Bytes>, chunks: Vec<Bytes>) -> Result<Reply, Error> {
    let mut sink = pin!(sink);
    for chunk in chunks {
        sink.feed(chunk).await?;
    }
    sink.finish().await.map(Reply::Rows)
}
