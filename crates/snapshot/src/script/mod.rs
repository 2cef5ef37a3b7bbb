//! The text of a schema dump: its statements, and what has to change so that another server takes them.
//! Pure: knows no connection and no process.

mod about;
mod keys;
mod lexer;
mod older;
mod split;
mod statement;
mod transform;

#[cfg(test)]
mod tests;

pub use about::{
    ForeignKey, created_index, foreign_key, schema_or_type, shares_table, tables as tables_of_statements,
};
pub use keys::key_parts;
#[cfg(test)]
use split::{Piece, split};
pub use statement::{not_valid, summary};
pub use transform::{Adapted, AdaptedStatement, TargetFacts, transform};
