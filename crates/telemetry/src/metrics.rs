//! The metrics themselves, in a registry of their own. Every label value that is known exists from the start.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::LabelPair;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use relevo_model::Side;

use crate::names::{self, MetricName};
use crate::process;
use crate::status::side_label;
use crate::{
    CopyProgress, Lag, LagBytes, ReaderStatus, Role, RunState, SlotStatus, TableState, TelemetryError,
};

/// From half a millisecond to ten minutes.
const COMMIT_TO_VISIBLE_BUCKETS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 600.0,
];
const BATCH_TRANSACTIONS_BUCKETS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 50_000.0];
const BATCH_SECONDS_BUCKETS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0];

/// The operations of `relevo_changes_applied_total`.
const OPERATIONS: [&str; 5] = ["insert", "update", "delete", "truncate", MESSAGE];
/// What becomes of a transaction that is applied ahead of its commit.
const AHEAD_RESULTS: [&str; 2] = ["taken_back", "committed"];
/// What `pg_replication_slots` says of a slot's WAL (manual, *pg_replication_slots*).
const WAL_STATUSES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];
/// The kind of error of a row that an update or delete did not find.
const MISSING_ROW: &str = "missing_row";
/// Logical messages, the heartbeat's among them.
const MESSAGE: &str = "message";

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    lag_seconds: Gauge,
    lag_bytes: GaugeVec,
    commit_to_visible: Histogram,
    transactions: IntCounter,
    changes: IntCounterVec,
    batch_transactions: Histogram,
    batch_seconds: Histogram,
    buffer_bytes: IntGauge,
    buffer_limit: IntGauge,
    spool_bytes: IntGauge,
    spool_limit: IntGauge,
    streamed_bytes: IntGauge,
    reading_paused: Counter,
    slot_retained: GaugeVec,
    slot_safe: GaugeVec,
    armed_retained: GaugeVec,
    standby_slot_retained: GaugeVec,
    standby_slot_safe: GaugeVec,
    standby_slot_wal_status: GaugeVec,
    standby_slot_active: GaugeVec,
    slot_wal_status: GaugeVec,
    reconnects: IntCounterVec,
    errors: IntCounterVec,
    errors_waiting: GaugeVec,
    copy_rows: IntCounter,
    copy_bytes: IntCounter,
    copy_total_bytes: GaugeVec,
    copy_remaining: GaugeVec,
    tables: GaugeVec,
    tables_not_added: IntGauge,
    last_verified: Gauge,
    verify_differences: GaugeVec,
    role: GaugeVec,
    epoch: IntGauge,
    stale_primary: IntGauge,
    flow_state: GaugeVec,
    missing_rows: IntCounter,
    reapplied: IntCounter,
    ahead: IntCounterVec,
    beside: IntCounterVec,
    sequences_set: IntCounter,
    last_contact: GaugeVec,
    position: GaugeVec,
    heartbeat_age: Gauge,
    process_cpu: Counter,
    process_memory: Gauge,
    process_files: Gauge,
}

fn opts(name: MetricName) -> Opts {
    Opts::new(name.name, name.help)
}

fn histogram(name: MetricName, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    Histogram::with_opts(HistogramOpts { common_opts: opts(name), buckets: buckets.to_vec() })
}

fn gauges(name: MetricName, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
    GaugeVec::new(opts(name), labels)
}

fn counters(name: MetricName, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(opts(name), &[label])
}

