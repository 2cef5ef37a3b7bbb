//! Plans: from what was observed to the steps that lead to the goal, or the reason why none may be taken.
//!
//! Pure. The printed plan, `--dry-run`, the tests and [`Work`](crate::Work) share it. What may not enter: anything that
//! asks or changes a database.

mod failover;
#[cfg(test)]
mod interleavings;
mod lack;
mod rejoin;
mod switchover;
#[cfg(test)]
mod tests;

use std::fmt;

use relevo_model::SourceLsn;
use relevo_state::{HandoverKind, HandoverRecord, HandoverState, Hook, NodeRecord};
use thiserror::Error;

use crate::{Claim, Observed, Seen};

pub use failover::failover;
pub(crate) use lack::{may_go_on, may_lack};
pub use rejoin::rejoin;
pub use switchover::switchover;

/// What a former primary has from the one before it, and the present one never had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inherited {
    /// Nothing.
    Nothing,
    /// All that it applied behind the position that is given, and before it got the role, at this LSN of its own.
    Before(SourceLsn),
    /// What another server committed.
    Of {
        /// System identifier of that server.
        system_id: String,
        /// From which LSN of that server on.
        from: SourceLsn,
    },
}

/// One step. Each can be taken again when it has been taken already, in whole or in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Publications and a slot on a node that is to be the primary, for one that is to follow it.
    Arm {
        /// The primary to be.
        on: String,
        /// Who will follow it.
        follower: String,
    },
    /// No ordinary session can write on this node any more.
    Fence {
        /// Where.
        node: String,
        /// The node that is to have the role, if this is for a switchover.
        promised_to: Option<String>,
    },
    /// A standby applies all that the old primary wrote before its fence.
    Drain {
        /// The standby.
        node: String,
        /// The old primary.
        from: String,
    },
    /// Other standbys do the same, if they can in time.
    DrainOthers {
        /// Which.
        nodes: Vec<String>,
        /// The old primary.
        from: String,
    },
    /// The sequences get exactly the values of the old primary.
    Sequences {
        /// The old primary.
        from: String,
        /// The new one.
        to: String,
    },
    /// A standby whose source is lost applies what it has received.
    Settle {
        /// The standby.
        node: String,
    },
    /// The sequences move ahead, because where those of the old primary stand is not known.
    AdvanceSequences {
        /// Where.
        node: String,
    },
    /// The node gets the role: the epoch, the end of its flow, and the end of its fence, in one transaction.
    Promote {
        /// Who.
        node: String,
        /// Who had it before.
        from: String,
        /// The new epoch.
        epoch: u64,
    },
    /// A hook that nobody has run to its end, because the command was killed or the hook failed.
    Tell {
        /// Where it stands that it is due.
        node: String,
        /// Which.
        hook: Hook,
    },
    /// A node follows the new primary from the position at which both hold the same rows.
    Follow {
        /// Who.
        node: String,
        /// Whom.
        primary: String,
    },
    /// A slot that nobody needs any more is dropped, with its publications.
    Retire {
        /// Where.
        on: String,
        /// Whose.
        follower: String,
    },
    /// Ordinary sessions can write again: the role stays where it was.
    Unfence {
        /// Where.
        node: String,
    },
    /// What never left a former primary is written to a file and put down as to be undone.
    Salvage {
        /// The former primary.
        node: String,
        /// For whom the slot was made that has it.
        reader: String,
        /// All that it has written on its own lies behind this LSN of its own.
        from: SourceLsn,
        /// What else only it may have.
        inherited: Inherited,
    },
    /// What the file holds leaves the old primary's tables, and it follows the new primary.
    Undo {
        /// The old primary.
        node: String,
        /// The new one.
        primary: String,
    },
    /// A node's rows get the new primary's values, wherever they differ, and it follows from there.
    Resync {
        /// The node.
        node: String,
        /// The new primary.
        primary: String,
    },
    /// The rows in question get the new primary's values.
    Restore {
        /// The old primary.
        node: String,
        /// The new one.
        primary: String,
    },
}

