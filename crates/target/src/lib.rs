//! Applies batches of changes to a PostgreSQL database, in the source's order, and writes the progress in the
//! same transaction.
//!
//! [`PgTarget`] is the model's `ChangeTarget`, [`PgAheadTarget`] its `AheadTarget`, [`PgFlushProbe`] its `FlushProbe`. What may not enter: the
//! replication protocol, when batches are made, and retrying.

mod ahead;
mod apply;
mod blame;
mod by_sets;
mod cell;
mod copy;
mod distrust;
mod error;
mod flight;
mod fold;
mod known;
mod mapping;
mod missing;
mod open;
mod probe;
mod record;
mod run;
mod segment;
mod set_statement;
mod shape;
mod stamp;
mod statement;
mod truncate;

pub use ahead::PgAheadTarget;
pub use error::{FailedChange, TargetError};
pub use open::{ApplyOrder, FIRST_STRETCH, PgTarget, TargetOptions};
pub use probe::PgFlushProbe;
