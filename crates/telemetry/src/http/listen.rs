//! Where HTTP listens and how it is protected, as settings; and the sockets that come of it. What may not enter: what is
//! answered.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::TelemetryError;

/// What the name of a Unix socket begins with.
const UNIX: &str = "unix:";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Nobody but the owner of the process.
const SOCKET_MODE: u32 = 0o600;

/// Where HTTP listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// A TCP port; 0 picks a free one.
    Tcp(SocketAddr),
    /// A Unix socket of this path, for the owner of the process only.
    Unix(PathBuf),
}

/// A text that names no place to listen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected ADDRESS:PORT, such as 127.0.0.1:9187, or unix:PATH, such as unix:/run/relevo/http.sock")]
pub struct NoPlace;

impl FromStr for Listen {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        match text.strip_prefix(UNIX) {
            Some("") => Err(NoPlace),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp).map_err(|_| NoPlace),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = NoPlace;

    fn try_from(text: String) -> Result<Self, NoPlace> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// The files of TLS, in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and behind it those that lead to its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities: whoever connects must show a certificate of one of them.
    pub client_ca: Option<PathBuf>,
}

/// How clients get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// Where.
    pub listen: Listen,
    /// With which certificate; `None`: without TLS.
    pub tls: Option<TlsFiles>,
    /// The file with the token that they must show; `None`: whoever gets here may read.
    pub token_file: Option<PathBuf>,
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Socketed {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removes the socket's file when it is dropped.
        _file: OwnFile,
    },
}

/// Listens on a Unix socket. What a process that was killed has left there is removed; a socket that somebody answers at,
/// and what is no socket at all, stays.
pub(super) fn listen_at(path: &Path) -> Result<Socketed, TelemetryError> {
    let failed = |error| TelemetryError::listen_unix(path, error);
    remove_stale(path).map_err(failed)?;
    let bound = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Before it listens nobody can connect, so nobody gets in before the permissions are right.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        let file = OwnFile::of(path)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
        Ok(Socketed::Unix { listener, _file: file })
    };
    bound().map_err(failed)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// The socket's file, by what tells it from one that another process has put there since.
#[derive(Debug)]
pub(super) struct OwnFile {
    path: PathBuf,
    which: (u64, u64),
}

impl OwnFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), which: which(path)? })
    }
}

/// Device and inode.
fn which(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let ours = which(&self.path).is_ok_and(|found| found == self.which);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("socket {} could not be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown_alike() {
        for text in ["127.0.0.1:9187", "[::1]:80", "0.0.0.0:0", "unix:/run/relevo.sock", "unix:relevo.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["9187", "localhost:9187", "unix:", "/run/relevo.sock", ""] {
            let error = text.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains("127.0.0.1:9187") && error.contains("unix:"), "{error}");
        }
    }
}
