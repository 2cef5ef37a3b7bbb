//! Logging in: the startup packet and every authentication exchange up to ReadyForQuery
//! (manual, *Frontend/Backend Protocol*, *Start-up* and *SASL Authentication*).
//!
//! What may not enter: dialing and TLS (the crate `connect`), and anything after the first ReadyForQuery.

use std::collections::BTreeMap;

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding as ScramBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use relevo_connect::{ChannelBinding, ConnectError, Place, Secret, ServerMessage, ServerState};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::SourceError;
use crate::frame::{Frame, Framed};

type Result<T> = std::result::Result<T, ConnectError>;

/// Who logs in, and with what.
#[derive(Debug, Clone)]
pub struct Login {
    /// The server, for messages.
    pub at: Place,
    /// The role.
    pub user: String,
    /// The database; the slot's.
    pub database: String,
    /// The password, if one is known.
    pub password: Option<Secret>,
    /// Whether the login must be bound to the TLS channel.
    pub binding: ChannelBinding,
    /// The hash of the server's certificate (`tls-server-end-point`), when the link is TLS.
    pub end_point: Option<Vec<u8>>,
    /// Further startup parameters: `application_name` and settings.
    pub parameters: Vec<(String, String)>,
}

/// What the server tells of itself while it lets us in.
#[derive(Debug, Default)]
pub(crate) struct Greeting {
    /// ParameterStatus: `server_version`, `server_encoding`, ….
    pub parameters: BTreeMap<String, String>,
    /// The process that serves us.
    pub pid: i32,
}

impl Greeting {
    /// What `target_session_attrs` asks about. 14 and later report it.
    pub(crate) fn state(&self) -> ServerState {
        let on = |name: &str| self.parameters.get(name).is_some_and(|value| value == "on");
        ServerState {
            in_hot_standby: on("in_hot_standby"),
            default_transaction_read_only: on("default_transaction_read_only"),
        }
    }
}

/// Sends the startup packet for a logical replication connection and logs in.
pub(crate) async fn log_in<S>(framed: &mut Framed<S>, login: &Login) -> Result<Greeting>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let fixed = [("user", &*login.user), ("database", &*login.database), ("replication", "database")];
    let more = login.parameters.iter().map(|(name, value)| (&**name, &**value));
    write(login, frontend::startup_message(fixed.into_iter().chain(more), framed.output()))?;
    send(framed, login).await?;
    authenticate(framed, login).await?;
    let mut greeting = Greeting::default();
    loop {
        match next(framed, login).await? {
            Message::ParameterStatus(body) => {
                if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                    greeting.parameters.insert(name.to_owned(), value.to_owned());
                }
            }
            Message::BackendKeyData(body) => greeting.pid = body.process_id(),
            Message::ReadyForQuery(_) => return Ok(greeting),
            _ => return Err(unexpected(login, "after the login")),
        }
    }
}

async fn authenticate<S>(framed: &mut Framed<S>, login: &Login) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match next(framed, login).await? {
        Message::AuthenticationOk => {
            return not_bound(login, "the source asked for no proof of the password");
        }
        Message::AuthenticationCleartextPassword => {
            not_bound(login, "the source asked for the password in clear text")?;
            write(login, frontend::password_message(password(login)?, framed.output()))?;
        }
        Message::AuthenticationMd5Password(body) => {
            not_bound(login, "the source asked for md5 authentication")?;
            let hash = md5_hash(login.user.as_bytes(), password(login)?, body.salt());
            write(login, frontend::password_message(hash.as_bytes(), framed.output()))?;
        }
        Message::AuthenticationSasl(body) => scram(framed, login, &body).await?,
        other => return Err(unknown_method(login, method(&other))),
    }
    send(framed, login).await?;
    match next(framed, login).await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(unexpected(login, "in place of AuthenticationOk")),
    }
}

/// SCRAM-SHA-256, bound to the TLS channel whenever both sides can (as libpq's `channel_binding=prefer`).
async fn scram<S>(framed: &mut Framed<S>, login: &Login, body: &AuthenticationSaslBody) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bad = |error: std::io::Error| {
        failed(
            login,
            format!(
                "SCRAM: {error}; either something between us pretends to be the server, which did not prove that it knows \
             the password, or the password's hash uses more than 100000 iterations"
            ),
        )
    };
    let offered: Vec<String> = body.mechanisms().map(|name| Ok(name.to_owned())).collect().map_err(bad)?;
    let (mechanism, binding) = mechanism(login, &offered)?;
    let mut scram = ScramSha256::new(password(login)?, binding);
    write(login, frontend::sasl_initial_response(mechanism, scram.message(), framed.output()))?;
    send(framed, login).await?;
    let Message::AuthenticationSaslContinue(body) = next(framed, login).await? else {
        return Err(unexpected(login, "in place of the server's first SCRAM message"));
    };
    scram.update(body.data()).map_err(bad)?;
    write(login, frontend::sasl_response(scram.message(), framed.output()))?;
    send(framed, login).await?;
    let Message::AuthenticationSaslFinal(body) = next(framed, login).await? else {
        return Err(unexpected(login, "in place of the server's proof that it knows the password"));
    };
    scram.finish(body.data()).map_err(bad)
}

