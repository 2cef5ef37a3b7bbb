//! What a connection string means: hosts, user, database, TLS, timeouts. It opens nothing and reads no
//! password; the two forms of the text are read in `parse`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::host::DEFAULT_PORT;
use crate::options::{LoadBalanceHosts, Roots, TcpSettings, TlsSettings, TlsVersion};
use crate::settings::Settings;
use crate::{ChannelBinding, Host, InvalidConnInfo, Secret, SslCertMode, SslMode};
use crate::{SslNegotiation, TargetSessionAttrs, home, parse};

type Result<T> = std::result::Result<T, InvalidConnInfo>;

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection string, understood: which servers to try and how to log in.
///
/// `FromStr` takes both forms of libpq (manual, *Connection Strings*): `postgres://user@h1:5432,h2/db?sslmode=require`
/// and `host=h1,h2 user=…`. What is missing comes from libpq's environment variables and defaults. Passwords
/// that stand in files are read at each connection, so that a mended file takes effect by itself.
///
/// `Display` and `Debug` never show a password.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    pub(crate) hosts: Vec<Host>,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) passfile: Option<PathBuf>,
    pub(crate) tls: TlsSettings,
    pub(crate) tcp: TcpSettings,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) session_attrs: TargetSessionAttrs,
    pub(crate) load_balance: LoadBalanceHosts,
    pub(crate) options: Option<String>,
    pub(crate) application_name: Option<String>,
}

impl FromStr for ConnInfo {
    type Err = InvalidConnInfo;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse_with(text, &|name| std::env::var(name).ok())
    }
}

impl ConnInfo {
    /// Like `FromStr`, with the environment variables that `variable` knows instead of the process's own.
    ///
    /// # Errors
    /// The text is not a connection string, or a value is not what its parameter expects.
    pub fn parse_with(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let mut settings = parse::parse(text)?;
        settings.fill_from(variable)?;
        Self::from_settings(&settings)
    }

    fn from_settings(settings: &Settings) -> Result<Self> {
        let text = |name: &str| settings.get(name).map(str::to_owned);
        let user = match text("user") {
            Some(user) => user,
            None => home::user_name().ok_or_else(|| {
                InvalidConnInfo::new("no user is given and the system's user has no name; add user=…")
            })?,
        };
        if settings.get("gssencmode") == Some("require") {
            return Err(InvalidConnInfo::new(
                "connection parameter gssencmode=require: GSSAPI encryption is not supported; use TLS (sslmode)",
            ));
        }
        let info = Self {
            hosts: hosts(settings)?,
            database: text("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: text("password").map(Secret::new),
            password_file: None,
            passfile: text("passfile").map(PathBuf::from).or_else(|| home::file(".pgpass")),
            tls: tls(settings)?,
            tcp: tcp(settings)?,
            channel_binding: choice(settings, "channel_binding", ChannelBinding::Prefer)?,
            connect_timeout: match seconds(settings, "connect_timeout")? {
                None => Some(DEFAULT_CONNECT_TIMEOUT),
                Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
            },
            session_attrs: choice(settings, "target_session_attrs", TargetSessionAttrs::Any)?,
            load_balance: choice(settings, "load_balance_hosts", LoadBalanceHosts::Disable)?,
            options: text("options"),
            application_name: text("application_name"),
        };
        match [&info.user, &info.database].iter().any(|text| text.contains('\0')) {
            true => Err(InvalidConnInfo::new("user and database may not contain a zero byte")),
            false => Ok(info),
        }
    }

    /// The same with another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// The same, with the password in a file (its first line). It counts before a password in the connection
    /// string, and is read anew at each connection.
    #[must_use]
    pub fn with_password_file(&self, path: &Path) -> Self {
        Self { password_file: Some(path.to_owned()), ..self.clone() }
    }

    /// The same, for one server only: pass the host of an open session to reach exactly that server again, at the
    /// same address, whatever it is now (`target_session_attrs` counts as `any`).
    #[must_use]
    pub fn pinned(&self, host: &Host) -> Self {
        Self { hosts: vec![host.clone()], session_attrs: TargetSessionAttrs::Any, ..self.clone() }
    }

    /// The same, for a session that sends much and whose server may stop reading for long (it waits for a lock in
    /// the middle of a COPY, say).
    ///
    /// By default an unanswered write breaks the link after 30 s (`tcp_user_timeout`). Linux counts a peer that
    /// answers but whose buffer stays full as unanswered too (`tcp_probe_timer`), so such a session must do
    /// without; then only a dead *idle* link is noticed soon, and a second session has to watch the server. A
    /// `tcp_user_timeout` that the user gave stays.
    #[must_use]
    pub fn patient_writes(&self) -> Self {
        let mut info = self.clone();
        if !info.tcp.user_timeout_explicit {
            info.tcp.user_timeout = None;
        }
        info
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The user's name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The servers, in the order given.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }
}

impl fmt::Display for ConnInfo {
    /// `postgres://user@h1:5432,h2:5432/database`: enough to tell which one it is, and no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.hosts.iter().map(Host::to_string).collect();
        write!(f, "postgres://{}@{}/{}", self.user, hosts.join(","), self.database)
    }
}

impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "{}", path.display()),
            Self::System => f.write_str("system"),
        }
    }
}

