//! Stores what the flow says of itself on the target, for `relevo status` of anybody, and keeps `relevo.error` short. It is
//! a courtesy: a target that does not answer keeps nothing else from working, and gets the newest word once it does.
//!
//! While another process works for the flow it is that one's word that counts, and nothing is stored.

use std::sync::Arc;
use std::time::Duration;

use relevo_connect::{ConnInfo, SessionSettings, SqlSession, connect_sql};
use relevo_model::{FlowName, Side};
use relevo_state::{self as state, ERRORS_KEPT};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::run::board::{FlowBoard, Said};

const RETRY_PAUSE: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How often the oldest errors are removed.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// How long the last word may take when the process ends.
const LAST_WORD_LIMIT: Duration = Duration::from_millis(500);

/// Who stores it, and where.
pub struct Keeper {
    /// The target.
    pub info: ConnInfo,
    /// The flow.
    pub flow: FlowName,
    /// What is to be stored, and which session on the target is our own.
    pub board: Arc<FlowBoard>,
}

impl Keeper {
    /// Stores every new state until `end`, then the last one once more.
    pub async fn run(self, end: CancellationToken) {
        let mut said = self.board.said();
        let mut session = None;
        let mut trims = interval(TRIM_INTERVAL);
        trims.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let word = said.borrow_and_update().clone();
            let stored = self.store(&mut session, &word).await;
            tokio::select! {
                () = end.cancelled() => break,
                () = tokio::time::sleep(RETRY_PAUSE), if !stored => {}
                changed = said.changed() => if changed.is_err() { break },
                _ = trims.tick() => self.trim(&mut session).await,
            }
        }
        let word = said.borrow_and_update().clone();
        if timeout(LAST_WORD_LIMIT, self.store(&mut session, &word)).await.is_err() {
            debug!("the flow's last state could not be stored on the target in time");
        }
    }

    /// Whether it is stored now.
    async fn store(&self, session: &mut Option<SqlSession>, (state, detail): &Said) -> bool {
        let work = async {
            let open = self.open(session).await?;
            let own = self.board.own_pids();
            let done = state::say_state(&*open, &self.flow, *state, detail.as_deref(), &own).await;
            *session = Some(open);
            done.map_err(|error| error.to_string())
        };
        match timeout(ANSWER_LIMIT, work).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => {
                *session = None;
                debug!(error, "the flow's state could not be stored on the target");
                false
            }
            Err(_) => false,
        }
    }

    /// Removes the oldest errors, if there are too many.
    async fn trim(&self, session: &mut Option<SqlSession>) {
        let work = async {
            let open = self.open(session).await?;
            let done = state::trim_errors(&*open, &self.flow, ERRORS_KEPT).await;
            *session = Some(open);
            done.map_err(|error| error.to_string())
        };
        match timeout(ANSWER_LIMIT, work).await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => debug!(removed, "the oldest errors were removed from relevo.error"),
            Ok(Err(error)) => {
                *session = None;
                debug!(error, "relevo.error could not be trimmed");
            }
            Err(_) => {}
        }
    }

    async fn open(&self, session: &mut Option<SqlSession>) -> Result<SqlSession, String> {
        match session.take() {
            Some(open) => Ok(open),
            None => {
                let settings = SessionSettings::for_values(self.flow.slot());
                connect_sql(&self.info, Side::Target, &settings).await.map_err(|error| error.to_string())
            }
        }
    }
}
