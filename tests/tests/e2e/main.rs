//! The end-to-end tests: real servers, a real `relevo` process, one binary, one harness.
//!
//! What may not enter: knowledge of the product's insides; see the harness crate's rule.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod kills;
mod life;
mod plans;
mod review_start;
mod smoke;
