//! The board: the one place that the program writes what it knows to, and that HTTP and metrics read from.
//!
//! Writing is cheap and never waits for a reader longer than it takes to copy a few words. Whatever depends on
//! time is computed when it is read.

mod shown;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relevo_model::{Side, SourceLsn, Timestamp};

use crate::around::Known;
use crate::history::History;
use crate::pace::{Pace, remaining_seconds};
use crate::status::{CopyProgress, LastError, StatusSnapshot, TableCounts, side_label};
use crate::{
    Clock, HandoverStatus, Lag, LagBytes, Metrics, ReaderStatus, Role, RunState, SlotStatus, TableProgress,
    TableState, TelemetryError, VerificationStatus,
};

/// Who this is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The flow's name; empty while it is not known, see [`Board::set_name`].
    pub name: String,
    /// The node that the process stands next to, when there is a configuration file.
    pub node: Option<String>,
    /// The node's role at the start.
    pub role: Role,
    /// The epoch at the start.
    pub epoch: u64,
    /// Relevo's version.
    pub version: String,
}

/// A commit on the target.
#[derive(Debug, Clone, Copy, Default)]
pub struct Committed<'a> {
    /// The position that was stored with it.
    pub position: SourceLsn,
    /// When the source committed each transaction, by its clock, in commit order; empty when only the position
    /// moved.
    pub commit_times: &'a [Timestamp],
    /// Inserted rows.
    pub inserts: u64,
    /// Updated rows.
    pub updates: u64,
    /// Deleted rows.
    pub deletes: u64,
    /// Truncate commands.
    pub truncates: u64,
    /// Logical messages.
    pub messages: u64,
    /// How long the target worked on it.
    pub took: Duration,
    /// Rows that an update or delete did not find.
    pub missing_rows: u64,
    /// Changes that were applied one by one after they could not be applied as sets.
    pub reapplied_changes: u64,
}

/// When a node counts as ready.
#[derive(Debug, Clone, Copy)]
pub struct ReadyRules {
    /// The greatest lag, in seconds; `None`: any.
    pub max_lag_seconds: Option<f64>,
    /// How long a side may be silent, in seconds, and still count as connected.
    pub max_silence_seconds: f64,
}

impl Default for ReadyRules {
    fn default() -> Self {
        Self { max_lag_seconds: None, max_silence_seconds: 10.0 }
    }
}

/// What is known. Cheap to write; see the module's text.
#[derive(Debug)]
pub struct Board {
    clock: Clock,
    metrics: Metrics,
    /// When the main loop last went round, in microseconds of `clock`.
    beat_us: AtomicI64,
    identity: Identity,
    started_at: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    /// What the nodes of a configuration file share.
    cluster: Option<String>,
    role: Role,
    epoch: u64,
    state: RunState,
    state_detail: Option<String>,
    lag: Lag,
    slot: Option<SlotStatus>,
    tables: BTreeMap<String, TableProgress>,
    not_added: u64,
    copy_phase: Option<String>,
    pace: Pace,
    errors: u64,
    last_error: Option<LastError>,
    queued_errors: Option<u64>,
    nodes: Vec<Known>,
    handovers: Vec<HandoverStatus>,
    verification: Option<VerificationStatus>,
    history: History,
}

fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(time.unix_us()).unwrap_or_default().to_string()
}

impl Board {
    /// An empty board; the state is `preparing`.
    ///
    /// # Errors
    /// Only when a metric cannot be set up, which is a mistake in this crate.
    pub fn new(identity: Identity) -> Result<Arc<Self>, TelemetryError> {
        Self::with_clock(identity, Clock::system())
    }

    /// The same with a clock of one's own.
    ///
    /// # Errors
    /// As [`Board::new`].
    pub fn with_clock(identity: Identity, clock: Clock) -> Result<Arc<Self>, TelemetryError> {
        let now = clock.now();
        let since_1970 = now.seconds_since(Timestamp::from_unix_us(0));
        let metrics = Metrics::new(&identity.version, since_1970)?;
        let inner = Inner {
            name: identity.name.clone(),
            cluster: None,
            role: identity.role,
            epoch: identity.epoch,
            state: RunState::Preparing,
            state_detail: None,
            lag: Lag::new(now),
            slot: None,
            tables: BTreeMap::new(),
            not_added: 0,
            copy_phase: None,
            pace: Pace::default(),
            errors: 0,
            last_error: None,
            queued_errors: None,
            nodes: Vec::new(),
            handovers: Vec::new(),
            verification: None,
            history: History::default(),
        };
        Ok(Arc::new(Self {
            beat_us: AtomicI64::new(now.postgres_us()),
            started_at: rfc3339(now),
            clock,
            metrics,
            identity,
            inner: Mutex::new(inner),
        }))
    }

