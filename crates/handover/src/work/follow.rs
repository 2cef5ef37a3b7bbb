//! Following the new primary from the position at which both hold the same rows.

use relevo_connect::SqlSession;
use relevo_model::{SourceIdentity, SourceLsn};
use relevo_state::{self as state, AdoptedTable, HandoverKind, HandoverRecord, RoleNote};
use tracing::info;

use super::Run;
use super::lacking::{Ends, Refused};
use crate::observe::{Seen, connect, see};
use crate::plan::{may_follow, may_go_on, may_lack, same_source};
use crate::{Cluster, HandoverError};

/// Whom to follow, and from where.
pub(super) struct Lead<'a> {
    pub(super) primary: &'a str,
    pub(super) identity: &'a SourceIdentity,
    pub(super) epoch: u64,
    pub(super) from: SourceLsn,
    /// Only if the node has just so much of its present source: whoever applies may still be at it.
    pub(super) if_at: Option<(&'a SourceIdentity, SourceLsn)>,
}

/// The tables that the new primary has had from the flow into it: those that follow it now.
pub(super) async fn tables_of(
    cluster: &Cluster,
    primary: &str,
    session: &SqlSession,
) -> Result<Vec<AdoptedTable>, HandoverError> {
    let flow = cluster.flow_into(primary)?;
    let tables = state::tables(&**session, &flow).await.map_err(HandoverError::state(primary))?;
    let adopted = |table: state::TableRecord| AdoptedTable {
        schema: table.schema,
        name: table.name,
        insert_only: table.insert_only,
        follows: true,
    };
    Ok(tables.into_iter().map(adopted).collect())
}

/// Lets `node` follow, in one transaction with what it says of the role. `false`, and nothing is done: it does not stand where
/// it has to.
async fn follow(
    cluster: &Cluster,
    node: &str,
    session: &SqlSession,
    lead: &Lead<'_>,
    (adopt, record): (Option<&[AdoptedTable]>, &HandoverRecord),
) -> Result<bool, HandoverError> {
    let (error, failed) =
        (|| HandoverError::sql(node, "following the new primary"), || HandoverError::state(node));
    let flow = cluster.flow_into(node)?;
    session.batch_execute("BEGIN").await.map_err(error())?;
    let known = state::hold_node(&**session).await.map_err(failed())?;
    if let Some(known) = known.as_ref().filter(|known| known.epoch > lead.epoch) {
        let found = format!("primary is {} since epoch {}", known.primary, known.epoch);
        return Err(HandoverError::Overtaken { node: node.to_owned(), found });
    }
    state::hold_progress(&**session, &flow).await.map_err(failed())?;
    let stored = state::progress(&**session, &flow).await.map_err(failed())?;
    let knows =
        known.as_ref().is_some_and(|known| known.epoch == lead.epoch && known.primary == lead.primary);
    if knows && stored.as_ref().is_some_and(|stored| same_source(&stored.source, lead.identity)) {
        // The command and the Relevo beside the node both do it. Whoever comes second must not set the progress back.
        session.batch_execute("ROLLBACK").await.map_err(error())?;
        return Ok(true);
    }
    if let Some((source, has)) = lead.if_at
        && stored.is_none_or(|stored| stored.source != *source || stored.progress.applied != has)
    {
        session.batch_execute("ROLLBACK").await.map_err(error())?;
        return Ok(false);
    }
    let from = (lead.identity, lead.from);
    match adopt {
        Some(tables) => state::adopt_flow(&**session, &flow, from, tables).await.map_err(failed())?,
        None => state::repoint_flow(&**session, &flow, from).await.map_err(failed())?,
    }
    let role = RoleNote {
        epoch: lead.epoch,
        primary: lead.primary,
        fenced: known.is_some_and(|known| known.fenced),
        fence_lsn: None,
        promised_to: None,
    };
    state::note_role(&**session, role).await.map_err(failed())?;
    state::put_handover(&**session, record).await.map_err(failed())?;
    session.batch_execute("COMMIT").await.map_err(error())?;
    Ok(true)
}

/// Whether a node follows the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// It does.
    Yes,
    /// It will, once it has what the old primary wrote before its fence, or has applied what it had received.
    NotYet,
    /// It holds rows of another moment: it has to rejoin.
    No,
}

