//! What Relevo remembers in a database: schema `relevo`, its tables and the statements that read and write them.
//!
//! All SQL on schema `relevo` stands in this crate, so that its shape can change in one place. What may not
//! enter: user tables, the replication protocol, and decisions about when something is written.
//!
//! Every function takes a [`GenericClient`], so that a caller puts several of them in one transaction.

mod error;
mod flow;
mod install;
mod queue;
mod statement;
mod table;

pub use error::StateError;
pub use flow::{
    ADVANCE_PROGRESS, FlowLock, FlowRecord, FlowState, StoredProgress, begin_attempt, begin_streaming,
    create_flow, flow, flows, forget_progress, mark_schema_ready, progress, say_state, set_state, try_lock,
};
pub use install::{VERSION, install, installed_version};
pub use queue::{
    ERRORS_KEPT, ErrorRecord, NewError, clear_errors, error_count, errors, record_errors, trim_errors,
};
pub use statement::{finish_statement, pending_statements, save_statements};
pub use table::{
    OtherTable, TableRecord, TableState, drop_table, mark_copied, mark_copying, register_table,
    set_source_changes, tables, tables_of_others,
};
#[doc(no_inline)]
pub use tokio_postgres::GenericClient;
