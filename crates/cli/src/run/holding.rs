//! Follows whether somebody holds the flow at a position (`relevo verify`, `relevo repair`), and tells the stream.
//!
//! A notification says that something has changed; the row is looked at now and then all the same, because a
//! notification may be lost with its session, and because a hold ends by itself. The database refuses what lies behind a
//! hold in any case: to be late costs time, never rows.

use std::time::Duration;

use relevo_connect::{ConnInfo, SessionSettings, SqlSession, connect_sql};
use relevo_model::{FlowName, Side, SourceLsn};
use relevo_state::{self as state, HOLD_CHANNEL};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How often the row is looked at while the flow is held.
const HELD_INTERVAL: Duration = Duration::from_millis(100);
/// And otherwise.
const INTERVAL: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Who looks, where, and who is told.
pub struct HoldWatch {
    /// The target.
    pub info: ConnInfo,
    /// The flow.
    pub flow: FlowName,
    /// The position that the flow is held at.
    pub hold: watch::Sender<Option<SourceLsn>>,
}

impl HoldWatch {
    /// Looks until `end`.
    pub async fn run(self, end: CancellationToken) {
        tokio::select! {
            () = end.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        loop {
            if let Err(error) = self.session().await {
                debug!(error, "whether the flow is held could not be looked up");
            }
            // The row may have changed while nobody could look. What the stream does not know, the target refuses.
            self.tell(None);
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn session(&self) -> Result<(), String> {
        let settings = SessionSettings::for_values(self.flow.slot());
        let open =
            connect_sql(&self.info, Side::Target, &settings).await.map_err(|error| error.to_string())?;
        let mut notified = open.notifications();
        let listen = format!("LISTEN {HOLD_CHANNEL}");
        answered(async { open.batch_execute(&listen).await.map_err(|e| relevo_connect::describe(&e)) })
            .await?;
        loop {
            notified.mark_unchanged();
            let held = answered(self.look(&open)).await?;
            self.tell(held);
            let pause = if held.is_some() { HELD_INTERVAL } else { INTERVAL };
            tokio::select! {
                () = sleep(pause) => {}
                changed = notified.changed() => changed.map_err(|_| "the connection has ended".to_owned())?,
            }
        }
    }

    async fn look(&self, open: &SqlSession) -> Result<Option<SourceLsn>, String> {
        let held = state::held(&**open, &self.flow).await.map_err(|error| error.to_string())?;
        Ok(held.map(|hold| hold.at))
    }

    fn tell(&self, held: Option<SourceLsn>) {
        self.hold.send_if_modified(|told| std::mem::replace(told, held) != held);
    }
}

async fn answered<T>(question: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(ANSWER_LIMIT, question).await.unwrap_or_else(|_| Err("the target does not answer".to_owned()))
}
