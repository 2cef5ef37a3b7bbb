//! What is shipped for Prometheus and Grafana: the files by themselves, and with a real Prometheus that scrapes a real cluster.
//!
//! What may not enter: tests of the metrics themselves, which are in e2e/life and in crates/telemetry.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod dashboards;
mod rules;
mod scraped;
