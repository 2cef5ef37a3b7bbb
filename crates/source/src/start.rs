//! How a stream begins: is it the right server, may the flow go on from this slot, is the slot free.
//!
//! Everything is looked at over the replication connection itself, so it is the server that will stream that answers,
//! however many hosts the connection string names.

use std::time::Duration;

use relevo_connect::ConnInfo;
use relevo_model::{FlowName, SourceIdentity, SourceLsn};
use relevo_pgoutput::{Format, Options};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use crate::connection::ReplicationConnection;
use crate::monitor::SourceMonitor;
use crate::pump::PumpSettings;
use crate::slot::SlotInfo;
use crate::verdict::{ExpectedSlot, same_source, source_has, verdict};
use crate::{SourceError, sql};

/// How often a slot that is in use is looked at.
const SLOT_POLL: Duration = Duration::from_millis(250);
/// The SQLSTATE object_in_use.
const OBJECT_IN_USE: &str = "55006";

/// What [`PgSource::start`](crate::PgSource::start) needs to know.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The source.
    pub info: ConnInfo,
    /// Shown in `pg_stat_replication`.
    pub application_name: String,
    /// The replication slot.
    pub slot: String,
    /// The publications whose changes are wanted.
    pub publications: Vec<String>,
    /// What the target has applied: everything that ends at or before it is not sent again.
    pub start_lsn: SourceLsn,
    /// The source that the positions belong to.
    pub expected: SourceIdentity,
    /// A transaction that occupies more comes in parts of about this size.
    pub part_bytes: usize,
    /// No more is read while this much waits to be taken. At most one part more is held.
    pub buffer_bytes: usize,
    /// How often the source is told the positions; a third of its `wal_sender_timeout` if that is less.
    pub status_interval: Duration,
    /// How long the source may stay silent although it was asked to answer, as `wal_receiver_timeout`.
    pub receive_timeout: Duration,
    /// How long to wait for another connection to leave the slot before that is an error.
    pub slot_wait: Duration,
    /// From which LSN on transactions are passed over that the source itself has from elsewhere, by the mark of whoever applied
    /// them: the first thing in each is a logical message with prefix `relevo` and content `applied`. `None`: none is.
    pub skip_applied: Option<SourceLsn>,
    /// Whether transactions that still run are yielded ahead of their commit ([`relevo_model::Ahead`]), where they are
    /// streamed.
    pub ahead: bool,
    /// Where the state of the connection can be read. Give the same one to every start of a flow: it also remembers
    /// which walsender was our own.
    pub monitor: SourceMonitor,
}

impl StartOptions {
    /// The flow's own names, and the usual limits.
    #[must_use]
    pub fn new(info: ConnInfo, flow: &FlowName, expected: SourceIdentity, start_lsn: SourceLsn) -> Self {
        Self {
            info,
            application_name: flow.slot(),
            slot: flow.slot(),
            publications: vec![flow.publication(), flow.insert_only_publication()],
            start_lsn,
            expected,
            part_bytes: 8 << 20,
            buffer_bytes: 64 << 20,
            status_interval: Duration::from_secs(1),
            receive_timeout: Duration::from_secs(60),
            slot_wait: Duration::from_secs(60),
            skip_applied: None,
            ahead: false,
            monitor: SourceMonitor::default(),
        }
    }
}

/// Checks everything and begins to stream.
pub(crate) async fn begin<S>(
    connection: &mut ReplicationConnection<S>,
    options: &StartOptions,
) -> Result<(Format, PumpSettings), SourceError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A physical standby has neither the slot nor all of the WAL. Nothing of the flow is lost because of that.
    if connection.in_hot_standby() {
        return Err(SourceError::Standby { at: connection.place().clone() });
    }
    connection.set_answer_limit(options.receive_timeout);
    let system = connection.identify_system().await?;
    same_source(&options.expected, &system)?;
    source_has(options.start_lsn, &system)?;
    if connection.parameter("server_encoding") == Some(sql::NO_ENCODING) {
        connection.query(sql::SEND_BYTES_AS_THEY_ARE).await?;
    }
    let wanted = Options::new(server_version(connection).await?, options.publications.clone());
    let settings = PumpSettings {
        start: options.start_lsn,
        status_interval: status_interval(connection, options.status_interval).await?,
        receive_timeout: options.receive_timeout,
    };
    let command = format!(
        "START_REPLICATION SLOT {} LOGICAL {} {}",
        sql::identifier(&options.slot),
        options.start_lsn,
        wanted.render()?
    );
    let mut wait = SlotWait::new(options);
    loop {
        wait.until_free(connection).await?;
        // Before the server takes the slot for us: should the link break now, the next connection knows whose it is.
        options.monitor.set_backend_pid(connection.backend_pid());
        match connection.start_replication(&command).await {
            Ok(()) => break,
            // Somebody was faster.
            Err(error) if error.code() == Some(OBJECT_IN_USE) && wait.goes_on() => sleep(SLOT_POLL).await,
            Err(error) => return Err(error),
        }
    }
    Ok((wanted.format(), settings))
}

