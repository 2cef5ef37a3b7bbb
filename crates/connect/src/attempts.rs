//! Which server, which address and which encryption is tried next: the one place for libpq's rules about several
//! hosts, `sslmode` and `target_session_attrs`. Both kinds of session, SQL and replication, go through it.

use std::future::Future;

use rand::seq::SliceRandom;
use relevo_model::Side;

use crate::dial::{Address, Encryption, open, resolve, ways, within};
use crate::options::LoadBalanceHosts;
use crate::{ConnInfo, ConnectError, Dialed, Host, Place, TargetSessionAttrs};

/// What a server said of itself after the login.
///
/// PostgreSQL 14 and later report both in ParameterStatus messages before the first ReadyForQuery, to replication
/// connections too: `in_hot_standby` and `default_transaction_read_only`, each `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerState {
    /// The server is a physical standby.
    pub in_hot_standby: bool,
    /// Transactions are read-only unless they ask otherwise.
    pub default_transaction_read_only: bool,
}

/// A login that worked.
#[derive(Debug)]
pub struct Authenticated<T> {
    /// The session.
    pub session: T,
    /// What decides whether this server is one that `target_session_attrs` asks for.
    pub state: ServerState,
}

/// Reaches a server without logging in: the first that answers. `target_session_attrs` and those `sslmode` rules
/// that depend on the login have no effect; prefer [`dial_each`] for sessions.
///
/// # Errors
/// See [`ConnectError`].
pub async fn dial(info: &ConnInfo, side: Side) -> Result<Dialed, ConnectError> {
    let any = ServerState { in_hot_standby: false, default_transaction_read_only: false };
    let info = ConnInfo { session_attrs: TargetSessionAttrs::Any, ..info.clone() };
    dial_each(&info, side, |dialed| async move { Ok(Authenticated { session: dialed, state: any }) }).await
}

/// Opens a session: reaches one server after the other, logs in with `authenticate`, and keeps the first session
/// whose server will do.
///
/// `authenticate` sends the StartupMessage, does the authentication, reads up to ReadyForQuery and returns the
/// session with the server's state, or the error, which decides how it goes on:
/// - what [`ConnectError::from_server`] makes of SQLSTATE 28000 (not admitted): with `sslmode=prefer` the same
///   address is tried again without TLS, with `allow` again with TLS;
/// - a lost link ([`ConnectError::from_io`]), 57P03, or a server that `target_session_attrs` does not want: the next
///   address, then the next host;
/// - every other refusal ends it, as in libpq: a wrong password is not tried on all servers.
///
/// `connect_timeout` limits each attempt with its login. Dropping the future closes what is open.
///
/// # Errors
/// With one host, its error; with several, [`ConnectError::NoHost`] with the error of each, or the one that ended
/// it.
pub async fn dial_each<T, F, A>(info: &ConnInfo, side: Side, mut authenticate: F) -> Result<T, ConnectError>
where
    F: FnMut(Dialed) -> A,
    A: Future<Output = Result<Authenticated<T>, ConnectError>>,
{
    // A standby if there is one, else any: two rounds.
    let rounds: &[TargetSessionAttrs] = match &info.session_attrs {
        TargetSessionAttrs::PreferStandby => &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any],
        attrs => std::slice::from_ref(attrs),
    };
    let mut hosts = info.hosts.clone();
    if info.load_balance == LoadBalanceHosts::Random {
        hosts.shuffle(&mut rand::rng());
    }
    let mut tried: Vec<(Host, ConnectError)> = Vec::new();
    for wanted in rounds {
        tried.clear();
        for host in &hosts {
            match try_host(info, side, host, *wanted, &mut authenticate).await {
                Ok(session) => return Ok(session),
                Err(error) if error.next_host_may_do() => tried.push((host.clone(), error)),
                Err(error) => return Err(error),
            }
        }
    }
    match tried.pop() {
        Some((_, error)) if tried.is_empty() => Err(error),
        last => {
            tried.extend(last);
            Err(ConnectError::NoHost { side, tried })
        }
    }
}

