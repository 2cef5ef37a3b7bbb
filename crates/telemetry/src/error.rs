//! What can go wrong here: little.

use std::io;
use std::path::{Path, PathBuf};

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The address of the HTTP server cannot be listened on.
    #[error(
        "cannot listen on {address} for HTTP{hint}; choose another address with --http-listen, RELEVO_HTTP_LISTEN \
         or `listen` under [http]"
    )]
    Listen {
        /// The address as it was given.
        address: String,
        /// What usually is the matter, beginning with `: `; may be empty.
        hint: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of the HTTP server cannot be used.
    #[error("{setting} file {}: {detail}", path.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do. Never what is in it.
        detail: String,
    },
    /// A metric cannot be registered or written; only a mistake in this crate does that.
    #[error("a metric cannot be set up")]
    Metric(#[from] prometheus::Error),
}

impl TelemetryError {
    /// A short stable word for it, as in [`relevo_model::Fault::kind`].
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "http_listen",
            Self::File { .. } => "http_file",
            Self::Metric(_) => "internal",
        }
    }

    pub(crate) fn listen(address: &str, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => ": the port is in use, perhaps by another Relevo or exporter",
            io::ErrorKind::AddrNotAvailable => ": no network interface of this machine has that address",
            io::ErrorKind::PermissionDenied => ": ports below 1024 need a privilege",
            io::ErrorKind::InvalidInput => ": expected HOST:PORT, such as 127.0.0.1:9187",
            _ => "",
        };
        Self::Listen { address: address.to_owned(), hint, source }
    }

    pub(crate) fn listen_unix(path: &Path, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => ": a process answers there already, perhaps another Relevo",
            io::ErrorKind::AlreadyExists => ": what lies there is no socket, and is not removed",
            io::ErrorKind::NotFound => ": its directory does not exist",
            io::ErrorKind::PermissionDenied => ": the directory or the socket there belongs to somebody else",
            io::ErrorKind::InvalidInput => ": the path is too long for a socket, of some 100 bytes",
            _ => "",
        };
        Self::Listen { address: format!("unix:{}", path.display()), hint, source }
    }

    pub(crate) fn file(setting: &'static str, path: &Path, detail: impl Into<String>) -> Self {
        Self::File { setting, path: path.to_owned(), detail: detail.into() }
    }
}
