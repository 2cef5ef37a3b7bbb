//! The history of roles: one row for each hand-over that a database took part in.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use relevo_model::{SourceLsn, Timestamp};
use tokio_postgres::types::{PgLsn, ToSql};
use tokio_postgres::{GenericClient, Row};

use crate::StateError;

/// Why the role moved, or was to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandoverKind {
    /// The first primary.
    Init,
    /// Planned: nothing is lost.
    Switchover,
    /// The old primary was lost.
    Failover,
    /// An old primary has come back as a standby.
    Rejoin,
    /// A primary whose epoch is over was found to be writable, and is no more.
    Fence,
}

impl HandoverKind {
    /// The word in the database and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Switchover => "switchover",
            Self::Failover => "failover",
            Self::Rejoin => "rejoin",
            Self::Fence => "fence",
        }
    }
}

impl fmt::Display for HandoverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for HandoverKind {
    type Err = StateError;

    fn from_str(text: &str) -> Result<Self, StateError> {
        Ok(match text {
            "init" => Self::Init,
            "switchover" => Self::Switchover,
            "failover" => Self::Failover,
            "rejoin" => Self::Rejoin,
            "fence" => Self::Fence,
            other => return Err(StateError::Corrupt { column: "handover.kind", value: other.to_owned() }),
        })
    }
}

/// How far a hand-over is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandoverState {
    /// Begun; if nobody works on it, whoever did was interrupted.
    Running,
    /// The role has moved.
    Done,
    /// Everything is as it was.
    RolledBack,
}

impl HandoverState {
    /// The word in the database and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::RolledBack => "rolled back",
        }
    }
}

impl FromStr for HandoverState {
    type Err = StateError;

    fn from_str(text: &str) -> Result<Self, StateError> {
        Ok(match text {
            "running" => Self::Running,
            "done" => Self::Done,
            "rolled back" => Self::RolledBack,
            other => return Err(StateError::Corrupt { column: "handover.state", value: other.to_owned() }),
        })
    }
}

/// A command that tells others of a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// The old primary accepts no writes any more.
    OnFence,
    /// The new primary accepts writes.
    OnPromote,
}

impl Hook {
    /// Its name in the configuration, in the database and in its own environment.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnFence => "on_fence",
            Self::OnPromote => "on_promote",
        }
    }
}

/// What has become of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HookState {
    /// What it tells of has happened, or is about to; nobody has run it to its end.
    Due,
    /// It was run, and failed or took too long.
    Failed,
    /// It was run to its end.
    Done,
}

impl HookState {
    /// The word in the database and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Failed => "failed",
            Self::Done => "done",
        }
    }
}

impl FromStr for HookState {
    type Err = StateError;

    fn from_str(text: &str) -> Result<Self, StateError> {
        Ok(match text {
            "due" => Self::Due,
            "failed" => Self::Failed,
            "done" => Self::Done,
            other => return Err(StateError::Corrupt { column: "handover.on_…", value: other.to_owned() }),
        })
    }
}

/// One hand-over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoverRecord {
    /// The same on every node that took part.
    pub id: String,
    /// Why.
    pub kind: HandoverKind,
    /// How far.
    pub state: HandoverState,
    /// The epoch that it led to, or was to lead to.
    pub epoch: u64,
    /// Who had the role before; nobody before the first.
    pub from: Option<String>,
    /// Who was to have it.
    pub to: String,
    /// The last step that was begun.
    pub step: Option<String>,
    /// Who asked.
    pub requested_by: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// System identifier of the old primary's server.
    pub old_system_id: Option<String>,
    /// Everything that ends at or before this LSN of the old primary was on the new one.
    pub old_lsn: Option<SourceLsn>,
    /// When the old primary committed the last of it.
    pub old_commit_time: Option<Timestamp>,
    /// LSN of the new primary behind all of that and before its own first write.
    pub new_lsn: Option<SourceLsn>,
    /// For how many milliseconds nobody could write.
    pub pause_ms: Option<i64>,
    /// What may be missing.
    pub loss: Option<String>,
    /// The hook that is told of the fence, if there is one.
    pub on_fence: Option<HookState>,
    /// The hook that is told of the new primary, if there is one.
    pub on_promote: Option<HookState>,
}

impl HandoverRecord {
    /// What has become of a hook. `None`: there is none.
    #[must_use]
    pub const fn hook(&self, hook: Hook) -> Option<HookState> {
        match hook {
            Hook::OnFence => self.on_fence,
            Hook::OnPromote => self.on_promote,
        }
    }

    /// The same, to be changed.
    pub const fn hook_mut(&mut self, hook: Hook) -> &mut Option<HookState> {
        match hook {
            Hook::OnFence => &mut self.on_fence,
            Hook::OnPromote => &mut self.on_promote,
        }
    }