impl Step {
    /// A short stable word for it, for the history and for scripts.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Arm { .. } => "arm",
            Self::Fence { .. } => "fence",
            Self::Drain { .. } => "drain",
            Self::DrainOthers { .. } => "drain_others",
            Self::Sequences { .. } => "sequences",
            Self::Settle { .. } => "settle",
            Self::AdvanceSequences { .. } => "advance_sequences",
            Self::Promote { .. } => "promote",
            Self::Tell { .. } => "tell",
            Self::Follow { .. } => "follow",
            Self::Retire { .. } => "retire",
            Self::Unfence { .. } => "unfence",
            Self::Salvage { .. } => "salvage",
            Self::Undo { .. } => "undo",
            Self::Resync { .. } => "resync",
            Self::Restore { .. } => "restore",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arm { on, follower } => {
                write!(f, "on {on}: make the slot and publications from which {follower} will follow")
            }
            Self::Fence { node, promised_to: Some(to) } => {
                write!(f, "on {node}: wait for open writes, then refuse all others (for {to})")
            }
            Self::Fence { node, promised_to: None } => {
                write!(f, "on {node}: wait for open writes, then refuse all others")
            }
            Self::Drain { node, from } => {
                write!(f, "on {node}: apply all that {from} wrote before its fence")
            }
            Self::DrainOthers { nodes, from } => {
                write!(f, "on {}: the same from {from}, as far as they can in time", nodes.join(", "))
            }
            Self::Sequences { from, to } => write!(f, "on {to}: set every sequence exactly as on {from}"),
            Self::Settle { node } => write!(f, "on {node}: wait until what was received is applied"),
            Self::AdvanceSequences { node } => write!(f, "on {node}: move every sequence ahead by a margin"),
            Self::Promote { node, from, epoch } => {
                write!(f, "on {node}: take the role from {from} (epoch {epoch}) and accept writes")
            }
            Self::Tell { node, hook } => {
                write!(f, "run the hook {} of {node}, which is due", hook.as_str())
            }
            Self::Follow { node, primary } => {
                write!(f, "on {node}: follow {primary} from where both are the same")
            }
            Self::Retire { on, follower } => {
                write!(f, "on {on}: drop the slot that {follower} has read from")
            }
            Self::Unfence { node } => write!(f, "on {node}: accept writes again"),
            Self::Salvage { node, inherited: Inherited::Nothing, .. } => {
                write!(f, "on {node}: write what never left it to the salvage file")
            }
            Self::Salvage { node, .. } => {
                write!(
                    f,
                    "on {node}: write what never left it, its own and what it had from others, to the salvage file"
                )
            }
            Self::Undo { node, primary } => {
                write!(f, "on {node}: take those rows out and follow {primary} from where they parted")
            }
            Self::Resync { node, primary } => {
                write!(
                    f,
                    "on {node}: compare every row with {primary}, rewrite those that differ, and follow it"
                )
            }
            Self::Restore { node, primary } => {
                write!(f, "on {node}: give those rows the values of {primary}")
            }
        }
    }
}