async fn server_version<S>(connection: &mut ReplicationConnection<S>) -> Result<u32, SourceError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let text = connection.show("server_version_num").await?;
    text.parse().map_err(|_| SourceError::protocol(format!("server_version_num is {text:?}")))
}

/// A third of the server's patience at most.
async fn status_interval<S>(
    connection: &mut ReplicationConnection<S>,
    wanted: Duration,
) -> Result<Duration, SourceError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let rows = connection.query(sql::SENDER_TIMEOUT).await?;
    let timeout_ms: u64 = rows.get("setting").and_then(|text| text.parse().ok()).unwrap_or_default();
    let limit = Duration::from_millis(timeout_ms) / 3;
    Ok(if limit.is_zero() { wanted } else { wanted.min(limit) })
}

/// Waits until the slot is free, and says whom for.
struct SlotWait<'a> {
    options: &'a StartOptions,
    began: Instant,
    explained: Option<i32>,
}

impl<'a> SlotWait<'a> {
    fn new(options: &'a StartOptions) -> Self {
        Self { options, began: Instant::now(), explained: None }
    }

    fn goes_on(&self) -> bool {
        self.began.elapsed() < self.options.slot_wait
    }

    /// Refuses a slot that the flow may not go on from; waits for one that is in use.
    async fn until_free<S>(&mut self, connection: &mut ReplicationConnection<S>) -> Result<(), SourceError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let expected = ExpectedSlot {
            name: self.options.slot.clone(),
            database: self.options.expected.database.clone(),
            applied: Some(self.options.start_lsn),
        };
        loop {
            let found = connection.inspect_slot(&self.options.slot).await?;
            verdict(found.as_ref(), &expected)?;
            let Some((pid, info)) = found.as_ref().and_then(|info| Some((info.active_pid?, info))) else {
                return Ok(());
            };
            self.explain(connection, pid, info).await?;
            if !self.goes_on() {
                return Err(SourceError::SlotActive {
                    slot: self.options.slot.clone(),
                    pid,
                    holder: holder(info),
                    waited: self.began.elapsed(),
                });
            }
            sleep(SLOT_POLL).await;
        }
    }

    /// Says once per holder who it is. Our own walsender of a link that was lost is ended: the server would notice
    /// by itself only after its `wal_sender_timeout`.
    async fn explain<S>(
        &mut self,
        connection: &mut ReplicationConnection<S>,
        pid: i32,
        info: &SlotInfo,
    ) -> Result<(), SourceError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.explained.replace(pid) == Some(pid) {
            return Ok(());
        }
        let (slot, holder) = (&self.options.slot, holder(info));
        if pid != self.options.monitor.backend_pid() {
            tracing::warn!(
                slot,
                pid,
                holder,
                "the slot is in use by another connection; waiting for it to leave (a dead one is dropped by the source \
                 after its wal_sender_timeout)"
            );
            return Ok(());
        }
        tracing::info!(slot, pid, holder, "the slot is still held for our own lost connection; ending that");
        let command = sql::terminate_holder(slot, pid, &self.options.application_name);
        if let Err(error) = connection.query(&command).await {
            if error.code().is_none() {
                return Err(error);
            }
            tracing::warn!(%error, "it could not be ended; waiting for the source's wal_sender_timeout");
        }
        Ok(())
    }
}

fn holder(info: &SlotInfo) -> String {
    info.holder.as_ref().map(ToString::to_string).unwrap_or_default()
}
