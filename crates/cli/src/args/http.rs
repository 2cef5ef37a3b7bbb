//! Options of the HTTP endpoint.

use std::path::PathBuf;

use clap::Args;
use relevo_telemetry::Listen;

/// Where and for whom metrics, health, status and the live page are.
#[derive(Debug, Clone, Default, Args)]
pub struct HttpArgs {
    /// Address of the HTTP endpoint: metrics, health, status, live page. Or unix:PATH for a socket that only the user of
    /// this process may use. Default: 127.0.0.1:9187.
    #[arg(long = "http-listen", env = "RELEVO_HTTP_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<Listen>,
    /// Certificate of the HTTP endpoint (PEM, with those that lead to its authority behind it), which then speaks TLS. It
    /// and the other files are read again when they change. Default: none.
    #[arg(long = "http-tls-cert", env = "RELEVO_HTTP_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM, not encrypted).
    #[arg(long = "http-tls-key", env = "RELEVO_HTTP_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Authorities (PEM): whoever connects must show a certificate that one of them has issued. Default: nobody must.
    #[arg(long = "http-tls-client-ca", env = "RELEVO_HTTP_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// A file with a token that clients of the HTTP endpoint must show, as bearer token or as password. /healthz, and the
    /// bare yes or no of /readyz, are for everybody. Default: none is asked for.
    #[arg(long = "http-token-file", env = "RELEVO_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}