/// What leads to the goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Why.
    pub kind: HandoverKind,
    /// Who has the role now, or had it last.
    pub from: Option<String>,
    /// Whom it is about.
    pub to: String,
    /// The epoch in which it begins.
    pub since: u64,
    /// The epoch that it leads to.
    pub epoch: u64,
    /// The hand-over that was begun by an interrupted command.
    pub resumes: Option<HandoverRecord>,
    /// The steps, in order. None: there is nothing to be done.
    pub steps: Vec<Step>,
    /// What somebody should know before it begins.
    pub notes: Vec<String>,
    /// It takes back what an interrupted command has begun.
    pub rolls_back: bool,
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The file does not name the node.
    #[error("the configuration names no node {node:?}: it names {known}")]
    NoSuchNode {
        /// The name that was given.
        node: String,
        /// Those that there are.
        known: String,
    },
    /// Nobody says who the primary is.
    #[error("no node says who the primary is: relevo init --primary NAME says it once ({unreachable})")]
    NotInitialised {
        /// Who did not answer, and why.
        unreachable: String,
    },
    /// Two nodes claim the role in one epoch.
    #[error(
        "{claimants} claim the role of the primary in the same epoch {epoch}, so two failovers were made at once, by files \
         that name different nodes; their Relevos fence both. Decide whose writes are to stay, and type: relevo failover \
         --to NODE --force; then relevo rejoin for the other one, which writes to a file what was written only there"
    )]
    Contested {
        /// Who.
        claimants: String,
        /// In which epoch.
        epoch: u64,
    },
    /// The database says that it is another node than the file says.
    #[error(
        "the database that the configuration calls {node} says that it is node {found}: the URLs of the file are mixed up, \
         or it belongs to another cluster"
    )]
    WrongNode {
        /// By the file.
        node: String,
        /// By the database.
        found: String,
    },
    /// A node that is needed does not answer.
    #[error("node {node} cannot be reached ({reason}); {remedy}")]
    Unreachable {
        /// Which.
        node: String,
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The standby does not follow the primary.
    #[error("node {node} is not ready to take the role: {reason}; {remedy}")]
    NotReady {
        /// Which.
        node: String,
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The old primary lives and takes writes.
    #[error(
        "node {primary} is the primary, answers, and accepts writes: a failover would leave its latest writes behind. \
         Type relevo switchover --to {to}, which loses nothing; or, if that cannot work, relevo failover --to {to} \
         --force, which fences {primary} first"
    )]
    PrimaryLives {
        /// Who.
        primary: String,
        /// Who was to take over.
        to: String,
    },
    /// Another standby has more.
    #[error(
        "node {better} has applied more than {to} ({better_lsn} against {to_lsn}): type relevo failover --to {better}; or \
         --force, and what only {better} has is lost"
    )]
    Behind {
        /// Who was to take over.
        to: String,
        /// How far it is.
        to_lsn: SourceLsn,
        /// Who has more.
        better: String,
        /// How far that one is.
        better_lsn: SourceLsn,
    },
    /// Another switchover was interrupted.
    #[error(
        "a switchover from {from} to {to} was interrupted, and {from} accepts no writes: finish it (relevo switchover --to \
         {to}) or take it back (relevo switchover --to {from}) first"
    )]
    Interrupted {
        /// Who is fenced.
        from: String,
        /// For whom.
        to: String,
    },
    /// The fence cannot be set there.
    #[error("node {node} cannot be fenced: {reason}; {remedy}")]
    CannotFence {
        /// Which.
        node: String,
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// There is no way back into the cluster without a copy.
    #[error("node {node} cannot rejoin: {reason}; {remedy}")]
    CannotRejoin {
        /// Which.
        node: String,
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

/// The highest claim, if there is just one.
fn claim(observed: &Observed) -> Result<Claim, Refusal> {
    for (node, seen) in observed.all_seen() {
        if let Some(record) = seen.record.as_ref().filter(|record| record.name != node) {
            return Err(Refusal::WrongNode { node: node.to_owned(), found: record.name.clone() });
        }
    }
    let claims = observed.claims();
    let Some(epoch) = claims.iter().map(|claim| claim.epoch).max() else {
        return Err(Refusal::NotInitialised { unreachable: unreachable(observed) });
    };
    let mut highest: Vec<Claim> = claims.into_iter().filter(|claim| claim.epoch == epoch).collect();
    highest.sort();
    highest.dedup();
    match highest.as_slice() {
        [claim] => Ok(claim.clone()),
        _ => {
            let claimants: Vec<String> = highest.into_iter().map(|claim| claim.primary).collect();
            Err(Refusal::Contested { claimants: claimants.join(" and "), epoch })
        }
    }
}

/// The epoch in which a node would have the role. Each node has epochs of its own: with two nodes the first has the odd ones
/// and the second the even ones. So two nodes can never have it in one epoch, even if two commands give it away at once and
/// see nothing of each other, as long as their files name the same nodes.
fn next_epoch(observed: &Observed, to: &str, epoch: u64) -> u64 {
    let count = observed.nodes.len() as u64;
    let place = observed.nodes.keys().take_while(|node| *node != to).count() as u64 + 1;
    (1..=count).map(|more| epoch + more).find(|next| next % count == place % count).unwrap_or(epoch + 1)
}

/// The name of the slot from which a node follows another.
fn slot(cluster: &str, follower: &str) -> String {
    format!("relevo_{cluster}_{follower}")
}

/// The primary's own database must know of its role: one that was restored to an older state does not, and may hold less
/// than the others have seen.
fn must_know<'s>(seen: &'s Seen, node: &str, epoch: u64) -> Result<&'s NodeRecord, Refusal> {
    let reason = match &seen.record {
        Some(record) if record.epoch == epoch => return Ok(record),
        Some(record) => format!(
            "its own database knows of epoch {} only, and the others say that it has the role since epoch {epoch}: it was \
             restored to an older state",
            record.epoch
        ),
        None => format!(
            "its own database knows of no role, and the others say that it has it since epoch {epoch}"
        ),
    };
    Err(Refusal::NotReady {
        node: node.to_owned(),
        reason,
        remedy: "give the role to a standby that has more: relevo failover --to NODE --force".to_owned(),
    })
}

