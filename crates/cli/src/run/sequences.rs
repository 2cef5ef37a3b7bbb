//! Lets the target's sequences follow the source's while the flow streams, so that whoever writes to the target after a
//! hand-over meets no duplicate key.
//!
//! What may not enter: which value is right (see `relevo_snapshot::Sequences`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use relevo_connect::{ConnInfo, SessionSettings, SqlSession, connect_sql};
use relevo_model::{FlowName, Side};
use relevo_snapshot::{SequenceMode, Sequences, SequencesSet, sequence_stays};
use relevo_state::FlowState;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::error::chain;
use crate::run::board::FlowBoard;

/// No answer for so long: both connections are given up and opened again.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// Below the usual `deadlock_timeout` of 1 s: should the applying session truncate with RESTART IDENTITY at the same time,
/// it is this one that gives way. And a server gives up by itself what nobody waits for any more, so that it does not set
/// a sequence to what it was long ago.
const LOCK_TIMEOUT: &str = "500ms";
const STATEMENT_TIMEOUT: &str = "20s";

/// Which sequences follow, and how often.
pub struct SequenceFollower {
    /// The source.
    pub source: ConnInfo,
    /// The target.
    pub target: ConnInfo,
    /// The flow.
    pub flow: FlowName,
    /// How often they are looked at.
    pub interval: Duration,
    /// The selected sequences.
    pub sequences: Sequences,
    /// What the flow does, and who is told.
    pub board: Arc<FlowBoard>,
}

impl SequenceFollower {
    /// Follows until `end`. A server that does not answer is somebody else's to report.
    pub async fn run(mut self, end: CancellationToken) {
        let mut problems = BTreeSet::new();
        loop {
            let problem = tokio::select! {
                () = end.cancelled() => return,
                problem = self.follow(&mut problems) => problem,
            };
            debug!(error = problem, "the sequences do not follow now");
            tokio::select! {
                () = end.cancelled() => return,
                () = sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Looks again and again until something fails, and says what.
    async fn follow(&mut self, problems: &mut BTreeSet<String>) -> String {
        let work = async {
            let mut ticks = interval(self.interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut open: Option<(SqlSession, SqlSession)> = None;
            loop {
                ticks.tick().await;
                // Whoever does not stream does not hold the flow: another one may.
                if self.board.state() != FlowState::Streaming {
                    continue;
                }
                if open.is_none() {
                    let source = connect(&self.source, Side::Source, &self.flow).await?;
                    open = Some((source, connect(&self.target, Side::Target, &self.flow).await?));
                }
                let Some((source, target)) = &open else { continue };
                let done = timeout(ANSWER_LIMIT, self.sequences.set(source, target, SequenceMode::Forward));
                let done = done.await.map_err(|_| "no answer in time".to_owned())?;
                tell(&self.board, done.map_err(|error| chain(&error))?, problems);
            }
        };
        let Err(problem): Result<std::convert::Infallible, String> = work.await;
        problem
    }
}

async fn connect(info: &ConnInfo, side: Side, flow: &FlowName) -> Result<SqlSession, String> {
    let settings = SessionSettings::for_values(flow.slot())
        .with("lock_timeout", LOCK_TIMEOUT)
        .with("statement_timeout", STATEMENT_TIMEOUT);
    connect_sql(info, side, &settings).await.map_err(|error| error.to_string())
}

/// Says each problem once, and once more when it comes again after it was mended.
fn tell(board: &FlowBoard, done: SequencesSet, problems: &mut BTreeSet<String>) {
    board.sequences_set(done.set);
    if done.set > 0 {
        debug!(set = done.set, of = done.selected, "sequences of the target follow the source");
    }
    let now: BTreeSet<String> =
        done.problems.iter().map(|(sequence, problem)| sequence_stays(sequence, problem)).collect();
    for text in &now {
        if board.is_news(text) {
            warn!("{text}");
        }
    }
    for text in problems.difference(&now) {
        info!("no longer so: {text}");
        board.is_over(text);
    }
    *problems = now;
}