impl Metrics {
    /// Sets all metrics up. `version`: Relevo's; `started_at_seconds`: since 1970.
    ///
    /// # Errors
    /// Only when a name or label of this crate is not valid.
    pub fn new(version: &str, started_at_seconds: f64) -> Result<Self, TelemetryError> {
        let metrics = Self {
            registry: Registry::new(),
            lag_seconds: Gauge::with_opts(opts(names::LAG_SECONDS))?,
            lag_bytes: gauges(names::LAG_BYTES, &["stage"])?,
            commit_to_visible: histogram(names::COMMIT_TO_VISIBLE, COMMIT_TO_VISIBLE_BUCKETS)?,
            transactions: IntCounter::with_opts(opts(names::TRANSACTIONS_APPLIED))?,
            changes: counters(names::CHANGES_APPLIED, "op")?,
            batch_transactions: histogram(names::BATCH_TRANSACTIONS, BATCH_TRANSACTIONS_BUCKETS)?,
            batch_seconds: histogram(names::BATCH_APPLY_SECONDS, BATCH_SECONDS_BUCKETS)?,
            buffer_bytes: IntGauge::with_opts(opts(names::BUFFER_BYTES))?,
            buffer_limit: IntGauge::with_opts(opts(names::BUFFER_LIMIT))?,
            spool_bytes: IntGauge::with_opts(opts(names::SPOOL_BYTES))?,
            spool_limit: IntGauge::with_opts(opts(names::SPOOL_LIMIT))?,
            streamed_bytes: IntGauge::with_opts(opts(names::STREAMED_BYTES))?,
            reading_paused: Counter::with_opts(opts(names::READING_PAUSED))?,
            slot_retained: gauges(names::SLOT_RETAINED, &[])?,
            armed_retained: gauges(names::ARMED_RETAINED, &["standby"])?,
            standby_slot_retained: gauges(names::STANDBY_SLOT_RETAINED, &["standby"])?,
            standby_slot_safe: gauges(names::STANDBY_SLOT_SAFE, &["standby"])?,
            standby_slot_wal_status: gauges(names::STANDBY_SLOT_WAL_STATUS, &["standby", "status"])?,
            standby_slot_active: gauges(names::STANDBY_SLOT_ACTIVE, &["standby"])?,
            slot_safe: gauges(names::SLOT_SAFE, &[])?,
            slot_wal_status: gauges(names::SLOT_WAL_STATUS, &["status"])?,
            reconnects: counters(names::RECONNECTS, "side")?,
            errors: counters(names::ERRORS, "kind")?,
            errors_waiting: gauges(names::ERRORS_WAITING, &[])?,
            copy_rows: IntCounter::with_opts(opts(names::COPY_ROWS))?,
            copy_bytes: IntCounter::with_opts(opts(names::COPY_BYTES))?,
            copy_total_bytes: gauges(names::COPY_TOTAL_BYTES, &[])?,
            copy_remaining: gauges(names::COPY_REMAINING, &[])?,
            tables: gauges(names::TABLES, &["state"])?,
            tables_not_added: IntGauge::with_opts(opts(names::TABLES_NOT_ADDED))?,
            last_verified: Gauge::with_opts(opts(names::LAST_VERIFIED))?,
            verify_differences: gauges(names::VERIFY_DIFFERENCES, &[])?,
            role: gauges(names::ROLE, &["role"])?,
            epoch: IntGauge::with_opts(opts(names::EPOCH))?,
            stale_primary: IntGauge::with_opts(opts(names::STALE_PRIMARY))?,
            flow_state: gauges(names::FLOW_STATE, &["state"])?,
            missing_rows: IntCounter::with_opts(opts(names::MISSING_ROWS))?,
            reapplied: IntCounter::with_opts(opts(names::REAPPLIED))?,
            ahead: counters(names::AHEAD, "result")?,
            beside: counters(names::BESIDE, "result")?,
            sequences_set: IntCounter::with_opts(opts(names::SEQUENCES_SET))?,
            last_contact: gauges(names::LAST_CONTACT, &["side"])?,
            position: gauges(names::POSITION, &["stage"])?,
            heartbeat_age: Gauge::with_opts(opts(names::HEARTBEAT_AGE))?,
            process_cpu: Counter::with_opts(opts(names::PROCESS_CPU))?,
            process_memory: Gauge::with_opts(opts(names::PROCESS_MEMORY))?,
            process_files: Gauge::with_opts(opts(names::PROCESS_FILES))?,
        };
        metrics.register()?;
        let build_info = gauges(names::BUILD_INFO, &["version"])?;
        build_info.with_label_values(&[version]).set(1.0);
        metrics.registry.register(Box::new(build_info))?;
        let process_start = Gauge::with_opts(opts(names::PROCESS_START))?;
        process_start.set(started_at_seconds);
        metrics.registry.register(Box::new(process_start))?;
        metrics.begin_at_zero();
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let Self { registry, .. } = self;
        let register = |collector: Box<dyn Collector>| registry.register(collector);
        register(Box::new(self.lag_seconds.clone()))?;
        register(Box::new(self.lag_bytes.clone()))?;
        register(Box::new(self.commit_to_visible.clone()))?;
        register(Box::new(self.transactions.clone()))?;
        register(Box::new(self.changes.clone()))?;
        register(Box::new(self.batch_transactions.clone()))?;
        register(Box::new(self.batch_seconds.clone()))?;
        register(Box::new(self.buffer_bytes.clone()))?;
        register(Box::new(self.buffer_limit.clone()))?;
        register(Box::new(self.spool_bytes.clone()))?;
        register(Box::new(self.spool_limit.clone()))?;
        register(Box::new(self.streamed_bytes.clone()))?;
        register(Box::new(self.reading_paused.clone()))?;
        register(Box::new(self.slot_retained.clone()))?;
        register(Box::new(self.armed_retained.clone()))?;
        register(Box::new(self.standby_slot_retained.clone()))?;
        register(Box::new(self.standby_slot_safe.clone()))?;
        register(Box::new(self.standby_slot_wal_status.clone()))?;
        register(Box::new(self.standby_slot_active.clone()))?;
        register(Box::new(self.slot_safe.clone()))?;
        register(Box::new(self.slot_wal_status.clone()))?;
        register(Box::new(self.reconnects.clone()))?;
        register(Box::new(self.errors.clone()))?;
        register(Box::new(self.errors_waiting.clone()))?;
        register(Box::new(self.copy_rows.clone()))?;
        register(Box::new(self.copy_bytes.clone()))?;
        register(Box::new(self.copy_total_bytes.clone()))?;
        register(Box::new(self.copy_remaining.clone()))?;
        register(Box::new(self.tables.clone()))?;
        register(Box::new(self.tables_not_added.clone()))?;
        register(Box::new(self.last_verified.clone()))?;
        register(Box::new(self.verify_differences.clone()))?;
        register(Box::new(self.role.clone()))?;
        register(Box::new(self.epoch.clone()))?;
        register(Box::new(self.stale_primary.clone()))?;
        register(Box::new(self.flow_state.clone()))?;
        register(Box::new(self.missing_rows.clone()))?;
        register(Box::new(self.reapplied.clone()))?;
        register(Box::new(self.ahead.clone()))?;
        register(Box::new(self.beside.clone()))?;
        register(Box::new(self.sequences_set.clone()))?;
        register(Box::new(self.last_contact.clone()))?;
        register(Box::new(self.position.clone()))?;
        register(Box::new(self.heartbeat_age.clone()))?;
        register(Box::new(self.process_cpu.clone()))?;
        register(Box::new(self.process_memory.clone()))?;
        register(Box::new(self.process_files.clone()))
    }

