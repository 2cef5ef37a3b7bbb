//! Opening the apply session: its settings, the lock that keeps every other one out, then the progress.
//!
//! The order matters. A Relevo that was killed may have left a session on the target that is still committing
//! what stands in its socket; it holds the lock until it ends. Only behind the lock is the stored progress final.
//! What may not enter: changes.

use std::collections::HashSet;
use std::time::Duration;

use relevo_connect::{ConnInfo, Host, ReplicaRole, SessionSettings, SqlSession, act_as_replica, connect_sql};
use relevo_model::{FlowName, Progress, Side, SourceIdentity, SourceLsn};
use relevo_state::{FlowLock, Hold};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Statement};
use tracing::{debug, info, warn};

use crate::distrust::Distrust;
use crate::error::TargetError;
use crate::known::Known;
use crate::missing::Missing;
use crate::stamp::{Touched, prepare_advance};

const ASYNCHRONOUS: &str = "SET synchronous_commit = off";
/// Whoever asks for synchronous commits gets them, but a stricter setting of the role or server stays.
const SYNCHRONOUS: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', false) \
     WHERE pg_catalog.current_setting('synchronous_commit') = 'off'";
/// Row security would hide rows from an update; with this setting it is an error instead. The keepalives end the
/// session of a Relevo whose host vanished, so that its lock does not keep the next one waiting. To compile a plan
/// takes longer than to find one row. Last, a transaction may write only where it says so.
const SESSION: &str = "SET row_security = off; \
     SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
     SET default_transaction_read_only = on";
/// A statement is planned once and run a million times, by its key. Planned while its table was small, the plan would
/// be a sequential scan and stay one after the table has grown, even within the transaction that fills it. So an
/// index is used wherever there is one, as native replication does; the price that this setting puts on a scan
/// must not make the server compile the plan either.
const PLANS: &str = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; SET jit = off";
/// A query is given up when its client is gone. Not every platform can do that.
const NOTICE_DEAD_CLIENT: &str = "SET client_connection_check_interval = '1s'";
const ENCODING: &str = "SELECT pg_catalog.current_setting('server_encoding')";
/// The bytes of such a database have no encoding and must not be checked against one.
const NO_ENCODING: &str = "SET client_encoding = 'SQL_ASCII'";
const SERVER: &str = "SELECT pg_catalog.current_setting('wal_block_size')::bigint, \
     pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')), \
     pg_catalog.current_setting('synchronous_commit') = 'off', pg_catalog.pg_is_in_recovery(), \
     pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')";

const TRY_LOCK: &str = "SELECT pg_catalog.pg_try_advisory_lock($1)";
const LOCK_HOLDER: &str = "
SELECT l.pid, coalesce(a.application_name, ''), coalesce(a.client_addr::text, 'the same host'),
       coalesce(a.backend_start::text, 'unknown'), coalesce(a.state, 'unknown')
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
   AND (l.classid::bigint << 32) | l.objid::bigint = $1";
const TERMINATE: &str = "SELECT pg_catalog.pg_terminate_backend($1)";

/// The first pause between two attempts to get the lock; it doubles.
const FIRST_LOCK_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two attempts to get the lock.
const LONGEST_LOCK_PAUSE: Duration = Duration::from_secs(1);
/// How often the log says again who holds the lock.
const EXPLAIN_EVERY: Duration = Duration::from_secs(60);

/// How a target is to be opened.
#[derive(Debug, Clone)]
pub struct TargetOptions {
    /// The flow.
    pub flow: FlowName,
    /// The source that the stored progress must belong to.
    pub source: SourceIdentity,
    /// Whether each commit waits for its flush. When it does not, a batch is reported durable only once the
    /// target's WAL is flushed behind it; nothing can be lost either way, and the target does less work.
    pub synchronous_commit: bool,
    /// The server process of an earlier session of this same Relevo, if there was one: it may be ended when it
    /// still holds the flow.
    pub previous_pid: Option<i32>,
    /// How the changes of a batch are sent.
    pub order: ApplyOrder,
    /// With [`ApplyOrder::Sets`], how many changes of a batch are made ready before the first are sent;
    /// [`FIRST_STRETCH`] is good.
    pub first_stretch: usize,
    /// Whether transactions are marked as applied, for whoever decodes them on this database again: the first thing in
    /// each is a logical message with prefix `relevo` and content `applied`.
    pub marked: bool,
}

