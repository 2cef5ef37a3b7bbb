//! The source of a flow: the replication connection, the slot, and the stream of committed transactions.
//!
//! [`PgSource`] is the port `ChangeSource` for PostgreSQL 14 to 18; [`ReplicationConnection`] creates and drops slots;
//! [`verdict()`] and [`same_source`] decide whether a flow may go on from what was found. What may not enter: the SQL of
//! the target, and how bytes of `pgoutput` are read.

mod applied;
mod auth;
mod connection;
mod error;
mod frame;
mod monitor;
mod pace;
mod pump;
mod queue;
mod slot;
mod source;
mod sql;
mod start;
mod verdict;
mod wire;

#[cfg(test)]
mod tests;

pub use auth::Login;
pub use connection::{CreatedSlot, ReplicationConnection, SlotLifetime, SlotSnapshot, SystemIdentity};
pub use error::SourceError;
pub use monitor::SourceMonitor;
pub use slot::{SlotHolder, SlotInfo, inspect_slot};
pub use source::PgSource;
pub use start::StartOptions;
pub use verdict::{ExpectedSlot, PLUGIN, Refusal, same_source, source_has, verdict};
