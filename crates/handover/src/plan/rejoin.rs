//! The return of an old primary, or of a standby that was left behind.

use relevo_model::SourceLsn;
use relevo_state::{HandoverKind, HandoverRecord, NodeRecord};

use super::{
    Inherited, Plan, Refusal, Step, by_which, claim, follows, is_named, may_be_guarded, may_follow, must_see,
    running, slot,
};
use crate::{Observed, Seen};

/// Lets `node` follow the present primary. What it has and nobody else has goes to the salvage file and leaves its tables.
///
/// # Errors
/// [`Refusal`]: there is no way back without a copy, or something is in the way.
pub fn rejoin(observed: &Observed, node: &str) -> Result<Plan, Refusal> {
    is_named(observed, node)?;
    let claim = claim(observed)?;
    let primary = claim.primary.as_str();
    if primary == node {
        return Err(cannot(
            node,
            format!("it is the primary, since epoch {}", claim.epoch),
            "there is nothing to do".to_owned(),
        ));
    }
    let seen = must_see(observed, node, "start its server first")?;
    let new = must_see(observed, primary, "its values are needed")?;
    let Some(record) = &seen.record else {
        return Err(cannot(node, "it has never been part of the cluster".to_owned(), anew(node)));
    };
    let handover = by_which(new, claim.epoch);
    let mut plan = Plan {
        kind: HandoverKind::Rejoin,
        from: Some(node.to_owned()),
        to: node.to_owned(),
        since: claim.epoch,
        epoch: claim.epoch,
        resumes: running(seen, HandoverKind::Rejoin, node, claim.epoch).cloned(),
        steps: Vec::new(),
        notes: Vec::new(),
        rolls_back: false,
    };
    let retire = retire(observed, node, seen, record);
    let (node, primary) = (node.to_owned(), primary.to_owned());
    if follows(seen, new) && record.epoch == claim.epoch {
        // What an interrupted rejoin has left to do.
        if plan.resumes.is_some() {
            plan.steps.push(match handover.is_some_and(|handover| parted(handover, &node, seen)) {
                true => Step::Restore { node, primary },
                false => Step::Resync { node, primary },
            });
            plan.steps.extend(retire);
        }
        return Ok(plan);
    }
    let Some(handover) = handover else {
        let reason = format!("{primary} does not know from where on it had the role");
        return Err(cannot(&node, reason, anew(&node)));
    };
    if may_follow(&node, seen, &primary, handover) {
        plan.steps.push(Step::Follow { node, primary });
        return Ok(plan);
    }
    let armed = new.slots.contains_key(&slot(&record.cluster, &node));
    let mut by_what_it_wrote = false;
    if record.primary == node {
        may_be_guarded(seen, &node)?;
        let (from, reader, inherited) = own_writes(observed, (&node, seen, record), new)?;
        // Without the place of its fence nobody knows where its own writes end: whoever set it was interrupted, or is at it.
        if !record.fenced || record.fence_lsn.is_none() {
            plan.steps.push(Step::Fence { node: node.clone(), promised_to: None });
        }
        // Where it was left by the present primary itself, what it wrote since is all that differs.
        by_what_it_wrote = armed && parted(handover, &node, seen) && reader == primary;
        plan.steps.push(Step::Salvage { node: node.clone(), reader, from, inherited });
    } else if !seen.flow.as_ref().is_some_and(|flow| flow.complete) {
        // A standby has no writes of its own; where it stands nobody can say any more.
        return Err(cannot(&node, "not every table had arrived".to_owned(), anew(&node)));
    }
    if by_what_it_wrote {
        plan.steps.push(Step::Undo { node: node.clone(), primary: primary.clone() });
        plan.steps.push(Step::Restore { node, primary });
    } else {
        if !armed {
            plan.steps.push(Step::Arm { on: primary.clone(), follower: node.clone() });
        }
        plan.steps.push(Step::Resync { node, primary });
    }
    plan.steps.extend(retire);
    Ok(plan)
}