    /// The metrics, for what is only counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here is left half-written by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main loop went round. Whatever is the main loop at the time (preparing, copying, streaming) calls this
    /// at least every few seconds; when it stops, `/healthz` says so.
    pub fn beat(&self) {
        self.beat_us.store(self.clock.now().postgres_us(), Ordering::Relaxed);
    }

    /// Seconds since the last [`Board::beat`].
    #[must_use]
    pub fn beat_age_seconds(&self) -> f64 {
        let beat = Timestamp::from_postgres_us(self.beat_us.load(Ordering::Relaxed));
        self.clock.now().seconds_since(beat)
    }

    /// The flow's name, when it was not known at the start: a derived one takes both databases.
    pub fn set_name(&self, name: &str) {
        name.clone_into(&mut self.inner().name);
    }

    /// The node belongs to this cluster: in metrics its name stands for the flow's, so that all nodes have the same.
    pub fn set_cluster(&self, name: &str) {
        self.inner().cluster = Some(name.to_owned());
    }

    /// For these standbys a slot is armed on this node, each with the WAL that it keeps, in bytes.
    pub fn set_armed(&self, retained: &BTreeMap<String, u64>) {
        self.metrics.armed(retained);
    }

    /// The slots that other nodes read on this node's database, by node.
    pub fn set_standby_slots(&self, slots: &BTreeMap<String, ReaderStatus>) {
        self.metrics.standby_slots(slots);
    }

    /// The flow does something else from now on; `detail` says why or what next, for people.
    pub fn set_state(&self, state: RunState, detail: Option<String>) {
        let mut inner = self.inner();
        inner.state = state;
        inner.state_detail = detail;
    }

    /// What the flow is doing.
    #[must_use]
    pub fn state(&self) -> RunState {
        self.inner().state
    }

    /// The node has this role and epoch from now on. With another role or epoch it has another source, or none: what was
    /// known of the old one is forgotten.
    pub fn set_role(&self, role: Role, epoch: u64) {
        let now = self.clock.now();
        let mut inner = self.inner();
        if (inner.role, inner.epoch) == (role, epoch) {
            return;
        }
        inner.role = role;
        inner.epoch = epoch;
        inner.lag = Lag::new(now);
        inner.slot = None;
        inner.queued_errors = None;
        inner.verification = None;
    }

    /// The source was asked where its WAL ends, and what time it is there. Once a second or more often: a lag of
    /// 0 needs a poll that is no older than 3 s.
    pub fn source_polled(&self, position: SourceLsn, source_clock: Option<Timestamp>) {
        self.inner().lag.polled(position, source_clock, self.clock.now());
    }

    /// The side was heard from.
    pub fn contact(&self, side: Side) {
        self.inner().lag.contact(side, self.clock.now());
    }

    /// A session begins at this stored progress.
    pub fn opened(&self, stored: SourceLsn, commit_time: Option<Timestamp>) {
        self.inner().lag.opened(stored, commit_time, self.clock.now());
    }

    /// The source's stream was heard; everything before this position has been received.
    pub fn received(&self, position: SourceLsn) {
        let mut inner = self.inner();
        inner.lag.contact(Side::Source, self.clock.now());
        inner.lag.received(position);
    }

    /// Everything that the source sent before this position is visible on the target.
    pub fn reached(&self, position: SourceLsn) {
        self.inner().lag.reached(position);
    }

    /// Everything before this position is stored and flushed on the target.
    pub fn durable(&self, position: SourceLsn) {
        self.inner().lag.durable(position);
    }

    /// When the source committed the oldest transaction that is received and not visible yet.
    pub fn oldest_unapplied(&self, commit_time: Option<Timestamp>) {
        self.inner().lag.oldest_unapplied(commit_time, self.clock.now());
    }

    /// A commit happened on the target.
    pub fn committed(&self, commit: &Committed<'_>) {
        let now = self.clock.now();
        let mut inner = self.inner();
        inner.lag.applied(commit.position, commit.commit_times.last().copied(), now);
        inner.errors += commit.missing_rows;
        let lag = &inner.lag;
        let visible = commit.commit_times.iter().map(|time| lag.visible_after_seconds(*time, now));
        let Committed { inserts, updates, deletes, truncates, messages, .. } = *commit;
        let changes = [inserts, updates, deletes, truncates, messages];
        self.metrics.committed(changes, visible, commit.took.as_secs_f64(), commit.missing_rows);
        self.metrics.reapplied(commit.reapplied_changes);
    }

