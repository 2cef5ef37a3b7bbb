//! The initial copy: what turns a target into a copy of the source as of an exported snapshot, from which the
//! stream goes on; and the publications that the stream needs.
//!
//! In order:
//! 1. [`plan()`]: every reason not to begin, before anything is changed.
//! 2. [`publish`], then create the slot with an exported snapshot, and [hold](HeldSnapshot) it.
//! 3. [`copy_schema`]; from then on the stream may begin.
//! 4. [`check_snapshot`] and [`copy_tables`], for all tables or for some of them under a snapshot of their own, as often as
//!    it takes; [`complete_tables`] for those whose rows an earlier call has brought.
//! 5. [`finish_schema`], when all tables follow the stream.
//!
//! Every table is recorded with how far it is, so an interrupted copy goes on with what is missing. Rows that Relevo did
//! not bring are never removed. What may not enter: streaming, slots, and how changes are applied.
//!
//! Each step opens its own sessions. On the target they share an advisory lock ([`relevo_state::FlowLock::Rows`]) that
//! whoever begins an attempt takes alone for a moment; the caller must not hold it. Whoever applies changes takes another.

mod creation;
mod engine;
mod error;
mod finish;
mod format;
mod hold;
mod more;
mod observe;
mod options;
mod packing;
mod pg_dump;
mod plan;
mod publication;
mod pump;
mod rest;
mod rows;
mod schema;
mod script;
mod sequences;
mod session;
mod sql;
mod unchanged;
mod walk;

pub use creation::{Creation, creation};
pub use error::SnapshotError;
pub use finish::{finish_added, finish_schema};
pub use hold::HeldSnapshot;
pub use more::register_more;
pub use observe::{CopyEvent, CopyObserver, Phase};
pub use options::{CopyOptions, ExportedSnapshot, SchemaMode, Split, Stop};
pub use pg_dump::PgDump;
pub use plan::{CopyPlan, SchemaAction, TableJob, plan, selected_tables};
pub use publication::{
    Existing, Published, mark_owner, owner, publish, publish_less, publish_more, published,
};
pub use rows::{RowsCopied, check_snapshot, complete_tables, copy_tables};
pub use schema::copy_schema;
pub use sequences::{
    SequenceGap, SequenceMode, SequencePlace, Sequences, SequencesSet, sequence_gaps, sequence_stays,
};

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
            jobs: std::num::NonZeroUsize::MIN,
            split: Split::WherePays,
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
        let stop = Stop::new(tokio::sync::watch::channel(false).1);
        is_send(copy_schema(&options, &plan, &snapshot, &(), &stop));
        is_send(check_snapshot(&options, &plan, (&[], true), &snapshot, &stop));
        is_send(copy_tables(&options, (&[], &[]), &snapshot, &(), &stop));
        is_send(complete_tables(&options, &[], &(), &stop));
        is_send(finish_schema(&options, &(), &stop));
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
