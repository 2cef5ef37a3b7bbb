//! What is shipped for Prometheus and Grafana, as far as neither a server nor a Relevo is needed to judge it. That the queries
//! answer is tested in e2e/prometheus.rs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod dashboards;
mod rules;
