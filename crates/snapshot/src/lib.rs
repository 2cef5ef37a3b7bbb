//! The initial copy: what turns a target into a copy of the source as of an exported snapshot, from which the
//! stream goes on; and the publications that the stream needs.
//!
//! In order:
//! 1. [`plan()`]: every reason not to begin, before anything is changed.
//! 2. [`publish`], then create the slot with an exported snapshot, and keep its session open.
//! 3. [`copy_schema`], [`copy_rows`], [`finish()`].
//!
//! Until [`finish()`] has recorded the flow's progress, a start begins at 1 again: tables that Relevo has recorded
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
mod sequences;
mod session;
mod sql;
mod unchanged;

pub use error::SnapshotError;
pub use finish::finish;
pub use observe::{CopyEvent, CopyObserver, Phase};
pub use options::{CopyOptions, ExportedSnapshot, SchemaMode, Stop};
pub use pg_dump::PgDump;
pub use plan::{CopyPlan, SchemaAction, TableJob, plan, selected_tables};
pub use publication::{Existing, mark_owner, owner, publish};
pub use rows::{RowsCopied, copy_rows};
pub use schema::copy_schema;
pub use sequences::{SequenceMode, Sequences, SequencesSet, sequence_stays};

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send(_: impl Send) {}

    fn options() -> CopyOptions {
        CopyOptions {
            flow: "f".parse().unwrap(),
            source: "postgres://u@h/d".parse().unwrap(),
            target: "postgres://u@h/d".parse().unwrap(),
            selection: relevo_catalog::Selection::default(),
            mode: SchemaMode::Auto,
            via_partition_root: false,
            pg_dump: None,
        }
    }

    #[test]
    fn the_steps_can_run_in_a_task_of_their_own() {
        let options = options();
        let plan = CopyPlan {
            schema: SchemaAction::Ready,
            tables: Vec::new(),
            jobs: Vec::new(),
            findings: Vec::new(),
        };
        let snapshot = ExportedSnapshot { name: String::new(), lsn: relevo_model::SourceLsn::ZERO };
        let identity =
            relevo_model::SourceIdentity { system_id: String::new(), timeline: 1, database: String::new() };
        let stop = Stop::new(tokio::sync::watch::channel(false).1);
        is_send(copy_schema(&options, &plan, &snapshot, &(), &stop));
        is_send(copy_rows(&options, &plan, &snapshot, &(), &stop));
        is_send(finish(&options, &plan, &snapshot, &identity, &(), &stop));
    }

    #[tokio::test]
    async fn a_stop_that_came_before_the_work_ends_it_at_once() {
        let options = options();
        let sessions = session::Sessions::new(&options);
        let (sender, receiver) = tokio::sync::watch::channel(false);
        let stop = Stop::new(receiver);
        assert!(matches!(sessions.run(&stop, async { Ok(1) }).await, Ok(1)));
        sender.send(true).unwrap();
        let never = std::future::pending::<Result<(), SnapshotError>>();
        assert!(matches!(sessions.run(&stop, never).await, Err(SnapshotError::Stopped)));
    }
}
