//! `relevo run --node`: the Relevo beside one database. It takes its role from what the databases say, follows the primary
//! while its node is a standby, and watches while it is the primary. Nobody restarts it when the role moves.

mod armed;
mod eyes;
mod hooks;
mod sights;

use std::time::Duration;

use relevo_handover::{
    Claim, Cluster, Follows, HandoverError, Refused, Stand, announce, cover, fence_stale,
    follow_after_handover, source_of, stand,
};
use relevo_state::FlowState;
use relevo_telemetry::Role;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::eyes::{Eyes, Own};
use self::sights::Sights;
use super::{board::FlowBoard, end_helpers, follow};
use crate::args::RunArgs;
use crate::error::{CliError, chain, with_kind};
use crate::settings::{File, RunSettings};

/// The kind of what keeps a node from having anything to do.
const WAITS: &str = "node_waits";
/// How often it is looked whether the role has moved.
const LOOK: Duration = Duration::from_millis(200);
/// How often the guards are looked at: tables may come at any time.
const COVER_INTERVAL: Duration = Duration::from_secs(2);
/// How long writers are waited for when a former primary is fenced, before it is tried again.
const FENCE_PATIENCE: Duration = Duration::from_secs(2);
/// The pause before something that failed is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Which node this is, and all that it goes by.
pub struct Place {
    /// The node.
    pub me: String,
    cluster: Cluster,
    file: File,
    args: RunArgs,
}

impl Place {
    /// The place of this process, if the file names nodes.
    ///
    /// # Errors
    /// [`CliError::Usage`]: it is not said which node, or there is no such node.
    pub fn of(args: &RunArgs, file: &File) -> Result<Option<Self>, CliError> {
        if !file.has_nodes() || args.flow.source.is_some() || args.flow.target.is_some() {
            return Ok(None);
        }
        let cluster = file.cluster_for_run(args)?;
        let Some(me) = args.flow.node.clone() else {
            let known: Vec<&str> = cluster.nodes.keys().map(String::as_str).collect();
            return Err(CliError::usage(format!(
                "the configuration file names nodes: say which one this Relevo stands beside, --node {} (or RELEVO_NODE)",
                known.join(" or --node ")
            )));
        };
        if !cluster.nodes.contains_key(&me) {
            return Err(file.no_such_node(&me));
        }
        Ok(Some(Self { me, cluster, file: file.clone(), args: args.clone() }))
    }

    /// What all nodes of the file share.
    pub fn cluster_name(&self) -> &str {
        &self.cluster.name
    }

    /// What a flow from `source` into this node goes by.
    ///
    /// # Errors
    /// [`CliError::Usage`].
    pub fn settings(&self, source: &str) -> Result<RunSettings, CliError> {
        let mut file = self.file.clone();
        file.flow_into(&self.cluster, source, &self.me)?;
        file.run(&self.args)
    }
}

/// What the node does at present.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Duty {
    /// It has the role.
    Lead { epoch: u64 },
    /// It follows the node `source`; the primary is `primary`.
    Follow { source: String, primary: String, epoch: u64 },
    /// It may do nothing until a person has acted, or its database answers.
    Wait { role: Role, epoch: u64, why: String },
}

/// Lives until `shutdown`.
///
/// # Errors
/// None: whatever goes wrong is said, and tried again.
pub async fn live(
    place: Place,
    board: &std::sync::Arc<FlowBoard>,
    shutdown: &CancellationToken,
) -> Result<(), CliError> {
    let watching = CancellationToken::new();
    let eyes = Eyes::open(&place.cluster, &watching);
    let handover = place.file.handover(None, None)?;
    hooks::watch(&place.cluster, &place.me, handover.hooks, &watching);
    armed::keep(&place.cluster, &place.me, handover.armed_wal_bytes, board, &watching);
    let mut life = Life {
        place,
        board,
        own: Own::default(),
        covered: None,
        told: String::new(),
        epoch: 0,
        role: Role::Standby,
        source: None,
        refused: Refused::default(),
        sights: Sights::default(),
    };
    while !shutdown.is_cancelled() {
        let duty = tokio::select! {
            () = shutdown.cancelled() => break,
            duty = life.duty(&eyes) => duty,
        };
        match duty {
            Duty::Follow { ref source, .. } => {
                let source = source.clone();
                life.follow(&eyes, &duty, &source, shutdown).await;
            }
            duty => {
                life.show(&duty);
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = sleep(LOOK) => {}
                }
            }
        }
    }
    watching.cancel();
    Ok(())
}

struct Life<'a> {
    place: Place,
    board: &'a std::sync::Arc<FlowBoard>,
    own: Own,
    covered: Option<Instant>,
    /// What was said last, so that it is said once.
    told: String,
    epoch: u64,
    /// What the node was when its database last answered.
    role: Role,
    /// Whom it follows.
    source: Option<String>,
    /// What was found of slots that were armed for this node.
    refused: Refused,
    sights: Sights,
}

