//! Taking the steps of a plan. Each looks first whether it has been taken already.
//!
//! What may not enter: which steps are right (see [`plan`](crate::plan)).

mod arm;
mod fence;
mod follow;
mod lacking;
mod promote;
mod rejoin;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use relevo_connect::SqlSession;
use relevo_model::{SourceLsn, Timestamp};
use relevo_state::{self as state, HandoverKind, HandoverRecord, HandoverState, Hook, RoleNote};
use tokio::time::sleep;
use tracing::info;

use crate::observe::{Seen, connect, see};
use crate::salvage::Touched;
use crate::{Cluster, HandoverError, Hooks, Plan, Step, hooks, locks};

pub(crate) use arm::tables_here;
pub use follow::{Follows, follow_after_handover};
pub use lacking::Refused;

/// How often something that is waited for is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// Work on a plan.
pub struct Work<'a> {
    /// The nodes.
    pub cluster: &'a Cluster,
    /// Who asks, for the history.
    pub requested_by: String,
    /// For how long nobody may be able to write before a switchover is taken back.
    pub max_pause: Duration,
    /// Whom to tell.
    pub hooks: Hooks,
    /// The salvage file; a directory is given a name of its own.
    pub salvage: PathBuf,
    /// Called before each step with its number, from 1.
    pub tell: &'a (dyn Fn(usize, &Step) + Sync),
    /// Called after each.
    pub told: &'a (dyn Fn(usize) + Sync),
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// For how long nobody could write.
    pub pause: Option<Duration>,
    /// Where the old primary was when the new one took over, as far as it had it.
    pub old_lsn: Option<SourceLsn>,
    /// When the old primary committed the last of that.
    pub old_commit_time: Option<Timestamp>,
    /// Sequences that could not be set, and other things that somebody should look at.
    pub warnings: Vec<String>,
    /// What was salvaged: the file, and how many transactions and rows.
    pub salvaged: Option<(PathBuf, u64, u64)>,
    /// Nodes that could not follow at once.
    pub left_behind: Vec<String>,
}

/// What one run of a plan knows.
struct Run<'a> {
    work: &'a Work<'a>,
    plan: &'a Plan,
    record: HandoverRecord,
    sessions: BTreeMap<String, SqlSession>,
    done: Done,
    /// When writers began to wait.
    paused: Option<Instant>,
    /// What the old primary has changed on its own.
    touched: Option<Touched>,
    /// Slots that this run has made: where, and for whom.
    armed: Vec<(String, String)>,
    /// What was found of a standby that cannot have what it lacks.
    refused: Refused,
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

impl Work<'_> {
    /// Takes the steps.
    ///
    /// # Errors
    /// The first that failed. Before the role has moved, a switchover is taken back.
    pub async fn run(&self, plan: &Plan) -> Result<Done, HandoverError> {
        let mut run = Run {
            work: self,
            plan,
            record: plan.resumes.clone().unwrap_or_else(|| self.record(plan)),
            sessions: BTreeMap::new(),
            done: Done::default(),
            paused: None,
            touched: None,
            armed: Vec::new(),
            refused: Refused::default(),
        };
        for (at, step) in plan.steps.iter().enumerate() {
            (self.tell)(at + 1, step);
            run.record.step = Some(step.word().to_owned());
            let began = Instant::now();
            if let Err(error) = run.step(step).await {
                let error = locks::named(self.cluster, error, step, began.elapsed()).await;
                if !run.may_go_back() {
                    run.disarm().await;
                    return Err(error);
                }
                return Err(match run.go_back().await {
                    Ok(()) => error,
                    Err(why) => HandoverError::NotTakenBack { error: Box::new(error), why },
                });
            }
            (self.told)(at + 1);
        }
        run.end().await?;
        Ok(run.done)
    }

    fn record(&self, plan: &Plan) -> HandoverRecord {
        let between = (plan.from.as_deref(), plan.to.as_str());
        HandoverRecord::begun(plan.kind, plan.epoch, between, (&self.requested_by, now()))
    }
}