/// Who does not answer, for a message.
fn unreachable(observed: &Observed) -> String {
    let silent: Vec<String> = observed
        .nodes
        .iter()
        .filter_map(|(node, sight)| match sight {
            crate::Sight::Unreachable(reason) => Some(format!("{node}: {reason}")),
            crate::Sight::Seen(_) => None,
        })
        .collect();
    if silent.is_empty() { "all nodes answer".to_owned() } else { silent.join("; ") }
}

fn is_named(observed: &Observed, node: &str) -> Result<(), Refusal> {
    if observed.nodes.contains_key(node) {
        return Ok(());
    }
    Err(no_such_node(observed, node))
}

fn no_such_node(observed: &Observed, node: &str) -> Refusal {
    let known: Vec<&str> = observed.nodes.keys().map(String::as_str).collect();
    Refusal::NoSuchNode { node: node.to_owned(), known: known.join(", ") }
}

fn must_see<'o>(observed: &'o Observed, node: &str, remedy: &str) -> Result<&'o Seen, Refusal> {
    match observed.nodes.get(node) {
        Some(crate::Sight::Seen(seen)) => Ok(seen),
        Some(crate::Sight::Unreachable(reason)) => Err(Refusal::Unreachable {
            node: node.to_owned(),
            reason: reason.clone(),
            remedy: remedy.to_owned(),
        }),
        None => Err(no_such_node(observed, node)),
    }
}

/// The node can be given the role: it follows `from`, whole.
fn must_be_ready<'s>(
    seen: &'s Seen,
    node: &str,
    from: Option<&Seen>,
) -> Result<&'s crate::FlowSight, Refusal> {
    let not = |reason: String, remedy: &str| Refusal::NotReady {
        node: node.to_owned(),
        reason,
        remedy: remedy.to_owned(),
    };
    if seen.in_recovery {
        return Err(not(
            "its server is a physical standby".to_owned(),
            "name the server that it follows in the configuration",
        ));
    }
    let Some(flow) = &seen.flow else {
        let remedy = format!("start relevo run --node {node}, and wait until its state is streaming");
        return Err(not("it holds no copy".to_owned(), &remedy));
    };
    if let Some(from) = from.filter(|from| !same_source(&flow.source, &from.identity)) {
        let reason = format!(
            "it follows the database of server {}, and the primary's server is {}",
            flow.source.system_id, from.identity.system_id
        );
        return Err(not(reason, &format!("type relevo rejoin {node}")));
    }
    if !flow.complete {
        let remedy =
            "wait until relevo status says streaming for every table: until then it is not consistent";
        return Err(not("not every table has arrived".to_owned(), remedy));
    }
    let epoch = seen.record.as_ref().map_or(0, |record| record.epoch);
    if running(seen, HandoverKind::Rejoin, node, epoch).is_some() {
        let remedy = format!("finish that first: relevo rejoin {node}");
        return Err(not("it is rejoining, and may lack rows".to_owned(), &remedy));
    }
    may_be_guarded(seen, node)?;
    Ok(flow)
}

