//! What Relevo remembers in a database: schema `relevo`, its tables and the statements that read and write them.
//!
//! All SQL on schema `relevo` stands in this crate, so that its shape can change in one place. What may not
//! enter: user tables, the replication protocol, and decisions about when something is written.
//!
//! Every function takes a [`GenericClient`], so that a caller puts several of them in one transaction.

mod copying;
mod error;
mod flow;
mod handover;
mod hold;
mod install;
mod lock;
mod node;
mod queue;
mod range;
mod statement;
mod table;
mod verification;

pub use copying::{CopyPace, SentTable, copy_pace, note_copy};
pub use error::StateError;
pub use flow::{
    FlowRecord, FlowState, StoredProgress, advance_progress, begin_attempt_of, begin_streaming, change_spool,
    claim_spool, complete_copy, copy_attempt, create_flow, flow, flows, forget_progress, mark_schema_ready,
    progress, reopen_copy, say_state, set_state,
};
pub use handover::{
    HandoverKind, HandoverRecord, HandoverState, Hook, HookState, handovers, hook_state, hooks_due,
    last_handovers, led_from, note_hook, put_handover,
};
pub use hold::{HOLD_CHANNEL, Hold, held, hold, lock_held, release, renew_hold, stand_at};
pub use install::{VERSION, install, installed_version};
pub use lock::{FlowLock, end_holder, holder, is_locked, lock, lock_shared, try_lock, unlock};
pub use node::{
    AdoptedTable, NodeRecord, RoleNote, adopt_flow, beat, end_flow, hold_node, hold_progress, init_node,
    node, note_fence_lsn, note_role, repoint_flow, sample_progress,
};
pub use queue::{
    ERRORS_KEPT, ErrorRecord, NewError, clear_errors, error_count, errors, record_errors, trim_errors,
};
pub use range::{CopiedRange, begin_range, finish_range, forget_ranges, ranges};
pub use statement::{
    NewStatement, PendingStatement, append_statements, finish_statement, is_pending, pending_statements,
    save_statements, still_pending,
};
pub use table::{
    JOIN_TABLES, OtherTable, TableRecord, TableState, copied_counts, drop_streaming_table, drop_table,
    mark_copied, mark_copying, register_table, set_source_changes, table_counts, tables, tables_of_others,
};
#[doc(no_inline)]
pub use tokio_postgres::GenericClient;
pub use verification::{Verified, VerifiedTable, save_mended, save_verification, verified};
