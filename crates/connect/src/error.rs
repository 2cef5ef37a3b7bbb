//! Everything that can go wrong between a connection string and an open session, with the server's name in each
//! message. No secret enters.

use std::io;
use std::path::Path;

use relevo_model::{Fault, FaultClass, Side};

use crate::{Host, Place, ServerMessage, SslMode, TargetSessionAttrs};

/// The text is not a connection string. The message names the parameter and never shows what could be (a part
/// of) a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConnInfo(pub(crate) String);

impl InvalidConnInfo {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Why no connection, or no session, came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("{at}: the host name cannot be resolved; check the name in the connection string, and DNS")]
    UnknownHost {
        /// Where.
        at: Place,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nothing listens there.
    #[error(
        "{at}: no server accepts connections there; check that PostgreSQL runs and listens on this address and port"
    )]
    ConnectionRefused {
        /// Where.
        at: Place,
        /// What the system said.
        source: io::Error,
    },
    /// The network does not lead there.
    #[error("{at}: the server cannot be reached; check the network and the firewall between here and there")]
    Unreachable {
        /// Where.
        at: Place,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error(
        "{at}: no answer within {limit_s} s (connect_timeout); check that the server is up and no firewall drops packets"
    )]
    Timeout {
        /// Where.
        at: Place,
        /// The limit, in seconds.
        limit_s: u64,
    },
    /// The link broke while the connection was being set up.
    #[error("{at}: the connection was lost while it was being set up; it is tried again")]
    Lost {
        /// Where.
        at: Place,
        /// What the system said.
        source: io::Error,
    },
    /// The server does not speak TLS, and `sslmode` insists on it.
    #[error(
        "{at}: the server does not accept TLS (ssl = off), but sslmode={sslmode} demands it; \
         switch ssl on there or choose a weaker sslmode"
    )]
    TlsRefused {
        /// Where.
        at: Place,
        /// The parameter's value.
        sslmode: SslMode,
    },
    /// The TLS handshake failed for another reason than the server's certificate.
    #[error("{at}: the TLS handshake failed: {detail}")]
    TlsHandshake {
        /// Where.
        at: Place,
        /// What OpenSSL said.
        detail: String,
    },
    /// The server's certificate was not issued by an authority that is trusted.
    #[error(
        "{at}: the server's certificate is not trusted: {reason}; the trusted authorities come from {roots} \
         (sslrootcert)"
    )]
    CertificateNotTrusted {
        /// Where.
        at: Place,
        /// What OpenSSL said.
        reason: String,
        /// The file, or the system's store.
        roots: String,
    },
    /// The certificate is trusted but of another server.
    #[error(
        "{at}: the server's certificate is for {names}, not for {expected:?}; use one of these names as host \
         (hostaddr can carry the address), or sslmode=verify-ca if the authority alone is proof enough"
    )]
    HostMismatch {
        /// Where.
        at: Place,
        /// The host name of the connection string.
        expected: String,
        /// The certificate's names, joined.
        names: String,
    },
    /// A file for TLS is missing, unreadable, open to others, or not what it should be.
    #[error("{at}: {parameter} file {}: {detail}", path.display())]
    TlsFile {
        /// Where.
        at: Place,
        /// The connection parameter that names the file.
        parameter: &'static str,
        /// The file.
        path: Box<Path>,
        /// What is wrong and what to do.
        detail: String,
    },
    /// The password file that the configuration names cannot be read.
    #[error("{side}: password file {} cannot be read; check the path and its permissions", path.display())]
    PasswordFile {
        /// The end whose password it holds.
        side: Side,
        /// The file.
        path: Box<Path>,
        /// What the system said.
        source: io::Error,
    },
    /// What a program is to read in confidence cannot be written down for it.
    #[error(
        "{side}: a temporary file for pg_dump cannot be written; check the directory TMPDIR (default /tmp)"
    )]
    TemporaryFile {
        /// The end that the program is to reach.
        side: Side,
        /// What the system said.
        source: io::Error,
    },
    /// The server asked for a password and there is none.
    #[error(
        "{at}: the server asks for the password of user {user:?} and none is given; give one in the URL, in \
         PGPASSWORD, in a password file (passfile, PGPASSFILE) or with password_file"
    )]
    NoPassword {
        /// Where.
        at: Place,
        /// The user.
        user: String,
    },
    /// 28P01.
    #[error(
        "{at}: the password of user {user:?} is not accepted; correct the password or the user ({message})"
    )]
    WrongPassword {
        /// Where.
        at: Place,
        /// The user.
        user: String,
        /// The server's words.
        message: Box<ServerMessage>,
    },
    /// 28000 from `pg_hba.conf`: no entry, a `reject` entry, a missing client certificate.
    #[error(
        "{at}: the server's pg_hba.conf does not let user {user:?} in from here; add an entry there, or use the \
         encryption or certificate that the entry asks for ({message})"
    )]
    NotAdmitted {
        /// Where.
        at: Place,
        /// The user.
        user: String,
        /// The server's words.
        message: Box<ServerMessage>,
    },
    /// 28000 for another reason: the role does not exist or may not log in.
    #[error("{at}: user {user:?} cannot log in; create the role with LOGIN, or correct the user ({message})")]
    RoleRefused {
        /// Where.
        at: Place,
        /// The user.
        user: String,
        /// The server's words.
        message: Box<ServerMessage>,
    },
    /// 3D000.
    #[error("{at}: there is no database {database:?}; create it or correct the name ({message})")]
    NoDatabase {
        /// Where.
        at: Place,
        /// The database.
        database: String,
        /// The server's words.
        message: Box<ServerMessage>,
    },
    /// 53300: of the server, the database, the role, or of WAL senders.
    #[error(
        "{at}: no connection is left; raise max_connections (for replication max_wal_senders) or a CONNECTION LIMIT, \
         or wait ({message})"
    )]
    TooManyConnections {
        /// Where.
        at: Place,
        /// The server's words.
        message: Box<ServerMessage>,
    },
    /// 57P03: starting up, shutting down, or in recovery and not accepting connections.
    #[error("{at}: the server does not accept connections at present; it is tried again ({message})")]
    ServerUnavailable {
        /// Where.
        at: Place,
        /// The server's words.
        message: Box<ServerMessage>,
    },
    /// Any other refusal by the server.
    #[error("{at}: the server refuses the session: {message}")]
    Server {
        /// Where.
        at: Place,
        /// The server's words.
        message: Box<ServerMessage>,
    },
    /// Authentication cannot be done, or its proof does not hold.
    #[error("{at}: authentication failed: {detail}")]
    Authentication {
        /// Where.
        at: Place,
        /// What failed and what to do.
        detail: String,
    },
    /// The server said something that the protocol does not allow here.
    #[error("{at}: this is not how a PostgreSQL server answers: {detail}; check host and port")]
    Protocol {
        /// Where.
        at: Place,
        /// What it said.
        detail: String,
    },
    /// The session is open but the server is not of the kind asked for. The next host is tried.
    #[error("{at}: {found}, but target_session_attrs={wanted} is asked for")]
    UnwantedServer {
        /// Where.
        at: Place,
        /// What the server is.
        found: &'static str,
        /// The parameter's value.
        wanted: TargetSessionAttrs,
    },
    /// Several hosts are named and none of them will do.
    #[error("{side}: none of the hosts will do: {}", list(tried))]
    NoHost {
        /// The end.
        side: Side,
        /// Each host in the order tried, and why not.
        tried: Vec<(Host, ConnectError)>,
    },
}

