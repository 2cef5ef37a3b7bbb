//! SQL sessions: tokio-postgres over a dialed stream. It logs in and keeps the connection moving; what is asked of
//! the server is the callers' matter.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use relevo_model::Side;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Config, Connection, SimpleQueryMessage, SimpleQueryRow,
};

use crate::adapter::{Negotiated, Ready};
use crate::attempts::{Authenticated, ServerState, dial, dial_each};
use crate::copy_out::{CopyOut, RowsAside};
use crate::diverting::Diverting;
use crate::server_error::{ServerMessage, chain, is_lost};
use crate::startup::SessionSettings;
use crate::{ChannelBinding, ConnInfo, ConnectError, Dialed, Host, Place, Stream};

/// Asked once after the login, in this order. A database that is closed to applications by
/// `default_transaction_read_only` is open to Relevo, as it is to native replication: a standby is guarded like that.
/// It is no start-up parameter, since `target_session_attrs` goes by the server's own value. `transaction_timeout` exists since PostgreSQL 17, so it cannot be among the
/// start-up parameters; a limit set for ordinary users would end a long copy.
const AFTER_LOGIN: &str = "
SELECT pg_catalog.pg_backend_pid(),
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('default_transaction_read_only'),
       pg_catalog.current_setting('server_version_num'),
       CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 170000
            THEN pg_catalog.set_config('transaction_timeout', '0', false) END,
       pg_catalog.set_config('default_transaction_read_only', 'off', false)";

/// How long an orderly close may take before the socket is simply dropped.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// An open SQL session; use it as a [`Client`].
///
/// It never connects again by itself: once the connection is lost every use fails, and a new session has to be
/// opened. Dropping it closes the socket, and the server rolls back what is open.
#[derive(Debug)]
pub struct SqlSession {
    client: Client,
    driver: Driver,
    rows_aside: RowsAside,
    canceller: Canceller,
    backend_pid: i32,
    server_version_num: u32,
}

/// Opens a session. Servers are chosen as [`dial_each`] says.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect_sql(
    info: &ConnInfo,
    side: Side,
    settings: &SessionSettings,
) -> Result<SqlSession, ConnectError> {
    dial_each(info, side, |dialed| log_in(info, dialed, settings)).await
}

impl SqlSession {
    /// The process id of the server's backend.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// The server's version as a number: 150004 is 15.4.
    #[must_use]
    pub fn server_version_num(&self) -> u32 {
        self.server_version_num
    }

    /// The server that was reached, with its address; see [`ConnInfo::pinned`].
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.canceller.at.host
    }

    /// The port that was reached.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.canceller.at.host.port
    }

    /// The end of the flow and the server, for messages.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.canceller.at
    }

    /// Waits until the connection has ended, and says why; `None` when it was closed in order.
    pub async fn closed(&self) -> Option<Arc<tokio_postgres::Error>> {
        let mut end = self.driver.end.clone();
        // An error here means that the driver is gone without a word: it was aborted.
        end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone().flatten())
    }

    /// Begins a COPY … TO STDOUT, whose rows come in pieces of bounded length, however long a row is. One at a time: a
    /// second waits until the first is dropped.
    ///
    /// # Errors
    /// The server's, or the link is lost.
    pub async fn copy_out(&self, statement: &str) -> Result<CopyOut, tokio_postgres::Error> {
        self.rows_aside.copy_out(&self.client, statement).await
    }

    /// How many notifications have come, of the channels that the session listens on (manual, *LISTEN*). It changes with
    /// each; the sender goes with the connection.
    #[must_use]
    pub fn notifications(&self) -> watch::Receiver<u64> {
        self.driver.notifications.clone()
    }

    /// Why the connection has ended, if it has and there was an error. A request that fails with "connection
    /// closed" finds the cause here: the server's last words, or the network's.
    #[must_use]
    pub fn close_cause(&self) -> Option<Arc<tokio_postgres::Error>> {
        self.driver.end.borrow().clone().flatten()
    }

    /// Asks the server to cancel what the session is doing, over a connection of its own; returns when the server
    /// has passed it on. That there was something to cancel is not known.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        self.canceller.cancel().await
    }

    /// What [`cancel`](Self::cancel) uses, for those who have lent the session to a transaction.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Says good-bye to the server and waits until the connection is closed, for at most a second.
    pub async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        // A peer that no longer answers is not waited for; dropping the driver closes the socket.
        let _ = tokio::time::timeout(CLOSE_LIMIT, &mut driver.task).await;
    }
}

