//! The moment at which both sides are looked at: a snapshot of the source at a position, and one of the target that has
//! applied exactly that.
//!
//! 1. The flow is held where the source's WAL ends now. Whatever is half applied was committed before, so nothing is
//!    thrown away; and whatever position the next step gives, it lies behind.
//! 2. A temporary slot gives a snapshot and its position: the snapshot sees what commits before it, and nothing else
//!    (manual, *CREATE_REPLICATION_SLOT*, "consistent_point").
//! 3. The flow is held there instead, and goes there.
//! 4. A snapshot of the target is opened. It says itself where the target stands: nothing depends on how long it took.

use std::time::Duration;

use relevo_connect::{ConnInfo, SqlSession};
use relevo_model::{FlowName, Side, SourceLsn};
use relevo_source::{CreatedSlot, ReplicationConnection, SlotLifetime, SlotSnapshot};
use relevo_state::{self as state, FlowLock, Hold};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::PgLsn;
use tracing::{debug, info};

use crate::{VerifyError, session, sql};

/// How long the flow may be kept waiting for a snapshot of the source, before it is let go and asked for again.
const SLOT_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two such attempts.
const SLOT_PAUSE: Duration = Duration::from_secs(2);
/// How long a hold lasts when nobody renews it, in seconds: for so long a killed command keeps the flow waiting.
pub(crate) const HOLD_SECONDS: u32 = 30;
/// How often it is renewed meanwhile.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is tried to hold the flow where the source's WAL ends, before it is held wherever it is.
const FIRST_HOLDS: usize = 20;
/// How long another command that holds the flow is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// The first pause between two looks at the target, and the longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The two ends of a flow.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The source.
    pub source: ConnInfo,
    /// The target.
    pub target: ConnInfo,
    /// The flow.
    pub flow: FlowName,
    /// How long it may take until both sides can be looked at.
    pub timeout: Duration,
}

/// Both sides at one position. Dropping it lets the snapshots go, and a flow that is still held goes on after a while.
pub struct Moment {
    /// The position.
    pub lsn: SourceLsn,
    /// How long the flow stood still for it, at most.
    pub pause: Duration,
    ends: Ends,
    /// Holds the lock of whoever holds the flow.
    pub(crate) control: SqlSession,
    /// Keep the snapshots.
    source: (SqlSession, String),
    target: Option<(SqlSession, String)>,
    standing_since: Instant,
}

impl Moment {
    /// Waits until both sides can be looked at. The flow goes on as soon as the snapshots are open.
    ///
    /// # Errors
    /// [`VerifyError::NobodyApplies`], [`VerifyError::Waits`], [`VerifyError::NotReached`] and others; the flow is not held
    /// any more then.
    pub async fn reach(ends: &Ends) -> Result<Self, VerifyError> {
        let mut moment = Self::reach_with(ends, false).await?;
        let opened = moment.open_target().await;
        let released = state::release(&*moment.control, &ends.flow).await;
        opened?;
        released?;
        moment.pause += moment.standing_since.elapsed();
        info!(lsn = %moment.lsn, pause_ms = moment.pause.as_millis(), "both sides stand still for the comparison");
        Ok(moment)
    }

    /// The same, but the flow stays held, and no snapshot of the target is opened: it is about to be written.
    pub(crate) async fn reach_and_stay(ends: &Ends) -> Result<Self, VerifyError> {
        Self::reach_with(ends, false).await
    }

    /// The same for a target that nobody applies to, whose rows are of no position of the source: it is said to stand at the
    /// position although it does not, by whoever is about to make it so.
    pub(crate) async fn reach_still(ends: &Ends) -> Result<Self, VerifyError> {
        Self::reach_with(ends, true).await
    }

    /// The target goes on to be held here.
    pub(crate) async fn stay(&self) -> Result<(), VerifyError> {
        hold(&self.ends, &self.control, self.lsn).await.map(drop)
    }

    /// Does something that may take long while the target is held here. Should the hold end all the same, as that of a
    /// command that was stopped, whoever commits finds it.
    pub(crate) async fn keeping<T>(
        &self,
        work: impl Future<Output = Result<T, VerifyError>>,
    ) -> Result<T, VerifyError> {
        let renewing = async {
            loop {
                sleep(RENEW_INTERVAL).await;
                let renewed =
                    state::renew_hold(&*self.control, &self.ends.flow, self.lsn, HOLD_SECONDS).await;
                if let Err(error) = renewed {
                    return VerifyError::from(error);
                }
            }
        };
        tokio::select! {
            done = work => done,
            error = renewing => Err(error),
        }
    }

