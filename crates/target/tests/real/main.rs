//! The target against real servers: what a change does to the rows, what an error says, who may apply.
//!
//! There is no source here: each test writes down the relations and changes that one would send. The server is
//! PostgreSQL 15, or the major version in `RELEVO_TEST_TARGET`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod ahead;
mod errors;
mod fixture;
mod full;
mod holding;
mod net;
mod rows;
mod session;
mod sets;
mod truncate;
mod types;
