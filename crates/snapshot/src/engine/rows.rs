//! The rows of a table: whole, in one transaction on the target that holds all of its rows and the note that they are
//! there; or, when it is large, in parts, each a transaction with a note of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use relevo_catalog::TableKind;
use relevo_connect::SqlSession;
use relevo_state::{self as state, CopiedRange};
use tokio_postgres::error::SqlState;

use super::describe::{described_as_planned, format};
use super::ranges::{Range, cut, part_bytes};
use super::work::Outcome;
use super::worker::Worker;
use super::{Engine, Table};
use crate::format::Described;
use crate::plan::{not_empty, only};
use crate::pump::{Copied, Pump};
use crate::session::{begin, check_attempt, commit, roll_back};
use crate::unchanged::hold_table;
use crate::{CopyEvent, SnapshotError, sql};

/// A table below this is not emptied for its own sake: writing its rows frozen would win less than TRUNCATE costs.
const FREEZE_BYTES: u64 = 1 << 20;

/// Begins a transaction of the source that sees what the snapshot shows.
pub(crate) async fn import_snapshot(source: &SqlSession, name: &str) -> Result<(), SnapshotError> {
    source.batch_execute(&sql::import_snapshot(name)).await.map_err(|source| match source.code() {
        // "invalid snapshot identifier"; since version 17 also "snapshot … does not exist".
        Some(&SqlState::INVALID_PARAMETER_VALUE | &SqlState::UNDEFINED_OBJECT) => {
            SnapshotError::SnapshotGone { source }
        }
        _ => SnapshotError::source_sql("importing the snapshot")(source),
    })
}

impl Worker<'_, '_> {
    /// The whole table; or, when it is large, only what has to be done before its parts.
    pub(super) async fn rows(&mut self, table: &Table<'_>, repeated: bool) -> Result<Outcome, SnapshotError> {
        let engine = self.engine;
        let flow = &engine.sessions.options.flow;
        let (source, target) = self.both().await?;
        if repeated {
            let there = state::copied_counts(&***target, flow, table.key()).await;
            if let Some((rows, bytes)) = there.map_err(SnapshotError::state)? {
                engine.table_finished(table, (rows, bytes));
                return Ok(Outcome::Done);
            }
        }
        engine.table_started(table);
        let (here, parts) = engine.look_at_source(source, table).await?;
        // By itself, so that it is seen meanwhile.
        state::mark_copying(&***target, flow, table.key().0, table.key().1)
            .await
            .map_err(SnapshotError::state)?;
        begin(target).await?;
        let frozen = engine.make_empty(target, table).await?;
        if parts.len() > 1 {
            end_source(source, table).await?;
            state::forget_ranges(&***target, flow, table.key()).await.map_err(SnapshotError::state)?;
            table.emptied.store(true, Ordering::Relaxed);
            // Flushed: parts that come to a table whose emptying is lost in a crash would come to its old rows.
            engine.commit_flushed(target).await?;
            return Ok(Outcome::Split(parts));
        }
        let copied = engine.pump((source, &here), target, table, (None, frozen)).await?;
        let counts = (signed(copied.stored_rows), signed(copied.bytes));
        state::mark_copied(&***target, flow, table.key(), engine.snapshot.lsn, counts)
            .await
            .map_err(SnapshotError::state)?;
        table.emptied.store(true, Ordering::Relaxed);
        engine.commit_flushed(target).await?;
        engine.table_finished(table, counts);
        Ok(Outcome::Done)
    }

    /// A part of a table that was emptied before.
    pub(super) async fn part(&mut self, table: &Table<'_>, range: Range) -> Result<Outcome, SnapshotError> {
        let engine = self.engine;
        let flow = &engine.sessions.options.flow;
        let (source, target) = self.both().await?;
        import_snapshot(source, &engine.snapshot.name).await?;
        hold_table(source, engine.sessions, table.job).await?;
        let now: Option<u32> = source
            .query_one(sql::FILE_NOW, &[&table.job.table.quoted()])
            .await
            .map_err(SnapshotError::source_sql("looking where the table is stored"))?
            .get(0);
        if now != Some(range.file) {
            end_source(source, table).await?;
            return Ok(Outcome::Rewritten);
        }
        let here = described_as_planned(source, table.job).await?;
        let first_block = signed(range.first);
        begin(target).await?;
        if !state::begin_range(&***target, flow, table.key(), first_block)
            .await
            .map_err(SnapshotError::state)?
        {
            // A session that was lost has committed it.
            end_source(source, table).await?;
            roll_back(target).await?;
            return Ok(Outcome::Done);
        }
        let copied = engine.pump((source, &here), target, table, (Some(range), false)).await?;
        let note = CopiedRange { first_block, rows: signed(copied.stored_rows), bytes: signed(copied.bytes) };
        state::finish_range(&***target, flow, table.key(), note).await.map_err(SnapshotError::state)?;
        check_attempt(target, flow, engine.attempt).await?;
        commit(target).await?;
        Ok(Outcome::Done)
    }