    /// A counter that appears with its first event has no rate for it: all known ones begin at 0.
    fn begin_at_zero(&self) {
        for op in OPERATIONS {
            self.changes.with_label_values(&[op]);
        }
        for side in [Side::Source, Side::Target] {
            self.reconnects.with_label_values(&[side_label(side)]);
        }
        for result in AHEAD_RESULTS {
            self.ahead.with_label_values(&[result]);
            self.beside.with_label_values(&[result]);
        }
        self.errors.with_label_values(&[MISSING_ROW]);
        self.set_tables([0; TableState::ALL.len()]);
    }

    /// Makes these kinds of error exist at 0.
    pub fn declare_errors(&self, kinds: &[&str]) {
        for kind in kinds {
            self.errors.with_label_values(&[kind]);
        }
    }

    /// An error of this kind happened.
    pub fn error(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
    }

    /// Both ends are opened again because this one failed.
    pub fn reconnect(&self, side: Side) {
        self.reconnects.with_label_values(&[side_label(side)]).inc();
    }

    /// Rows of the initial copy arrived.
    pub fn copied(&self, rows: u64, bytes: u64) {
        self.copy_rows.inc_by(rows);
        self.copy_bytes.inc_by(bytes);
    }

    /// What is held in memory, in bytes.
    pub fn set_buffer_bytes(&self, bytes: u64) {
        self.buffer_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// What is held in memory, in bytes.
    #[must_use]
    pub fn buffer_bytes(&self) -> u64 {
        u64::try_from(self.buffer_bytes.get()).unwrap_or(0)
    }

    /// What is held on disk, in bytes.
    pub fn set_spool_bytes(&self, bytes: u64) {
        self.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// What memory and spool may hold, in bytes.
    pub fn set_limits(&self, buffer_bytes: u64, spool_bytes: u64) {
        self.buffer_limit.set(i64::try_from(buffer_bytes).unwrap_or(i64::MAX));
        self.spool_limit.set(i64::try_from(spool_bytes).unwrap_or(i64::MAX));
    }

    /// What is held of transactions that have not ended on the source, in bytes.
    pub fn set_streamed_bytes(&self, bytes: u64) {
        self.streamed_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How long nothing could be read altogether; it only grows.
    pub fn reading_paused(&self, total: Duration) {
        self.reading_paused.inc_by((total.as_secs_f64() - self.reading_paused.get()).max(0.0));
    }

    /// Transactions applied since the start.
    #[must_use]
    pub fn transactions_applied(&self) -> u64 {
        self.transactions.get()
    }

    /// Rows and truncations applied since the start: what an idle flow does not have.
    #[must_use]
    pub fn changes_applied(&self) -> u64 {
        let rows = OPERATIONS.iter().filter(|op| **op != MESSAGE);
        rows.map(|op| self.changes.with_label_values(&[op]).get()).sum()
    }

    /// Changes that were applied once more, one by one.
    pub(crate) fn reapplied(&self, changes: u64) {
        self.reapplied.inc_by(changes);
    }

    /// What has become of a transaction that was applied ahead of its commit.
    pub fn ahead(&self, committed: bool) {
        self.ahead.with_label_values(&[AHEAD_RESULTS[usize::from(committed)]]).inc();
    }

    /// What has become of a batch that was applied beside the one before it.
    pub fn beside(&self, committed: bool) {
        self.beside.with_label_values(&[AHEAD_RESULTS[usize::from(committed)]]).inc();
    }

    /// A commit on the target. `changes`: inserts, updates, deletes, truncates, messages. `visible_after_seconds`:
    /// for each transaction.
    pub(crate) fn committed(
        &self,
        changes: [u64; 5],
        visible_after_seconds: impl ExactSizeIterator<Item = f64>,
        took_seconds: f64,
        missing_rows: u64,
    ) {
        for (op, count) in OPERATIONS.iter().zip(changes) {
            if count > 0 {
                self.changes.with_label_values(&[op]).inc_by(count);
            }
        }
        self.missing_rows.inc_by(missing_rows);
        if missing_rows > 0 {
            self.errors.with_label_values(&[MISSING_ROW]).inc_by(missing_rows);
        }
        let transactions = visible_after_seconds.len();
        if transactions == 0 {
            return;
        }
        self.transactions.inc_by(transactions as u64);
        self.batch_seconds.observe(took_seconds);
        self.batch_transactions.observe(float(transactions as u64));
        // Observed apart and added at once: a batch may hold tens of thousands.
        let local = self.commit_to_visible.local();
        visible_after_seconds.for_each(|seconds| local.observe(seconds));
        local.flush();
    }

    /// What the last comparisons of both sides said: when the oldest of them was, in microseconds since 1970-01-01 UTC, if all
    /// tables were compared, and how many rows differed, if any were.
    pub fn verified(&self, at_unix_us: Option<i64>, differences: Option<u64>) {
        #[expect(clippy::cast_precision_loss, reason = "a time in seconds, to the microsecond")]
        self.last_verified.set(at_unix_us.unwrap_or(0) as f64 / 1e6);
        set_if_known(&self.verify_differences, &[], differences);
    }

    /// For these standbys a slot is armed on this node, each with the WAL that it keeps, in bytes.
    pub fn armed(&self, retained: &BTreeMap<String, u64>) {
        set_all(&self.armed_retained, retained.iter().map(|(standby, bytes)| ([standby.as_str()], *bytes)));
    }

    /// The slots that other nodes read on this node's database, by node.
    pub(crate) fn standby_slots(&self, slots: &BTreeMap<String, ReaderStatus>) {
        let each = || slots.iter().map(|(standby, reader)| (standby.as_str(), reader));
        set_all(&self.standby_slot_active, each().map(|(of, reader)| ([of], u64::from(reader.active))));
        let retained = each().filter_map(|(of, reader)| Some(([of], reader.slot.retained_bytes?)));
        set_all(&self.standby_slot_retained, retained);
        let safe = each().filter_map(|(of, reader)| Some(([of], reader.slot.safe_bytes?)));
        set_all(&self.standby_slot_safe, safe);
        let said = each().filter_map(|(of, reader)| Some((of, reader.slot.wal_status.as_deref()?)));
        let statuses = said.flat_map(|(of, said)| {
            WAL_STATUSES.map(|status| ([of, status], u64::from(said == status))).into_iter()
        });
        set_all(&self.standby_slot_wal_status, statuses);
    }

    /// So many errors are written down on the target; `None`: that is not known.
    pub(crate) fn set_errors_waiting(&self, count: Option<u64>) {
        set_if_known(&self.errors_waiting, &[], count);
    }

    /// Sequences were set on the target to where the source's stand.
    pub fn sequences_set(&self, count: u64) {
        self.sequences_set.inc_by(count);
    }

    pub(crate) fn set_tables(&self, counts: [u64; TableState::ALL.len()]) {
        for (state, count) in TableState::ALL.iter().zip(counts) {
            self.tables.with_label_values(&[state.as_str()]).set(float(count));
        }
    }

    pub(crate) fn set_not_added(&self, count: u64) {
        self.tables_not_added.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn set_copy(&self, copy: Option<&CopyProgress>) {
        set_if_known(&self.copy_total_bytes, &[], copy.and_then(|copy| copy.total_bytes_estimate));
        set_if_known(&self.copy_remaining, &[], copy.and_then(|copy| copy.remaining_seconds));
    }

    pub(crate) fn set_flow(&self, state: RunState, role: Role, epoch: u64) {
        for each in RunState::ALL {
            self.flow_state.with_label_values(&[each.as_str()]).set(f64::from(u8::from(each == state)));
        }
        for each in Role::ALL {
            self.role.with_label_values(&[each.as_str()]).set(f64::from(u8::from(each == role)));
        }
        self.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
    }

    /// Whether the node holds itself for the primary although it is not, or not alone.
    pub fn set_stale_primary(&self, stale: bool) {
        self.stale_primary.set(i64::from(stale));
    }

    pub(crate) fn set_slot(&self, slot: Option<&SlotStatus>) {
        set_if_known(&self.slot_retained, &[], slot.and_then(|slot| slot.retained_bytes));
        set_if_known(&self.slot_safe, &[], slot.and_then(|slot| slot.safe_bytes));
        let said = slot.and_then(|slot| slot.wal_status.as_deref());
        for status in WAL_STATUSES {
            set_if_known(&self.slot_wal_status, &[status], said.map(|said| u64::from(said == status)));
        }
    }

    pub(crate) fn set_lag(&self, seconds: f64, bytes: Option<LagBytes>) {
        self.lag_seconds.set(seconds);
        set_if_known(&self.lag_bytes, &["received"], bytes.map(|bytes| bytes.received));
        set_if_known(&self.lag_bytes, &["applied"], bytes.map(|bytes| bytes.applied));
        set_if_known(&self.lag_bytes, &["durable"], bytes.and_then(|bytes| bytes.durable));
    }

    pub(crate) fn set_positions(&self, lag: &Lag, silent_seconds: impl Fn(Side) -> f64) {
        let stages = [
            ("source", lag.source_lsn()),
            ("received", lag.received_lsn()),
            ("applied", lag.applied_lsn()),
            ("durable", lag.durable_lsn()),
        ];
        for (stage, position) in stages {
            set_if_known(&self.position, &[stage], position.map(|position| position.as_u64()));
        }
        for side in [Side::Source, Side::Target] {
            self.last_contact.with_label_values(&[side_label(side)]).set(silent_seconds(side));
        }
    }

    pub(crate) fn set_heartbeat_age(&self, seconds: f64) {
        self.heartbeat_age.set(seconds);
    }

    /// The text that Prometheus reads. `identity`: the values of [`names::IDENTITY`]. They are put in here and not given to the
    /// registry, because a derived name is not known when the metrics are set up.
    pub(crate) fn render(&self, identity: [&str; 2]) -> Result<String, TelemetryError> {
        if let Some(usage) = process::usage() {
            // A scrape that overtakes another must not make the counter go back.
            self.process_cpu.inc_by((usage.cpu_seconds - self.process_cpu.get()).max(0.0));
            self.process_memory.set(float(usage.resident_bytes));
            self.process_files.set(float(usage.open_files));
        }
        let mut families = self.registry.gather();
        for metric in families.iter_mut().flat_map(|family| family.mut_metric().iter_mut()) {
            let own = metric.take_label();
            metric.set_label(names::IDENTITY.into_iter().zip(identity).map(label).chain(own).collect());
        }
        Ok(TextEncoder::new().encode_to_string(&families)?)
    }
}

fn label((name, value): (&str, &str)) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

/// A value that is not known is absent: a 0 in its place would be a lie.
fn set_if_known(gauge: &GaugeVec, labels: &[&str], value: Option<u64>) {
    match value {
        Some(value) => gauge.with_label_values(labels).set(float(value)),
        // There is nothing to remove when it was never known.
        None => drop(gauge.remove_label_values(labels)),
    }
}

/// Sets the gauges of these labels, which stand in the order of their names, and removes all others. Whoever scrapes meanwhile misses
/// none that stays.
fn set_all<'a, const N: usize>(gauges: &GaugeVec, now: impl Iterator<Item = ([&'a str; N], u64)>) {
    let now: BTreeMap<[&str; N], u64> = now.collect();
    for (labels, value) in &now {
        gauges.with_label_values(labels).set(float(*value));
    }
    for family in gauges.collect() {
        for metric in family.get_metric() {
            let labels: Vec<&str> = metric.get_label().iter().map(LabelPair::value).collect();
            if !now.keys().any(|known| known[..] == labels[..]) {
                // Nobody else removes any.
                drop(gauges.remove_label_values(&labels));
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only this type")]
fn float(value: u64) -> f64 {
    value as f64
}
