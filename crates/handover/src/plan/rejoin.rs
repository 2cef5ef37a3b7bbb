//! The return of an old primary, or of a standby that was left behind.

use relevo_state::HandoverKind;

use super::{
    Plan, Refusal, Step, by_which, claim, follows, is_named, may_be_guarded, may_follow, must_see, running,
};
use crate::Observed;

/// Lets `node` follow the present primary. What it has and nobody else has goes to the salvage file and leaves its tables.
///
/// # Errors
/// [`Refusal`]: there is no way back without a copy, or something is in the way.
pub fn rejoin(observed: &Observed, node: &str) -> Result<Plan, Refusal> {
    is_named(observed, node)?;
    let claim = claim(observed)?;
    let primary = claim.primary.as_str();
    let cannot =
        |reason: String, remedy: String| Refusal::CannotRejoin { node: node.to_owned(), reason, remedy };
    if primary == node {
        return Err(cannot(
            format!("it is the primary, since epoch {}", claim.epoch),
            "there is nothing to do".to_owned(),
        ));
    }
    let seen = must_see(observed, node, "start its server first")?;
    let new = must_see(observed, primary, "its values are needed")?;
    let anew = format!(
        "let it be copied anew: drop its tables (or its database), then start relevo run --node {node}"
    );
    let Some(record) = &seen.record else {
        return Err(cannot("it has never been part of the cluster".to_owned(), anew));
    };
    let name = |name: &str| name.to_owned();
    let mut plan = Plan {
        kind: HandoverKind::Rejoin,
        from: Some(name(node)),
        to: name(node),
        epoch: claim.epoch,
        resumes: running(seen, HandoverKind::Rejoin, node, claim.epoch).cloned(),
        steps: Vec::new(),
        notes: Vec::new(),
        rolls_back: false,
    };
    if follows(seen, new) && record.epoch == claim.epoch {
        // What an interrupted rejoin has left to do.
        let own = by_which(new, claim.epoch).is_some_and(|handover| handover.from.as_deref() == Some(node));
        if plan.resumes.is_some() && !own {
            plan.steps.push(Step::Resync { node: name(node), primary: name(primary) });
        } else if plan.resumes.is_some() {
            plan.steps.push(Step::Restore { node: name(node), primary: name(primary) });
            plan.steps.push(Step::Retire { on: name(node), follower: name(primary) });
        }
        return Ok(plan);
    }
    let Some(handover) = by_which(new, claim.epoch) else {
        return Err(cannot(format!("{primary} does not know from where on it had the role"), anew));
    };
    if may_follow(node, seen, primary, handover) {
        plan.steps.push(Step::Follow { node: name(node), primary: name(primary) });
        return Ok(plan);
    }
    if handover.from.as_deref() != Some(node) {
        // A standby has no writes of its own; where it stands nobody can say any more.
        if !seen.flow.as_ref().is_some_and(|flow| flow.complete) {
            return Err(cannot("not every table had arrived".to_owned(), anew));
        }
        if record.primary == node {
            let reason =
                format!("it had the role itself, in epoch {}, and not just before {primary}", record.epoch);
            return Err(cannot(reason, anew));
        }
        if !new.slots.contains(&format!("relevo_{}_{node}", record.cluster)) {
            return Err(cannot(format!("{primary} has no slot for it any more"), anew));
        }
        plan.steps.push(Step::Resync { node: name(node), primary: name(primary) });
        return Ok(plan);
    }
    if handover.old_lsn.is_none() {
        let reason =
            format!("it and {primary} had the role in the same epoch, so nobody knows where they parted");
        return Err(cannot(reason, anew));
    }
    if !new.slots.contains(&format!("relevo_{}_{node}", record.cluster)) {
        return Err(cannot(format!("{primary} has no slot for it any more"), anew));
    }
    if !seen.slots.contains(&format!("relevo_{}_{primary}", record.cluster)) {
        return Err(cannot(
            format!("its slot for {primary} is gone, so nobody knows what it has written on its own"),
            anew,
        ));
    }
    may_be_guarded(seen, node)?;
    // Without the place of its fence nobody knows where its own writes end: whoever set it was interrupted, or is at it.
    if !record.fenced || record.fence_lsn.is_none() {
        plan.steps.push(Step::Fence { node: name(node), promised_to: None });
    }
    plan.steps.push(Step::Salvage { node: name(node), primary: name(primary) });
    plan.steps.push(Step::Undo { node: name(node), primary: name(primary) });
    plan.steps.push(Step::Restore { node: name(node), primary: name(primary) });
    plan.steps.push(Step::Retire { on: name(node), follower: name(primary) });
    Ok(plan)
}
