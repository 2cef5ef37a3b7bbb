//! What the source sends of transactions while they still run: in memory up to a bound, beyond it in the spool.
//!
//! [`RunningStore`] is the store of an `Assembler` that asked for streaming. Small transactions never touch the disk; when
//! memory runs short the largest one moves to a log of its own in the spool, and goes on there. What belongs to a
//! subtransaction that was rolled back is left where it is and skipped when the transaction is read back.
//!
//! Nothing here is worth keeping: the source sends a transaction again, from its beginning, until the target has stored
//! its commit. So nothing is synced, a log is removed when its transaction has ended or the store is dropped, and those
//! of a killed process are removed by whoever opens the spool next.
//!
//! What may not enter: what a frame means, async runtimes, SQL.

mod error;
mod memory;
mod store;

pub use error::{Held, RunningError};
pub use store::{RunningFrames, RunningStore};
