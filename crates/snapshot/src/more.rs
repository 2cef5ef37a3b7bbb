//! Tables that become part of a flow that was begun: recorded as its own, to be copied beside the stream.
//!
//! What may not enter: who may be added, and copying them; the flow does that as it does for any table that has not
//! arrived.

use relevo_connect::SqlSession;
use relevo_state as state;

use crate::plan::CopyPlan;
use crate::schema::check_still_empty;
use crate::{CopyOptions, SnapshotError};

/// Records the planned tables as the flow's in one transaction, unless one of them has got rows meanwhile: from then on
/// their rows on the target are Relevo's to replace.
///
/// The plan is one of these tables only; see [`relevo_catalog::Selection::exactly`].
///
/// # Errors
/// [`SnapshotError::Refused`]: a table holds rows; [`SnapshotError::Sql`], [`SnapshotError::State`].
pub async fn register_more(
    options: &CopyOptions,
    plan: &CopyPlan,
    target: &mut SqlSession,
) -> Result<(), SnapshotError> {
    let flow = &options.flow;
    let transaction =
        target.transaction().await.map_err(SnapshotError::target_sql("beginning a transaction"))?;
    state::reopen_copy(&transaction, flow).await.map_err(SnapshotError::state)?;
    check_still_empty(options, plan, transaction.client()).await?;
    for job in &plan.jobs {
        let (schema, name) = (&job.table.schema, &job.table.name);
        state::register_table(&transaction, flow, schema, name, job.insert_only)
            .await
            .map_err(SnapshotError::state)?;
    }
    transaction.commit().await.map_err(SnapshotError::target_sql("committing"))
}
