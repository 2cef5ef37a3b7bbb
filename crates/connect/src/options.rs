//! The values that connection parameters can take, as types. Parsing of whole connection strings is elsewhere.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::{InvalidConnInfo, Secret};

macro_rules! choices {
    ($(#[$doc:meta])* $name:ident($parameter:literal) { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl FromStr for $name {
            type Err = InvalidConnInfo;

            fn from_str(text: &str) -> Result<Self, InvalidConnInfo> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err(InvalidConnInfo::new(format!(
                        concat!("connection parameter ", $parameter, " is {:?}; expected one of: {}"),
                        other.chars().take(64).collect::<String>(),
                        [$($text),+].join(", ")
                    ))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text),+
                })
            }
        }
    };
}

choices! {
    /// `sslmode` (manual, *SSL Support*, *Protection Provided in Different Modes*). A Unix socket is never
    /// encrypted, whatever it says.
    SslMode("sslmode") {
        /// Never encrypted.
        Disable = "disable",
        /// Encrypted only if the server turns an unencrypted session away.
        Allow = "allow",
        /// Encrypted if the server can and lets us in so.
        Prefer = "prefer",
        /// Encrypted. The certificate is checked as for `verify-ca` if there is a file of trusted roots.
        Require = "require",
        /// Encrypted, and the certificate comes from a trusted authority.
        VerifyCa = "verify-ca",
        /// The same, and the certificate is for the host that was asked for.
        VerifyFull = "verify-full",
    }
}

choices! {
    /// `sslnegotiation`.
    SslNegotiation("sslnegotiation") {
        /// Ask with an SSLRequest first.
        Postgres = "postgres",
        /// Begin with the TLS handshake, with ALPN (PostgreSQL 17 and later).
        Direct = "direct",
    }
}

choices! {
    /// `channel_binding`: whether SCRAM must be bound to the TLS connection.
    ChannelBinding("channel_binding") {
        /// Never.
        Disable = "disable",
        /// If TLS is used and the server offers SCRAM-SHA-256-PLUS.
        Prefer = "prefer",
        /// Always: any other way to authenticate, trust included, is refused.
        Require = "require",
    }
}

choices! {
    /// `target_session_attrs`: which servers will do.
    TargetSessionAttrs("target_session_attrs") {
        /// Every server.
        Any = "any",
        /// One whose sessions can write.
        ReadWrite = "read-write",
        /// One whose sessions cannot.
        ReadOnly = "read-only",
        /// One that is not in recovery.
        Primary = "primary",
        /// One that is.
        Standby = "standby",
        /// A standby if there is one in the list, else any.
        PreferStandby = "prefer-standby",
    }
}

choices! {
    /// `load_balance_hosts`.
    LoadBalanceHosts("load_balance_hosts") {
        /// In the order given.
        Disable = "disable",
        /// Hosts, and the addresses of each, in random order.
        Random = "random",
    }
}

choices! {
    /// `sslcertmode`: whether a client certificate is sent.
    SslCertMode("sslcertmode") {
        /// Never.
        Disable = "disable",
        /// If the server asks for one and there is one.
        Allow = "allow",
    }
}

choices! {
    /// `ssl_min_protocol_version` and `ssl_max_protocol_version`.
    TlsVersion("ssl_min_protocol_version or ssl_max_protocol_version") {
        /// 1.0
        Tls1_0 = "TLSv1",
        /// 1.1
        Tls1_1 = "TLSv1.1",
        /// 1.2
        Tls1_2 = "TLSv1.2",
        /// 1.3
        Tls1_3 = "TLSv1.3",
    }
}

/// Where the trusted authorities come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Roots {
    /// A file; `explicit` when the user named it, otherwise it is libpq's default place.
    File { path: PathBuf, explicit: bool },
    /// The system's store (`sslrootcert=system`).
    System,
}

/// Everything that TLS needs.
#[derive(Debug, Clone)]
pub(crate) struct TlsSettings {
    pub mode: SslMode,
    pub negotiation: SslNegotiation,
    pub roots: Option<Roots>,
    pub certificate: Option<PathBuf>,
    pub certificate_explicit: bool,
    pub certificate_mode: SslCertMode,
    pub key: Option<PathBuf>,
    pub key_password: Option<Secret>,
    pub crl: Option<PathBuf>,
    pub crl_explicit: bool,
    pub min_version: TlsVersion,
    pub max_version: Option<TlsVersion>,
    pub send_server_name: bool,
}

/// How a dead link is noticed (manual, *TCP Settings*; `tcp(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpSettings {
    pub keepalives: bool,
    pub idle: Duration,
    pub interval: Duration,
    pub count: u32,
    /// `None`: the system's own limit (about 15 minutes on Linux).
    pub user_timeout: Option<Duration>,
    pub user_timeout_explicit: bool,
}