    async fn reach_with(ends: &Ends, still: bool) -> Result<Self, VerifyError> {
        let control = session::reading(&ends.target, Side::Target, &ends.flow).await?;
        let found = state::installed_version(&*control).await?.unwrap_or(0);
        if found < state::VERSION {
            return Err(VerifyError::OlderSchema { found, needed: state::VERSION });
        }
        lock(ends, &control).await?;
        if state::progress(&*control, &ends.flow).await?.is_none() {
            return Err(VerifyError::NotStreaming { flow: ends.flow.clone() });
        }
        if !still && !state::is_locked(&*control, &ends.flow, FlowLock::Apply).await? {
            return Err(VerifyError::NobodyApplies { flow: ends.flow.clone() });
        }
        let reached = stand(ends, &control, still).await;
        let (lsn, pause, source) = match reached {
            Ok(reached) => reached,
            Err(error) => {
                // What it says is more than why the flow could not be let go, which it is by itself.
                let _ = state::release(&*control, &ends.flow).await;
                return Err(error);
            }
        };
        let (ends, standing_since) = (ends.clone(), Instant::now());
        Ok(Self { lsn, pause, ends, control, source, target: None, standing_since })
    }

    /// Opens a snapshot of the target as it is now, in place of an earlier one.
    pub(crate) async fn open_target(&mut self) -> Result<(), VerifyError> {
        let failed = || VerifyError::sql(Side::Target, "opening a snapshot");
        let target = session::reading(&self.ends.target, Side::Target, &self.ends.flow).await?;
        target.batch_execute(sql::BEGIN_SNAPSHOT).await.map_err(failed())?;
        let stored = state::progress(&*target, &self.ends.flow).await?;
        if stored.map(|stored| stored.progress.applied) != Some(self.lsn) {
            let what = format!("the flow did not stay at {}", self.lsn);
            return Err(VerifyError::Disturbed { what });
        }
        let row = target.query_one(sql::EXPORT_SNAPSHOT, &[]).await.map_err(failed())?;
        self.target = Some((target, row.get(0)));
        Ok(())
    }

    /// A session that sees the side as it was at the moment. Each call is a transaction of its own: what it locks, it
    /// locks for one table.
    pub(crate) async fn begin(&self, session: &SqlSession, side: Side) -> Result<(), VerifyError> {
        let snapshot = match (side, &self.target) {
            (Side::Source, _) => &self.source.1,
            (Side::Target, Some((_, snapshot))) => snapshot,
            (Side::Target, None) => {
                return Err(VerifyError::Disturbed { what: "no snapshot of the target is open".to_owned() });
            }
        };
        let sql = sql::import_snapshot(snapshot);
        session.batch_execute(&sql).await.map_err(VerifyError::sql(side, "importing the snapshot"))
    }

    /// How long the flow has stood here.
    pub(crate) fn stood(&self) -> Duration {
        self.pause + self.standing_since.elapsed()
    }

    /// The session that keeps the snapshot of the source.
    pub(crate) fn source(&self) -> &SqlSession {
        &self.source.0
    }

    /// Closes what is open.
    pub(crate) async fn end(self) {
        self.source.0.close().await;
        if let Some((target, _)) = self.target {
            target.close().await;
        }
        self.control.close().await;
    }
}

/// Keeps every other one out that wants to hold the flow. A session of ours that was just closed may have it for a moment.
async fn lock(ends: &Ends, control: &SqlSession) -> Result<(), VerifyError> {
    let begun = Instant::now();
    while !state::try_lock(&**control, &ends.flow, FlowLock::Hold).await? {
        if begun.elapsed() >= LOCK_LIMIT {
            return Err(VerifyError::InUse { flow: ends.flow.clone() });
        }
        sleep(LOOKS.1).await;
    }
    Ok(())
}

type Standing = (SourceLsn, Duration, (SqlSession, String));

/// Has the flow stand at a position of which there is a snapshot of the source.
async fn stand(ends: &Ends, control: &SqlSession, still: bool) -> Result<Standing, VerifyError> {
    let begun = Instant::now();
    let source = session::reading(&ends.source, Side::Source, &ends.flow).await?;
    loop {
        let held = Instant::now();
        hold_first(ends, control, &source).await?;
        if let Some(created) = snapshot(ends, &source, begun).await? {
            let (connection, created) = created;
            let name = created.snapshot.unwrap_or_default();
            let keeper = session::reading(&ends.source, Side::Source, &ends.flow).await?;
            let failed = || VerifyError::sql(Side::Source, "importing the snapshot");
            keeper.batch_execute(&sql::import_snapshot(&name)).await.map_err(failed())?;
            let row = keeper.query_one(sql::EXPORT_SNAPSHOT, &[]).await.map_err(failed())?;
            let name: String = row.get(0);
            // The snapshot is ours now; the slot goes with its connection.
            connection.close().await?;
            let at = created.consistent_point;
            hold(ends, control, at).await?;
            let kept = held.elapsed();
            source
                .batch_execute(sql::MARK)
                .await
                .map_err(VerifyError::sql(Side::Source, "marking the position"))?;
            if still {
                state::stand_at(&**control, &ends.flow, at).await?;
            }
            reached(ends, control, at, begun).await?;
            return Ok((at, kept, (keeper, name)));
        }
        state::release(&**control, &ends.flow).await?;
        sleep(SLOT_PAUSE).await;
    }
}

