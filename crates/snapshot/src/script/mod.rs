//! The text of a schema dump: its statements, and what has to change so that another server takes them.
//! Pure: knows no connection and no process.

mod lexer;
mod older;
mod split;
mod statement;
mod transform;

#[cfg(test)]
mod tests;

#[cfg(test)]
use split::{Piece, split};
pub use statement::{not_valid, summary};
pub use transform::{Adapted, AdaptedStatement, TargetFacts, transform};
