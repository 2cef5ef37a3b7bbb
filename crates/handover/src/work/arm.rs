//! What a follower reads from: publications and a slot on a node that is to be the primary, and their end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use relevo_catalog::{TableInfo, TableName};
use relevo_connect::SqlSession;
use relevo_model::FlowName;
use relevo_snapshot::Existing;
use relevo_source::inspect_slot;
use relevo_state::{self as state, FlowLock, HandoverKind};
use tokio_postgres::error::SqlState;
use tracing::info;

use super::{Run, until};
use crate::armed::{armed_slot, disarm, published_right};
use crate::{Cluster, HandoverError, sql};

/// How long whoever reads a slot may take to leave it by itself: its Relevo sees within moments that its node has another
/// role.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);
/// How long whoever arms slots may take to end.
const ARMING_PATIENCE: Duration = Duration::from_millis(500);
/// And how long it is tried altogether.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// The tables that take part, as they are on this node: what the flow into it has brought, and the partitioned tables
/// by which partitions are published.
pub(crate) async fn tables_here(
    cluster: &Cluster,
    node: &str,
    session: &SqlSession,
) -> Result<Vec<TableInfo>, HandoverError> {
    let flow = cluster.flow_into(node)?;
    let recorded = state::tables(&**session, &flow).await.map_err(HandoverError::state(node))?;
    let names: BTreeSet<TableName> =
        recorded.iter().map(|table| TableName::new(&table.schema, &table.name)).collect();
    let all = relevo_catalog::user_tables(session).await.map_err(HandoverError::catalog(node))?;
    let selection = cluster.selection.of_recorded(&all, &names);
    Ok(relevo_snapshot::selected_tables(all, &selection))
}

impl Run<'_> {
    /// The slot begins before the first write of the new primary, so it has all of them. What the flow into this node
    /// still applies after that is in it too; the follower begins behind it.
    pub(super) async fn arm(&mut self, on: &str, follower: &str) -> Result<(), HandoverError> {
        let cluster = self.work.cluster;
        let flow = cluster.flow_into(follower)?;
        // Who comes back is no matter of the primary's.
        if self.plan.kind != HandoverKind::Rejoin {
            self.note(on).await?;
        }
        let (behind, lost) = (self.is_behind(follower).await, self.plan.kind == HandoverKind::Failover);
        let session = self.session(on).await?;
        let there = session.query(sql::SLOTS, &[]).await;
        let there = there.map_err(HandoverError::sql(on, "looking at the slots"))?;
        // A node that was left behind in an earlier epoch may still need what the slot holds, and the publications that were
        // there when it was written.
        if behind && there.iter().any(|row| row.get::<_, String>(0) == flow.slot()) {
            return Ok(());
        }
        let tables = tables_here(cluster, on, session).await?;
        // Whatever fails from here on is taken back.
        self.armed.push((on.to_owned(), follower.to_owned()));
        let session = self.session(on).await?;
        // The Relevo beside the node may be at it.
        claim(session, on, &flow).await?;
        let armed = lost && is_armed(cluster, on, session, &flow).await?;
        relevo_snapshot::publish(session, &flow, &tables, cluster.via_partition_root, Existing::Replace)
            .await
            .map_err(HandoverError::snapshot(on))?;
        drop_slot(self.session(on).await?, on, &flow.slot()).await?;
        let session = self.session(on).await?;
        // The copy holds what the follower may lack. What it was copied from goes when the role has moved, so that whoever has to
        // type the command again finds it once more.
        let mut made = match armed {
            true => session.query_one(sql::COPY_SLOT, &[&armed_slot(&flow), &flow.slot()]).await,
            false => session.query_one(sql::CREATE_SLOT, &[&flow.slot()]).await,
        };
        let no_room = Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED);
        if made.as_ref().is_err_and(|error| error.code() == no_room) {
            // An offer is no reason to do nothing.
            if let Err(error) = disarm(session, on, &[]).await {
                info!(%error, "the armed slots of {on} are left");
            }
            made = session.query_one(sql::CREATE_SLOT, &[&flow.slot()]).await;
        }
        made.map(drop).map_err(HandoverError::sql(on, "making the slot"))?;
        state::unlock(&**session, &flow, FlowLock::Arm).await.map_err(HandoverError::state(on))
    }

    /// Whether the node has missed an earlier hand-over, or cannot say.
    async fn is_behind(&mut self, node: &str) -> bool {
        let since = self.plan.since;
        match self.session(node).await {
            Err(_) => true,
            Ok(session) => match state::node(&**session).await {
                Ok(Some(record)) => record.epoch < since,
                Ok(None) | Err(_) => true,
            },
        }
    }

    pub(super) async fn retire(&mut self, on: &str, follower: &str) -> Result<(), HandoverError> {
        if self.done.left_behind.iter().any(|left| left == follower) {
            return Ok(());
        }
        let flow = self.work.cluster.flow_into(follower)?;
        let session = self.session(on).await?;
        claim(session, on, &flow).await?;
        drop_slot(session, on, &flow.slot()).await?;
        for publication in [flow.publication(), flow.insert_only_publication()] {
            let drop =
                format!("DROP PUBLICATION IF EXISTS {}", relevo_catalog::quote_identifier(&publication));
            session.batch_execute(&drop).await.map_err(HandoverError::sql(on, "dropping a publication"))?;
        }
        state::unlock(&**session, &flow, FlowLock::Arm).await.map_err(HandoverError::state(on))
    }
}

