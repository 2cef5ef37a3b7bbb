//! What can go wrong here: little.

use std::io;

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
}
