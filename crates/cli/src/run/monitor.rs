//! Watches the source beside the stream: where its WAL ends, how the slot is, and the heartbeat that keeps an idle
//! database's slot moving.
//!
//! It has a connection of its own and lives through every outage: what it last saw stays on the board, and the lag
//! grows by itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use relevo_connect::{ConnInfo, SessionSettings, SqlSession, connect_sql};
use relevo_model::{FlowName, Side, SourceLsn};
use relevo_source::inspect_slot;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::error::CliError;
use crate::run::board::FlowBoard;
use crate::run::publications::Publications;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// No answer for so long: the connection is given up and opened again.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A record of a few bytes in the WAL of this database. It arrives as a transaction with one logical message, is applied as
/// a move of the progress, and so lets the slot go on when nothing else is written here but much elsewhere in the
/// cluster. Needs no table and no right (manual, *Replication Management Functions*).
const HEARTBEAT: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'relevo', 'heartbeat')";

/// Where the WAL ends, and what time it is there.
const POSITION: &str = "SELECT pg_catalog.pg_current_wal_lsn(), pg_catalog.clock_timestamp()";

/// What to watch.
pub struct Watch {
    /// The source.
    pub info: ConnInfo,
    /// The flow.
    pub flow: FlowName,
    /// How often the source is made to write.
    pub heartbeat_interval: Duration,
    /// Where what is seen goes.
    pub board: Arc<FlowBoard>,
    /// What must stay as it is.
    pub publications: Publications,
}

impl Watch {
    /// Watches until `shutdown`. Errors are logged once per outage.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut outage = false;
        let mut last_heartbeat: Option<Instant> = None;
        while !shutdown.is_cancelled() {
            let end = tokio::select! {
                () = shutdown.cancelled() => return,
                end = self.session(&mut last_heartbeat, &mut outage) => end,
            };
            if let Err(error) = end {
                if outage {
                    debug!(kind = error.kind(), %error, "the source still cannot be watched");
                } else {
                    warn!(kind = error.kind(), %error, "the source cannot be watched; lag grows until it answers again");
                }
                outage = true;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    async fn session(
        &mut self,
        last_heartbeat: &mut Option<Instant>,
        outage: &mut bool,
    ) -> Result<(), CliError> {
        let settings = SessionSettings::for_values(self.flow.slot());
        let session =
            connect_sql(&self.info, Side::Source, &settings).await.map_err(|e| CliError::from_fault(&e))?;
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            timeout(ANSWER_LIMIT, self.look(&session)).await.map_err(|_| {
                CliError::failed("the source did not answer in time").of_kind("source_silent")
            })??;
            *outage = false;
            timeout(ANSWER_LIMIT, self.publications.look(&session)).await.map_err(|_| {
                CliError::failed("the source did not say what it publishes in time").of_kind("source_silent")
            })??;
            if last_heartbeat.is_none_or(|last| last.elapsed() >= self.heartbeat_interval) {
                timeout(ANSWER_LIMIT, session.execute(HEARTBEAT, &[]))
                    .await
                    .map_err(|_| {
                        CliError::failed("the source did not take the heartbeat in time")
                            .of_kind("source_silent")
                    })?
                    .map_err(|error| {
                        CliError::failed(format!("heartbeat: {}", relevo_connect::describe(&error)))
                            .of_kind(relevo_connect::kind(&error))
                    })?;
                *last_heartbeat = Some(Instant::now());
            }
        }
    }

    async fn look(&self, session: &SqlSession) -> Result<(), CliError> {
        let row = session
            .query_one(POSITION, &[])
            .await
            .map_err(|error| CliError::sql(Side::Source, "asking for positions", &error))?;
        let position: PgLsn = row.get(0);
        self.board.source_polled(SourceLsn::new(position.into()), row.get::<_, SystemTime>(1).into());
        let slot =
            inspect_slot(session, &self.flow.slot()).await.map_err(|error| CliError::from_fault(&error))?;
        self.board.slot_seen(&self.flow.slot(), slot.as_ref());
        Ok(())
    }
}
