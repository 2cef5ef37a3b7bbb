//! Tests of the harness itself, against real servers: a judge that sees nothing would pass everything.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod clusters;
mod comparison;
mod proxies;
mod workloads;
