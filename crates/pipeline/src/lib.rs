//! Source → batcher → target: flow control, the retry table, shutdown.
//!
//! This crate is for what happens *between* the two ports of [`relevo_model`]: when a batch goes, when the
//! source is held back, which position may be confirmed, what is done about an error, and how a flow stops.
//! What may not enter: any knowledge of the databases behind the ports — no SQL, no protocol, no sockets, no
//! metrics. Whoever wants to watch implements [`FlowObserver`].

mod ahead;
mod beside;
mod durability;
mod error;
mod flow;
mod gate;
mod idle;
mod observe;
mod options;
mod order;
mod retry;
mod session;
mod worker;
mod writes;

pub use ahead::AheadSessions;
pub use durability::DurabilityQueue;
pub use error::FlowError;
pub use flow::{Flow, Opened, OpenedBy, Sessions};
pub use idle::{IdleProgress, IdleRules};
pub use observe::{AppliedBatch, ChangeCounts, FlowEvent, FlowObserver, FlowState};
pub use options::FlowOptions;
pub use retry::{Backoff, Repeats, RetryRule, retry_rule};
