//! The one error of this crate: a query of a system catalog that failed.

use relevo_model::FaultClass;
use tokio_postgres::Row;
use tokio_postgres::row::RowIndex;
use tokio_postgres::types::FromSql;

/// A system catalog could not be read, or held something that this version does not know.
///
/// The caller knows which side it asked and says so when it passes the error on.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The server refused the query, or the connection was lost.
    #[error("could not read {what} from the system catalogs")]
    Query {
        /// What was being read, for people.
        what: &'static str,
        /// What the server or the connection said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A catalog holds a value that no supported version of PostgreSQL has.
    #[error("the system catalogs say {value:?} for {what}, which this version of Relevo does not know")]
    Unknown {
        /// Which value it is.
        what: &'static str,
        /// The value itself.
        value: String,
    },
}

impl CatalogError {
    /// What can be done about it: a lost connection passes, a missing right or a foreign server needs a hand.
    #[must_use]
    pub fn class(&self) -> FaultClass {
        match self {
            CatalogError::Unknown { .. } => FaultClass::Blocked,
            CatalogError::Query { source, .. } => match source.code() {
                None => FaultClass::Transient,
                Some(code) => match code.code().get(..2) {
                    // Syntax or access rule, invalid name, feature not supported: repeating will not help.
                    Some("42" | "3F" | "0A" | "22") => FaultClass::Blocked,
                    _ => FaultClass::Transient,
                },
            },
        }
    }

    /// A short stable word for it, as in [`relevo_model::Fault::kind`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            CatalogError::Query { .. } => "catalog_query",
            CatalogError::Unknown { .. } => "catalog_unknown",
        }
    }
}

/// Names what was read when a query fails.
pub(crate) fn reading(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> CatalogError {
    move |source| CatalogError::Query { what, source }
}

/// A column of a catalog's row, without the panic of `Row::get`: an SQL_ASCII database may hold names that are
/// no UTF-8.
pub(crate) fn get<'a, I, T>(row: &'a Row, column: I) -> Result<T, CatalogError>
where
    I: RowIndex + std::fmt::Display,
    T: FromSql<'a>,
{
    row.try_get(column).map_err(reading("a value"))
}
