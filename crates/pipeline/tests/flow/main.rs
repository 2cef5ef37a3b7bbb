//! A flow between a scripted source and a target that is a simple log: no database, no real time.

#![allow(clippy::unwrap_used, reason = "all of this is test code, helpers too")]

mod ahead;
mod behaviour;
mod beside;
mod faults;
mod holding;
mod stopping;
mod world;
