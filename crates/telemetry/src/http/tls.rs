//! TLS for the HTTP server: the certificate, its key, and whose clients are let in. What may not enter: sockets.

use std::path::Path;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{AlpnError, Ssl, SslAcceptor, SslContext, SslMethod, SslVerifyMode, select_next_proto};
use openssl::x509::X509;

use super::listen::TlsFiles;
use super::watched::{Watched, warn_if_open};
use crate::TelemetryError;

/// The one protocol that is spoken, with its length (RFC 7301).
const ALPN: &[u8] = b"\x08http/1.1";

/// What makes a connection a TLS connection.
#[derive(Clone)]
pub(super) struct Tls {
    context: Arc<Watched<SslContext>>,
}

impl Tls {
    /// # Errors
    /// [`TelemetryError::File`].
    pub(super) fn new(files: &TlsFiles) -> Result<Self, TelemetryError> {
        warn_if_open("http.tls_key", &files.key);
        let mut watched = vec![files.certificate.clone(), files.key.clone()];
        watched.extend(files.client_ca.clone());
        let files = files.clone();
        Ok(Self { context: Watched::new(watched, move || context(&files))? })
    }

    /// The server's end of a connection that begins with the client's words; `None` only when memory is short.
    pub(super) async fn begin(&self) -> Option<Ssl> {
        let mut ssl = Ssl::new(&*self.context.current().await).ok()?;
        // The handshake is made by whoever reads first, so that a slow client keeps nobody else waiting.
        ssl.set_accept_state();
        Some(ssl)
    }
}

fn context(files: &TlsFiles) -> Result<SslContext, TelemetryError> {
    // TLS 1.2 and 1.3, and ciphers that are held to be good.
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())
        .map_err(|error| bad("http.tls_cert", &files.certificate, &error))?;
    let bad_certificate = |error: ErrorStack| bad("http.tls_cert", &files.certificate, &error);
    let pem = read("http.tls_cert", &files.certificate)?;
    let mut chain = X509::stack_from_pem(&pem).map_err(bad_certificate)?.into_iter();
    let certificate = chain.next().ok_or_else(|| {
        TelemetryError::file("http.tls_cert", &files.certificate, "it holds no certificate in PEM form")
    })?;
    builder.set_certificate(&certificate).map_err(bad_certificate)?;
    for issuer in chain {
        builder.add_extra_chain_cert(issuer).map_err(bad_certificate)?;
    }
    let pem = read("http.tls_key", &files.key)?;
    // With a passphrase, though an empty one: without, OpenSSL would ask on the terminal.
    let key = PKey::private_key_from_pem_passphrase(&pem, b"").map_err(|error| {
        let detail =
            format!("it holds no key that can be read ({}); an encrypted one cannot be", reasons(&error));
        TelemetryError::file("http.tls_key", &files.key, detail)
    })?;
    builder.set_private_key(&key).and_then(|()| builder.check_private_key()).map_err(|error| {
        let certificate = files.certificate.display();
        let detail = format!("it is not the key of the certificate in {certificate}: {}", reasons(&error));
        TelemetryError::file("http.tls_key", &files.key, detail)
    })?;
    builder.set_alpn_select_callback(|_, offered| select_next_proto(ALPN, offered).ok_or(AlpnError::NOACK));
    builder.set_verify(SslVerifyMode::NONE);
    if let Some(path) = &files.client_ca {
        let bad_authority = |error: ErrorStack| bad("http.tls_client_ca", path, &error);
        // Read first: OpenSSL's own words about a missing file say nothing.
        let authorities = X509::stack_from_pem(&read("http.tls_client_ca", path)?).map_err(bad_authority)?;
        if authorities.is_empty() {
            let detail = "it holds no certificate in PEM form";
            return Err(TelemetryError::file("http.tls_client_ca", path, detail));
        }
        for authority in authorities {
            builder.add_client_ca(&authority).map_err(bad_authority)?;
            builder.cert_store_mut().add_cert(authority).map_err(bad_authority)?;
        }
        // Whoever has this server's own key is this server's own user: the health check shows this certificate.
        let own = certificate.to_der().map_err(bad_certificate)?;
        let mode = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        builder.set_verify_callback(mode, move |good, presented| {
            let is_own =
                || presented.current_cert().and_then(|shown| shown.to_der().ok()).as_ref() == Some(&own);
            good || (presented.error_depth() == 0 && is_own())
        });
        // Sessions that are taken up again must belong to this server; without a name of its own OpenSSL refuses them.
        builder.set_session_id_context(b"relevo").map_err(bad_authority)?;
    }
    Ok(builder.build().into_context())
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TelemetryError> {
    std::fs::read(path).map_err(|error| TelemetryError::file(setting, path, error.to_string()))
}

fn bad(setting: &'static str, path: &Path, error: &ErrorStack) -> TelemetryError {
    TelemetryError::file(setting, path, reasons(error))
}

/// What went wrong according to OpenSSL, without its library and file names.
fn reasons(stack: &ErrorStack) -> String {
    let reasons: Vec<_> = stack.errors().iter().filter_map(openssl::error::Error::reason).collect();
    if reasons.is_empty() { stack.to_string() } else { reasons.join(", ") }
}
