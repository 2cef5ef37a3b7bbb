//! Every metric: its name and what it means. The names are a contract; units are base units.
//!
//! Each sample carries two labels besides its own, see [`IDENTITY`].

/// A metric's name and its HELP text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricName {
    /// As Prometheus sees it.
    pub name: &'static str,
    /// What it means and in which unit.
    pub help: &'static str,
}

/// The labels of every sample: `name` is the flow's name or, where the configuration file names nodes, the cluster's, which all
/// its nodes share; `node` is the node that the process stands next to, empty without such a file.
pub const IDENTITY: [&str; 2] = ["name", "node"];

macro_rules! metrics {
    ($($constant:ident = $name:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: MetricName = MetricName { name: $name, help: $help };
        )*
        /// All of them.
        pub const ALL: &[MetricName] = &[$($constant),*];
    };
}

metrics! {
    LAG_SECONDS = "relevo_replication_lag_seconds",
        "How far behind the source the target is, in seconds. 0 when caught up; grows while either side is unreachable.";
    LAG_BYTES = "relevo_replication_lag_bytes",
        "WAL of the source that has not reached the stage, in bytes. Stays at the last known value while the source is unreachable.";
    COMMIT_TO_VISIBLE = "relevo_commit_to_visible_seconds",
        "Time from a transaction's commit on the source until it is visible on the target, in seconds.";
    TRANSACTIONS_APPLIED = "relevo_transactions_applied_total",
        "Transactions committed on the target.";
    CHANGES_APPLIED = "relevo_changes_applied_total",
        "Changes committed on the target, by operation.";
    BATCH_TRANSACTIONS = "relevo_batch_transactions",
        "Transactions that became visible on the target together.";
    BATCH_APPLY_SECONDS = "relevo_batch_apply_seconds",
        "Time that the target took for a batch, commit included, in seconds.";
    BUFFER_BYTES = "relevo_buffer_bytes",
        "Changes held in memory, waiting or being applied, in bytes.";
    BUFFER_LIMIT = "relevo_buffer_limit_bytes",
        "What relevo_buffer_bytes may reach: the setting memory, in bytes.";
    SPOOL_BYTES = "relevo_spool_bytes",
        "Changes held on disk, in bytes.";
    SPOOL_LIMIT = "relevo_spool_limit_bytes",
        "What relevo_spool_bytes may reach: the setting spool_limit, in bytes.";
    STREAMED_BYTES = "relevo_streamed_bytes",
        "Changes of transactions that have not ended on the source, in memory or on disk, in bytes.";
    READING_PAUSED = "relevo_reading_paused_seconds_total",
        "Time in which nothing was read because memory was full, so that the source had to wait, in seconds.";
    SLOT_RETAINED = "relevo_slot_retained_wal_bytes",
        "WAL that the source keeps for the slot, in bytes.";
    SLOT_SAFE = "relevo_slot_safe_wal_bytes",
        "WAL that can still be written on the source before the slot is in danger, in bytes. Absent when there is no limit.";
    SLOT_WAL_STATUS = "relevo_slot_wal_status",
        "1 for the wal_status that the source gives the slot, 0 for the others. Absent while that is not known.";
    STANDBY_SLOT_RETAINED = "relevo_standby_slot_retained_wal_bytes",
        "WAL that this node's database keeps for the slot that another node reads here, in bytes. Absent when there is no such slot.";
    STANDBY_SLOT_SAFE = "relevo_standby_slot_safe_wal_bytes",
        "WAL that can still be written here before the slot of another node is in danger, in bytes. Absent when there is no limit.";
    STANDBY_SLOT_WAL_STATUS = "relevo_standby_slot_wal_status",
        "1 for the wal_status that this node's database gives the slot of another node, 0 for the others.";
    STANDBY_SLOT_ACTIVE = "relevo_standby_slot_active",
        "1 while somebody reads the slot of another node here, else 0.";
    ARMED_RETAINED = "relevo_armed_slot_retained_bytes",
        "WAL that the slot keeps which this node has armed for another standby, in bytes. Absent when none is armed for it.";
    RECONNECTS = "relevo_reconnects_total",
        "Times that both ends were opened again, by the side that failed.";
    ERRORS = "relevo_errors_total",
        "Errors, by kind. An error that returns at every attempt counts every time.";
    ERRORS_WAITING = "relevo_errors_waiting",
        "Errors that are written down on the target until somebody has seen to them: what relevo errors lists. Absent while that is not known.";
    COPY_ROWS = "relevo_copy_rows_total",
        "Rows copied by the initial copy.";
    COPY_BYTES = "relevo_copy_bytes_total",
        "Data copied by the initial copy, in bytes.";
    COPY_TOTAL_BYTES = "relevo_copy_total_bytes",
        "Size on the source of the tables that are being copied or were, in bytes. Absent when no copy was made.";
    COPY_REMAINING = "relevo_copy_remaining_seconds",
        "How long the rows that are missing will take at the present rate, in seconds. Absent when that is not known, or no copy was made.";
    TABLES = "relevo_tables",
        "Replicated tables, by state.";
    TABLES_NOT_ADDED = "relevo_tables_not_added",
        "Tables of the source that the patterns choose and that are not replicated: they came after the copy, or were taken out.";
    LAST_VERIFIED = "relevo_last_verified_timestamp_seconds",
        "When the table of the flow whose comparison with the source is the oldest was compared last, in seconds since 1970-01-01 UTC. 0 while a table was never compared.";
    VERIFY_DIFFERENCES = "relevo_verify_differences",
        "Rows that differed when the tables were last compared and that were not mended since. Absent when none was ever compared.";
    ROLE = "relevo_role",
        "1 for the role that the node has, 0 for the other.";
    EPOCH = "relevo_epoch",
        "The epoch that the node knows: it grows with each hand-over.";
    STALE_PRIMARY = "relevo_stale_primary",
        "1 while this node holds itself for the primary and another node has the role, or claims it in the same epoch: it is fenced, and has to rejoin.";
    BUILD_INFO = "relevo_build_info",
        "Always 1; the label says which version runs.";
    FLOW_STATE = "relevo_flow_state",
        "1 for the state that the flow is in, 0 for the others.";
    MISSING_ROWS = "relevo_target_missing_rows_total",
        "Rows that an update or delete did not find on the target. They are logged, with their keys.";
    REAPPLIED = "relevo_changes_reapplied_total",
        "Changes that were applied one by one after they could not be applied as sets: unique values changed hands, or rows \
         were missing. Many of them make the flow slow, not wrong.";
    AHEAD = "relevo_transactions_ahead_total",
        "Large transactions that were applied before their commit on the source, by what became of it: committed, or taken \
         back because something was in the way. What was taken back is applied once more after the commit.";
    BESIDE = "relevo_batches_beside_total",
        "Batches that were applied beside the one before them, in a second session of the target, by what became of them: \
         committed behind it, or taken back and applied once more.";
    SEQUENCES_SET = "relevo_sequences_set_total",
        "Sequences that were set on the target to where the source's stand, while streaming.";
    LAST_CONTACT = "relevo_last_contact_seconds",
        "Time since the side was heard from, in seconds; since the start when it never was.";
    POSITION = "relevo_position_bytes",
        "The position in the source's WAL that a stage has reached, in bytes from the WAL's beginning.";
    HEARTBEAT_AGE = "relevo_heartbeat_age_seconds",
        "Time since the main loop last went round, in seconds.";
    PROCESS_CPU = "process_cpu_seconds_total",
        "User and system CPU time spent, in seconds.";
    PROCESS_MEMORY = "process_resident_memory_bytes",
        "Resident memory, in bytes.";
    PROCESS_FILES = "process_open_fds",
        "Open file descriptors.";
    PROCESS_START = "process_start_time_seconds",
        "When the process started, in seconds since 1970-01-01 UTC.";
}
