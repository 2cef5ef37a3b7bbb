//! The work of a copy, side by side: a pool of workers, each with a session on either side, takes the rows of tables,
//! then what belongs to these tables alone, and then their statistics.
//!
//! A worker whose link is lost opens it anew and repeats its own task; the others do not notice. What a lost session may
//! have committed is read from the notes that stand in the same transactions as the rows. What may not enter: the
//! schema's statements that are about several tables, and anything after the copy.

mod after;
mod describe;
mod ranges;
mod rows;
mod work;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, TryStreamExt};
use relevo_catalog::TableInfo;
use relevo_state::PendingStatement;
use tokio::sync::Notify;

pub(crate) use self::rows::import_snapshot;
use self::work::{Next, Outcome, Task, Work};
use self::worker::Worker;
use crate::plan::TableJob;
use crate::script::{created_index, shares_table};
use crate::session::Sessions;
use crate::{CopyEvent, CopyObserver, ExportedSnapshot, Phase, SnapshotError};

/// One table, and what belongs to it alone.
pub(crate) struct Table<'e> {
    pub(crate) job: &'e TableJob,
    /// An earlier attempt has brought its rows; only what follows them is left.
    rows_are_there: bool,
    /// What the target has under its name.
    pub(crate) on_target: Option<&'e TableInfo>,
    /// Its indexes, keys and statistics objects, in their order.
    pub(crate) statements: Vec<PendingStatement>,
    /// This attempt has emptied it, or may have: what it holds is this attempt's.
    emptied: AtomicBool,
    /// When its rows began to flow.
    started: OnceLock<Instant>,
    /// The ordinals of statements that have to wait for something which is not there yet.
    deferred: Mutex<Vec<i32>>,
}

impl<'e> Table<'e> {
    pub(crate) fn new(
        job: &'e TableJob,
        rows_are_there: bool,
        on_target: Option<&'e TableInfo>,
        statements: Vec<PendingStatement>,
    ) -> Self {
        let (emptied, started, deferred) = (AtomicBool::new(false), OnceLock::new(), Mutex::default());
        Self { job, rows_are_there, on_target, statements, emptied, started, deferred }
    }

    /// Whether its rows are still to be brought.
    pub(crate) fn lacks_rows(&self) -> bool {
        !self.rows_are_there
    }

    /// How long it is going to take, compared with others: in bytes of rows. Of pgbench's accounts, COPY brings 200 MB a
    /// second, and 75 MB of an index are built.
    pub(crate) fn effort_bytes(&self) -> u64 {
        const ROW_BYTES_AN_INDEX_BYTE: u64 = 3;
        let rows = if self.lacks_rows() { self.job.estimated_bytes } else { 0 };
        let created = self.statements.iter().filter_map(|pending| created_index(&pending.statement));
        let indexes = created
            .filter_map(|index| self.job.index_bytes.get(&index))
            .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        rows.saturating_add(indexes.saturating_mul(ROW_BYTES_AN_INDEX_BYTE))
    }

    /// Schema and name, as the state wants them.
    fn key(&self) -> (&str, &str) {
        (&self.job.table.schema, &self.job.table.name)
    }
}

/// One attempt, or the part of one that copies some tables.
pub(crate) struct Engine<'e> {
    pub(crate) sessions: &'e Sessions<'e>,
    pub(crate) snapshot: &'e ExportedSnapshot,
    pub(crate) observer: &'e dyn CopyObserver,
    /// The number that this attempt has in `relevo.flow`.
    pub(crate) attempt: i32,
    /// The encoding of the source's sessions.
    pub(crate) encoding: &'static str,
    tables: Vec<Table<'e>>,
    /// The size of all tables whose rows are to come.
    all_bytes: u64,
    work: Mutex<Work>,
    changed: Notify,
    /// All rows are there; what is left is counted as steps.
    rows_are_there: AtomicBool,
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl<'e> Engine<'e> {
    pub(crate) fn new(
        sessions: &'e Sessions<'e>,
        (snapshot, observer): (&'e ExportedSnapshot, &'e dyn CopyObserver),
        (attempt, encoding): (i32, &'static str),
        tables: Vec<Table<'e>>,
    ) -> Self {
        let shares = |table: &Table<'_>| {
            let shares: Vec<bool> =
                table.statements.iter().map(|pending| shares_table(&pending.statement)).collect();
            (table.rows_are_there, shares)
        };
        let lacking = tables.iter().filter(|table| table.lacks_rows());
        let all_bytes = lacking.map(|table| table.job.estimated_bytes).fold(0, u64::saturating_add);
        let work = Mutex::new(Work::new(tables.iter().map(shares).collect()));
        Self {
            sessions,
            snapshot,
            observer,
            attempt,
            encoding,
            tables,
            all_bytes,
            work,
            changed: Notify::new(),
            rows_are_there: AtomicBool::new(false),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Does everything, and returns the rows and bytes that were copied. The first error that does not mend itself
    /// ends it.
    pub(crate) async fn run(&self) -> Result<(u64, u64), SnapshotError> {
        let workers = 0..self.sessions.options.jobs.get();
        let mut workers: FuturesUnordered<_> = workers.map(|_| self.work()).collect();
        while workers.try_next().await?.is_some() {}
        Ok((self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed)))
    }

    /// One worker, from its first task to its last.
    async fn work(&self) -> Result<(), SnapshotError> {
        let mut worker = Worker::new(self);
        while let Some((number, task)) = self.next().await {
            let Some(table) = self.tables.get(number) else { continue };
            let outcome = worker.finish(table, &task).await?;
            self.ended(number, outcome);
        }
        worker.close().await;
        Ok(())
    }

    fn plan(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> Option<(usize, Task)> {
        loop {
            // Before the look, so that nothing which ends between the two is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.plan().next() {
                Next::Task(number, task) => return Some((number, task)),
                Next::Over => return None,
                Next::Wait => {}
            }
            changed.await;
        }
    }

    fn ended(&self, number: usize, outcome: Outcome) {
        let (lack_rows, steps) = {
            let mut work = self.plan();
            work.ended(number, outcome);
            // Looked at only until it is so: it goes over all tables.
            let known = self.rows_are_there.load(Ordering::Relaxed);
            if known { (0, 0) } else { (work.tables_without_rows(), work.steps_left()) }
        };
        self.changed.notify_waiters();
        let phase = Phase::Indexes;
        if self.rows_are_there.load(Ordering::Relaxed) {
            self.observer.event(CopyEvent::StepFinished { phase });
        } else if lack_rows == 0 {
            self.rows_are_there.store(true, Ordering::Relaxed);
            self.observer.event(CopyEvent::PhaseStarted { phase, steps, estimated_bytes: 0 });
        }
    }
}
