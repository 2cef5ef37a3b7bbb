//! One server of a connection string: where it is, and what it is called in messages.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use relevo_model::Side;

/// The port when none is given.
pub(crate) const DEFAULT_PORT: u16 = 5432;

/// Where libpq builds look for the server's Unix socket: Debian's and Red Hat's place, then PostgreSQL's own.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// What a connection string says of a host: a name or address to resolve, or a directory with a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostName {
    /// A host name or a numeric address; empty when only `hostaddr` was given.
    Tcp(String),
    /// The directory of the server's Unix socket, or `@…` for the abstract namespace.
    Unix(String),
}

/// One server: the entry of a connection string, or the one that was reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// Its name, or its socket's directory. Certificates are compared with this.
    pub name: HostName,
    /// The address to use without asking DNS (`hostaddr`). In a host that was reached: the address reached.
    pub address: Option<IpAddr>,
    /// The port; with a Unix socket, the number in the socket's file name.
    pub port: u16,
}

impl Host {
    /// What libpq connects to when no host is given: the local server's socket, else `localhost`.
    pub(crate) fn default_at(port: u16) -> Self {
        let has_socket = |directory: &&&str| Path::new(directory).join(socket_name(port)).exists();
        let name = match SOCKET_DIRECTORIES.iter().find(has_socket) {
            Some(directory) => HostName::Unix((*directory).to_owned()),
            None if Path::new(SOCKET_DIRECTORIES[0]).is_dir() => {
                HostName::Unix(SOCKET_DIRECTORIES[0].to_owned())
            }
            None => HostName::Tcp("localhost".to_owned()),
        };
        Self { name, address: None, port }
    }

    /// An entry of the parameter `host`: a name, an address, a directory or an abstract socket's name.
    pub(crate) fn named(name: &str, address: Option<IpAddr>, port: u16) -> Self {
        if name.is_empty() && address.is_none() {
            return Self::default_at(port);
        }
        let socket = address.is_none() && name.starts_with(['/', '@']);
        let name = if socket { HostName::Unix(name.to_owned()) } else { HostName::Tcp(name.to_owned()) };
        Self { name, address, port }
    }

    /// The socket's file, for a Unix socket.
    pub(crate) fn socket_path(&self) -> Option<PathBuf> {
        match &self.name {
            HostName::Unix(directory) => Some(Path::new(directory).join(socket_name(self.port))),
            HostName::Tcp(_) => None,
        }
    }

    /// The name that libpq looks up in a password file (manual, *The Password File*): `localhost` for a socket
    /// in the default directory.
    pub(crate) fn passfile_name(&self) -> String {
        match (&self.name, self.address) {
            (HostName::Unix(directory), _)
                if SOCKET_DIRECTORIES.contains(&directory.trim_end_matches('/')) =>
            {
                "localhost".to_owned()
            }
            (HostName::Tcp(name), Some(address)) if name.is_empty() => address.to_string(),
            (HostName::Unix(name) | HostName::Tcp(name), _) => name.clone(),
        }
    }
}

fn socket_name(port: u16) -> String {
    format!(".s.PGSQL.{port}")
}

impl fmt::Display for Host {
    /// `name:port`, `[::1]:5432` or the socket's file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, address, port } = self;
        match (name, address) {
            (HostName::Unix(directory), _) => write!(f, "{directory}/{}", socket_name(*port)),
            (HostName::Tcp(name), Some(IpAddr::V6(address))) if name.is_empty() => {
                write!(f, "[{address}]:{port}")
            }
            (HostName::Tcp(name), Some(address)) if name.is_empty() => write!(f, "{address}:{port}"),
            (HostName::Tcp(name), _) if name.contains(':') => write!(f, "[{name}]:{port}"),
            (HostName::Tcp(name), _) => write!(f, "{name}:{port}"),
        }
    }
}

/// Which server of which end: how every message of this crate begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The end of the flow.
    pub side: Side,
    /// The server.
    pub host: Host,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.side, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_as_people_write_them() {
        let shown = |name: &str, address: Option<&str>, port| {
            Host::named(name, address.map(|a| a.parse().unwrap()), port).to_string()
        };
        assert_eq!(shown("db-a", None, 5432), "db-a:5432");
        assert_eq!(shown("::1", None, 5433), "[::1]:5433");
        assert_eq!(shown("/run/pg", None, 1), "/run/pg/.s.PGSQL.1");
        assert_eq!(shown("db-a", Some("10.0.0.1"), 2), "db-a:2");
        assert_eq!(shown("", Some("10.0.0.1"), 2), "10.0.0.1:2");
        assert_eq!(shown("", Some("::1"), 2), "[::1]:2");
    }

    #[test]
    fn the_password_file_calls_the_default_socket_localhost() {
        assert_eq!(Host::named("/tmp/", None, 1).passfile_name(), "localhost");
        assert_eq!(Host::named("/srv/pg", None, 1).passfile_name(), "/srv/pg");
        assert_eq!(Host::named("", Some("10.0.0.1".parse().unwrap()), 1).passfile_name(), "10.0.0.1");
    }
}
