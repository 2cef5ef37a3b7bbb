//! The initial copy: what turns a target into a copy of the source as of an exported snapshot, from which the
//! stream goes on; and the publications that the stream needs.
//!
//! In order:
//! 1. [`plan`]: every reason not to begin, before anything is changed.
//! 2. [`publish`], then create the slot with an exported snapshot, and keep its session open.
//! 3. [`copy_schema`], [`copy_rows`], [`finish`].
//!
//! Until [`finish`] has recorded the flow's progress, a start begins at 1 again: tables that Relevo has recorded
//! are emptied and copied anew under a new snapshot, and what comes after the rows goes on where it was. Rows that
//! Relevo did not bring are never removed. What may not enter: streaming, slots, and how changes are applied.
//!
//! Each of the three steps opens its own sessions and holds the flow's advisory lock on the target
//! ([`relevo_model::FlowName::lock_key`]) meanwhile; the caller must not hold it in another session.

mod error;
mod finish;
mod observe;
mod options;
mod pg_dump;
mod plan;
mod publication;
mod pump;
mod rows;
mod schema;
mod script;
mod session;
mod sql;

pub use error::SnapshotError;
pub use finish::finish;
pub use observe::{CopyEvent, CopyObserver, Phase};
pub use options::{CopyOptions, ExportedSnapshot, SchemaMode, Stop};
pub use pg_dump::PgDump;
pub use plan::{CopyPlan, SchemaAction, TableJob, plan, selected_tables};
pub use publication::{Existing, publish};
pub use rows::{RowsCopied, copy_rows};
pub use schema::copy_schema;