    /// Marks the table as copied when all of its parts are there.
    pub(super) async fn complete(
        &mut self,
        table: &Table<'_>,
        ranges: &[Range],
    ) -> Result<Outcome, SnapshotError> {
        let engine = self.engine;
        let flow = &engine.sessions.options.flow;
        let target = self.target().await?;
        begin(target).await?;
        let there = state::ranges(&***target, flow, table.key()).await.map_err(SnapshotError::state)?;
        let is_there = |range: &&Range| there.iter().any(|note| note.first_block == signed(range.first));
        let missing: Vec<Range> = ranges.iter().filter(|range| !is_there(range)).copied().collect();
        if !missing.is_empty() {
            roll_back(target).await?;
            return Ok(Outcome::MissingParts(missing));
        }
        let counts = there.iter().fold((0, 0), |sum, note| (sum.0 + note.rows, sum.1 + note.bytes));
        state::mark_copied(&***target, flow, table.key(), engine.snapshot.lsn, counts)
            .await
            .map_err(SnapshotError::state)?;
        engine.commit_flushed(target).await?;
        engine.table_finished(table, counts);
        Ok(Outcome::Done)
    }
}

impl Engine<'_> {
    fn table_started(&self, table: &Table<'_>) {
        let job = table.job;
        table.started.get_or_init(Instant::now);
        self.observer.event(CopyEvent::TableStarted {
            table: &job.table,
            estimated_bytes: job.estimated_bytes,
            estimated_rows: job.estimated_rows,
        });
    }

    fn table_finished(&self, table: &Table<'_>, (rows, bytes): (i64, i64)) {
        let (rows, bytes) = (u64::try_from(rows).unwrap_or(0), u64::try_from(bytes).unwrap_or(0));
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let elapsed = table.started.get_or_init(Instant::now).elapsed();
        self.observer.event(CopyEvent::TableFinished { table: &table.job.table, rows, bytes, elapsed });
    }

    /// Opens the snapshot on the source, keeps the table's definition as it is, and says how it is built and in which
    /// parts it is to be copied.
    async fn look_at_source(
        &self,
        source: &SqlSession,
        table: &Table<'_>,
    ) -> Result<(Described, Vec<Range>), SnapshotError> {
        let job = table.job;
        // A transaction for each table, so that a lock on the source is held no longer than its rows are read.
        import_snapshot(source, &self.snapshot.name).await?;
        hold_table(source, self.sessions, job).await?;
        let here = described_as_planned(source, job).await?;
        let options = self.sessions.options;
        let part_bytes = part_bytes(options.split, options.jobs.get(), job.estimated_bytes, self.all_bytes);
        let Some(part_bytes) = part_bytes.filter(|_| !job.partitioned) else {
            return Ok((here, Vec::new()));
        };
        let row = source
            .query_one(sql::SIZE_NOW, &[&job.table.quoted()])
            .await
            .map_err(SnapshotError::source_sql("measuring the table"))?;
        let (file, blocks): (u32, i64) = (row.get(0), row.get(1));
        let blocks = u64::try_from(blocks).unwrap_or(0);
        Ok((here, cut(blocks, job.estimated_bytes, part_bytes, file)))
    }

    /// Removes what an earlier attempt has left, in the open transaction; nobody else writes the table until it ends.
    /// At the first attempt nothing can be Relevo's, and rows that came after the plan was made are refused.
    ///
    /// Returns whether rows can be written frozen: that needs a TRUNCATE in the same transaction (manual, *COPY*).
    async fn make_empty(&self, target: &SqlSession, table: &Table<'_>) -> Result<bool, SnapshotError> {
        let (job, name) = (table.job, &table.job.table);
        let error = || SnapshotError::target_sql(format!("emptying {name}"));
        let only = table.on_target.map_or_else(|| sql::only(name, job.partitioned), only);
        let row = target.query_one(sql::EMPTYING, &[&name.quoted()]).await.map_err(error())?;
        // TRUNCATE refuses a table that foreign keys point at, even when they do not act.
        let (referenced, may_truncate, may_lock): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
        let can_truncate = !referenced && may_truncate;
        if may_lock {
            let mode = if can_truncate { "ACCESS EXCLUSIVE" } else { "SHARE ROW EXCLUSIVE" };
            target.batch_execute(&format!("LOCK TABLE {only} IN {mode} MODE")).await.map_err(error())?;
        }
        let holds_rows = format!("SELECT EXISTS (SELECT FROM {only})");
        let holds_rows: bool = target.query_one(&holds_rows, &[]).await.map_err(error())?.get(0);
        let ours = self.attempt > 1 || job.filled_by_extension || table.emptied.load(Ordering::Relaxed);
        if holds_rows && !ours {
            return Err(SnapshotError::Refused { findings: vec![not_empty(name)] });
        }
        let plain =
            table.on_target.is_some_and(|table| table.kind == TableKind::Ordinary && !table.fires_in_replica);
        let freezes = can_truncate && plain && job.estimated_bytes >= FREEZE_BYTES;
        if freezes || (holds_rows && !referenced) {
            target.batch_execute(&format!("TRUNCATE {only}")).await.map_err(error())?;
        } else if holds_rows {
            target.batch_execute(&format!("DELETE FROM {only}")).await.map_err(error())?;
        }
        Ok(freezes)
    }

    /// Brings rows into the open transaction of the target, and ends that of the source.
    async fn pump(
        &self,
        (source, here): (&Arc<SqlSession>, &Described),
        target: &Arc<SqlSession>,
        table: &Table<'_>,
        (range, frozen): (Option<Range>, bool),
    ) -> Result<Copied, SnapshotError> {
        let (job, name) = (table.job, &table.job.table);
        let format = format(here, target, job).await?;
        let copy_out = match range {
            None => sql::copy_out(name, &job.columns, job.partitioned, format),
            Some(range) => sql::copy_out_range(name, &job.columns, (range.first, range.end), format),
        };
        let copy_in = sql::copy_in(name, &job.columns, frozen, format);
        let pump = Pump {
            source: Arc::clone(source),
            target: Arc::clone(target),
            copy_out,
            copy_in,
            format,
            columns: job.columns.len(),
            table: name.to_string(),
        };
        let told = (AtomicU64::new(0), AtomicU64::new(0));
        let progress = |rows, bytes| {
            told.0.fetch_add(rows, Ordering::Relaxed);
            told.1.fetch_add(bytes, Ordering::Relaxed);
            self.observer.event(CopyEvent::TableProgress { table: name, rows, bytes });
        };
        let result = async {
            let copied = pump.run(progress).await?;
            // The source's verdict on its own COPY, before anything is committed.
            end_source(source, table).await?;
            match copied.sent_rows == copied.stored_rows {
                true => Ok(copied),
                false => Err(SnapshotError::RowCount {
                    table: name.to_string(),
                    sent: copied.sent_rows,
                    stored: copied.stored_rows,
                }),
            }
        };
        let result = result.await;
        if result.is_err() {
            let (rows, bytes) = (told.0.into_inner(), told.1.into_inner());
            self.observer.event(CopyEvent::RowsLost { table: name, rows, bytes });
        }
        result
    }

    /// Commits, unless another attempt has begun, and waits until that is flushed: what is known to be there must not
    /// be gone after a crash of the target.
    pub(super) async fn commit_flushed(&self, target: &SqlSession) -> Result<(), SnapshotError> {
        check_attempt(target, &self.sessions.options.flow, self.attempt).await?;
        target
            .batch_execute("SET LOCAL synchronous_commit = 'local'")
            .await
            .map_err(SnapshotError::target_sql("ending a transaction"))?;
        commit(target).await
    }
}

async fn end_source(source: &SqlSession, table: &Table<'_>) -> Result<(), SnapshotError> {
    let action = format!("reading the rows of {}", table.job.table);
    source.batch_execute("COMMIT").await.map_err(SnapshotError::source_sql(action))
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
