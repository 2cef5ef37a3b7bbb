//! Stores what the flow says of itself on the target, for `relevo status` of anybody. It is a courtesy: a target that
//! does not answer keeps nothing else from working, and gets the newest word once it does.

use std::time::Duration;

use relevo_connect::{ConnInfo, SessionSettings, SqlSession, connect_sql};
use relevo_model::{FlowName, Side};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::run::board::Said;

const RETRY_PAUSE: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long the last word may take when the process ends.
const LAST_WORD_LIMIT: Duration = Duration::from_millis(500);

/// Who stores it, and where.
pub struct Keeper {
    /// The target.
    pub info: ConnInfo,
    /// The flow.
    pub flow: FlowName,
    /// What is to be stored.
    pub said: watch::Receiver<Said>,
}

impl Keeper {
    /// Stores every new state until `end`, then the last one once more.
    pub async fn run(mut self, end: CancellationToken) {
        let mut session = None;
        loop {
            let stored = self.store(&mut session).await;
            tokio::select! {
                () = end.cancelled() => break,
                () = tokio::time::sleep(RETRY_PAUSE), if !stored => {}
                changed = self.said.changed(), if stored => if changed.is_err() { break },
            }
        }
        if timeout(LAST_WORD_LIMIT, self.store(&mut session)).await.is_err() {
            debug!("the flow's last state could not be stored on the target in time");
        }
    }

    async fn store(&mut self, session: &mut Option<SqlSession>) -> bool {
        let (state, detail) = self.said.borrow_and_update().clone();
        let work = async {
            let open = match session.take() {
                Some(open) => open,
                None => {
                    let settings = SessionSettings::for_values(self.flow.slot());
                    connect_sql(&self.info, Side::Target, &settings)
                        .await
                        .map_err(|error| error.to_string())?
                }
            };
            let done = relevo_state::set_state(&*open, &self.flow, state, detail.as_deref()).await;
            done.map_err(|error| error.to_string())?;
            *session = Some(open);
            Ok::<_, String>(())
        };
        match timeout(ANSWER_LIMIT, work).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                debug!(error, "the flow's state could not be stored on the target");
                false
            }
            Err(_) => false,
        }
    }
}