    /// What the source says of the slot; `None`: it cannot say.
    pub fn set_slot(&self, slot: Option<SlotStatus>) {
        self.inner().slot = slot;
    }

    /// The tables of the flow, all of them.
    pub fn set_tables(&self, tables: Vec<TableProgress>) {
        self.inner().tables = tables.into_iter().map(|table| (table.name.clone(), table)).collect();
    }

    /// So many tables of the source are chosen by the patterns and are not part of the flow.
    pub fn set_not_added(&self, count: u64) {
        self.inner().not_added = count;
    }

    /// A table has come further.
    pub fn set_table_state(&self, name: &str, state: TableState) {
        if let Some(table) = self.inner().tables.get_mut(name) {
            table.state = state;
        }
    }

    /// What the initial copy is doing, in a word or two; `None`: nothing.
    pub fn set_copy_phase(&self, phase: Option<&str>) {
        let mut inner = self.inner();
        inner.pace.end();
        inner.copy_phase = match phase {
            Some(phase) => Some(phase.to_owned()),
            // A copy that was made stays to be seen.
            None => inner.copy_phase.as_ref().map(|_| String::new()),
        };
    }

    /// Rows begin to flow, from now on.
    pub fn rows_begin(&self) {
        self.inner().pace.begin(self.clock.now());
    }

    /// Rows of a table were copied, so many more than before.
    pub fn copied(&self, name: &str, rows: u64, bytes: u64) {
        self.metrics.copied(rows, bytes);
        let now = self.clock.now();
        let mut inner = self.inner();
        inner.pace.sent(bytes, now);
        if let Some(table) = inner.tables.get_mut(name) {
            table.rows += rows;
            table.bytes += bytes;
        }
    }

    /// Rows of a table that were copied are rolled back, and will come again. What was counted as copied stays counted.
    pub fn copy_lost(&self, name: &str, rows: u64, bytes: u64) {
        if let Some(table) = self.inner().tables.get_mut(name) {
            table.rows = table.rows.saturating_sub(rows);
            table.bytes = table.bytes.saturating_sub(bytes);
        }
    }

    /// The copy of a table starts again: what it had is gone.
    pub fn restart_table(&self, name: &str) {
        if let Some(table) = self.inner().tables.get_mut(name) {
            (table.state, table.rows, table.bytes) = (TableState::Pending, 0, 0);
        }
    }

    /// Something went wrong. `text` must hold no secret.
    pub fn error(&self, side: Option<Side>, kind: &str, text: &str) {
        self.metrics.error(kind);
        let mut inner = self.inner();
        inner.errors += 1;
        inner.last_error = Some(LastError {
            at: rfc3339(Timestamp::now()),
            side: side.map(|side| side_label(side).to_owned()),
            kind: kind.to_owned(),
            text: text.to_owned(),
        });
    }

    /// So many errors are written down on the target.
    pub fn set_queued_errors(&self, count: u64) {
        self.inner().queued_errors = Some(count);
    }

    /// How far the initial copy is, now; `None` when none was made by this process.
    #[must_use]
    pub fn copy_progress(&self) -> Option<CopyProgress> {
        self.inner().copy(self.clock.now())
    }

    /// Everything that is known, now.
    #[must_use]
    pub fn snapshot(&self) -> StatusSnapshot {
        let now = self.clock.now();
        let inner = self.inner();
        let lag = &inner.lag;
        let silent = |side| lag.was_heard(side).then(|| lag.silent_seconds(side, now));
        StatusSnapshot {
            name: inner.name.clone(),
            node: self.identity.node.clone(),
            role: inner.role,
            epoch: inner.epoch,
            state: inner.state,
            state_detail: inner.state_detail.clone(),
            source_lsn: lag.source_lsn(),
            received_lsn: lag.received_lsn(),
            applied_lsn: lag.applied_lsn(),
            durable_lsn: lag.durable_lsn(),
            lag_bytes: inner.lag_bytes().map(|bytes| bytes.applied),
            lag_seconds: inner.lag_seconds(now),
            source_silent_seconds: silent(Side::Source),
            target_silent_seconds: silent(Side::Target),
            slot: inner.slot.clone(),
            tables: inner.table_counts(),
            errors: inner.errors,
            last_error: inner.last_error.clone(),
            transactions_applied: self.metrics.transactions_applied(),
            changes_applied: self.metrics.changes_applied(),
            buffer_bytes: self.metrics.buffer_bytes(),
            copy: inner.copy(now),
            nodes: inner.nodes.iter().map(|node| node.status(now, silent)).collect(),
            handovers: inner.handovers.clone(),
            verification: inner.verification.clone(),
            queued_errors: inner.queued_errors,
            heartbeat_age_seconds: self.beat_age_seconds(),
            at: rfc3339(now),
            version: self.identity.version.clone(),
            started_at: self.started_at.clone(),
        }
    }

