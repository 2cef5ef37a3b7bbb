//! The planned hand-over: nothing is lost, and nothing is done twice.

use relevo_state::{HandoverKind, Hook};

use super::{
    Plan, Refusal, Step, by_which, claim, follows, is_named, may_be_guarded, may_follow, must_be_ready,
    must_know, must_see, next_epoch, running, slot,
};
use crate::{Observed, Seen};

/// Gives the role to `to`. When `to` has it already, what an interrupted switchover has left is finished, or taken back.
///
/// # Errors
/// [`Refusal`]: nothing may be done.
pub fn switchover(observed: &Observed, to: &str) -> Result<Plan, Refusal> {
    is_named(observed, to)?;
    let claim = claim(observed)?;
    if claim.primary == to {
        return stay(observed, to, claim.epoch, false);
    }
    let from = claim.primary.as_str();
    let remedy = format!("if it is lost for good: relevo failover --to {to}");
    let old = must_see(observed, from, &remedy)?;
    let new = must_see(observed, to, "the role stays where it is")?;
    let record = must_know(old, from, claim.epoch)?;
    if let Some(other) = record.promised_to.as_deref().filter(|other| record.fenced && *other != to) {
        return Err(Refusal::Interrupted { from: from.to_owned(), to: other.to_owned() });
    }
    let flow = must_be_ready(new, to, Some(old))?;
    if !flow.works {
        return Err(Refusal::NotReady {
            node: to.to_owned(),
            reason: "no Relevo applies changes to it".to_owned(),
            remedy: format!("start relevo run --node {to}"),
        });
    }
    may_be_guarded(old, from)?;
    if old.prepared_transactions > 0 {
        return Err(Refusal::CannotFence {
            node: from.to_owned(),
            reason: format!(
                "{} prepared transactions hold locks there until somebody ends them",
                old.prepared_transactions
            ),
            remedy: "COMMIT PREPARED or ROLLBACK PREPARED them (pg_prepared_xacts names them)".to_owned(),
        });
    }
    let epoch = next_epoch(observed, to, claim.epoch);
    let mut notes = Vec::new();
    let mut steps: Vec<Step> = observed
        .nodes
        .keys()
        .filter(|node| *node != to)
        .map(|follower| Step::Arm { on: to.to_owned(), follower: follower.clone() })
        .collect();
    let others: Vec<String> = observed
        .all_seen()
        .filter(|(node, seen)| *node != from && *node != to && follows_well(seen, old))
        .map(|(node, _)| node.to_owned())
        .collect();
    for node in observed.nodes.keys().filter(|node| *node != from && *node != to) {
        if !others.contains(node) {
            notes
                .push(format!("{node} does not follow {from} at present: it will need relevo rejoin {node}"));
        }
    }
    let node = |name: &str| name.to_owned();
    if record.fenced {
        notes.push(format!("{from} accepts no writes already: an interrupted switchover goes on"));
    }
    steps.push(Step::Fence { node: node(from), promised_to: Some(node(to)) });
    steps.push(Step::Drain { node: node(to), from: node(from) });
    if !others.is_empty() {
        steps.push(Step::DrainOthers { nodes: others.clone(), from: node(from) });
    }
    steps.push(Step::Sequences { from: node(from), to: node(to) });
    steps.push(Step::Promote { node: node(to), from: node(from), epoch });
    steps.push(Step::Follow { node: node(from), primary: node(to) });
    steps.extend(others.iter().map(|other| Step::Follow { node: other.clone(), primary: node(to) }));
    steps.push(Step::Retire { on: node(from), follower: node(to) });
    steps.extend(others.iter().map(|other| Step::Retire { on: node(from), follower: other.clone() }));
    Ok(Plan {
        kind: HandoverKind::Switchover,
        from: Some(node(from)),
        to: node(to),
        since: claim.epoch,
        epoch,
        resumes: running(new, HandoverKind::Switchover, to, epoch).cloned(),
        steps,
        notes,
        rolls_back: false,
    })
}

fn follows_well(seen: &Seen, old: &Seen) -> bool {
    follows(seen, old) && seen.flow.as_ref().is_some_and(|flow| flow.complete && flow.works)
}

/// The node has the role. `force`: also when nobody can say whether another one has it by now.
pub(super) fn stay(observed: &Observed, to: &str, epoch: u64, force: bool) -> Result<Plan, Refusal> {
    let seen = must_see(observed, to, "it has the role already")?;
    let mut plan = Plan {
        kind: HandoverKind::Switchover,
        from: Some(to.to_owned()),
        to: to.to_owned(),
        since: epoch,
        epoch,
        resumes: None,
        steps: Vec::new(),
        notes: Vec::new(),
        rolls_back: false,
    };
    let record = must_know(seen, to, epoch)?;
    if record.fenced {
        let promised = record.promised_to.clone();
        if let Some(other) = promised.as_deref().filter(|_| !force) {
            let remedy = format!(
                "without it nobody knows whether it has the role already, and then two nodes would accept writes; if it is \
                 lost for good: relevo failover --to {to} --force"
            );
            must_see(observed, other, &remedy)?;
        }
        let running = promised.as_deref().and_then(|other| {
            let next = next_epoch(observed, other, epoch);
            running(seen, HandoverKind::Switchover, other, next).cloned()
        });
        plan.rolls_back = true;
        plan.resumes = running;
        plan.steps.push(Step::Unfence { node: to.to_owned() });
        if let Some(other) = promised.filter(|other| observed.seen(other).is_some()) {
            // A node that was left behind earlier, or cannot say, may still read from its slot there.
            let current = |node: &str| observed.record(node).is_some_and(|record| record.epoch >= epoch);
            let followers = observed.nodes.keys().filter(|node| **node != other && current(node.as_str()));
            plan.steps.extend(
                followers.map(|follower| Step::Retire { on: other.clone(), follower: follower.clone() }),
            );
        }
        return Ok(plan);
    }
    let Some(handover) = by_which(seen, epoch) else { return Ok(plan) };
    plan.from.clone_from(&handover.from);
    if handover.is_untold(Hook::OnPromote) {
        plan.steps.push(Step::Tell { node: to.to_owned(), hook: Hook::OnPromote });
    }
    for (node, other) in observed.all_seen().filter(|(node, _)| *node != to) {
        let known = other.record.as_ref().is_some_and(|record| record.epoch >= epoch);
        if !(known && follows(other, seen)) && may_follow(node, other, to, handover) {
            plan.steps.push(Step::Follow { node: node.to_owned(), primary: to.to_owned() });
        }
    }
    // Whoever still reads from the old primary needs its slot.
    if let Some((from, old)) = handover.from.as_deref().and_then(|from| Some((from, observed.seen(from)?))) {
        for follower in observed.nodes.keys().filter(|node| *node != from) {
            let there = old.slots.contains_key(&slot(&record.cluster, follower));
            let moved = follower == to
                || observed.seen(follower).is_some_and(|other| follows(other, seen))
                || plan.steps.contains(&Step::Follow { node: follower.clone(), primary: to.to_owned() });
            // The old primary itself has not come back yet: what it holds for the new one is its salvage.
            let back = follows(old, seen)
                || plan.steps.contains(&Step::Follow { node: from.to_owned(), primary: to.to_owned() });
            if there && moved && back {
                plan.steps.push(Step::Retire { on: from.to_owned(), follower: follower.clone() });
            }
        }
    }
    if !plan.steps.is_empty() {
        plan.resumes = Some(handover.clone());
    }
    Ok(plan)
}
