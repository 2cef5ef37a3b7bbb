//! Tables that become part of a flow that was begun: recorded as its own, to be copied beside the stream.
//!
//! What may not enter: who may be added, and copying them; the flow does that as it does for any table that has not
//! arrived.

use relevo_connect::SqlSession;
use relevo_state as state;

use tokio_postgres::Client;

use crate::creation::Creation;
use crate::plan::{CopyPlan, plan};
use crate::schema::check_still_empty;
use crate::session::{begin, commit, roll_back};
use crate::{CopyOptions, SnapshotError};

/// Makes those of the selected tables that the target lacks, if it is said how; plans their copy; and records them as the
/// flow's, unless one of them has got rows meanwhile: from then on their rows on the target are Relevo's to replace. All
/// in one transaction.
///
/// The options select these tables only; see [`relevo_catalog::Selection::exactly`]. `accept` sees the plan before
/// anything of it is recorded; when it objects, nothing is changed.
///
/// # Errors
/// [`SnapshotError::Refused`]: see [`plan()`], or a table holds rows; [`SnapshotError::Statement`]: a table cannot be
/// made; [`SnapshotError`]. Nothing is changed then.
pub async fn register_more(
    options: &CopyOptions,
    creation: Option<&Creation>,
    source: &Client,
    target: &mut SqlSession,
    accept: impl FnOnce(&CopyPlan) -> bool,
) -> Result<Option<CopyPlan>, SnapshotError> {
    begin(target).await?;
    match record(options, creation, source, target, accept).await {
        Ok(Some(plan)) => commit(target).await.map(|()| Some(plan)),
        Ok(None) => roll_back(target).await.map(|()| None),
        Err(error) => {
            // The error says more than what becomes of the session.
            let _ = roll_back(target).await;
            Err(error)
        }
    }
}

async fn record(
    options: &CopyOptions,
    creation: Option<&Creation>,
    source: &Client,
    target: &SqlSession,
    accept: impl FnOnce(&CopyPlan) -> bool,
) -> Result<Option<CopyPlan>, SnapshotError> {
    let flow = &options.flow;
    state::reopen_copy(&**target, flow).await.map_err(SnapshotError::state)?;
    if let Some(creation) = creation {
        creation.run(target).await?;
    }
    let plan = plan(source, target, options).await?;
    if !accept(&plan) {
        return Ok(None);
    }
    check_still_empty(options, &plan, target).await?;
    for job in &plan.jobs {
        let (schema, name) = (&job.table.schema, &job.table.name);
        state::register_table(&**target, flow, schema, name, job.insert_only)
            .await
            .map_err(SnapshotError::state)?;
    }
    if let Some(creation) = creation {
        state::append_statements(&**target, flow, creation.after()).await.map_err(SnapshotError::state)?;
    }
    Ok(Some(plan))
}