    /// Why the node is not ready; empty when it is.
    #[must_use]
    pub fn not_ready(&self, rules: &ReadyRules) -> Vec<String> {
        let now = self.clock.now();
        let inner = self.inner();
        let mut reasons = Vec::new();
        let sides: &[Side] = match inner.role {
            // Nobody is behind the primary; its own database has to answer.
            Role::Primary => &[Side::Target],
            Role::Standby => &[Side::Source, Side::Target],
        };
        if inner.role == Role::Standby && inner.state != RunState::Streaming {
            let detail = inner.state_detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"));
            reasons.push(format!("the flow is {}, not streaming{detail}", inner.state.as_str()));
            // A table that is added to a flow that streams does not make the others any less good.
            let counts = inner.table_counts();
            if counts.copied < counts.total {
                reasons.push(format!("{} of {} tables are copied", counts.copied, counts.total));
            }
        }
        for side in sides.iter().copied() {
            let silent = inner.lag.silent_seconds(side, now);
            if !inner.lag.was_heard(side) {
                reasons.push(format!("the {side} was not heard from yet"));
            } else if silent > rules.max_silence_seconds {
                reasons.push(format!("the {side} has been silent for {silent:.0} s"));
            }
        }
        let lag = inner.lag_seconds(now);
        if let Some(limit) = rules.max_lag_seconds
            && lag > limit
        {
            reasons.push(format!("the lag is {lag:.1} s, {limit} s are allowed"));
        }
        reasons
    }

    /// The text that Prometheus reads, as of now.
    ///
    /// # Errors
    /// When the registry holds something that cannot be written, which is a mistake in this crate.
    pub fn render_metrics(&self) -> Result<String, TelemetryError> {
        let now = self.clock.now();
        let name = {
            let inner = self.inner();
            self.metrics.set_lag(inner.lag_seconds(now), inner.lag_bytes());
            self.metrics.set_positions(&inner.lag, |side| inner.lag.silent_seconds(side, now));
            self.metrics.set_flow(inner.state, inner.role, inner.epoch);
            self.metrics.set_slot(inner.slot.as_ref());
            self.metrics.set_tables(inner.tables_by_state());
            self.metrics.set_not_added(inner.not_added);
            self.metrics.set_copy(inner.copy(now).as_ref());
            self.metrics.set_errors_waiting(inner.queued_errors);
            inner.cluster.as_ref().unwrap_or(&inner.name).clone()
        };
        self.metrics.set_heartbeat_age(self.beat_age_seconds());
        self.metrics.render([&name, self.identity.node.as_deref().unwrap_or_default()])
    }
}

impl Inner {
    /// Nobody is ahead of the primary.
    fn lag_seconds(&self, now: Timestamp) -> f64 {
        match self.role {
            Role::Primary => 0.0,
            Role::Standby => self.lag.seconds(now),
        }
    }

    fn lag_bytes(&self) -> Option<LagBytes> {
        match self.role {
            Role::Primary => Some(LagBytes::default()),
            Role::Standby => self.lag.bytes(),
        }
    }

    fn tables_by_state(&self) -> [u64; TableState::ALL.len()] {
        TableState::ALL.map(|state| self.tables.values().filter(|table| table.state == state).count() as u64)
    }

    fn table_counts(&self) -> TableCounts {
        let copied = self.tables.values().filter(|table| table.state >= TableState::Copied).count();
        TableCounts { copied: copied as u64, total: self.tables.len() as u64, not_added: self.not_added }
    }

    fn copy(&self, now: Timestamp) -> Option<CopyProgress> {
        let phase = self.copy_phase.clone()?;
        let bytes_per_second = self.pace.bytes_per_second(now);
        let tables: Vec<TableProgress> = self.tables.values().cloned().collect();
        Some(CopyProgress {
            phase,
            rows: tables.iter().map(|table| table.rows).sum(),
            bytes: tables.iter().map(|table| table.bytes).sum(),
            total_bytes_estimate: tables.iter().map(|table| table.total_bytes_estimate).sum(),
            bytes_per_second,
            remaining_seconds: remaining_seconds(tables.iter(), bytes_per_second),
            tables,
        })
    }
}