impl Run<'_> {
    /// A session on a node, opened once.
    async fn session(&mut self, node: &str) -> Result<&mut SqlSession, HandoverError> {
        if !self.sessions.contains_key(node) {
            let session = connect(self.work.cluster, node).await?;
            self.sessions.insert(node.to_owned(), session);
        }
        self.sessions
            .get_mut(node)
            .ok_or_else(|| HandoverError::Waited(format!("node {node} is not connected")))
    }

    async fn see(&mut self, node: &str) -> Result<Seen, HandoverError> {
        let cluster = self.work.cluster;
        see(cluster, node, self.session(node).await?).await
    }

    async fn step(&mut self, step: &Step) -> Result<(), HandoverError> {
        match step {
            Step::Arm { on, follower } => self.arm(on, follower).await,
            Step::Fence { node, promised_to } => self.fence(node, promised_to.as_deref()).await,
            Step::Drain { node, from } => self.drain(node, from).await,
            Step::DrainOthers { nodes, from } => {
                self.drain_others(nodes, from).await;
                Ok(())
            }
            Step::Sequences { from, to } => self.sequences(from, to).await,
            Step::Settle { node } => self.settle(node).await,
            Step::AdvanceSequences { node } => self.advance_sequences(node).await,
            Step::Promote { node, from, epoch } => self.promote(node, from, *epoch).await,
            Step::Tell { node, hook } => self.tell(node, *hook).await,
            Step::Follow { node, primary } => self.follow(node, primary).await,
            Step::Retire { on, follower } => self.retire(on, follower).await,
            Step::Unfence { node } => self.unfence(node).await,
            Step::Salvage { node, reader, from, inherited } => {
                self.salvage((node, reader), *from, inherited).await
            }
            Step::Undo { node, primary } => self.undo(node, primary).await,
            Step::Resync { node, primary } => self.resync(node, primary).await,
            Step::Restore { node, primary } => self.restore(node, primary).await,
        }
    }

    /// Writes down how far it is, on every node that takes part and can be reached.
    async fn note(&mut self, node: &str) -> Result<(), HandoverError> {
        let record = self.record.clone();
        let session = self.session(node).await?;
        state::put_handover(&**session, &record).await.map_err(HandoverError::state(node))
    }

    /// Runs a hook that is due, or has failed, of the hand-over that is recorded on the node.
    async fn tell(&mut self, node: &str, hook: Hook) -> Result<(), HandoverError> {
        let mut record = self.record.clone();
        let (cluster, hooks) = (self.work.cluster, &self.work.hooks);
        let session = self.session(node).await?;
        let problem = hooks::run((cluster, hooks), (node, session), hook, &mut record).await?;
        *self.record.hook_mut(hook) = record.hook(hook);
        self.done.warnings.extend(problem);
        Ok(())
    }

    /// A failover that was not done leaves no slots behind that nobody reads.
    async fn disarm(&mut self) {
        if self.plan.kind != HandoverKind::Failover || self.record.new_lsn.is_some() {
            return;
        }
        self.sessions.clear();
        // The COMMIT that gave the role may not have been answered.
        if !matches!(self.role_has_moved().await, Ok(false)) {
            return;
        }
        for (on, follower) in std::mem::take(&mut self.armed) {
            // Typed again, the command makes it anew; what went wrong before this is what has to be said.
            if let Err(error) = self.retire(&on, &follower).await {
                info!(%error, "the slot on {on} for {follower} is left");
            }
        }
    }

    /// Whether nothing has happened yet that cannot be taken back.
    fn may_go_back(&self) -> bool {
        self.plan.kind == HandoverKind::Switchover && self.record.new_lsn.is_none() && !self.plan.rolls_back
    }

    /// Whether the node that was to get the role has it. The row's lock waits for a transaction of ours whose COMMIT was
    /// not answered.
    async fn role_has_moved(&mut self) -> Result<bool, HandoverError> {
        let (to, epoch) = (self.plan.to.clone(), self.plan.epoch);
        let session = self.session(&to).await?;
        let error = || HandoverError::sql(&to, "looking who has the role");
        session.batch_execute("BEGIN").await.map_err(error())?;
        let record = state::hold_node(&**session).await.map_err(HandoverError::state(&to))?;
        session.batch_execute("COMMIT").await.map_err(error())?;
        Ok(record.is_some_and(|record| record.epoch >= epoch))
    }

    /// Takes everything back: the old primary accepts writes again. Not when the new one has the role, or may have it: then
    /// two nodes would accept writes. `Err`: why not.
    async fn go_back(&mut self) -> Result<(), String> {
        let from = self.plan.from.clone().unwrap_or_default();
        // A session in a failed transaction is of no use.
        self.sessions.clear();
        match self.role_has_moved().await {
            Ok(false) => {}
            Ok(true) => return Err(format!("{} has the role already", self.plan.to)),
            Err(error) => {
                return Err(format!("whether {} has the role is not known ({error})", self.plan.to));
            }
        }
        let mut back = vec![Step::Unfence { node: from.clone() }];
        let armed = std::mem::take(&mut self.armed);
        back.extend(armed.into_iter().map(|(on, follower)| Step::Retire { on, follower }));
        for step in back {
            info!("taking it back: {step}");
            self.step(&step).await.map_err(|error| error.to_string())?;
        }
        self.note_end(HandoverState::RolledBack).await.map_err(|error| error.to_string())
    }

    /// The end: what has become of it is written down everywhere.
    async fn end(&mut self) -> Result<(), HandoverError> {
        if self.plan.steps.is_empty() {
            return Ok(());
        }
        let rolled_back = self.plan.rolls_back;
        self.note_end(if rolled_back { HandoverState::RolledBack } else { HandoverState::Done }).await
    }

    /// Writes down how it ended, on every node that took part.
    async fn note_end(&mut self, ended: HandoverState) -> Result<(), HandoverError> {
        self.record.state = ended;
        self.record.ended_at = Some(now());
        if ended == HandoverState::RolledBack {
            self.record.old_lsn = None;
        }
        let mut nodes = vec![self.plan.to.clone(), self.record.to.clone()];
        nodes.extend(self.plan.from.clone());
        nodes.dedup();
        for (at, node) in nodes.iter().enumerate() {
            match self.note(node).await {
                Ok(()) => {}
                // The new primary's word counts; the old one may be gone.
                Err(error) if at == 0 => return Err(error),
                Err(error) => info!(%error, "the history of {node} does not have it"),
            }
        }
        Ok(())
    }
}

