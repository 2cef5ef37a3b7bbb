//! The harness of the end-to-end tests: real PostgreSQL servers, a real `relevo` process, a proxy with faults
//! between them, and ways to compare what came of it.
//!
//! What may not enter: any crate of the product. The tests judge the program from outside, by its command line,
//! its HTTP endpoint and the two databases; a mistake in the product must not be shared by its judge.
//!
//! A test fails by panicking, so this crate unwraps freely. Everything that it starts ends with the value that
//! stands for it, also when a test panics, and also when the whole test process is killed (see [`watchdog`]).
//!
//! ```ignore
//! let pair = Pair::start(Version::V14, Version::V15).await;
//! pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
//! let relevo = pair.relevo().start();
//! relevo.wait_until_streaming().await;
//! pair.source.sql("INSERT INTO t SELECT generate_series(1, 1000)").await;
//! pair.settle().await;              // caught up, and every table equal
//! relevo.terminate();               // SIGTERM: exit code 0 within 5 s
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test harness fails by panicking")]

pub mod bench;
pub mod browser;
pub mod certificates;
pub mod cluster;
pub mod compare;
pub mod confirmed;
pub mod dashboard;
pub mod database;
pub mod endpoint;
pub mod install;
pub mod large;
pub mod links;
pub mod nodes;
pub mod pair;
pub mod pgbench;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod psql;
pub mod relevo;
pub mod seed;
mod template;
pub mod terminal;
pub mod wait;
pub mod walsender;
pub mod watchdog;
pub mod workload;

pub use browser::{Browser, Screen};
pub use certificates::Certificates;
pub use cluster::{Cluster, ClusterBuilder, PASSWORD, Saved};
pub use compare::Comparison;
pub use confirmed::ConfirmedWatch;
pub use database::Database;
pub use endpoint::Metrics;
pub use install::Version;
pub use links::Links;
pub use nodes::Nodes;
pub use pair::{FLOW, Pair, PairBuilder};
pub use pgbench::Pgbench;
pub use prometheus::Prometheus;
pub use proxy::{Direction, Proxy};
pub use relevo::{Relevo, RelevoBuilder};
pub use seed::Seed;
pub use wait::{wait_until, wait_until_some};
pub use walsender::SlotHolder;

/// How much longer or larger a test may be: 1, or the value of `RELEVO_SOAK` when that is set (`make soak`).
#[must_use]
pub fn soak_factor() -> u32 {
    std::env::var("RELEVO_SOAK").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1).max(1)
}
