//! The life of `relevo run`: how far behind it says it is, what it says of itself, and how it stops.
//!
//! What may not enter: kills (see `kills`) and errors that need a hand (see `errs`), but for stopping in that state.

mod lag;
mod links;
mod metrics;
mod stopping;
