//! A server that knows the SSLRequest and TLS and nothing else, with a certificate made on the spot.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{AlpnError, Ssl, SslAcceptor, SslMethod};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_openssl::SslStream;

use crate::ConnInfo;

/// A self-signed certificate and its key.
pub(super) struct Identity {
    pub(super) certificate: X509,
    pub(super) key: PKey<Private>,
}

impl Identity {
    pub(super) fn new(alternative_name: &str) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, "relevo test").unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        let mut names = SubjectAlternativeName::new();
        let names = names.dns(alternative_name).build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(names).unwrap();
        builder.sign(&key, MessageDigest::sha384()).unwrap();
        Self { certificate: builder.build(), key }
    }

    /// The certificate in a file, to be trusted.
    pub(super) fn root_file(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), self.certificate.to_pem().unwrap()).unwrap();
        file
    }
}

/// How the server answers.
#[derive(Clone)]
pub(super) enum Answer {
    /// With these bytes, then it waits.
    Bytes(&'static [u8]),
    /// It closes at once.
    Close,
    /// Not at all.
    Silence,
    /// `S`, then TLS.
    Tls(Arc<Identity>),
    /// TLS at once, with ALPN or without.
    Direct(Arc<Identity>, bool),
}

pub(super) struct Server {
    pub(super) port: u16,
    pub(super) connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, answer.clone()));
            }
        });
        Self { port, connections, task }
    }

    pub(super) fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// A connection string for it. It takes nothing from the environment or the home directory of whoever runs
    /// the tests.
    pub(super) fn info(&self, parameters: &str) -> ConnInfo {
        info(&format!("host=localhost hostaddr=127.0.0.1 port={} {parameters}", self.port))
    }
}

pub(super) fn info(text: &str) -> ConnInfo {
    let nothing = "passfile=/nonexistent sslcert=/nonexistent sslkey=/nonexistent sslrootcert=/nonexistent";
    ConnInfo::parse_with(&format!("user=u password=p dbname=d {nothing} {text}"), &|_| None).unwrap()
}

async fn serve(mut stream: TcpStream, answer: Answer) {
    let direct = matches!(answer, Answer::Direct(..));
    if !direct {
        let mut request = [0; 8];
        if stream.read_exact(&mut request).await.is_err() {
            return;
        }
        assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
    }
    match answer {
        Answer::Bytes(bytes) => {
            stream.write_all(bytes).await.unwrap();
            wait_for_close(stream).await;
        }
        Answer::Close => {}
        Answer::Silence => wait_for_close(stream).await,
        Answer::Tls(identity) => {
            stream.write_all(b"S").await.unwrap();
            encrypt(stream, &identity, true).await;
        }
        Answer::Direct(identity, alpn) => encrypt(stream, &identity, alpn).await,
    }
}

async fn encrypt(stream: TcpStream, identity: &Identity, alpn: bool) {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&identity.certificate).unwrap();
    acceptor.set_private_key(&identity.key).unwrap();
    if alpn {
        acceptor.set_alpn_select_callback(|_, offered| match offered {
            b"\x0apostgresql" => Ok(b"postgresql"),
            _ => Err(AlpnError::ALERT_FATAL),
        });
    }
    let mut stream = SslStream::new(Ssl::new(acceptor.build().context()).unwrap(), stream).unwrap();
    if Pin::new(&mut stream).accept().await.is_ok() {
        wait_for_close(stream).await;
    }
}

async fn wait_for_close(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut rest = [0; 256];
    while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}