/// How many changes of a batch are made ready before the first are sent.
pub const FIRST_STRETCH: usize = 512;

/// How the changes of a batch are sent. The rows are the same in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApplyOrder {
    /// What the changes of a row amount to, one statement for many rows; in order where that is not safe, and when it
    /// fails.
    #[default]
    Sets,
    /// Always one by one, as the source made them.
    Strict,
}

/// Sizes that say where the records of a WAL can end, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalSizes {
    pub(crate) block_bytes: u64,
    pub(crate) segment_bytes: u64,
}

/// The target of one flow, with the session that applies to it.
///
/// While the value lives, no other session can apply the same flow. Dropping it rolls back what is not committed.
pub struct PgTarget {
    pub(crate) session: SqlSession,
    pub(crate) flow: FlowName,
    /// System identifier of the source's server.
    pub(crate) system_id: String,
    pub(crate) progress: Progress,
    /// The hold that was in force when the session was opened.
    hold: Option<Hold>,
    pub(crate) known: Known,
    pub(crate) missing: Missing,
    /// The tables of the transaction that is open or about to be.
    pub(crate) touched: Touched,
    pub(crate) order: ApplyOrder,
    pub(crate) first_stretch: usize,
    /// What cannot be applied exactly as it stands is an error at once, see [`crate::PgAheadTarget`].
    pub(crate) exact: bool,
    /// Transactions say that they were applied.
    pub(crate) marked: bool,
    /// See [`PgTarget::led_from`].
    led_from: Option<SourceLsn>,
    /// See [`PgTarget::has_tables_on_their_way`].
    tables_on_their_way: bool,
    /// The role may make temporary tables.
    pub(crate) may_stage: bool,
    /// The tables that have a temporary table in the transaction, by OID.
    pub(crate) stages: HashSet<u32>,
    /// Tables that go in order for a while.
    pub(crate) distrust: Distrust,
    pub(crate) advance: Statement,
    /// Commits return before their flush: it is asked how far the WAL was written.
    pub(crate) asynchronous: bool,
    pub(crate) wal: WalSizes,
    /// The commit of the batch in hand is asked for by itself.
    pub(crate) withheld: bool,
    /// Counts batches, to tell what was learnt in this one.
    pub(crate) batch_number: u64,
    /// A transaction in parts is open.
    pub(crate) in_transaction: bool,
    /// A batch failed or was interrupted.
    pub(crate) spent: bool,
    /// The session does not understand the server any more.
    pub(crate) broken: bool,
}

impl PgTarget {
    /// Opens the session, waits until it is the only one of its flow, and reads the progress.
    ///
    /// # Errors
    /// [`TargetError::Connect`]; [`TargetError::ReplicaRole`] without the right to set
    /// `session_replication_role`; [`TargetError::NoProgress`] before the copy is complete;
    /// [`TargetError::OtherSource`] when the progress belongs to another source.
    pub async fn open(info: &ConnInfo, options: TargetOptions) -> Result<Self, TargetError> {
        let TargetOptions { flow, source, synchronous_commit, previous_pid, order, first_stretch, marked } =
            options;
        // The server stops reading while a change waits for a lock, with a window of others already on their way.
        let session = connect(&info.patient_writes(), &flow).await?;
        let server = prepare_session(&session, synchronous_commit).await?;
        take_lock(&session, &flow, FlowLock::Apply, |pid| previous_pid == Some(pid)).await?;
        // Whoever still has it was a second session of a predecessor: it would keep what it has locked until it ends.
        take_lock(&session, &flow, FlowLock::Ahead, |_| true).await?;
        relevo_state::unlock(&*session, &flow, FlowLock::Ahead).await?;
        let stored = relevo_state::progress(&*session, &flow).await?;
        let stored = stored.ok_or_else(|| TargetError::NoProgress { flow: flow.clone() })?;
        if stored.source != source {
            return Err(TargetError::OtherSource {
                flow,
                stored: Box::new(stored.source),
                expected: Box::new(source),
            });
        }
        let hold = relevo_state::held(&*session, &flow).await?;
        let (_, on_their_way) = relevo_state::table_counts(&*session, &flow).await?;
        info!(%flow, applied_lsn = %stored.progress.applied, pid = session.backend_pid(), "target: opened");
        let (progress, system_id) = (stored.progress, stored.source.system_id);
        let of_session = OfSession {
            system_id,
            progress,
            hold,
            tables_on_their_way: on_their_way > 0,
            exact: false,
            server,
        };
        Self::on(session, flow, of_session, (order, first_stretch, marked)).await
    }

