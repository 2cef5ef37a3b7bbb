//! What the system catalogs of either side say, and what follows from it for a flow.
//!
//! This crate reads tables, sequences and server facts, compares both sides, and gives the verdicts of
//! `relevo check`. It changes nothing, except that a check may create and drop a temporary slot. What may not
//! enter: how rows are copied or applied, the replication protocol, and connecting.
//!
//! Every client that is passed in must have `search_path = ''`, so that the server qualifies the names of types
//! that it prints.

mod check;
mod compare;
mod error;
mod expected;
mod finding;
mod name;
mod published;
mod queries;
mod queries_check;
mod selection;
mod sequence;
mod server;
mod table;
mod type_fit;

pub use check::{UNANSWERED, check_both, check_nodes};
pub use compare::{compare, identities};
pub use error::CatalogError;
pub use finding::{Finding, Severity, worst};
pub use name::{TableName, quote_identifier, quote_literal};
pub use published::{PublishedTable, published};
pub use selection::{Pattern, Selection, SelectionError};
pub use sequence::{SequenceInfo, SequenceValue, sequences};
pub use server::{Extension, ManagedBy, ServerFacts, server};
pub use table::{ColumnIdentity, ColumnInfo, Generated, TableInfo, TableKind, tables, user_tables};
