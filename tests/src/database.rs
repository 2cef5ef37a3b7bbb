//! A session of the harness itself in a database.

use std::ops::Deref;

use tokio::task::JoinHandle;
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::relevo::PATIENCE;
use crate::wait::wait_until_some;

/// An SQL session that ends when it is dropped. The short forms panic with the statement when it fails.
#[derive(Debug)]
pub struct Database {
    client: Client,
    driver: JoinHandle<()>,
}

impl Database {
    /// Opens a session without TLS.
    ///
    /// # Errors
    /// As `tokio_postgres` has them.
    pub async fn connect(config: &Config) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = config.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            // A lost connection shows in the statements of whoever uses it.
            let _ = connection.await;
        });
        Ok(Self { client, driver })
    }

    /// Runs one or more statements.
    pub async fn sql(&self, statements: &str) {
        self.try_sql(statements).await.unwrap_or_else(|error| failed(statements, &error));
    }

    /// Runs one or more statements.
    ///
    /// # Errors
    /// What the server says.
    pub async fn try_sql(&self, statements: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(statements).await
    }

    /// The only value of a query with one row and one column.
    pub async fn value<T: FromSqlOwned>(&self, query: &str) -> T {
        self.try_value(query).await.unwrap_or_else(|error| failed(query, &error))
    }

    /// The only value of a query with one row and one column.
    ///
    /// # Errors
    /// What the server says, or that there is not one row.
    pub async fn try_value<T: FromSqlOwned>(&self, query: &str) -> Result<T, tokio_postgres::Error> {
        self.client.query_one(query, &[]).await?.try_get(0)
    }

    /// The rows of a query in their text form; `None` is NULL.
    pub async fn rows(&self, query: &str) -> Vec<Vec<Option<String>>> {
        self.try_rows(query).await.unwrap_or_else(|error| failed(query, &error))
    }

    /// The rows of a query in their text form; `None` is NULL.
    ///
    /// # Errors
    /// What the server says.
    pub async fn try_rows(&self, query: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        let messages = self.client.simple_query(query).await?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The first column of each row in its text form; NULL is "NULL".
    pub async fn column(&self, query: &str) -> Vec<String> {
        let first = |row: Vec<Option<String>>| row.into_iter().next().flatten();
        self.rows(query)
            .await
            .into_iter()
            .map(|row| first(row).unwrap_or_else(|| "NULL".to_owned()))
            .collect()
    }

    /// Waits until everything that `source` has committed up to now is in this database, the target of one flow.
    pub async fn caught_up_with(&self, source: &Self) {
        let position: String = source.value("SELECT pg_current_wal_insert_lsn()::text").await;
        // Makes the position grow further, so that whatever is counted passes it.
        source.sql("SELECT pg_logical_emit_message(false, 'relevo-tests', '')").await;
        let query =
            format!("SELECT applied_lsn::text FROM relevo.progress WHERE applied_lsn >= '{position}'");
        wait_until_some(&format!("applied_lsn {position} on the target"), PATIENCE, async || {
            let rows = self.try_rows(&query).await.map_err(|error| error.to_string())?;
            if rows.is_empty() { Err("an earlier one".to_owned()) } else { Ok(()) }
        })
        .await;
    }
}

impl Deref for Database {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn failed(statement: &str, error: &tokio_postgres::Error) -> ! {
    match error.as_db_error() {
        Some(said) => panic!("{statement}\n{said} {}", said.detail().unwrap_or_default()),
        None => panic!("{statement}\n{error:?}"),
    }
}