    /// A session beside the one that holds the flow. Its progress says nothing before it is set.
    pub(crate) async fn open_second(info: &ConnInfo, options: TargetOptions) -> Result<Self, TargetError> {
        let TargetOptions { flow, source, synchronous_commit, order, first_stretch, marked, .. } = options;
        let session = connect(&info.patient_writes(), &flow).await?;
        let server = prepare_session(&session, synchronous_commit).await?;
        take_lock(&session, &flow, FlowLock::Ahead, |_| true).await?;
        let progress = Progress { applied: SourceLsn::ZERO, commit_lsn: None, commit_time: None };
        let system_id = source.system_id;
        let of_session =
            OfSession { system_id, progress, hold: None, tables_on_their_way: false, exact: true, server };
        Self::on(session, flow, of_session, (order, first_stretch, marked)).await
    }

    async fn on(
        session: SqlSession,
        flow: FlowName,
        OfSession { system_id, progress, hold, tables_on_their_way, exact, server }: OfSession,
        (order, first_stretch, marked): (ApplyOrder, usize, bool),
    ) -> Result<Self, TargetError> {
        let led_from = match marked {
            true => relevo_state::led_from(&*session).await?,
            false => None,
        };
        let advance =
            prepare_advance(&session).await.map_err(TargetError::session("preparing statements"))?;
        Ok(Self {
            session,
            flow,
            system_id,
            progress,
            hold,
            exact,
            known: Known::default(),
            missing: Missing::default(),
            touched: Touched::default(),
            order,
            first_stretch,
            marked,
            led_from,
            tables_on_their_way,
            may_stage: server.may_stage,
            stages: HashSet::new(),
            distrust: Distrust::default(),
            advance,
            asynchronous: server.asynchronous,
            wal: server.wal,
            withheld: false,
            batch_number: 0,
            in_transaction: false,
            spent: false,
            broken: false,
        })
    }

    /// The server's process of the session: the next session's `previous_pid`.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.session.backend_pid()
    }

    /// The hold that was in force when the target was opened.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        self.hold
    }

    /// When the target was opened, tables were recorded that did not follow the stream: what it brings for them is not to be
    /// applied yet.
    #[must_use]
    pub fn has_tables_on_their_way(&self) -> bool {
        self.tables_on_their_way
    }

    /// Between nodes: where the source became the primary, if that is known. What it has from others and committed before
    /// that, this target has to get too.
    #[must_use]
    pub fn led_from(&self) -> Option<SourceLsn> {
        self.led_from
    }

    /// The server that was reached, for whoever must reach the same one.
    #[must_use]
    pub fn host(&self) -> &Host {
        self.session.host()
    }
}

/// A session with the settings under which values pass through untouched.
pub(crate) async fn connect(info: &ConnInfo, flow: &FlowName) -> Result<SqlSession, TargetError> {
    let settings = SessionSettings::for_values(application_name(flow));
    Ok(connect_sql(info, Side::Target, &settings).await?)
}

