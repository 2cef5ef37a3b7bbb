//! Notices that the flow's set of tables was changed while it runs, by `relevo tables`.
//!
//! What is recorded on the target is all that is looked at. What may not enter: copying, and who may be added.

use std::sync::Arc;
use std::time::Duration;

use relevo_connect::{SessionSettings, SqlSession, connect_sql};
use relevo_model::{FlowName, Side};
use relevo_state as state;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, info};

use crate::run::board::FlowBoard;
use crate::settings::RunSettings;

/// How often the target is asked. Two numbers out of one small table.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// No answer for so long: the connection is given up and opened again.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Who looks.
pub struct Additions<'a> {
    /// The settings.
    pub settings: &'a RunSettings,
    /// Where the tables are shown.
    pub board: &'a Arc<FlowBoard>,
    /// The flow.
    pub flow: &'a FlowName,
}

impl Additions<'_> {
    /// Waits until tables are recorded that do not follow the stream. Tables that have left are shown no longer. A target
    /// that does not answer is somebody else's to report.
    pub async fn wait(&self) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut session, mut known) = (None, None);
        loop {
            ticks.tick().await;
            match timeout(ANSWER_LIMIT, self.look(&mut session, &mut known)).await {
                Ok(Ok(0)) => {}
                Ok(Ok(waiting)) => {
                    info!(flow = %self.flow, tables = waiting, "tables were added to the flow; copying them beside the stream");
                    return;
                }
                Ok(Err(error)) => {
                    debug!(error, "the flow's tables cannot be looked up now");
                    session = None;
                }
                Err(_) => session = None,
            }
        }
    }

    /// How many tables do not follow the stream.
    async fn look(&self, session: &mut Option<SqlSession>, known: &mut Option<i64>) -> Result<i64, String> {
        let open = match session.take() {
            Some(open) => open,
            None => {
                let settings = SessionSettings::for_values(self.flow.slot());
                let target = &self.settings.flow.target;
                connect_sql(target, Side::Target, &settings).await.map_err(|error| error.to_string())?
            }
        };
        let failed = |error: state::StateError| error.to_string();
        let (total, waiting) = state::table_counts(&*open, self.flow).await.map_err(failed)?;
        if known.is_some_and(|known| known != total) {
            let tables = state::tables(&*open, self.flow).await.map_err(failed)?;
            self.board.tables_known(&tables, &[]);
        }
        *known = Some(total);
        *session = Some(open);
        Ok(waiting)
    }
}
