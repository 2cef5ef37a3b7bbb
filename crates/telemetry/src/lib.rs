//! What Relevo says of itself: metric names, lag, status, and the HTTP server that hands them out.
//!
//! The one place that is written to is the [`Board`]; HTTP and the metrics read from it at the moment they are
//! asked, so that no timer can hang and leave a healthy value standing. What may not enter: any knowledge of how
//! the values come about — no database, no flow, no configuration.

mod around;
mod board;
mod clock;
mod error;
mod history;
mod http;
mod lag;
mod metrics;
pub mod names;
mod pace;
mod process;
mod status;

pub use around::{
    HandoverStatus, Heard, NodeSight, NodeStatus, ReaderStatus, TablesSnapshot, VerificationStatus,
};
pub use board::{Board, Committed, Identity, ReadyRules};
pub use clock::Clock;
pub use error::TelemetryError;
pub use history::{HistorySnapshot, Sample, SlotBudget};
pub use http::{Entrance, HttpOptions, HttpServer, Listen, NoPlace, TlsFiles, ask};
pub use lag::{Lag, LagBytes};
pub use metrics::Metrics;
pub use status::{
    CopyProgress, LastError, Role, RunState, SlotStatus, StatusSnapshot, TableCounts, TableProgress,
    TableState,
};