/// Holds the flow where the source's WAL ends now. Whoever applies may be behind that by the time that the row is written:
/// then it is asked for again, and after some times the flow is held wherever it is.
async fn hold_first(ends: &Ends, control: &SqlSession, source: &SqlSession) -> Result<(), VerifyError> {
    for _ in 0..FIRST_HOLDS {
        let row = source.query_one(sql::INSERT_POSITION, &[]).await;
        let row = row.map_err(VerifyError::sql(Side::Source, "asking for its position"))?;
        let at = SourceLsn::new(row.get::<_, PgLsn>(0).into());
        if state::hold(&**control, &ends.flow, Some(at), HOLD_SECONDS).await?.is_some() {
            return Ok(());
        }
    }
    let held = state::hold(&**control, &ends.flow, None, HOLD_SECONDS).await?;
    held.map(drop).ok_or_else(|| VerifyError::NotStreaming { flow: ends.flow.clone() })
}

async fn hold(ends: &Ends, control: &SqlSession, at: SourceLsn) -> Result<Hold, VerifyError> {
    state::hold(&**control, &ends.flow, Some(at), HOLD_SECONDS)
        .await?
        .ok_or_else(|| VerifyError::Disturbed { what: format!("flow {} is behind {at} already", ends.flow) })
}

/// A temporary slot with its snapshot. `None`: it would have to wait for transactions that run.
async fn snapshot(
    ends: &Ends,
    source: &SqlSession,
    begun: Instant,
) -> Result<Option<(ReplicationConnection, CreatedSlot)>, VerifyError> {
    let name = format!("{}_verify", ends.flow.slot());
    let mut connection = ReplicationConnection::connect(&ends.source, &name).await?;
    let pid = connection.backend_pid();
    // Temporary slots share the names of all others.
    let slot = format!("relevo_verify_{pid}");
    let asked = connection.create_slot(&slot, SlotLifetime::Temporary, SlotSnapshot::Export);
    match timeout(SLOT_LIMIT, asked).await {
        Ok(created) => {
            let created = created?;
            Ok(Some((connection, created)))
        }
        Err(_) => {
            drop(connection);
            let failed = || VerifyError::sql(Side::Source, "giving up waiting for a snapshot");
            let running = source.query(sql::RUNNING, &[&pid]).await.map_err(failed())?;
            source.execute(sql::TERMINATE, &[&pid]).await.map_err(failed())?;
            let transactions: Vec<String> = running.iter().map(|row| row.get(0)).collect();
            let waited = begun.elapsed();
            if waited >= ends.timeout {
                return Err(VerifyError::Waits { waited, transactions });
            }
            info!(
                transactions = transactions.join("; "),
                "the snapshot of the source waits for transactions that run; the flow goes on, and it is tried again"
            );
            Ok(None)
        }
    }
}

/// Waits until the target stands exactly at the position.
async fn reached(
    ends: &Ends,
    control: &SqlSession,
    at: SourceLsn,
    begun: Instant,
) -> Result<(), VerifyError> {
    let (mut pause, longest) = LOOKS;
    let mut renewed = Instant::now();
    loop {
        let Some(hold) = state::held(&**control, &ends.flow).await? else {
            return Err(VerifyError::Disturbed { what: "somebody has let the flow go".to_owned() });
        };
        if hold.at == at && hold.is_reached() {
            return Ok(());
        }
        if hold.at != at {
            return Err(VerifyError::Disturbed { what: format!("somebody holds the flow at {}", hold.at) });
        }
        if begun.elapsed() >= ends.timeout {
            return Err(VerifyError::NotReached { waited: begun.elapsed(), at, applied: hold.applied });
        }
        if !state::is_locked(&**control, &ends.flow, FlowLock::Apply).await? {
            debug!("nobody applies just now");
        }
        if renewed.elapsed() >= RENEW_INTERVAL {
            state::renew_hold(&**control, &ends.flow, at, HOLD_SECONDS).await?;
            renewed = Instant::now();
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