impl Life<'_> {
    /// Says something if it is news.
    fn tell(&mut self, text: String, say: impl FnOnce(&str)) {
        if self.told != text {
            say(&text);
            self.told = text;
        }
    }

    fn show(&mut self, duty: &Duty) {
        self.board.beat();
        match duty {
            Duty::Lead { epoch } => {
                self.board.set_role(Role::Primary, *epoch);
                let text = format!("node {} is the primary since epoch {epoch}", self.place.me);
                self.board.set_state(FlowState::Stopped, Some(text.clone()));
                self.tell(text, |text| info!("{text}"));
            }
            Duty::Follow { epoch, .. } => self.board.set_role(Role::Standby, *epoch),
            Duty::Wait { role, epoch, why } => {
                self.board.set_role(*role, *epoch);
                self.board.set_state(FlowState::Failed, Some(with_kind(why, WAITS)));
                self.tell(why.clone(), |text| warn!(kind = WAITS, "{text}"));
            }
        }
    }

    /// What is to be done, by what the databases say now. Fences, and takes up a new source, on the way.
    async fn duty(&mut self, eyes: &Eyes) -> Duty {
        match self.try_duty(eyes).await {
            Ok(duty) => duty,
            Err(error) => {
                let why = chain(&error);
                // The database may be restarting; then the duty is what it was, as soon as it answers.
                self.own.close();
                self.sights.lost(self.board);
                Duty::Wait { role: self.role, epoch: self.epoch, why }
            }
        }
    }

    /// The same, and what was seen on the way is shown.
    async fn try_duty(&mut self, eyes: &Eyes) -> Result<Duty, HandoverError> {
        let Place { me, cluster, .. } = &self.place;
        self.sights.show(cluster, me, (self.source.as_deref(), &eyes.words()), self.board);
        let duty = self.decide(eyes).await?;
        self.source = match &duty {
            Duty::Follow { source, .. } => Some(source.clone()),
            Duty::Lead { .. } | Duty::Wait { .. } => None,
        };
        let (me, cluster) = (self.place.me.clone(), self.place.cluster.clone());
        if self.epoch > 0 {
            let now = (self.epoch, matches!(duty, Duty::Lead { .. }));
            let session = self.own.session(&cluster, &me).await?;
            self.sights.look((&cluster, &me), now, session, self.board).await;
        }
        Ok(duty)
    }

    async fn decide(&mut self, eyes: &Eyes) -> Result<Duty, HandoverError> {
        let Place { me, cluster, .. } = &self.place;
        let (me, cluster) = (me.clone(), cluster.clone());
        let session = self.own.session(&cluster, &me).await?;
        let claims = eyes.claims(&me);
        let record = announce(&cluster, &me, session, &claims).await?;
        self.board.own_database_answers();
        let own =
            record.as_ref().map(|record| Claim { epoch: record.epoch, primary: record.primary.clone() });
        let stand = stand(&me, own.as_ref(), &claims);
        self.board.set_stale_primary(
            matches!(stand, Stand::Stale { .. })
                || matches!(&stand, Stand::Contested { claimants, .. } if claimants.contains(&me)),
        );
        self.role = if matches!(stand, Stand::Primary { .. }) { Role::Primary } else { Role::Standby };
        match stand {
            Stand::Unknown => Ok(Duty::Wait {
                role: Role::Standby,
                epoch: 0,
                why: format!(
                    "no node says who the primary is: relevo init --primary NAME says it once; node {me} waits for it"
                ),
            }),
            Stand::Primary { epoch } => {
                self.epoch = epoch;
                if self.covered.is_none_or(|at| at.elapsed() >= COVER_INTERVAL) {
                    self.covered = Some(Instant::now());
                    let session = self.own.session(&cluster, &me).await?;
                    relevo_handover::beat(session, &me).await?;
                    // Fenced for a switchover, it is guarded like a standby.
                    cover(session, &me).await?;
                }
                Ok(Duty::Lead { epoch })
            }
            Stand::Contested { epoch, claimants } => {
                self.epoch = epoch;
                if own.is_some_and(|own| own.primary == me) {
                    self.fence(&cluster, &me).await?;
                }
                Ok(Duty::Wait {
                    role: Role::Standby,
                    epoch,
                    why: format!(
                        "{} claim the role of the primary in epoch {epoch}, and are fenced: relevo failover --to NODE \
                         --force decides",
                        claimants.join(" and ")
                    ),
                })
            }
            Stand::Stale { epoch, primary } => {
                self.epoch = epoch;
                // After a switchover that ended as it should it is one step from following.
                if self.take_up(&cluster, &me, &primary).await == Follows::Yes {
                    return Ok(Duty::Follow { source: primary.clone(), primary, epoch });
                }
                self.fence(&cluster, &me).await?;
                Ok(Duty::Wait {
                    role: Role::Standby,
                    epoch,
                    why: format!(
                        "node {me} was the primary, and {primary} is since epoch {epoch}: it is fenced; type relevo rejoin \
                         {me}"
                    ),
                })
            }
            Stand::Standby { epoch, primary } => {
                self.epoch = epoch;
                self.guard(&cluster, &me).await?;
                let session = self.own.session(&cluster, &me).await?;
                let follows = source_of(&cluster, &me, session, eyes.identities()).await?;
                match follows {
                    // Nothing was ever copied here.
                    None => Ok(Duty::Follow { source: primary.clone(), primary, epoch }),
                    Some(Some(source))
                        if source == primary && own.as_ref().is_none_or(|own| own.epoch >= epoch) =>
                    {
                        Ok(Duty::Follow { source, primary, epoch })
                    }
                    Some(source) => match (self.take_up(&cluster, &me, &primary).await, source) {
                        (Follows::Yes, _) => Ok(Duty::Follow { source: primary.clone(), primary, epoch }),
                        // What the old primary wrote before its fence is still on its way.
                        // (From the primary itself nothing more is taken until it is known what is passed over.)
                        (Follows::NotYet, Some(source)) if source != primary => {
                            Ok(Duty::Follow { source, primary, epoch })
                        }
                        (Follows::NotYet | Follows::No, _) => Ok(Duty::Wait {
                            role: Role::Standby,
                            epoch,
                            why: format!(
                                "{primary} is the primary since epoch {epoch}, and node {me} holds rows of another moment, \
                                 or of a server that does not answer: type relevo rejoin {me}"
                            ),
                        }),
                    },
                }
            }
        }
    }

    /// Follows the primary from where both are the same, if that is so. A primary that does not answer is asked again.
    async fn take_up(&mut self, cluster: &Cluster, me: &str, primary: &str) -> Follows {
        match follow_after_handover(cluster, me, primary, &mut self.refused).await {
            Ok(follows) => follows,
            Err(error) => {
                let text = chain(&error);
                self.tell(text, |text| warn!("{text}"));
                Follows::NotYet
            }
        }
    }

    async fn fence(&mut self, cluster: &Cluster, me: &str) -> Result<(), HandoverError> {
        let session = self.own.session(cluster, me).await?;
        if let Some(lsn) = fence_stale(session, me, FENCE_PATIENCE).await? {
            warn!(node = me, %lsn, "this node held itself for the primary although it is not, or not alone: it is fenced");
        }
        self.guard(cluster, me).await
    }

    async fn guard(&mut self, cluster: &Cluster, me: &str) -> Result<(), HandoverError> {
        if self.covered.is_some_and(|at| at.elapsed() < COVER_INTERVAL) {
            return Ok(());
        }
        self.covered = Some(Instant::now());
        let session = self.own.session(cluster, me).await?;
        relevo_handover::beat(session, me).await?;
        let covered = cover(session, me).await?;
        if covered > 0 {
            info!(
                node = me,
                tables = covered,
                "tables are guarded now: ordinary sessions cannot write to them"
            );
        }
        Ok(())
    }

    /// Streams until the duty is another one.
    async fn follow(&mut self, eyes: &Eyes, duty: &Duty, source: &str, shutdown: &CancellationToken) {
        let settings = match self.place.settings(source) {
            Ok(settings) => settings,
            Err(error) => {
                self.tell(error.to_string(), |text| error!(kind = error.kind(), "{text}"));
                sleep(PAUSE).await;
                return;
            }
        };
        self.show(duty);
        self.tell(format!("following {source}"), |text| info!("{text}"));
        let (stop, end) = (shutdown.child_token(), CancellationToken::new());
        let mut helpers = Vec::new();
        let result = {
            let board = self.board;
            let following = follow(&settings, board, &stop, &end, &mut helpers);
            tokio::pin!(following);
            loop {
                tokio::select! {
                    result = &mut following => break result,
                    () = sleep(LOOK) => {
                        if self.duty_changes(eyes, duty).await {
                            stop.cancel();
                            break following.await;
                        }
                    }
                }
            }
        };
        end.cancel();
        end_helpers(helpers).await;
        if let Err(error) = result
            && !stop.is_cancelled()
            // What ends because the role has moved is no error.
            && !self.duty_changes(eyes, duty).await
        {
            self.board.set_state(FlowState::Failed, Some(with_kind(&error.to_string(), error.kind())));
            self.tell(error.to_string(), |text| error!(kind = error.kind(), "{text}"));
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(PAUSE) => {}
            }
        }
    }

    /// Whether the node has something else to do. That its database does not answer for a moment is no reason to stop.
    async fn duty_changes(&mut self, eyes: &Eyes, duty: &Duty) -> bool {
        match self.try_duty(eyes).await {
            Ok(now) => now != *duty,
            Err(_) => {
                self.own.close();
                false
            }
        }
    }
}