fn cannot(node: &str, reason: String, remedy: String) -> Refusal {
    Refusal::CannotRejoin { node: node.to_owned(), reason, remedy }
}

fn anew(node: &str) -> String {
    format!("let it be copied anew: drop its tables (or its database), then start relevo run --node {node}")
}

/// Whether a hand-over has left this node where `old_lsn` says. One that decided between two claims has not: what its
/// primary had came from somewhere else.
fn parted(handover: &HandoverRecord, node: &str, seen: &Seen) -> bool {
    handover.from.as_deref() == Some(node)
        && handover.old_lsn.is_some()
        && handover.old_system_id.as_ref() == Some(&seen.identity.system_id)
}

/// Behind which position a former primary's own writes lie, which slot still has them all, and what else is only there.
fn own_writes(
    observed: &Observed,
    (node, seen, record): (&str, &Seen, &NodeRecord),
    new: &Seen,
) -> Result<(SourceLsn, String, Inherited), Refusal> {
    let left = new.handovers.iter().filter(|handover| {
        handover.epoch > record.epoch && handover.new_lsn.is_some() && parted(handover, node, seen)
    });
    // Whoever took over from it had all before that; or else it has written since it got the role itself.
    let from = left.filter_map(|handover| Some((handover.old_lsn?, Some(handover.to.as_str())))).min();
    let taken = by_which(seen, record.epoch).filter(|handover| handover.to == node);
    let own = taken.and_then(|taken| taken.new_lsn);
    let inherited = match (from, own) {
        // Whoever took over from it followed it from before it had the role, and did not come so far.
        (Some((from, _)), Some(own)) if from < own => Inherited::Before(own),
        (None, Some(_)) => inherited(taken, new),
        _ => Inherited::Nothing,
    };
    let Some((from, successor)) = from.or_else(|| Some((own?, None))) else {
        let reason = format!("nobody knows what it has written on its own since epoch {}", record.epoch);
        return Err(cannot(node, reason, anew(node)));
    };
    let confirmed = |reader: &str| seen.slots.get(&slot(&record.cluster, reader)).copied();
    let has = |reader: &&str| confirmed(reader).is_some_and(|confirmed| confirmed <= from);
    let mut others: Vec<&str> =
        observed.nodes.keys().map(String::as_str).filter(|other| *other != node).collect();
    // What it had before it wrote itself is in the one that begins first.
    others.sort_by_key(|other| confirmed(other));
    match successor.into_iter().chain(others).find(has) {
        Some(reader) => Ok((from, reader.to_owned(), inherited)),
        None => Err(cannot(
            node,
            "its slots for the others are gone, so nobody knows what it has written on its own".to_owned(),
            anew(node),
        )),
    }
}

/// What a node had from the primary before it when it got the role (`taken`), and whoever got it from the same one later had not.
fn inherited(taken: Option<&HandoverRecord>, new: &Seen) -> Inherited {
    let had = taken.and_then(|taken| Some((taken.epoch, taken.old_system_id.as_deref()?, taken.old_lsn?)));
    let Some((epoch, system_id, had)) = had else { return Inherited::Nothing };
    let later = new.handovers.iter().filter(|later| later.epoch > epoch && later.new_lsn.is_some());
    let from = later.filter(|later| later.old_system_id.as_deref() == Some(system_id));
    match from.filter_map(|later| later.old_lsn).min() {
        Some(from) if from < had => Inherited::Of { system_id: system_id.to_owned(), from },
        _ => Inherited::Nothing,
    }
}

/// The slots of a node that has had the role: once it follows, nobody needs them.
fn retire(observed: &Observed, node: &str, seen: &Seen, record: &NodeRecord) -> Vec<Step> {
    let followers = observed.nodes.keys().filter(|other| *other != node);
    let there = followers.filter(|other| seen.slots.contains_key(&slot(&record.cluster, other)));
    there.map(|other| Step::Retire { on: node.to_owned(), follower: other.clone() }).collect()
}
