//! Changing what publications list, without getting into the application's way.
//!
//! Each table that a publication takes in or gives up is locked in SHARE UPDATE EXCLUSIVE mode, one after the other (manual,
//! *Explicit Locking*). An application that locks the same tables in another order would meet that in a deadlock, and
//! the server may well choose the application's transaction to fail. So a table is waited for only while nothing else is
//! locked; that wait is as long as it takes, for it also ends an autovacuum of the table.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use relevo_catalog::TableName;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};
use tracing::debug;

use crate::sql;

/// So many times another table was in use. A database that is altered all the time gets what it would have got from the
/// script alone.
const ATTEMPTS: usize = 20;

/// Runs `script`, which locks `tables`, in a transaction.
pub(super) async fn change(source: &Client, tables: &BTreeSet<TableName>, script: &str) -> Result<(), Error> {
    if script.is_empty() {
        return Ok(());
    }
    let mut order: Vec<&TableName> = tables.iter().collect();
    for _ in 0..ATTEMPTS {
        let locks: String = order.iter().enumerate().map(|(index, table)| lock(table, index == 0)).collect();
        let Err((done, error)) = run(source, &format!("{locks}{script}")).await else { return Ok(()) };
        match error.code() {
            // The first was waited for: a limit of the session's own.
            Some(&SqlState::LOCK_NOT_AVAILABLE) if (1..order.len()).contains(&done) => {
                debug!(table = %order[done], "in use; it is waited for first");
                let in_use = order.remove(done);
                order.insert(0, in_use);
            }
            // An owner can have taken the right to lock from itself, and publish all the same.
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) if done < order.len() => break,
            _ => return Err(error),
        }
    }
    debug!(
        "the tables cannot be locked one by one; a transaction that locks several of them may meet this in a deadlock"
    );
    run(source, script).await.map_err(|(_, error)| error)
}

fn lock(table: &TableName, wait: bool) -> String {
    let how = if wait { "" } else { " NOWAIT" };
    format!("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE{how};\n", sql::only(table, false))
}

/// Runs statements as one message, so as one transaction. An error comes with the number of statements that were done
/// before it.
async fn run(source: &Client, script: &str) -> Result<(), (usize, Error)> {
    let mut done = 0;
    let running = async {
        let mut answers = std::pin::pin!(source.simple_query_raw(script).await?);
        while let Some(answer) = answers.try_next().await? {
            done += usize::from(matches!(answer, SimpleQueryMessage::CommandComplete(_)));
        }
        Ok(())
    };
    let result = running.await;
    result.map_err(|error| (done, error))
}
