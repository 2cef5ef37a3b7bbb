//! Reaching a server: addresses, sockets, and whether TLS is spoken on them. Nobody logs in here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rand::seq::SliceRandom;
use relevo_model::Side;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::options::{LoadBalanceHosts, TcpSettings};
use crate::stream::{Inner, Socket};
use crate::{
    ChannelBinding, ConnInfo, ConnectError, Host, HostName, Place, Secret, SslMode, SslNegotiation, Stream,
};
use crate::{password, tls};

/// SSLRequest (manual, *Message Formats*): length 8, code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A server that was reached: TLS is agreed on, nobody is logged in. It carries what a login needs.
#[derive(Debug)]
pub struct Dialed {
    /// The stream; the next thing to send is the StartupMessage (or a CancelRequest).
    pub stream: Stream,
    /// The `tls-server-end-point` bytes for SCRAM-SHA-256-PLUS; `None` without TLS, and with certificates whose
    /// signature has no digest.
    pub channel_binding: Option<Vec<u8>>,
    /// Whether SCRAM must, may or must not be bound to the TLS connection. With [`ChannelBinding::Require`] every
    /// other way in, trust included, has to be refused ([`ConnectError::Authentication`]).
    pub channel_binding_policy: ChannelBinding,
    /// Which end and which server; `at.host.address` is the address that was reached.
    pub at: Place,
    /// The user to log in as.
    pub user: String,
    /// The database to log in to.
    pub database: String,
    /// The password for this host, if any is known.
    pub password: Option<Secret>,
    /// The parameter `options`: to be sent as it is.
    pub options: Option<String>,
    /// The parameter `application_name`: for sessions that have no name of their own.
    pub application_name: Option<String>,
}

/// Where a host is, once its name is resolved.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Whether one attempt encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    Plain,
    /// TLS, or plain if the server does not speak TLS.
    IfOffered,
    Tls,
}

/// What to try at an address, in order; the second only after the first was turned away.
pub(crate) fn ways(info: &ConnInfo, host: &Host) -> &'static [Encryption] {
    if matches!(host.name, HostName::Unix(_)) {
        return &[Encryption::Plain];
    }
    match info.tls.mode {
        SslMode::Disable => &[Encryption::Plain],
        SslMode::Allow => &[Encryption::Plain, Encryption::Tls],
        SslMode::Prefer => &[Encryption::IfOffered, Encryption::Plain],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Encryption::Tls],
    }
}

/// Resolves a host's name. Never empty.
pub(crate) async fn resolve(info: &ConnInfo, at: &Place) -> Result<Vec<Address>, ConnectError> {
    let host = &at.host;
    if let Some(path) = host.socket_path() {
        return Ok(vec![Address::Unix(path)]);
    }
    let HostName::Tcp(name) = &host.name else { return Ok(Vec::new()) };
    let literal = host.address.or_else(|| name.parse::<IpAddr>().ok());
    if let Some(address) = literal {
        return Ok(vec![Address::Tcp(SocketAddr::new(address, host.port))]);
    }
    let unknown = |source: io::Error| ConnectError::UnknownHost { at: at.clone(), source };
    let found = within(info, at, async {
        tokio::net::lookup_host((name.as_str(), host.port)).await.map_err(unknown)
    });
    let mut addresses: Vec<_> = found.await?.map(Address::Tcp).collect();
    if addresses.is_empty() {
        return Err(unknown(io::Error::other("the name has no address")));
    }
    if info.load_balance == LoadBalanceHosts::Random {
        addresses.shuffle(&mut rand::rng());
    }
    Ok(addresses)
}

/// Gives up when `connect_timeout` has passed.
pub(crate) async fn within<T>(
    info: &ConnInfo,
    at: &Place,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    match info.connect_timeout {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout { at: at.clone(), limit_s: limit.as_secs() }),
        },
    }
}