impl Deref for SqlSession {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for SqlSession {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Cancels what a session is doing; see [`SqlSession::cancel`].
#[derive(Clone)]
pub struct Canceller {
    token: CancelToken,
    info: ConnInfo,
    at: Place,
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token holds the session's secret key.
        f.debug_struct("Canceller").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Canceller {
    /// See [`SqlSession::cancel`].
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        let at = &self.at;
        let mut dialed = dial(&self.info.pinned(&at.host), at.side).await?;
        let sent = self.token.cancel_query_raw(&mut dialed.stream, Ready { binding: None }).await;
        sent.map_err(|error| refused(&self.info, at.clone(), &error))?;
        // The server closes the connection once it has signalled the backend; that the link breaks instead
        // (TLS without its last message) says the same.
        let mut rest = [0; 64];
        crate::dial::within(&self.info, at, async {
            while dialed.stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
            Ok(())
        })
        .await
    }
}

// ------------------------------------------------------------------------------------------- the login

async fn log_in(
    info: &ConnInfo,
    dialed: Dialed,
    settings: &SessionSettings,
) -> Result<Authenticated<SqlSession>, ConnectError> {
    let Dialed { stream, channel_binding, at, .. } = dialed;
    let mut config = Config::new();
    config.user(&dialed.user).dbname(&dialed.database);
    let name = Some(settings.application_name.as_str()).filter(|name| !name.is_empty());
    config.application_name(name.or(dialed.application_name.as_deref()).unwrap_or("relevo"));
    config.options(settings.options(dialed.options.as_deref()));
    if let Some(password) = &dialed.password {
        config.password(password.expose());
    }
    config.channel_binding(match dialed.channel_binding_policy {
        ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
        ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
        ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
    });
    // TLS is agreed on already: "direct" has tokio-postgres hand the stream straight to `Ready`, which hands it
    // back.
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    let rows_aside = RowsAside::default();
    let (client, connection) = config
        .connect_raw(Diverting::new(stream, rows_aside.diversion()), Ready { binding: channel_binding })
        .await
        .map_err(|error| refused(info, at.clone(), &error))?;
    let driver = Driver::start(connection, at.clone());
    let facts = match ask(&client, settings).await {
        Ok(facts) => facts,
        Err(error) => return Err(refused(info, at, &error)),
    };
    let Some((backend_pid, server_version_num, state)) = facts.as_ref().and_then(read_facts) else {
        let detail = "it does not say its process id and version".to_owned();
        return Err(ConnectError::Protocol { at, detail });
    };
    let canceller = Canceller { token: client.cancel_token(), info: info.clone(), at };
    Ok(Authenticated {
        session: SqlSession { client, driver, rows_aside, canceller, backend_pid, server_version_num },
        state,
    })
}

async fn ask(
    client: &Client,
    settings: &SessionSettings,
) -> Result<Option<SimpleQueryRow>, tokio_postgres::Error> {
    let mut sql = AFTER_LOGIN.to_owned();
    if let Some(encoding) = settings.encoding().filter(|encoding| !encoding.eq_ignore_ascii_case("UTF8")) {
        sql.push_str("; SET client_encoding TO '");
        sql.push_str(&encoding.replace('\'', "''"));
        sql.push('\'');
    }
    let answer = client.simple_query(&sql).await?;
    Ok(answer.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }))
}

fn read_facts(row: &SimpleQueryRow) -> Option<(i32, u32, ServerState)> {
    let text = |index: usize| row.try_get(index).ok().flatten();
    let state =
        ServerState { in_hot_standby: text(1)? == "t", default_transaction_read_only: text(2)? == "on" };
    Some((text(0)?.parse().ok()?, text(3)?.parse().ok()?, state))
}

/// The error for a login that failed.
fn refused(info: &ConnInfo, at: Place, error: &tokio_postgres::Error) -> ConnectError {
    if let Some(db) = error.as_db_error() {
        return ConnectError::from_server(at, &info.user, &info.database, ServerMessage::from(db));
    }
    let source = std::error::Error::source(error);
    if let Some(io) =
        source.and_then(|cause| cause.downcast_ref::<std::io::Error>()).filter(|_| is_lost(error))
    {
        return ConnectError::from_io(at, io);
    }
    if error.is_closed() {
        return ConnectError::Lost { at, source: std::io::ErrorKind::UnexpectedEof.into() };
    }
    match error.to_string().as_str() {
        // The one mistake that tokio-postgres calls a configuration error during a login.
        "invalid configuration" => ConnectError::NoPassword { at, user: info.user.clone() },
        "authentication error" => ConnectError::Authentication { at, detail: authentication(info, error) },
        _ => ConnectError::Protocol { at, detail: chain(error) },
    }
}

fn authentication(info: &ConnInfo, error: &tokio_postgres::Error) -> String {
    let why = std::error::Error::source(error).map_or_else(|| error.to_string(), chain);
    if info.channel_binding == ChannelBinding::Require {
        format!("{why}; channel_binding=require needs TLS and SCRAM-SHA-256 on the server")
    } else {
        format!("{why}; Relevo knows trust, password, md5, SCRAM-SHA-256, certificates and peer")
    }
}

// ------------------------------------------------------------------------------------------ the driver

/// The task that moves the connection's bytes, and how it ended.
#[derive(Debug)]
struct Driver {
    task: JoinHandle<()>,
    /// `None` while it runs; then the error, if there was one.
    end: watch::Receiver<Option<Option<Arc<tokio_postgres::Error>>>>,
    /// How many notifications have come.
    notifications: watch::Receiver<u64>,
}

impl Driver {
    fn start(
        mut connection: Connection<Diverting<Stream>, Negotiated<Diverting<Stream>>>,
        at: Place,
    ) -> Self {
        let (sender, end) = watch::channel(None);
        let (notified, notifications) = watch::channel(0);
        let task = tokio::spawn(async move {
            let error = loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        tracing::debug!(%at, notice = %ServerMessage::from(&notice), "notice from the server");
                    }
                    Some(Ok(AsyncMessage::Notification(_))) => notified.send_modify(|count| *count += 1),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Some(Arc::new(error)),
                    None => break None,
                }
            };
            // Closes the socket before anyone learns that it is closed.
            drop(connection);
            sender.send_replace(Some(error));
        });
        Self { task, end, notifications }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