/// Keeps the Relevo beside the node from arming for this follower. It may be reading much WAL for that.
async fn claim(session: &SqlSession, node: &str, flow: &FlowName) -> Result<(), HandoverError> {
    let (began, failed) = (Instant::now(), || HandoverError::state(node));
    let claimed = until(LEAVE_LIMIT, async || {
        if state::try_lock(&**session, flow, FlowLock::Arm).await.map_err(failed())? {
            return Ok(Some(()));
        }
        if began.elapsed() > ARMING_PATIENCE {
            state::end_holder(&**session, flow, FlowLock::Arm).await.map_err(failed())?;
        }
        Ok(None)
    });
    claimed.await?.ok_or_else(|| {
        HandoverError::Waited(format!(
            "node {node}: somebody keeps slots for {flow} and does not let them go"
        ))
    })
}

/// Whether there is an armed slot for the flow that can serve, with publications that are right.
async fn is_armed(
    cluster: &Cluster,
    node: &str,
    session: &SqlSession,
    flow: &FlowName,
) -> Result<bool, HandoverError> {
    let slot = inspect_slot(session, &armed_slot(flow)).await.map_err(HandoverError::slot(node))?;
    match slot.filter(|slot| slot.lost().is_none()) {
        Some(_) => published_right(cluster, node, session, flow).await,
        None => Ok(false),
    }
}

/// Drops a slot if it is there; who reads it for long is ended.
async fn drop_slot(session: &SqlSession, node: &str, slot: &str) -> Result<(), HandoverError> {
    let began = Instant::now();
    let dropped = until(LEAVE_LIMIT, async || {
        if began.elapsed() > LEAVE_PATIENCE {
            let ended = session.query(sql::END_READER, &[&slot]).await;
            ended.map_err(HandoverError::sql(node, "ending who reads the slot"))?;
        }
        match session.query(sql::DROP_SLOT, &[&slot]).await {
            Ok(_) => Ok(Some(())),
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => Ok(None),
            // Somebody was faster.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(Some(())),
            Err(error) => Err(HandoverError::sql(node, "dropping the slot")(error)),
        }
    });
    dropped.await?.ok_or_else(|| {
        HandoverError::Waited(format!("node {node}: slot {slot} is in use and could not be dropped"))
    })
}
