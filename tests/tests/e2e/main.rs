//! The end-to-end tests: real servers, a real `relevo` process, one binary, one harness.
//!
//! What may not enter: knowledge of the product's insides; see the harness crate's rule.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod adding;
mod arriving;
mod commands;
mod composed;
mod connections;
mod copying;
mod entrance;
mod errors;
mod existing;
mod formats;
mod handover;
mod health;
mod identity;
mod keys;
mod kills;
mod life;
mod mending;
mod page;
mod plans;
mod progress;
mod refusals;
mod review_start;
mod review_streaming;
mod rights;
mod role_script;
mod runbook;
mod running;
mod schema;
mod secrets;
mod sequences;
mod smoke;
mod standing;
mod tables;
mod values;
mod verifying;
mod waiting;
mod warnings;
mod watching;