/// What a standby's own Relevo does when another node has the role: it goes on from there if it holds just what that one
/// held, or from where on it gets just what it lacks. `refused`: what earlier calls have found.
///
/// # Errors
/// A node that does not answer, or whose state cannot be read or written.
pub async fn follow_after_handover(
    cluster: &Cluster,
    node: &str,
    primary: &str,
    refused: &mut Refused,
) -> Result<Follows, HandoverError> {
    let (own, new) = (connect(cluster, node).await?, connect(cluster, primary).await?);
    let (seen, lead) = (see(cluster, node, &own).await?, see(cluster, primary, &new).await?);
    let Some(record) = lead.record.as_ref().filter(|record| record.primary == primary) else {
        return Ok(Follows::NotYet);
    };
    let known = seen.record.as_ref().is_some_and(|known| known.epoch >= record.epoch);
    let same = |one: &SourceIdentity| {
        one.system_id == lead.identity.system_id && one.database == lead.identity.database
    };
    let by_which =
        lead.handovers.iter().find(|handover| handover.epoch == record.epoch && handover.new_lsn.is_some());
    let slot = cluster.flow_into(node)?.slot();
    if seen.flow.as_ref().is_some_and(|flow| same(&flow.source)) {
        if known {
            return Ok(Follows::Yes);
        }
        // The role went away and came back, and nobody has told this node.
        return match may_go_on(&seen, &lead, &slot) {
            true => learn(cluster, (node, &own, &seen), (primary, record.epoch), by_which).await,
            false => Ok(Follows::No),
        };
    }
    let Some((handover, from)) = by_which.and_then(|handover| Some((handover, handover.new_lsn?))) else {
        return Ok(Follows::No);
    };
    if !may_follow(node, &seen, primary, handover) && may_lack(node, &seen, &lead, handover) {
        let (node_end, primary_end) = ((node, &own, &seen), (primary, &new, &lead));
        let ends = Ends { cluster, node: node_end, primary: primary_end, handover };
        let Some((begins, has)) = ends.find(refused).await? else { return Ok(Follows::No) };
        let if_at = seen.flow.as_ref().map(|flow| (&flow.source, has));
        let whom = Lead { primary, identity: &lead.identity, epoch: record.epoch, from: begins, if_at };
        if !follow(cluster, node, &own, &whom, (None, handover)).await? {
            return Ok(Follows::NotYet);
        }
        info!(node, primary, epoch = record.epoch, has = %has, from = %begins, taken = %from,
            "following the new primary: what this node lacks is in the slot that was armed for it");
        return Ok(Follows::Yes);
    }
    if !may_follow(node, &seen, primary, handover) || !lead.slots.contains_key(&slot) {
        let on_its_way = handover.kind == HandoverKind::Switchover
            && lead.slots.contains_key(&slot)
            && seen.flow.as_ref().is_some_and(|flow| {
                Some(&flow.source.system_id) == handover.old_system_id.as_ref()
                    && handover.old_lsn.is_some_and(|old_lsn| flow.applied < old_lsn)
            });
        return Ok(if on_its_way { Follows::NotYet } else { Follows::No });
    }
    let adopt = match handover.from.as_deref() == Some(node) {
        true => Some(tables_of(cluster, primary, &new).await?),
        false => None,
    };
    let whom = Lead { primary, identity: &lead.identity, epoch: record.epoch, from, if_at: None };
    follow(cluster, node, &own, &whom, (adopt.as_deref(), handover)).await?;
    info!(node, primary, epoch = record.epoch, from = %from, "following the new primary from where both are the same");
    Ok(Follows::Yes)
}

/// Writes down that the primary that is followed already has the role since another epoch, and where it got it: what it has from
/// others and committed before that is not passed over.
async fn learn(
    cluster: &Cluster,
    (node, session, seen): (&str, &SqlSession, &Seen),
    (primary, epoch): (&str, u64),
    by_which: Option<&HandoverRecord>,
) -> Result<Follows, HandoverError> {
    let (error, failed) =
        (|| HandoverError::sql(node, "learning of the epoch"), || HandoverError::state(node));
    let flow = cluster.flow_into(node)?;
    session.batch_execute("BEGIN").await.map_err(error())?;
    let known = state::hold_node(&**session).await.map_err(failed())?;
    let stands = state::hold_progress(&**session, &flow).await.map_err(failed())?;
    // Somebody may have gone on meanwhile; then it has to be judged anew.
    if known.as_ref().map(|known| known.epoch) != seen.record.as_ref().map(|known| known.epoch)
        || stands != seen.flow.as_ref().map(|flow| flow.applied)
    {
        session.batch_execute("ROLLBACK").await.map_err(error())?;
        return Ok(Follows::NotYet);
    }
    let fenced = known.is_some_and(|known| known.fenced);
    let role = RoleNote { epoch, primary, fenced, fence_lsn: None, promised_to: None };
    state::note_role(&**session, role).await.map_err(failed())?;
    if let Some(handover) = by_which {
        state::put_handover(&**session, handover).await.map_err(failed())?;
    }
    session.batch_execute("COMMIT").await.map_err(error())?;
    Ok(Follows::Yes)
}

impl Run<'_> {
    pub(super) async fn follow(&mut self, node: &str, primary: &str) -> Result<(), HandoverError> {
        if self.done.left_behind.iter().any(|left| left == node) {
            return Ok(());
        }
        match follow_after_handover(self.work.cluster, node, primary, &mut self.refused).await {
            Ok(Follows::Yes) => Ok(()),
            Ok(Follows::NotYet) if self.plan.kind == HandoverKind::Failover => {
                let why = "it is about to follow; its Relevo does that by itself, look at relevo status";
                self.left_behind(node, why);
                Ok(())
            }
            Ok(_) if self.plan.from.as_deref() == Some(node) => Err(HandoverError::Waited(format!(
                "node {node} does not hold what {primary} held when it took the role: type relevo rejoin {node}"
            ))),
            Ok(_) => {
                self.left_behind(
                    node,
                    &format!("it does not hold what {primary} held; type relevo rejoin {node}"),
                );
                Ok(())
            }
            // The role has moved; whoever is away for a moment follows by itself later.
            Err(error) => {
                self.left_behind(node, &format!("{error}; its Relevo goes on by itself when it can"));
                Ok(())
            }
        }
    }
}