/// Opens one address and agrees on its encryption.
pub(crate) async fn open(
    info: &ConnInfo,
    side: Side,
    host: &Host,
    address: &Address,
    encryption: Encryption,
) -> Result<Dialed, ConnectError> {
    let mut host = host.clone();
    if let Address::Tcp(address) = address {
        host.address = Some(address.ip());
    }
    let at = Place { side, host };
    let password = password::find(info, side, &at.host)?;
    let socket = connect(&at, address, &info.tcp).await?;
    let (stream, channel_binding) = encrypt(info, &at, socket, encryption).await?;
    Ok(Dialed {
        stream,
        channel_binding,
        channel_binding_policy: info.channel_binding,
        at,
        user: info.user.clone(),
        database: info.database.clone(),
        password,
        options: info.options.clone(),
        application_name: info.application_name.clone(),
    })
}

async fn connect(at: &Place, address: &Address, settings: &TcpSettings) -> Result<Socket, ConnectError> {
    let socket = match address {
        Address::Tcp(address) => TcpStream::connect(address).await.map(Socket::Tcp),
        Address::Unix(path) => UnixStream::connect(socket_file(path)).await.map(Socket::Unix),
    };
    let socket = socket.map_err(|source| {
        let at = at.clone();
        match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                ConnectError::ConnectionRefused { at, source }
            }
            _ => ConnectError::Unreachable { at, source },
        }
    })?;
    if let Socket::Tcp(stream) = &socket {
        tune(stream, settings).map_err(|source| ConnectError::Lost { at: at.clone(), source })?;
    }
    Ok(socket)
}

/// A leading `@` stands for the abstract namespace, whose names begin with a zero byte.
fn socket_file(path: &std::path::Path) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_prefix('@')) {
        Some(name) => PathBuf::from(format!("\0{name}")),
        None => path.to_owned(),
    }
}

/// Small messages go at once, and a dead link is noticed.
fn tune(stream: &TcpStream, settings: &TcpSettings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if settings.keepalives {
        let keepalive = TcpKeepalive::new()
            .with_time(settings.idle.max(Duration::from_secs(1)))
            .with_interval(settings.interval.max(Duration::from_secs(1)))
            .with_retries(settings.count.max(1));
        socket.set_tcp_keepalive(&keepalive)?;
    }
    socket.set_tcp_user_timeout(settings.user_timeout)
}

type Agreed = (Stream, Option<Vec<u8>>);

async fn encrypt(
    info: &ConnInfo,
    at: &Place,
    mut socket: Socket,
    encryption: Encryption,
) -> Result<Agreed, ConnectError> {
    if encryption == Encryption::Plain {
        return Ok((Stream(Inner::Plain(socket)), None));
    }
    if info.tls.negotiation == SslNegotiation::Postgres && !offered(at, &mut socket).await? {
        return match encryption {
            Encryption::Tls => Err(ConnectError::TlsRefused { at: at.clone(), sslmode: info.tls.mode }),
            Encryption::IfOffered | Encryption::Plain => Ok((Stream(Inner::Plain(socket)), None)),
        };
    }
    let (stream, binding) = tls::handshake(at, &info.tls, socket).await?;
    Ok((Stream(Inner::Tls(Box::new(stream))), binding))
}

/// Sends an SSLRequest and reads the answer: exactly one byte, so that nothing sent in the clear before the
/// handshake can ever be taken for a part of the encrypted session (CVE-2021-23222).
async fn offered(at: &Place, socket: &mut Socket) -> Result<bool, ConnectError> {
    let lost = |source: io::Error| ConnectError::Lost { at: at.clone(), source };
    socket.write_all(&SSL_REQUEST).await.map_err(lost)?;
    let protocol = |detail: String| Err(ConnectError::Protocol { at: at.clone(), detail });
    match socket.read_u8().await.map_err(lost)? {
        b'S' if socket.has_unread() => protocol(
            "it sent unencrypted bytes after agreeing to TLS; somebody may be tampering with the link"
                .to_owned(),
        ),
        b'S' => Ok(true),
        b'N' => Ok(false),
        b'E' => protocol("it answered the TLS request with an error".to_owned()),
        other => protocol(format!("it answered the TLS request with byte {other:#04x}")),
    }
}
