//! TLS as libpq does it (manual, *SSL Support*): which files are used, what of a certificate is checked, and what
//! SCRAM is bound to. How TLS is negotiated with a server is in `dial`.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    self, Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslVerifyMode, SslVersion,
};
use openssl::x509::store::X509Lookup;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509Ref, X509VerifyResult};
use tokio_openssl::SslStream;

use crate::options::{Roots, TlsSettings, TlsVersion};
use crate::stream::Socket;
use crate::{ConnectError, HostName, Place, SslCertMode, SslMode, SslNegotiation};

/// The protocol's name in ALPN, with its length (`PG_ALPN_PROTOCOL_VECTOR` in libpq/pqcomm.h).
const ALPN: &[u8] = b"\x0apostgresql";

/// Does the handshake on a socket, and checks the server's certificate as far as the settings ask for it.
/// Returns the stream and the `tls-server-end-point` bytes.
pub(crate) async fn handshake(
    at: &Place,
    settings: &TlsSettings,
    socket: Socket,
) -> Result<(SslStream<Socket>, Option<Vec<u8>>), ConnectError> {
    let failed = |error: ErrorStack| ConnectError::TlsHandshake { at: at.clone(), detail: error.to_string() };
    let context = context(at, settings)?;
    let mut ssl = Ssl::new(&context).map_err(failed)?;
    let host = match &at.host.name {
        HostName::Tcp(name) => name.trim_end_matches('.'),
        HostName::Unix(_) => "",
    };
    if settings.send_server_name && !host.is_empty() && host.parse::<IpAddr>().is_err() {
        ssl.set_hostname(host).map_err(failed)?;
    }
    let mut stream = SslStream::new(ssl, socket).map_err(failed)?;
    if let Err(error) = Pin::new(&mut stream).connect().await {
        return Err(handshake_error(at, settings, &error, stream.ssl().verify_result()));
    }
    if settings.negotiation == SslNegotiation::Direct
        && stream.ssl().selected_alpn_protocol() != ALPN.get(1..)
    {
        let detail = "the server does not speak ALPN \"postgresql\"; sslnegotiation=direct needs PostgreSQL 17 or later";
        return Err(ConnectError::TlsHandshake { at: at.clone(), detail: detail.to_owned() });
    }
    let certificate = stream.ssl().peer_certificate();
    if settings.mode == SslMode::VerifyFull {
        check_host(at, host, certificate.as_deref())?;
    }
    let binding = certificate.and_then(|certificate| server_end_point(&certificate));
    Ok((stream, binding))
}

fn handshake_error(
    at: &Place,
    settings: &TlsSettings,
    error: &ssl::Error,
    verified: X509VerifyResult,
) -> ConnectError {
    let at = at.clone();
    if verified != X509VerifyResult::OK {
        let roots = settings.roots.as_ref().map_or_else(|| "nowhere".to_owned(), ToString::to_string);
        return ConnectError::CertificateNotTrusted { at, reason: verified.error_string().to_owned(), roots };
    }
    if let Some(stack) = error.ssl_error() {
        return ConnectError::TlsHandshake { at, detail: reasons(stack) };
    }
    if settings.negotiation == SslNegotiation::Direct {
        let detail = "the server broke off; sslnegotiation=direct needs PostgreSQL 17 or later with ssl = on";
        return ConnectError::TlsHandshake { at, detail: detail.to_owned() };
    }
    let source = match error.io_error() {
        Some(error) => io::Error::new(error.kind(), error.to_string()),
        None => io::ErrorKind::UnexpectedEof.into(),
    };
    ConnectError::Lost { at, source }
}

/// What went wrong according to OpenSSL, without its library and file names.
pub(crate) fn reasons(stack: &ErrorStack) -> String {
    let reasons: Vec<_> = stack.errors().iter().filter_map(openssl::error::Error::reason).collect();
    if reasons.is_empty() { stack.to_string() } else { reasons.join(", ") }
}

// ------------------------------------------------------------------------------------------ the context

fn context(at: &Place, settings: &TlsSettings) -> Result<SslContext, ConnectError> {
    let failed = |error: ErrorStack| ConnectError::TlsHandshake { at: at.clone(), detail: reasons(&error) };
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).map_err(failed)?;
    builder.set_min_proto_version(Some(version(settings.min_version))).map_err(failed)?;
    builder.set_max_proto_version(settings.max_version.map(version)).map_err(failed)?;
    builder.set_alpn_protos(ALPN).map_err(failed)?;
    let checked = load_roots(at, settings, &mut builder)?;
    builder.set_verify(if checked { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
    if settings.certificate_mode == SslCertMode::Allow {
        load_certificate(at, settings, &mut builder)?;
    }
    Ok(builder.build())
}

fn version(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::Tls1_0 => SslVersion::TLS1,
        TlsVersion::Tls1_1 => SslVersion::TLS1_1,
        TlsVersion::Tls1_2 => SslVersion::TLS1_2,
        TlsVersion::Tls1_3 => SslVersion::TLS1_3,
    }
}

