//! Comparing both sides of a flow at one position of the source, and rewriting exactly the rows that differ.
//!
//! [`Moment::reach`] finds a position at which both sides can be looked at: a temporary slot's snapshot on the source, and
//! the target held exactly there ([`relevo_state::hold()`]) until a snapshot of it is open. [`verify()`] compares tables under
//! the two snapshots, [`repair()`] rewrites rows while the flow is held. What may not enter: how changes are applied, the
//! stream, and what is printed.

mod compare;
mod error;
mod merge;
mod moment;
mod order;
mod pace;
mod repair;
mod report;
mod sequences;
mod session;
mod shape;
mod sql;
mod text;
mod verify;

pub use error::VerifyError;
pub use moment::{Ends, Moment};
#[doc(no_inline)]
pub use relevo_snapshot::{SequenceGap, SequencePlace};
pub use repair::{Repaired, RepairedTable, make_equal, repair};
pub use report::{DifferenceKind, RowDifference, SkippedTable, TableReport, Verification};
pub use sequences::repair_sequences;
pub use verify::{VerifyOptions, verify};