fn list(tried: &[(Host, ConnectError)]) -> String {
    let whys: Vec<_> = tried.iter().map(|(_, error)| crate::server_error::chain(error)).collect();
    whys.join(" | ")
}

impl ConnectError {
    /// The error for what a server said during start-up, by SQLSTATE: for whoever speaks the protocol itself.
    #[must_use]
    pub fn from_server(at: Place, user: &str, database: &str, message: ServerMessage) -> Self {
        let (user, message) = (user.to_owned(), Box::new(message));
        match message.sqlstate.as_str() {
            "28P01" => Self::WrongPassword { at, user, message },
            // The message is translated, the name of the C function is not (libpq/auth.c: ClientAuthentication
            // for pg_hba.conf, auth_failed for a method that said no; init/miscinit.c for the role).
            "28000" => match message.routine.as_deref() {
                Some("InitializeSessionUserId" | "InitPostgres") => Self::RoleRefused { at, user, message },
                _ => Self::NotAdmitted { at, user, message },
            },
            "3D000" => Self::NoDatabase { at, database: database.to_owned(), message },
            "53300" => Self::TooManyConnections { at, message },
            "57P03" => Self::ServerUnavailable { at, message },
            _ => Self::Server { at, message },
        }
    }

    /// The error for an i/o error during start-up. With TLS 1.3 the server's judgement of our certificate arrives
    /// only with the first read, as an i/o error that carries OpenSSL's.
    #[must_use]
    pub fn from_io(at: Place, error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<openssl::ssl::Error>());
        match tls.and_then(openssl::ssl::Error::ssl_error) {
            Some(stack) => Self::TlsHandshake { at, detail: crate::tls::reasons(stack) },
            None => Self::Lost { at, source: io::Error::new(error.kind(), error.to_string()) },
        }
    }

    /// The host that it arose at; `None` when it concerns several or none.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        self.place().map(|at| &at.host)
    }

    fn place(&self) -> Option<&Place> {
        match self {
            Self::UnknownHost { at, .. }
            | Self::ConnectionRefused { at, .. }
            | Self::Unreachable { at, .. }
            | Self::Timeout { at, .. }
            | Self::Lost { at, .. }
            | Self::TlsRefused { at, .. }
            | Self::TlsHandshake { at, .. }
            | Self::CertificateNotTrusted { at, .. }
            | Self::HostMismatch { at, .. }
            | Self::TlsFile { at, .. }
            | Self::NoPassword { at, .. }
            | Self::WrongPassword { at, .. }
            | Self::NotAdmitted { at, .. }
            | Self::RoleRefused { at, .. }
            | Self::NoDatabase { at, .. }
            | Self::TooManyConnections { at, .. }
            | Self::ServerUnavailable { at, .. }
            | Self::Server { at, .. }
            | Self::Authentication { at, .. }
            | Self::Protocol { at, .. }
            | Self::UnwantedServer { at, .. } => Some(at),
            Self::PasswordFile { .. } | Self::TemporaryFile { .. } | Self::NoHost { .. } => None,
        }
    }

    /// Whether the server turned the session away because of its encryption, or may have: SQLSTATE 28000.
    pub(crate) fn rejected(&self) -> bool {
        matches!(self, Self::NotAdmitted { .. } | Self::RoleRefused { .. })
    }

    /// Whether TLS itself failed, before the server said anything.
    pub(crate) fn tls_failed(&self) -> bool {
        matches!(
            self,
            Self::TlsHandshake { .. }
                | Self::CertificateNotTrusted { .. }
                | Self::HostMismatch { .. }
                | Self::TlsFile { .. }
        )
    }

    /// Whether another address or host may do better. A server that was reached and said no would say so
    /// elsewhere too (manual, *Specifying Multiple Hosts*: after a failed authentication the remaining hosts
    /// are not tried).
    pub(crate) fn next_host_may_do(&self) -> bool {
        match self {
            Self::WrongPassword { .. }
            | Self::NoPassword { .. }
            | Self::NotAdmitted { .. }
            | Self::RoleRefused { .. }
            | Self::NoDatabase { .. }
            | Self::TooManyConnections { .. }
            | Self::Server { .. }
            | Self::Authentication { .. }
            | Self::PasswordFile { .. }
            | Self::TemporaryFile { .. }
            | Self::NoHost { .. } => false,
            Self::UnknownHost { .. }
            | Self::ConnectionRefused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Lost { .. }
            | Self::TlsRefused { .. }
            | Self::TlsHandshake { .. }
            | Self::CertificateNotTrusted { .. }
            | Self::HostMismatch { .. }
            | Self::TlsFile { .. }
            | Self::ServerUnavailable { .. }
            | Self::Protocol { .. }
            | Self::UnwantedServer { .. } => true,
        }
    }
}