    /// Nobody has run the hook to its end, although there is one.
    #[must_use]
    pub fn is_untold(&self, hook: Hook) -> bool {
        matches!(self.hook(hook), Some(HookState::Due | HookState::Failed))
    }
}

impl HandoverRecord {
    /// One that begins now or at another time, and of which no more is known than that.
    #[must_use]
    pub fn begun(
        kind: HandoverKind,
        epoch: u64,
        (from, to): (Option<&str>, &str),
        (requested_by, started_at): (&str, Timestamp),
    ) -> Self {
        Self {
            id: format!("{epoch}-{kind}-{}", started_at.unix_us()),
            kind,
            state: HandoverState::Running,
            epoch,
            from: from.map(str::to_owned),
            to: to.to_owned(),
            step: None,
            requested_by: requested_by.to_owned(),
            started_at,
            ended_at: None,
            old_system_id: None,
            old_lsn: None,
            old_commit_time: None,
            new_lsn: None,
            pause_ms: None,
            loss: None,
            on_fence: None,
            on_promote: None,
        }
    }
}

const COLUMNS: &str = "id, kind, state, epoch, from_node, to_node, step, requested_by, started_at, ended_at, \
     old_system_id, old_lsn, old_commit_time, new_lsn, pause_ms, loss, on_fence, on_promote";
/// That a hook was run is not forgotten because somebody who did not know it yet writes what he knows.
const PUT: &str = "INSERT INTO relevo.handover (id, kind, state, epoch, from_node, to_node, step, requested_by, \
     started_at, ended_at, old_system_id, old_lsn, old_commit_time, new_lsn, pause_ms, loss, on_fence, on_promote) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) \
     ON CONFLICT (id) DO UPDATE SET state = excluded.state, step = excluded.step, ended_at = excluded.ended_at, \
     old_system_id = coalesce(excluded.old_system_id, relevo.handover.old_system_id), \
     old_lsn = coalesce(excluded.old_lsn, relevo.handover.old_lsn), \
     old_commit_time = coalesce(excluded.old_commit_time, relevo.handover.old_commit_time), \
     new_lsn = coalesce(excluded.new_lsn, relevo.handover.new_lsn), \
     pause_ms = coalesce(excluded.pause_ms, relevo.handover.pause_ms), \
     loss = coalesce(excluded.loss, relevo.handover.loss), \
     on_fence = CASE WHEN relevo.handover.on_fence = 'done' THEN 'done' \
       ELSE coalesce(excluded.on_fence, relevo.handover.on_fence) END, \
     on_promote = CASE WHEN relevo.handover.on_promote = 'done' THEN 'done' \
       ELSE coalesce(excluded.on_promote, relevo.handover.on_promote) END";

/// A fence that was taken back, or is not there yet, is not told of.
const FENCE_UNTOLD: &str = "on_fence = 'due' AND state = 'running' AND EXISTS (SELECT FROM relevo.node AS n \
     WHERE n.name = from_node AND n.primary_node = n.name AND n.fenced AND n.fence_lsn IS NOT NULL \
     AND n.promised_to IS NOT DISTINCT FROM CASE WHEN kind = 'switchover' THEN to_node END)";
/// A role that has moved on since is not told of.
const PROMOTION_UNTOLD: &str = "on_promote = 'due' AND new_lsn IS NOT NULL AND EXISTS (SELECT FROM relevo.node AS n \
     WHERE n.name = to_node AND n.primary_node = n.name AND n.epoch = handover.epoch)";

/// The role is written down in the transaction that lets this database follow its primary.
const LED_FROM: &str = "SELECT h.new_lsn FROM relevo.handover AS h JOIN relevo.node AS n \
     ON n.epoch = h.epoch AND n.primary_node = h.to_node WHERE n.name <> n.primary_node AND h.new_lsn IS NOT NULL \
     AND h.kind IN ('switchover', 'failover') ORDER BY h.started_at DESC LIMIT 1";

fn record(row: &Row) -> Result<HandoverRecord, StateError> {
    let lsn = |index: usize| row.get::<_, Option<PgLsn>>(index).map(|lsn| SourceLsn::new(lsn.into()));
    let time = |index: usize| row.get::<_, Option<SystemTime>>(index).map(Timestamp::from);
    let hook = |index: usize| row.get::<_, Option<&str>>(index).map(str::parse).transpose();
    Ok(HandoverRecord {
        id: row.get(0),
        kind: row.get::<_, &str>(1).parse()?,
        state: row.get::<_, &str>(2).parse()?,
        epoch: row.get::<_, i64>(3).unsigned_abs(),
        from: row.get(4),
        to: row.get(5),
        step: row.get(6),
        requested_by: row.get(7),
        started_at: row.get::<_, SystemTime>(8).into(),
        ended_at: time(9),
        old_system_id: row.get(10),
        old_lsn: lsn(11),
        old_commit_time: time(12),
        new_lsn: lsn(13),
        pause_ms: row.get(14),
        loss: row.get(15),
        on_fence: hook(16)?,
        on_promote: hook(17)?,
    })
}