fn file_error(at: &Place, parameter: &'static str, path: &Path, detail: impl ToString) -> ConnectError {
    ConnectError::TlsFile { at: at.clone(), parameter, path: path.into(), detail: detail.to_string() }
}

/// Loads the trusted authorities. Whether there are any decides whether the server's certificate is checked: so
/// libpq's `sslmode=require` behaves as `verify-ca` where a root file exists.
fn load_roots(
    at: &Place,
    settings: &TlsSettings,
    builder: &mut SslContextBuilder,
) -> Result<bool, ConnectError> {
    let must_check = matches!(settings.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    let (path, explicit) = match &settings.roots {
        Some(Roots::System) => {
            let failed = |e: ErrorStack| ConnectError::TlsHandshake { at: at.clone(), detail: reasons(&e) };
            builder.set_default_verify_paths().map_err(failed)?;
            return Ok(true);
        }
        Some(Roots::File { path, explicit }) => (path.as_path(), *explicit),
        None => (Path::new("~/.postgresql/root.crt"), false),
    };
    if !path.exists() {
        if must_check {
            let detail = format!(
                "it does not exist; put the certificate of the server's authority there, name another file, or use \
                 sslrootcert=system (sslmode={} checks the server's certificate)",
                settings.mode
            );
            return Err(file_error(at, "sslrootcert", path, detail));
        }
        if explicit {
            tracing::warn!(at = %at, path = %path.display(), "sslrootcert does not exist: the certificate is not checked");
        }
        return Ok(false);
    }
    builder.set_ca_file(path).map_err(|error| {
        let why = std::fs::File::open(path).map_or_else(|e| e.to_string(), |_| reasons(&error));
        file_error(at, "sslrootcert", path, format!("it holds no certificate that can be read: {why}"))
    })?;
    load_crl(at, settings, builder)?;
    Ok(true)
}

fn load_crl(at: &Place, settings: &TlsSettings, builder: &mut SslContextBuilder) -> Result<(), ConnectError> {
    let Some(path) = settings.crl.as_deref().filter(|path| settings.crl_explicit || path.exists()) else {
        return Ok(());
    };
    let store = builder.cert_store_mut();
    let loaded = store
        .add_lookup(X509Lookup::file())
        .and_then(|lookup| lookup.load_crl_file(path, SslFiletype::PEM))
        .and_then(|_| store.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL));
    // libpq goes on without the list; who names one wants it checked.
    loaded.map_err(|error| {
        let why = std::fs::File::open(path).map_or_else(|e| e.to_string(), |_| reasons(&error));
        file_error(at, "sslcrl", path, format!("it holds no revocation list that can be read: {why}"))
    })
}

/// Loads the client's certificate chain and key, if there is a certificate.
fn load_certificate(
    at: &Place,
    settings: &TlsSettings,
    builder: &mut SslContextBuilder,
) -> Result<(), ConnectError> {
    let Some(path) = settings.certificate.as_deref() else { return Ok(()) };
    let pem = match std::fs::read(path) {
        Ok(pem) => pem,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            // As libpq: the server may let us in without.
            if settings.certificate_explicit {
                tracing::warn!(at = %at, path = %path.display(), "sslcert does not exist: no client certificate is sent");
            }
            return Ok(());
        }
        Err(error) => return Err(file_error(at, "sslcert", path, error)),
    };
    let bad = |error: ErrorStack| file_error(at, "sslcert", path, reasons(&error));
    let mut chain = X509::stack_from_pem(&pem).map_err(bad)?.into_iter();
    let Some(certificate) = chain.next() else {
        return Err(file_error(at, "sslcert", path, "it holds no certificate in PEM format"));
    };
    builder.set_certificate(&certificate).map_err(bad)?;
    for issuer in chain {
        builder.add_extra_chain_cert(issuer).map_err(bad)?;
    }
    let Some(key_path) = settings.key.as_deref() else {
        return Err(file_error(at, "sslcert", path, "there is no private key for it; name one with sslkey"));
    };
    let key = load_key(at, settings, key_path)?;
    builder.set_private_key(&key).and_then(|()| builder.check_private_key()).map_err(|error| {
        let detail =
            format!("it is not the key of the certificate in {}: {}", path.display(), reasons(&error));
        file_error(at, "sslkey", key_path, detail)
    })
}

fn load_key(at: &Place, settings: &TlsSettings, path: &Path) -> Result<PKey<Private>, ConnectError> {
    let bad = |detail: String| file_error(at, "sslkey", path, detail);
    let metadata = std::fs::metadata(path).map_err(|error| {
        bad(format!("there is a client certificate, but its private key cannot be read: {error}"))
    })?;
    if !metadata.is_file() {
        return Err(bad("it is not a plain file".to_owned()));
    }
    // libpq/fe-secure-openssl.c, initialize_SSL: root may share a key with a group for reading.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(bad(
            "group or others have access to it; it must have permissions u=rw (0600) or less, or u=rw,g=r (0640) or \
             less if owned by root"
                .to_owned(),
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    // Always with a passphrase: without one OpenSSL would ask on the terminal.
    let passphrase = settings.key_password.as_ref().map_or("", |secret| secret.expose());
    PKey::private_key_from_pem_passphrase(&bytes, passphrase.as_bytes())
        .or_else(|pem_error| PKey::private_key_from_der(&bytes).map_err(|_| pem_error))
        .map_err(|error| {
            bad(format!(
                "it cannot be read as a private key: {}; if it is encrypted, check sslpassword",
                reasons(&error)
            ))
        })
}

