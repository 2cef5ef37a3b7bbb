//! The bridge from what happens in a flow to what is shown of it: the board behind HTTP, the state stored on the
//! target, and the copy's progress.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relevo_connect::ConnInfo;
use relevo_handover::HandoverRecord;
use relevo_model::{FlowName, QualifiedName, Side, SourceLsn, Timestamp};
use relevo_pipeline::{FlowEvent, FlowObserver, FlowState as PipelineState};
use relevo_snapshot::{CopyEvent, CopyObserver, Phase, TableJob};
use relevo_source::{SlotInfo, SourceMonitor};
use relevo_spool::SharedSpool;
use relevo_state::{FlowState, Verified};
use relevo_telemetry::{
    Board, Committed, CopyProgress, NodeSight, ReaderStatus, Role, RunState, TableProgress, TableState,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::error::with_kind;
use crate::output;
use crate::run::around;
use crate::run::lines::Lines;
use crate::run::progress::CopyBar;

/// What the flow says of itself, to be stored on the target.
pub type Said = (FlowState, Option<String>);

/// How many sessions with a lock are remembered of each kind: the present one, and the one before it.
const OWN_PIDS: usize = 2;

/// What is known of the flow, and who wants to know it.
pub struct FlowBoard {
    board: Arc<Board>,
    monitor: SourceMonitor,
    said: watch::Sender<Said>,
    bar: CopyBar,
    applying: Mutex<Vec<i32>>,
    copying_pids: Mutex<Vec<i32>>,
    warned: Mutex<BTreeSet<String>>,
    reason: Mutex<Option<String>>,
    /// Tables are still on their way: whoever streams is not consistent yet, and says so.
    copying: AtomicBool,
    spool: Mutex<Option<SharedSpool>>,
    /// What is held behind the socket, in bytes.
    held_bytes: AtomicU64,
    /// Where machines are told what happens, if they are.
    lines: Mutex<Option<Lines>>,
}

impl FlowBoard {
    /// A board for one flow. `lines`: where machines are told what happens.
    #[must_use]
    pub fn new(board: Arc<Board>, lines: Option<Lines>) -> Self {
        let (said, _) = watch::channel((FlowState::Preparing, None));
        Self {
            board,
            monitor: SourceMonitor::default(),
            said,
            bar: CopyBar::default(),
            applying: Mutex::default(),
            copying_pids: Mutex::default(),
            warned: Mutex::default(),
            reason: Mutex::default(),
            copying: AtomicBool::new(false),
            spool: Mutex::default(),
            held_bytes: AtomicU64::new(0),
            lines: Mutex::new(lines),
        }
    }

    /// Tells machines what happens, if they are to be told.
    fn say(&self, event: &str, fields: impl FnOnce() -> Value) {
        if let Some(lines) = &*self.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            lines.say(event, fields());
        }
    }

    /// Everything was said.
    pub fn no_more_lines(&self) {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How far the copy is; `None` when this process has made none.
    #[must_use]
    pub fn copy_progress(&self) -> Option<CopyProgress> {
        self.board.copy_progress()
    }

    /// The view of the replication connection that outlives each connection.
    #[must_use]
    pub fn source_monitor(&self) -> SourceMonitor {
        self.monitor.clone()
    }

    /// What the flow says of itself, for whoever stores it.
    #[must_use]
    pub fn said(&self) -> watch::Receiver<Said> {
        self.said.subscribe()
    }

    /// A session of this process has taken the lock of the copy; the target's process of that session.
    pub fn holds_copy_lock(&self, backend_pid: i32) {
        self.holds_lock(&self.copying_pids, backend_pid);
    }

    /// A session of this process has taken the lock of whoever applies; the target's process of that session.
    pub fn holds_apply_lock(&self, backend_pid: i32) {
        self.holds_lock(&self.applying, backend_pid);
    }

    // Each kind for itself: a copy that is tried again and again must not make the session that applies forgotten.
    fn holds_lock(&self, pids: &Mutex<Vec<i32>>, backend_pid: i32) {
        let mut pids = pids.lock().unwrap_or_else(PoisonError::into_inner);
        pids.insert(0, backend_pid);
        pids.truncate(OWN_PIDS);
        drop(pids);
        // What could not be stored because somebody held the lock perhaps can be now.
        self.said.send_modify(|_| {});
    }

    /// The sessions that have taken a lock of the flow. Some of them may have ended.
    #[must_use]
    pub fn own_pids(&self) -> Vec<i32> {
        let mut pids = self.applying_pids();
        pids.extend(self.copying_pids.lock().unwrap_or_else(PoisonError::into_inner).iter());
        pids
    }

    /// Those that apply, the last one first.
    #[must_use]
    pub fn applying_pids(&self) -> Vec<i32> {
        self.applying.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody is to be told: nobody was yet, of these very words.
    #[must_use]
    pub fn is_news(&self, text: &str) -> bool {
        self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned())
    }

    /// What was said no longer holds: should it come again, it is news.
    pub fn is_over(&self, text: &str) {
        self.warned.lock().unwrap_or_else(PoisonError::into_inner).remove(text);
    }

    /// So many tables are chosen by the patterns and are not part of the flow.
    pub fn not_added(&self, count: usize) {
        self.board.set_not_added(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Sequences of the target were set to where the source's stand.
    pub fn sequences_set(&self, count: usize) {
        self.board.metrics().sequences_set(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// What the last comparisons of both sides have said.
    pub fn verified(&self, verified: Verified) {
        self.board.set_verified(verified.at, unsigned(verified.differences));
    }

    /// The two databases of a flow between no nodes.
    pub fn between(&self, source: &ConnInfo, target: &ConnInfo) {
        self.board.set_nodes(around::ends(source, target));
    }

    /// The databases between which the role of the primary moves.
    pub fn nodes_seen(&self, nodes: Vec<NodeSight>) {
        self.board.set_nodes(nodes);
    }

    /// The last hand-overs, the newest first.
    pub fn handovers_seen(&self, handovers: &[HandoverRecord]) {
        self.board.set_handovers(handovers.iter().map(around::handover).collect());
    }

    /// So many errors are written down on the target.
    pub fn errors_counted(&self, count: i64) {
        self.board.set_queued_errors(count.unsigned_abs());
    }

    /// The flow's name is known now.
    pub fn named(&self, flow: &FlowName) {
        self.board.set_name(flow.as_str());
    }

    /// The node has this role since this epoch.
    pub fn set_role(&self, role: Role, epoch: u64) {
        self.board.set_role(role, epoch);
    }

    /// The node holds itself for the primary although it is not, or not alone.
    pub fn set_stale_primary(&self, stale: bool) {
        self.board.metrics().set_stale_primary(stale);
    }

    /// The node's own database answers.
    pub fn own_database_answers(&self) {
        self.board.contact(Side::Target);
    }

    /// The main loop is alive.
    pub fn beat(&self) {
        self.board.beat();
    }

    /// What the flow does.
    #[must_use]
    pub fn state(&self) -> FlowState {
        self.said.borrow().0
    }

    /// The flow does something else from now on.
    pub fn set_state(&self, state: FlowState, detail: Option<String>) {
        self.board.set_state(run_state(state), detail.clone());
        let word = (state, detail);
        let changed = self.said.send_if_modified(|said| {
            let changed = *said != word;
            said.clone_from(&word);
            changed
        });
        if changed {
            self.say("state", || json!({ "state": word.0.as_str(), "detail": word.1 }));
        }
    }

    /// An attempt to begin failed; another one follows.
    pub fn start_failed(&self, side: Side, kind: &str, text: &str) {
        self.error(side, kind, text);
    }

    fn error(&self, side: Side, kind: &str, text: &str) {
        debug_assert!(relevo_model::is_kind(kind), "{kind} is not in relevo_model::KINDS");
        self.board.error(Some(side), kind, text);
    }

    /// Something is wrong on the source that does not stop the flow.
    pub fn source_error(&self, kind: &str, text: &str) {
        self.error(Side::Source, kind, text);
    }

    /// The source was asked where its WAL ends and what time it is.
    pub fn source_polled(&self, position: SourceLsn, clock: Timestamp) {
        self.board.source_polled(position, Some(clock));
    }

    /// The source was asked for the slot.
    pub fn slot_seen(&self, name: &str, slot: Option<&SlotInfo>) {
        self.board.set_slot(slot.map(|slot| around::slot(name, slot)));
    }

    /// The tables that are copied, and how far an earlier attempt got does not count.
    pub fn copy_planned(&self, jobs: &[TableJob]) {
        let table = |job: &TableJob| TableProgress {
            name: job.table.to_string(),
            state: TableState::Pending,
            rows: 0,
            bytes: 0,
            total_bytes_estimate: Some(job.estimated_bytes),
        };
        self.board.set_tables(jobs.iter().map(table).collect());
    }

    /// The tables as the target has them recorded, with what is known of those that are about to be copied.
    pub fn tables_known(&self, tables: &[relevo_state::TableRecord], jobs: &[TableJob]) {
        let estimates: BTreeMap<String, u64> =
            jobs.iter().map(|job| (job.table.to_string(), job.estimated_bytes)).collect();
        let name = |record: &relevo_state::TableRecord| format!("{}.{}", record.schema, record.name);
        let table = |record: &relevo_state::TableRecord| TableProgress {
            name: name(record),
            state: match record.state {
                relevo_state::TableState::Pending => TableState::Pending,
                relevo_state::TableState::Copying => TableState::Copying,
                relevo_state::TableState::Copied => TableState::Copied,
                relevo_state::TableState::Streaming => TableState::Streaming,
            },
            rows: unsigned(record.copied_rows).unwrap_or(0),
            bytes: unsigned(record.copied_bytes).unwrap_or(0),
            total_bytes_estimate: estimates.get(&name(record)).copied().or(unsigned(record.total_bytes)),
        };
        self.board.set_tables(tables.iter().map(table).collect());
    }
}

fn unsigned(count: Option<i64>) -> Option<u64> {
    count.and_then(|count| u64::try_from(count).ok())
}

const fn run_state(state: FlowState) -> RunState {
    match state {
        FlowState::Preparing => RunState::Preparing,
        FlowState::Copying => RunState::Copying,
        FlowState::Streaming => RunState::Streaming,
        FlowState::Paused => RunState::Paused,
        FlowState::Stopped => RunState::Stopped,
        FlowState::Failed => RunState::Failed,
    }
}

impl FlowObserver for FlowBoard {
    fn event(&self, event: FlowEvent<'_>) {
        match event {
            FlowEvent::Turn => {
                self.board.beat();
                self.show_held();
            }
            FlowEvent::State(state) => {
                let reason = || self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
                match state {
                    PipelineState::Opening => {
                        self.set_state(FlowState::Preparing, Some("connecting".to_owned()))
                    }
                    PipelineState::Streaming => self.set_state(self.streaming(), None),
                    PipelineState::Held(at) => {
                        self.set_state(
                            FlowState::Paused,
                            Some(format!("held at {at} to compare both sides")),
                        );
                    }
                    PipelineState::Retrying => self.set_state(FlowState::Preparing, reason()),
                    PipelineState::Failed => self.set_state(FlowState::Failed, reason()),
                    PipelineState::Stopped => self.set_state(FlowState::Stopped, None),
                }
            }
            FlowEvent::Opened { progress } => self.board.opened(progress.applied, progress.commit_time),
            FlowEvent::Received { position } => self.board.received(position),
            FlowEvent::HandedOver { .. } => {}
            FlowEvent::Applied(batch) => self.board.committed(&Committed {
                position: batch.position,
                commit_times: &batch.commit_times,
                inserts: batch.changes.inserts,
                updates: batch.changes.updates,
                deletes: batch.changes.deletes,
                truncates: batch.changes.truncates,
                messages: batch.changes.messages,
                took: batch.took,
                missing_rows: batch.missing_rows,
                reapplied_changes: batch.reapplied_changes,
            }),
            FlowEvent::Ahead { committed } => self.board.metrics().ahead(committed),
            FlowEvent::Beside { committed } => self.board.metrics().beside(committed),
            FlowEvent::OldestUnapplied(time) => self.board.oldest_unapplied(time),
            FlowEvent::Reached { position } => self.board.reached(position),
            FlowEvent::Durable { position } => self.board.durable(position),
            FlowEvent::Buffer { bytes } => {
                self.held_bytes.store(bytes, Ordering::Relaxed);
                self.show_memory();
            }
            FlowEvent::TargetAlive => self.board.contact(Side::Target),
            FlowEvent::Failed { side, kind, text, .. } => {
                *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(with_kind(text, kind));
                self.error(side, kind, text);
            }
            FlowEvent::Reconnect { side } => self.board.metrics().reconnect(side),
        }
    }
}

impl CopyObserver for FlowBoard {
    fn event(&self, event: CopyEvent<'_>) {
        self.board.beat();
        match event {
            CopyEvent::PhaseStarted { phase, steps, estimated_bytes } => {
                self.board.set_copy_phase(Some(phase.as_str()));
                self.bar.begin(phase, steps, estimated_bytes);
                self.say("phase", || {
                    json!({ "phase": phase.as_str(), "steps": steps, "total_bytes_estimate": estimated_bytes })
                });
                if phase == Phase::Rows {
                    self.board.rows_begin();
                }
                if phase != Phase::Rows {
                    info!(%phase, steps, "copy: phase begins");
                } else {
                    info!(tables = steps, size = output::bytes(estimated_bytes), "copy: rows begin");
                }
            }
            CopyEvent::StepFinished { .. } => self.bar.step(),
            CopyEvent::TableStarted { table, estimated_bytes, .. } => {
                let name = table.to_string();
                self.board.restart_table(&name);
                self.board.set_table_state(&name, TableState::Copying);
                self.bar.table(&name);
                info!(table = name, size = output::bytes(estimated_bytes), "copy: table begins");
                self.say(
                    "table_copying",
                    || json!({ "table": name, "total_bytes_estimate": estimated_bytes }),
                );
            }
            CopyEvent::TableProgress { table, rows, bytes } => {
                self.board.copied(&table.to_string(), rows, bytes);
                self.bar.copied(bytes);
            }
            CopyEvent::TableFinished { table, rows, bytes, elapsed } => {
                let name = table.to_string();
                self.board.set_table_state(&name, TableState::Copied);
                let rate = per_second(bytes, elapsed);
                let size = output::bytes(bytes);
                info!(table = name, rows, size, seconds = elapsed.as_secs_f64(), rate, "copy: table done");
                self.say("table_copied", || {
                    json!({ "table": name, "rows": rows, "bytes": bytes, "seconds": elapsed.as_secs_f64() })
                });
            }
            CopyEvent::RowsLost { table, rows, bytes } => {
                self.board.copy_lost(&table.to_string(), rows, bytes);
                self.bar.lost(bytes);
            }
            CopyEvent::TableReady { table } => {
                info!(%table, "copy: table has its indexes and statistics");
                self.say("table_ready", || json!({ "table": table.to_string() }));
            }
            CopyEvent::Repeated { table, side, kind, message } => {
                self.error(side, kind, message);
                warn!(%table, %side, kind, "copy: trying again: {message}");
                self.say("table_again", || {
                    json!({ "table": table.to_string(), "side": side.to_string(), "kind": kind, "message": message })
                });
            }
            CopyEvent::Warning { message } => {
                if self.is_news(message) {
                    warn!("copy: {message}");
                    self.say("warning", || json!({ "message": message }));
                }
            }
        }
    }
}

impl FlowBoard {
    /// For these standbys a slot is armed here, each with the WAL that it keeps, in bytes.
    pub fn armed(&self, retained: &BTreeMap<String, u64>) {
        self.board.set_armed(retained);
    }

    /// The slots that other nodes read here.
    pub fn standby_slots_seen(&self, slots: &BTreeMap<String, ReaderStatus>) {
        self.board.set_standby_slots(slots);
    }

    /// The copy is over, one way or the other.
    pub fn copy_ended(&self) {
        self.board.set_copy_phase(None);
        self.bar.end();
    }

    /// Tables are on their way while the stream runs.
    pub fn copy_begins(&self) {
        self.copying.store(true, Ordering::Relaxed);
        self.set_state(FlowState::Copying, None);
    }

    /// Every table follows the stream.
    pub fn copy_completed(&self) {
        self.copy_ended();
        self.copying.store(false, Ordering::Relaxed);
        let streams = self.said.send_if_modified(|said| {
            let copying = said.0 == FlowState::Copying;
            if copying {
                *said = (FlowState::Streaming, None);
                self.board.set_state(RunState::Streaming, None);
            }
            copying
        });
        self.say("copy_completed", || json!({}));
        if streams {
            self.say("state", || json!({ "state": FlowState::Streaming.as_str(), "detail": null }));
        }
    }

    /// A table follows the stream.
    pub fn table_joined(&self, table: &QualifiedName) {
        self.board.set_table_state(&table.to_string(), TableState::Streaming);
        self.say("table_streaming", || json!({ "table": table.to_string() }));
    }

    /// The bound of memory, and the spool, to be shown.
    pub fn limits(&self, memory_bytes: usize, spool: SharedSpool) {
        let memory_bytes = u64::try_from(memory_bytes).unwrap_or(u64::MAX);
        self.board.metrics().set_limits(memory_bytes, spool.limit_bytes());
        *self.spool.lock().unwrap_or_else(PoisonError::into_inner) = Some(spool);
    }

    fn show_memory(&self) {
        let queued = u64::try_from(self.monitor.buffered_bytes()).unwrap_or(u64::MAX);
        let held = self.held_bytes.load(Ordering::Relaxed);
        self.board.metrics().set_buffer_bytes(held.saturating_add(queued));
    }

    /// What changes without the pipeline's doing.
    fn show_held(&self) {
        self.show_memory();
        self.board.metrics().set_streamed_bytes(self.monitor.streamed_bytes());
        self.board.metrics().reading_paused(self.monitor.paused());
        let spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.board.metrics().set_spool_bytes(spool.map_or(0, |spool| spool.used_bytes()));
    }

    /// The state of a flow whose stream runs.
    fn streaming(&self) -> FlowState {
        if self.copying.load(Ordering::Relaxed) { FlowState::Copying } else { FlowState::Streaming }
    }
}

fn per_second(bytes: u64, elapsed: Duration) -> String {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    format!("{}/s", output::bytes(bytes.saturating_mul(1000) / ms))
}