fn mechanism(login: &Login, offered: &[String]) -> Result<(&'static str, ScramBinding)> {
    let offers = |name: &str| offered.iter().any(|offer| offer == name);
    let end_point = match login.binding {
        ChannelBinding::Disable => None,
        ChannelBinding::Prefer | ChannelBinding::Require => login.end_point.clone(),
    };
    match end_point {
        Some(end_point) if offers(SCRAM_SHA_256_PLUS) => {
            Ok((SCRAM_SHA_256_PLUS, ScramBinding::tls_server_end_point(end_point)))
        }
        _ if !offers(SCRAM_SHA_256) => Err(unknown_method(login, &format!("SASL {}", offered.join(", ")))),
        // We could bind, and say so: a man in the middle who struck PLUS off the list is found out by the server.
        Some(_) => {
            not_bound(login, "the source does not offer SCRAM-SHA-256-PLUS")?;
            Ok((SCRAM_SHA_256, ScramBinding::unrequested()))
        }
        None => {
            not_bound(login, "the link is not encrypted with TLS")?;
            Ok((SCRAM_SHA_256, ScramBinding::unsupported()))
        }
    }
}

fn not_bound(login: &Login, reason: &'static str) -> Result<()> {
    match login.binding {
        ChannelBinding::Require => Err(failed(
            login,
            format!(
                "channel_binding=require, but {reason}; use TLS (sslmode=require or stricter) and scram-sha-256 there, or \
             relax channel_binding"
            ),
        )),
        ChannelBinding::Disable | ChannelBinding::Prefer => Ok(()),
    }
}

fn password(login: &Login) -> Result<&[u8]> {
    match &login.password {
        Some(secret) => Ok(secret.expose().as_bytes()),
        None => Err(ConnectError::NoPassword { at: login.at.clone(), user: login.user.clone() }),
    }
}

fn method(message: &Message) -> &'static str {
    match message {
        Message::AuthenticationKerberosV5 => "Kerberos V5",
        Message::AuthenticationScmCredential => "SCM credential",
        Message::AuthenticationGss | Message::AuthenticationGssContinue(_) => "GSSAPI",
        Message::AuthenticationSspi => "SSPI",
        _ => "an unknown kind of",
    }
}

fn unknown_method(login: &Login, method: &str) -> ConnectError {
    failed(
        login,
        format!(
            "the server asks for {method} authentication, which Relevo does not speak; give the role a line with \
         scram-sha-256 (or md5, cert, peer, trust) in pg_hba.conf"
        ),
    )
}

fn failed(login: &Login, detail: String) -> ConnectError {
    ConnectError::Authentication { at: login.at.clone(), detail }
}

/// The next message; an error of the server is an error, notices are logged.
async fn next<S>(framed: &mut Framed<S>, login: &Login) -> Result<Message>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match framed.next().await.map_err(|error| broken(login, error))? {
            Some(Frame::Message(Message::ErrorResponse(body))) => {
                let message =
                    ServerMessage::from_fields(body.fields()).map_err(|error| garbled(login, &error))?;
                return Err(ConnectError::from_server(
                    login.at.clone(),
                    &login.user,
                    &login.database,
                    message,
                ));
            }
            Some(Frame::Message(Message::NoticeResponse(body))) => {
                let message =
                    ServerMessage::from_fields(body.fields()).map_err(|error| garbled(login, &error))?;
                tracing::info!(at = %login.at, notice = %message, "the server says");
            }
            Some(Frame::Message(message)) => return Ok(message),
            Some(Frame::CopyBoth | Frame::CopyData(_)) => return Err(unexpected(login, "during the login")),
            None => return Err(lost(login, std::io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

async fn send<S>(framed: &mut Framed<S>, login: &Login) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    framed.send().await.map_err(|error| broken(login, error))
}

/// What the framing says, in the words of a connection that is being made.
fn broken(login: &Login, error: SourceError) -> ConnectError {
    match error {
        SourceError::Io { source, .. } => lost(login, source),
        other => garbled(login, &other),
    }
}

fn lost(login: &Login, source: std::io::Error) -> ConnectError {
    ConnectError::Lost { at: login.at.clone(), source }
}

fn garbled(login: &Login, error: &dyn std::error::Error) -> ConnectError {
    ConnectError::Protocol { at: login.at.clone(), detail: error.to_string() }
}

fn unexpected(login: &Login, when: &str) -> ConnectError {
    ConnectError::Protocol { at: login.at.clone(), detail: format!("another message than expected {when}") }
}

fn write(login: &Login, result: std::io::Result<()>) -> Result<()> {
    result.map_err(|error| failed(login, format!("a parameter or the password cannot be sent: {error}")))
}