pub(crate) fn same_source(one: &relevo_model::SourceIdentity, other: &relevo_model::SourceIdentity) -> bool {
    (&one.system_id, &one.database) == (&other.system_id, &other.database)
}

fn may_be_guarded(seen: &Seen, node: &str) -> Result<(), Refusal> {
    let cannot =
        |reason: String, remedy: String| Refusal::CannotFence { node: node.to_owned(), reason, remedy };
    if let Some(table) = seen.out_of_reach.first() {
        let more = seen.out_of_reach.len();
        return Err(cannot(
            format!("{more} of its tables belong to other roles, such as {table}"),
            "make Relevo's role a member of their owners: GRANT owner TO relevo".to_owned(),
        ));
    }
    if !seen.owns_database {
        return Err(cannot(
            "Relevo's role may not change the database's settings".to_owned(),
            format!("make it the owner's member: ALTER DATABASE {} OWNER TO …", seen.identity.database),
        ));
    }
    Ok(())
}

/// The interrupted hand-over that a command goes on with.
fn running<'s>(seen: &'s Seen, kind: HandoverKind, to: &str, epoch: u64) -> Option<&'s HandoverRecord> {
    seen.handovers.iter().find(|record| {
        // One of another epoch was overtaken: it says nothing about this one.
        record.state == HandoverState::Running
            && record.kind == kind
            && record.to == to
            && record.epoch == epoch
    })
}

/// The hand-over by which a node got the role in an epoch.
pub(crate) fn by_which(seen: &Seen, epoch: u64) -> Option<&HandoverRecord> {
    seen.handovers.iter().find(|record| {
        record.epoch == epoch
            && record.new_lsn.is_some()
            && matches!(record.kind, HandoverKind::Switchover | HandoverKind::Failover)
    })
}

/// Whether a node holds just the rows that the new primary had when it took the role, so that it can follow from there.
/// `handover`: the one by which `primary` got the role.
#[must_use]
pub fn may_follow(node: &str, seen: &Seen, primary: &str, handover: &HandoverRecord) -> bool {
    let Some(old_lsn) = handover.old_lsn else { return false };
    if handover.from.as_deref() == Some(node) {
        // Its own writes: all that it made before its fence were applied.
        return handover.kind == HandoverKind::Switchover
            && seen.record.as_ref().is_some_and(|record| {
                record.fenced
                    && record.epoch < handover.epoch
                    && record.promised_to.as_deref() == Some(primary)
                    && record.fence_lsn.is_some_and(|fence| fence <= old_lsn)
            });
    }
    // Who had the role itself has written since its flow ended.
    if seen.record.as_ref().is_none_or(|record| record.primary == node) {
        return false;
    }
    seen.flow.as_ref().is_some_and(|flow| {
        Some(&flow.source.system_id) == handover.old_system_id.as_ref()
            && flow.complete
            && flow.applied >= old_lsn
            && (handover.kind == HandoverKind::Switchover
                // Without a commit since its rows were copied, nobody knows what came in before them.
                || flow.commit_lsn.map_or(flow.applied == old_lsn, |commit| commit < old_lsn))
    })
}

/// Whether a node follows `primary` already.
fn follows(seen: &Seen, primary: &Seen) -> bool {
    seen.flow.as_ref().is_some_and(|flow| same_source(&flow.source, &primary.identity))
}