// -------------------------------------------------------------------------------- values into meanings

fn choice<T: FromStr<Err = InvalidConnInfo>>(settings: &Settings, name: &str, default: T) -> Result<T> {
    settings.get(name).map_or(Ok(default), str::parse)
}

/// An integer as libpq reads it: spaces around it are allowed.
fn integer(settings: &Settings, name: &str) -> Result<Option<i64>> {
    let Some(text) = settings.get(name) else { return Ok(None) };
    match text.trim().parse::<i32>() {
        Ok(number) => Ok(Some(i64::from(number))),
        Err(_) => Err(InvalidConnInfo::new(format!(
            "connection parameter {name} is {:?}; expected a whole number",
            text.chars().take(64).collect::<String>()
        ))),
    }
}

/// A time in whole seconds; zero and less mean zero.
fn seconds(settings: &Settings, name: &str) -> Result<Option<Duration>> {
    let number = integer(settings, name)?;
    Ok(number.map(|s| Duration::from_secs(u64::try_from(s).unwrap_or(0))))
}

fn switch(settings: &Settings, name: &str) -> Result<bool> {
    Ok(integer(settings, name)?.is_none_or(|number| number != 0))
}

fn hosts(settings: &Settings) -> Result<Vec<Host>> {
    let list = |name: &str| -> Vec<String> {
        settings
            .get(name)
            .map(|text| text.split(',').map(|s| s.trim().to_owned()).collect())
            .unwrap_or_default()
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.len().max(addresses.len()).max(1);
    let differ = |what: &str, given: usize| {
        Err(InvalidConnInfo::new(format!(
            "{given} {what} are given for {count} hosts; give one for each host"
        )))
    };
    if !names.is_empty() && names.len() != count {
        return differ("names (host)", names.len());
    }
    if !addresses.is_empty() && addresses.len() != count {
        return differ("addresses (hostaddr)", addresses.len());
    }
    if ports.len() > 1 && ports.len() != count {
        return differ("ports", ports.len());
    }
    (0..count)
        .map(|index| {
            let address = addresses.get(index).map_or("", String::as_str);
            let port = ports.get(index).or(ports.first()).map_or("", String::as_str);
            Ok(Host::named(
                names.get(index).map_or("", String::as_str),
                parse_address(address)?,
                parse_port(port)?,
            ))
        })
        .collect()
}

fn parse_address(text: &str) -> Result<Option<IpAddr>> {
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) if text.is_empty() => Ok(None),
        Err(_) => Err(InvalidConnInfo::new(
            "connection parameter hostaddr: expected a numeric address such as 10.0.0.1 or ::1; names belong into host",
        )),
    }
}

