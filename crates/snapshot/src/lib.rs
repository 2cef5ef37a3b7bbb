//! The initial copy.
mod script;
pub use script::*;
