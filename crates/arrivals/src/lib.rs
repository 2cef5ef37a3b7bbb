//! Tables that arrive while the stream runs: their rows are copied beside it, as of an LSN of their own, and what the
//! stream brings for them meanwhile is kept in the spool until they are there.
//!
//! [`ArrivalTarget`] wraps a target. What concerns tables that have not arrived goes into a log for each of them, the
//! rest passes; when a table has arrived, the transactions behind its LSN are applied from its log, in one transaction
//! of the target, after which it follows the stream like any other. [`Arrivals`] is what the copy and the target know
//! of each other.
//!
//! The order that makes this safe:
//! 1. a table is [expected](Arrivals::expect) before the source sends anything of it, and before its snapshot is taken;
//! 2. a log is on disk before the target commits the position behind it;
//! 3. the transaction that lets a table follow the stream is flushed before its log is removed;
//! 4. whoever opens the target anew forgets what the logs hold behind the stored position: it comes again.
//!
//! What may not enter: SQL, how rows are copied, and which tables there are.

mod arrivals;
mod error;
mod log;
mod spool;
mod target;

pub use arrivals::Arrivals;
pub use error::ArrivalError;
pub use spool::SharedSpool;
pub use target::ArrivalTarget;