fn parse_port(text: &str) -> Result<u16> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ if text.is_empty() => Ok(DEFAULT_PORT),
        // Not shown: it may be half a password.
        _ => Err(InvalidConnInfo::new("connection parameter port: expected a number from 1 to 65535")),
    }
}

fn tls(settings: &Settings) -> Result<TlsSettings> {
    let path = |name: &str| settings.get(name).map(PathBuf::from);
    let roots = match settings.get("sslrootcert") {
        Some("system") => Some(Roots::System),
        Some(path) => Some(Roots::File { path: path.into(), explicit: true }),
        None => home::file(".postgresql/root.crt").map(|path| Roots::File { path, explicit: false }),
    };
    let system = roots == Some(Roots::System);
    let mode = choice(settings, "sslmode", if system { SslMode::VerifyFull } else { SslMode::Prefer })?;
    if system && mode != SslMode::VerifyFull {
        return Err(InvalidConnInfo::new(format!(
            "sslmode={mode} is too weak for sslrootcert=system, whose authorities vouch for anybody; \
             use sslmode=verify-full"
        )));
    }
    let negotiation = choice(settings, "sslnegotiation", SslNegotiation::Postgres)?;
    if negotiation == SslNegotiation::Direct
        && matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer)
    {
        return Err(InvalidConnInfo::new(format!(
            "sslmode={mode} is too weak for sslnegotiation=direct; use sslmode=require or stronger"
        )));
    }
    let version = |name: &str| settings.get(name).map(str::parse::<TlsVersion>).transpose();
    let min_version = version("ssl_min_protocol_version")?.unwrap_or(TlsVersion::Tls1_2);
    let max_version = version("ssl_max_protocol_version")?;
    if max_version.is_some_and(|max| (max as u8) < min_version as u8) {
        return Err(InvalidConnInfo::new(
            "ssl_max_protocol_version is below ssl_min_protocol_version (TLSv1.2 if not given)",
        ));
    }
    let certificate = path("sslcert").or_else(|| home::file(".postgresql/postgresql.crt"));
    Ok(TlsSettings {
        mode,
        negotiation,
        roots,
        certificate,
        certificate_explicit: settings.get("sslcert").is_some(),
        certificate_mode: choice(settings, "sslcertmode", SslCertMode::Allow)?,
        key: path("sslkey").or_else(|| home::file(".postgresql/postgresql.key")),
        key_password: settings.get("sslpassword").map(Secret::new),
        crl: path("sslcrl").or_else(|| home::file(".postgresql/root.crl")),
        crl_explicit: settings.get("sslcrl").is_some(),
        min_version,
        max_version,
        send_server_name: switch(settings, "sslsni")?,
    })
}

fn tcp(settings: &Settings) -> Result<TcpSettings> {
    // Zero means the system's default in libpq; here it means Relevo's.
    let or = |name: &str, default: u64| -> Result<Duration> {
        let given = seconds(settings, name)?.filter(|time| !time.is_zero());
        Ok(given.unwrap_or(Duration::from_secs(default)))
    };
    let user_timeout = integer(settings, "tcp_user_timeout")?.map(|ms| u64::try_from(ms).unwrap_or(0));
    Ok(TcpSettings {
        keepalives: switch(settings, "keepalives")?,
        idle: or("keepalives_idle", 10)?,
        interval: or("keepalives_interval", 5)?,
        count: u32::try_from(or("keepalives_count", 3)?.as_secs()).unwrap_or(3),
        user_timeout: Some(Duration::from_millis(user_timeout.unwrap_or(30_000)))
            .filter(|limit| !limit.is_zero()),
        user_timeout_explicit: user_timeout.is_some(),
    })
}
