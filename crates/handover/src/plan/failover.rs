//! The hand-over when the primary is lost.

use relevo_state::{HandoverKind, Hook};

use super::switchover::stay;
use super::{
    Plan, Refusal, Step, claim, is_named, may_be_guarded, must_be_ready, must_see, next_epoch, running,
    same_source,
};
use crate::{Claim, Observed};

/// Gives the role to `to` although the primary cannot be asked. `force`: also when it answers and accepts writes, which
/// ends with its fence, when another standby has more, or when two nodes claim the role.
///
/// # Errors
/// [`Refusal`]: nothing may be done.
pub fn failover(observed: &Observed, to: &str, force: bool) -> Result<Plan, Refusal> {
    is_named(observed, to)?;
    let claim = match claim(observed) {
        Err(Refusal::Contested { claimants, epoch }) => {
            return if force {
                decide(observed, to, epoch)
            } else {
                Err(Refusal::Contested { claimants, epoch })
            };
        }
        claim => claim?,
    };
    let new = must_see(observed, to, "nothing can be done without it")?;
    if claim.primary == to {
        return has_the_role(observed, to, claim, force);
    }
    let from = claim.primary.as_str();
    let old = observed.seen(from);
    let mut steps = Vec::new();
    let mut notes = Vec::new();
    if let Some(old) = old {
        let fenced = old.record.as_ref().is_some_and(|record| record.fenced);
        if !fenced && !old.in_recovery {
            if !force {
                return Err(Refusal::PrimaryLives { primary: from.to_owned(), to: to.to_owned() });
            }
            may_be_guarded(old, from)?;
            steps.push(Step::Fence { node: from.to_owned(), promised_to: None });
        }
        notes.push(format!("{from} answers: what it has and {to} has not is left for relevo rejoin {from}"));
    } else {
        notes.push(format!(
            "{from} does not answer: if it lives, it fences itself as soon as its Relevo sees the new epoch"
        ));
    }
    let flow = must_be_ready(new, to, old)?;
    // Whoever follows the same source and has more is the better choice.
    let better = observed
        .all_seen()
        .filter(|(node, _)| *node != to && *node != from)
        .filter_map(|(node, seen)| Some((node, seen.flow.as_ref()?)))
        .filter(|(_, other)| other.complete && same_source(&other.source, &flow.source))
        .filter(|(_, other)| other.commit_lsn > flow.commit_lsn)
        .max_by_key(|(_, other)| other.commit_lsn);
    if let Some((better, other)) = better.filter(|_| !force) {
        return Err(Refusal::Behind {
            to: to.to_owned(),
            to_lsn: flow.applied,
            better: better.to_owned(),
            better_lsn: other.applied,
        });
    }
    let node = |name: &str| name.to_owned();
    let epoch = next_epoch(observed, to, claim.epoch);
    let begun = |seen| running(seen, HandoverKind::Failover, to, epoch);
    let resumes = begun(new).or_else(|| old.and_then(begun)).cloned();
    // Fenced by a command that was killed before it could tell.
    if steps.is_empty() && old.is_some() && resumes.as_ref().is_some_and(|run| run.is_untold(Hook::OnFence)) {
        steps.push(Step::Tell { node: node(from), hook: Hook::OnFence });
    }
    steps.push(Step::Settle { node: node(to) });
    steps.extend(
        observed
            .nodes
            .keys()
            .filter(|node| *node != to)
            .map(|follower| Step::Arm { on: node(to), follower: follower.clone() }),
    );
    steps.push(Step::AdvanceSequences { node: node(to) });
    steps.push(Step::Promote { node: node(to), from: node(from), epoch });
    for (other, seen) in observed.all_seen().filter(|(other, _)| *other != to && *other != from) {
        // Whether it is as far as the new primary is known for sure only afterwards; the step looks again.
        if seen.flow.is_some() {
            steps.push(Step::Follow { node: node(other), primary: node(to) });
        }
    }
    Ok(Plan {
        kind: HandoverKind::Failover,
        from: Some(node(from)),
        to: node(to),
        since: claim.epoch,
        epoch,
        resumes,
        steps,
        notes,
        rolls_back: false,
    })
}

/// The failover has been done; standbys may be left that do not follow yet.
fn has_the_role(observed: &Observed, to: &str, claim: Claim, force: bool) -> Result<Plan, Refusal> {
    let plan = stay(observed, to, claim.epoch, force)?;
    Ok(Plan { kind: HandoverKind::Failover, epoch: claim.epoch, ..plan })
}

/// Two nodes claim the role in one epoch; a person has said whose writes are to stay.
fn decide(observed: &Observed, to: &str, epoch: u64) -> Result<Plan, Refusal> {
    let seen = must_see(observed, to, "nothing can be done without it")?;
    let believes = seen.record.as_ref().is_some_and(|record| record.epoch == epoch && record.primary == to);
    if !believes {
        return Err(Refusal::NotReady {
            node: to.to_owned(),
            reason: format!("it is none of those that claim the role in epoch {epoch}"),
            remedy: "name one of them".to_owned(),
        });
    }
    let rivals: Vec<&str> = observed
        .all_seen()
        .filter(|(node, seen)| {
            *node != to
                && seen.record.as_ref().is_some_and(|record| record.epoch == epoch && record.primary == *node)
        })
        .map(|(node, _)| node)
        .collect();
    let mut steps: Vec<Step> = rivals
        .iter()
        .filter(|rival| observed.record(rival).is_some_and(|record| !record.fenced))
        .map(|rival| Step::Fence { node: (*rival).to_owned(), promised_to: None })
        .collect();
    let next = next_epoch(observed, to, epoch);
    steps.push(Step::Promote {
        node: to.to_owned(),
        from: rivals.first().map_or_else(|| to.to_owned(), |rival| (*rival).to_owned()),
        epoch: next,
    });
    Ok(Plan {
        kind: HandoverKind::Failover,
        from: rivals.first().map(|rival| (*rival).to_owned()),
        to: to.to_owned(),
        since: epoch,
        epoch: next,
        resumes: None,
        steps,
        notes: vec![format!("the writes of {} in epoch {epoch} leave the cluster", rivals.join(" and "))],
        rolls_back: false,
    })
}
