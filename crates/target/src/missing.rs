//! Rows that an update or delete did not find: logged with their keys, counted, and written down.
//!
//! As in native replication a missing row does not stop the flow; unlike there, it is not left to the log alone.
//! What may not enter: looking for the row.

use relevo_model::FlowName;
use relevo_state::NewError;
use tokio_postgres::Client;
use tracing::warn;

use crate::blame::{Item, key, operation};
use crate::mapping::TableMap;

/// How many rows of a batch are named; the others are only counted.
const NAMED: u64 = 20;

/// The missing rows since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// In this batch.
    batch: u64,
    /// In the transaction, which may span several batches.
    unrecorded: u64,
    records: Vec<NewError>,
}

/// How much was noted at some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    batch: u64,
    unrecorded: u64,
    records: usize,
}

impl Missing {
    /// Notes a row that was not there.
    pub(crate) fn note(&mut self, flow: &FlowName, item: &Item<'_>, map: &TableMap) {
        self.batch += 1;
        if self.records.len() as u64 >= NAMED {
            self.unrecorded += 1;
            return;
        }
        let (operation, key) = (operation(item.change), key(map, item.change));
        warn!(
            %flow, table = %map.name(), operation, key, xid = item.header.xid.0,
            commit_lsn = %item.header.commit_lsn, "target: the row is missing; the change was skipped"
        );
        self.records.push(NewError {
            kind: "missing_row",
            table: Some((map.name().schema.clone(), map.name().name.clone())),
            commit_lsn: Some(item.header.commit_lsn),
            message: format!("{operation}: row {key} is not on the target; the change was skipped"),
        });
    }

    /// What was noted by now.
    pub(crate) fn mark(&self) -> Mark {
        Mark { batch: self.batch, unrecorded: self.unrecorded, records: self.records.len() }
    }

    /// Forgets what was noted since: the changes are applied once more.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        (self.batch, self.unrecorded) = (mark.batch, mark.unrecorded);
        self.records.truncate(mark.records);
    }

    /// How many there were in the batch that ends now.
    pub(crate) fn end_batch(&mut self) -> u64 {
        std::mem::take(&mut self.batch)
    }

    /// Writes them down once their transaction is committed.
    ///
    /// A failure is only logged: the rows are in the log already, and the data is safe.
    pub(crate) async fn record(&mut self, client: &Client, flow: &FlowName) {
        let mut records = std::mem::take(&mut self.records);
        let more = std::mem::take(&mut self.unrecorded);
        if more > 0 {
            warn!(%flow, rows = more, "target: more rows are missing; their changes were skipped too");
            records.push(NewError {
                kind: "missing_row",
                table: None,
                commit_lsn: records.last().and_then(|record| record.commit_lsn),
                message: format!("{more} more rows were not on the target; their changes were skipped"),
            });
        }
        if records.is_empty() {
            return;
        }
        if let Err(error) = write(client, flow, &records).await {
            warn!(%flow, %error, "target: missing rows could not be written to relevo.error");
            // Ends the failed transaction, so that the next batch can begin. Should this fail too, the session
            // is lost and the next batch says so.
            let _ = client.batch_execute("ROLLBACK").await;
        }
    }
}

async fn write(
    client: &Client,
    flow: &FlowName,
    records: &[NewError],
) -> Result<(), relevo_state::StateError> {
    let sql = |source| relevo_state::StateError::Sql { action: "recording missing rows", source };
    client.batch_execute(crate::apply::BEGIN).await.map_err(sql)?;
    relevo_state::record_errors(client, flow, records).await?;
    client.batch_execute("COMMIT").await.map_err(sql)
}