impl Fault for ConnectError {
    fn class(&self) -> FaultClass {
        match self {
            Self::ConnectionRefused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Lost { .. }
            | Self::TooManyConnections { .. }
            | Self::ServerUnavailable { .. }
            // A promotion elsewhere makes it the right one.
            | Self::UnwantedServer { .. } => FaultClass::Transient,
            Self::Server { message, .. } => message.class(),
            // One host that may come back is enough.
            Self::NoHost { tried, .. } if tried.iter().any(|(_, e)| e.class() == FaultClass::Transient) => {
                FaultClass::Transient
            }
            _ => FaultClass::Blocked,
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::PasswordFile { side, .. }
            | Self::TemporaryFile { side, .. }
            | Self::NoHost { side, .. } => *side,
            // Every other variant has a place; the match above keeps this true.
            _ => self.place().map_or(Side::Source, |at| at.side),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::UnknownHost { .. } => "unknown_host",
            Self::ConnectionRefused { .. } => "connection_refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Timeout { .. } => "connect_timeout",
            Self::Lost { .. } => "connection_lost",
            Self::TlsRefused { .. } => "tls_refused",
            Self::TlsHandshake { .. } => "tls_handshake",
            Self::CertificateNotTrusted { .. } => "certificate_not_trusted",
            Self::HostMismatch { .. } => "certificate_host_mismatch",
            Self::TlsFile { .. } => "tls_file",
            Self::PasswordFile { .. } => "password_file",
            Self::TemporaryFile { .. } => "temporary_file",
            Self::NoPassword { .. } => "no_password",
            Self::WrongPassword { .. } => "wrong_password",
            Self::NotAdmitted { .. } => "not_admitted",
            Self::RoleRefused { .. } => "role_refused",
            Self::NoDatabase { .. } => "no_such_database",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::ServerUnavailable { .. } => "server_unavailable",
            Self::Server { message, .. } => message.kind(),
            Self::Authentication { .. } => "authentication",
            Self::Protocol { .. } => "not_postgresql",
            Self::UnwantedServer { .. } => "unwanted_server",
            Self::NoHost { .. } => "no_suitable_host",
        }
    }
}