/// Says for the first time what every node is, and who is the primary. Returns what was done, node by node.
///
/// # Errors
/// The primary cannot be reached, or the nodes know another primary.
pub async fn init(
    cluster: &Cluster,
    primary: &str,
    requested_by: &str,
) -> Result<Vec<String>, HandoverError> {
    let mut lines = Vec::new();
    let order = std::iter::once(primary).chain(cluster.others(primary));
    let at = now();
    let record = HandoverRecord {
        // The same whoever says it, and how often.
        id: format!("1-{}", HandoverKind::Init),
        state: HandoverState::Done,
        ended_at: Some(at),
        ..HandoverRecord::begun(HandoverKind::Init, 1, (None, primary), (requested_by, at))
    };
    for node in order {
        let mut session = match connect(cluster, node).await {
            Ok(session) => session,
            Err(error) if node == primary => return Err(error),
            Err(error) => {
                lines.push(format!("{node}: not reached ({error}); its Relevo does the same when it starts"));
                continue;
            }
        };
        lines.push(init_one(cluster, node, &mut session, (1, primary), Some(&record)).await?);
    }
    Ok(lines)
}

/// Says what one node is, unless that is said.
pub(crate) async fn init_one(
    cluster: &Cluster,
    node: &str,
    session: &mut SqlSession,
    (epoch, primary): (u64, &str),
    record: Option<&HandoverRecord>,
) -> Result<String, HandoverError> {
    let failed = || HandoverError::state(node);
    state::install(session).await.map_err(failed())?;
    let role = RoleNote { epoch, primary, fenced: false, fence_lsn: None, promised_to: None };
    state::init_node(&**session, (&cluster.name, node), role).await.map_err(failed())?;
    let found = state::node(&**session).await.map_err(failed())?;
    let Some(found) = found else {
        return Err(HandoverError::Waited(format!("node {node}: what it is could not be written down")));
    };
    if (&*found.cluster, &*found.name) != (&*cluster.name, node) {
        let found = format!("it is node {} of cluster {}", found.name, found.cluster);
        return Err(HandoverError::Overtaken { node: node.to_owned(), found });
    }
    if (found.epoch, &*found.primary) != (epoch, primary) {
        let found = format!("primary is {} since epoch {}", found.primary, found.epoch);
        return Err(HandoverError::Overtaken { node: node.to_owned(), found });
    }
    if let Some(record) = record {
        let known = state::handovers(&**session).await.map_err(failed())?;
        if !known.iter().any(|known| known.id == record.id) {
            state::put_handover(&**session, record).await.map_err(failed())?;
        }
    }
    Ok(if node == primary {
        format!("{node}: the primary, epoch {epoch}")
    } else {
        format!("{node}: a standby of {primary}, epoch {epoch}; start relevo run --node {node} beside it")
    })
}

/// Waits for `look` to find something, for `limit` at most.
async fn until<T>(
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>, HandoverError>,
) -> Result<Option<T>, HandoverError> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        sleep(LOOK).await;
    }
}