/// Tries the addresses of one host.
async fn try_host<T, F, A>(
    info: &ConnInfo,
    side: Side,
    host: &Host,
    wanted: TargetSessionAttrs,
    authenticate: &mut F,
) -> Result<T, ConnectError>
where
    F: FnMut(Dialed) -> A,
    A: Future<Output = Result<Authenticated<T>, ConnectError>>,
{
    let at = Place { side, host: host.clone() };
    let mut last = None;
    for address in resolve(info, &at).await? {
        match try_address(info, &at, &address, wanted, authenticate).await {
            Ok(session) => return Ok(session),
            Err(error) if error.next_host_may_do() => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    let nowhere = || std::io::Error::other("the name has no address");
    Err(last.unwrap_or_else(|| ConnectError::UnknownHost { at, source: nowhere() }))
}

/// Tries the encryptions of one address.
async fn try_address<T, F, A>(
    info: &ConnInfo,
    at: &Place,
    address: &Address,
    wanted: TargetSessionAttrs,
    authenticate: &mut F,
) -> Result<T, ConnectError>
where
    F: FnMut(Dialed) -> A,
    A: Future<Output = Result<Authenticated<T>, ConnectError>>,
{
    let mut turned_away: Option<ConnectError> = None;
    let ways = ways(info, &at.host);
    for (index, encryption) in ways.iter().enumerate() {
        let mut encrypted = false;
        let attempt = within(info, at, async {
            let dialed = open(info, at.side, &at.host, address, *encryption).await?;
            encrypted = dialed.stream.is_encrypted();
            let reached = dialed.at.clone();
            let Authenticated { session, state } = authenticate(dialed).await?;
            suits(wanted, state).map_err(|found| ConnectError::UnwantedServer {
                at: reached,
                found,
                wanted,
            })?;
            Ok(session)
        });
        let error = match attempt.await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let retry = index + 1 < ways.len() && may_retry(*encryption, encrypted, &error);
        match turned_away {
            // The second attempt was turned away too, or cannot be made: the first refusal says more.
            Some(first) if error.rejected() || matches!(error, ConnectError::TlsRefused { .. }) => {
                return Err(first);
            }
            _ if !retry => return Err(error),
            _ => {
                if error.tls_failed() {
                    tracing::warn!(%at, %error, "going on without TLS, as sslmode=prefer permits");
                }
                turned_away = Some(error);
            }
        }
    }
    // Not reached: the last way never retries. Saying "lost" keeps it an error and not a panic.
    Err(turned_away
        .unwrap_or_else(|| ConnectError::Lost { at: at.clone(), source: std::io::ErrorKind::Other.into() }))
}

/// Whether the second way that `sslmode` permits may do where the first failed.
fn may_retry(encryption: Encryption, encrypted: bool, error: &ConnectError) -> bool {
    match encryption {
        Encryption::IfOffered => error.tls_failed() || (encrypted && error.rejected()),
        Encryption::Plain => error.rejected(),
        Encryption::Tls => false,
    }
}

/// Whether a server is one of those asked for; if not, what it is.
fn suits(wanted: TargetSessionAttrs, state: ServerState) -> Result<(), &'static str> {
    let ServerState { in_hot_standby, default_transaction_read_only } = state;
    let read_only = in_hot_standby || default_transaction_read_only;
    match wanted {
        TargetSessionAttrs::ReadWrite if in_hot_standby => Err("the server is a standby"),
        TargetSessionAttrs::ReadWrite if read_only => Err("sessions on this server are read-only"),
        TargetSessionAttrs::ReadOnly if !read_only => Err("sessions on this server can write"),
        TargetSessionAttrs::Primary if in_hot_standby => Err("the server is a standby"),
        TargetSessionAttrs::Standby if !in_hot_standby => Err("the server is a primary"),
        _ => Ok(()),
    }
}