fn application_name(flow: &FlowName) -> String {
    format!("relevo_{flow}")
}

/// What sets a session apart.
struct OfSession {
    system_id: String,
    progress: Progress,
    hold: Option<Hold>,
    tables_on_their_way: bool,
    exact: bool,
    server: Server,
}

/// What a session finds.
struct Server {
    wal: WalSizes,
    /// Commits return before their flush.
    asynchronous: bool,
    may_stage: bool,
}

/// Sets what an apply session needs.
async fn prepare_session(client: &SqlSession, synchronous_commit: bool) -> Result<Server, TargetError> {
    let error = || TargetError::session("setting up the session");
    // Foreign keys and ordinary triggers do not fire, as in native logical replication.
    act_as_replica(client, ReplicaRole::Session).await.map_err(|source| match source.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => TargetError::ReplicaRole { source },
        _ => error()(source),
    })?;
    let commit = if synchronous_commit { SYNCHRONOUS } else { ASYNCHRONOUS };
    client.batch_execute(commit).await.map_err(error())?;
    client.batch_execute(SESSION).await.map_err(error())?;
    client.batch_execute(PLANS).await.map_err(error())?;
    if let Err(refused) = client.batch_execute(NOTICE_DEAD_CLIENT).await {
        debug!(error = %relevo_connect::describe(&refused), "target: no check for dead clients on this platform");
    }
    let encoding = client.query_one(ENCODING, &[]).await.map_err(error())?;
    if encoding.try_get::<_, &str>(0).map_err(error())? == "SQL_ASCII" {
        client.batch_execute(NO_ENCODING).await.map_err(error())?;
    }
    let row = client.query_one(SERVER, &[]).await.map_err(error())?;
    // Before its progress is read: that of a standby may be an old one, which says nothing about what the flow has lost.
    if row.try_get(3).map_err(error())? {
        return Err(TargetError::Standby { at: client.place().clone() });
    }
    let bytes = |index: usize| row.try_get::<_, i64>(index).map(i64::unsigned_abs).map_err(error());
    Ok(Server {
        wal: WalSizes { block_bytes: bytes(0)?, segment_bytes: bytes(1)? },
        asynchronous: row.try_get(2).map_err(error())?,
        may_stage: row.try_get(4).map_err(error())?,
    })
}

/// Waits until this session has the lock, which only sessions of the flow's appliers take. `may_end`: whether the session of
/// the flow that has it may be ended, by its process id.
async fn take_lock(
    client: &Client,
    flow: &FlowName,
    lock: FlowLock,
    may_end: impl Fn(i32) -> bool,
) -> Result<(), TargetError> {
    let error = || TargetError::session("taking the flow's lock");
    let key = lock.key(flow);
    let mut pause = FIRST_LOCK_PAUSE;
    let mut explained: Option<(i32, Instant)> = None;
    loop {
        let row = client.query_one(TRY_LOCK, &[&key]).await.map_err(error())?;
        if row.try_get(0).map_err(error())? {
            return Ok(());
        }
        if let Some(row) = client.query_opt(LOCK_HOLDER, &[&key]).await.map_err(error())? {
            let pid: i32 = row.try_get(0).map_err(error())?;
            let text = |index: usize| row.try_get::<_, String>(index).map_err(error());
            let due = |(to, at): (i32, Instant)| to != pid || at.elapsed() >= EXPLAIN_EVERY;
            if explained.is_none_or(due) {
                explained = Some((pid, Instant::now()));
                warn!(
                    %flow, pid, client = text(2)?, since = text(3)?, state = text(4)?,
                    "target: another session applies this flow; waiting until it ends"
                );
                // The number may have gone to a stranger's process meanwhile; only a session of the flow is ended.
                if may_end(pid) && text(1)? == application_name(flow) {
                    info!(%flow, pid, "target: it is an earlier session of this flow; ending it");
                    client.query_one(TERMINATE, &[&pid]).await.map_err(error())?;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_LOCK_PAUSE);
    }
}