// --------------------------------------------------------------------------------- the server's certificate

/// `verify-full`: the certificate must name the host (`pq_verify_peer_name_matches_certificate`).
fn check_host(at: &Place, host: &str, certificate: Option<&X509Ref>) -> Result<(), ConnectError> {
    let mismatch =
        |names: String| ConnectError::HostMismatch { at: at.clone(), expected: host.to_owned(), names };
    if host.is_empty() {
        return Err(mismatch("a host, and none is named (host)".to_owned()));
    }
    let certificate = certificate.ok_or_else(|| mismatch("nobody: there is none".to_owned()))?;
    let names = Names::of(certificate);
    if names.vouch_for(host) { Ok(()) } else { Err(mismatch(names.to_string())) }
}

/// The names that a certificate speaks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
    common: Option<String>,
}

impl Names {
    fn of(certificate: &X509Ref) -> Self {
        let mut names = Self::default();
        for name in certificate.subject_alt_names().into_iter().flatten() {
            if let Some(dns) = name.dnsname() {
                names.dns.push(dns.to_owned());
            }
            let address = name.ipaddress().and_then(|bytes| {
                let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
            });
            names.addresses.extend(address);
        }
        let common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
        names.common = common.and_then(|entry| entry.data().to_string().ok());
        names
    }

    /// The common name counts only where no alternative name of the host's kind is present (RFC 6125; for
    /// addresses libpq also takes a DNS name that spells the address).
    fn vouch_for(&self, host: &str) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        if let Some(address) = address
            && self.addresses.contains(&address)
        {
            return true;
        }
        if self.dns.iter().any(|name| matches(name, host)) {
            return true;
        }
        let ask_common = self.dns.is_empty() && (address.is_none() || self.addresses.is_empty());
        ask_common && self.common.as_deref().is_some_and(|name| matches(name, host))
    }
}

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let mut names: Vec<String> = self.dns.iter().cloned().chain(addresses).collect();
        if names.is_empty() {
            names.extend(self.common.clone());
        }
        if names.is_empty() {
            f.write_str("nobody: it has no name")
        } else {
            write!(f, "{}", names.join(", "))
        }
    }
}

/// Compares a certificate's DNS name with a host name. A leading `*.` stands for exactly one label
/// (`wildcard_certificate_match`).
fn matches(pattern: &str, host: &str) -> bool {
    if pattern.contains('\0') {
        return false;
    }
    let wildcard = pattern.strip_prefix("*.").filter(|_| host.parse::<IpAddr>().is_err());
    match (wildcard, host.split_once('.')) {
        (Some(domain), Some((label, rest))) if !label.is_empty() => domain.eq_ignore_ascii_case(rest),
        _ => pattern.eq_ignore_ascii_case(host),
    }
}

/// `tls-server-end-point` (RFC 5929, section 4.1): the certificate's hash by the digest of its signature, with
/// SHA-256 in place of MD5 and SHA-1. `None` where the signature has no digest of its own (Ed25519).
fn server_end_point(certificate: &X509Ref) -> Option<Vec<u8>> {
    let algorithm = certificate.signature_algorithm().object().nid().signature_algorithms()?;
    let digest = match algorithm.digest {
        Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
        other => MessageDigest::from_nid(other)?,
    };
    certificate.digest(digest).ok().map(|bytes| bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dns: &[&str], addresses: &[&str], common: Option<&str>) -> Names {
        Names {
            dns: dns.iter().map(|name| (*name).to_owned()).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            common: common.map(str::to_owned),
        }
    }

    #[test]
    fn a_star_stands_for_one_label() {
        for (pattern, host, expected) in [
            ("db.example.com", "DB.example.com", true),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("d*.example.com", "db.example.com", false),
            ("*", "localhost", false),
            ("*.0.0.1", "127.0.0.1", false),
            ("db\0.evil.com", "db", false),
        ] {
            assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn the_common_name_counts_only_without_alternative_names() {
        assert!(names(&[], &[], Some("h")).vouch_for("h"));
        assert!(!names(&["x"], &[], Some("h")).vouch_for("h"));
        assert!(names(&[], &["10.0.0.1"], Some("h")).vouch_for("h"));
        assert!(!names(&[], &["10.0.0.1"], Some("10.0.0.2")).vouch_for("10.0.0.2"));
        assert!(names(&["x"], &["::1"], None).vouch_for("0:0::1"));
        assert!(names(&["10.0.0.1"], &[], None).vouch_for("10.0.0.1"));
        assert!(!names(&[], &[], None).vouch_for(""));
    }
}