/// Writes down a hand-over, or what has become of it. What was known before and is not known now stays.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn put_handover(client: &impl GenericClient, record: &HandoverRecord) -> Result<(), StateError> {
    let lsn = |lsn: Option<SourceLsn>| lsn.map(|lsn| PgLsn::from(lsn.as_u64()));
    let time = |time: Option<Timestamp>| time.map(SystemTime::from);
    let hook = |hook: Option<HookState>| hook.map(HookState::as_str);
    let parameters: [&(dyn ToSql + Sync); 18] = [
        &record.id,
        &record.kind.as_str(),
        &record.state.as_str(),
        &i64::try_from(record.epoch).unwrap_or(i64::MAX),
        &record.from,
        &record.to,
        &record.step,
        &record.requested_by,
        &SystemTime::from(record.started_at),
        &time(record.ended_at),
        &record.old_system_id,
        &lsn(record.old_lsn),
        &time(record.old_commit_time),
        &lsn(record.new_lsn),
        &record.pause_ms,
        &record.loss,
        &hook(record.on_fence),
        &hook(record.on_promote),
    ];
    let done = client.execute(PUT, &parameters).await;
    done.map(drop).map_err(StateError::sql("recording the hand-over"))
}

/// Hooks of this node that nobody has run although what they tell of has happened: of the hand-over that gave it the role,
/// and of one for which it is fenced.
///
/// # Errors
/// [`StateError::Sql`], [`StateError::Corrupt`].
pub async fn hooks_due(client: &impl GenericClient) -> Result<Vec<(HandoverRecord, Hook)>, StateError> {
    let mut due = Vec::new();
    for (hook, condition) in [(Hook::OnFence, FENCE_UNTOLD), (Hook::OnPromote, PROMOTION_UNTOLD)] {
        let query =
            format!("SELECT {COLUMNS} FROM relevo.handover WHERE {condition} ORDER BY started_at, id");
        let rows =
            client.query(&query, &[]).await.map_err(StateError::sql("looking for hooks that are due"))?;
        for row in &rows {
            due.push((record(row)?, hook));
        }
    }
    Ok(due)
}

/// What has become of a hook of a hand-over, by this database's word.
///
/// # Errors
/// [`StateError::Sql`], [`StateError::Corrupt`].
pub async fn hook_state(
    client: &impl GenericClient,
    id: &str,
    hook: Hook,
) -> Result<Option<HookState>, StateError> {
    let error = || StateError::sql("reading what has become of a hook");
    let query = format!("SELECT {} FROM relevo.handover WHERE id = $1", hook.as_str());
    let row = client.query_opt(&query, &[&id]).await.map_err(error())?;
    row.and_then(|row| row.get::<_, Option<String>>(0)).map(|text| text.parse()).transpose()
}

/// Writes down what has become of a hook, and nothing else of the hand-over.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn note_hook(
    client: &impl GenericClient,
    id: &str,
    (hook, what): (Hook, HookState),
) -> Result<(), StateError> {
    let statement = format!("UPDATE relevo.handover SET {} = $2 WHERE id = $1", hook.as_str());
    let done = client.execute(&statement, &[&id, &what.as_str()]).await;
    done.map(drop).map_err(StateError::sql("recording what has become of a hook"))
}

/// Where the primary that this database follows got the role, as a position of that primary: what it has from others and
/// committed before that came to it while it was a standby itself. `None`: it is not known, or there was no hand-over.
///
/// # Errors
/// [`StateError::Sql`].
pub async fn led_from(client: &impl GenericClient) -> Result<Option<SourceLsn>, StateError> {
    let row = client.query_opt(LED_FROM, &[]).await;
    let row = row.map_err(StateError::sql("reading from where on the primary has the role"))?;
    Ok(row.map(|row| SourceLsn::new(row.get::<_, PgLsn>(0).into())))
}

/// All hand-overs that this database took part in, the newest first.
///
/// # Errors
/// [`StateError::Sql`], [`StateError::Corrupt`].
pub async fn handovers(client: &impl GenericClient) -> Result<Vec<HandoverRecord>, StateError> {
    last_handovers(client, i64::MAX).await
}

/// The last hand-overs that this database took part in, the newest first, `limit` at most.
///
/// # Errors
/// [`StateError::Sql`], [`StateError::Corrupt`].
pub async fn last_handovers(
    client: &impl GenericClient,
    limit: i64,
) -> Result<Vec<HandoverRecord>, StateError> {
    let query = format!("SELECT {COLUMNS} FROM relevo.handover ORDER BY started_at DESC, id LIMIT $1");
    let rows = client.query(&query, &[&limit]).await.map_err(StateError::sql("reading the history"))?;
    rows.iter().map(record).collect()
}
