//! Asking the endpoint of another process on this machine how it is. What may not enter: what the answer means.

use std::io;
use std::pin::Pin;

use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_openssl::SslStream;

use super::listen::{Entrance, Listen, TlsFiles};

/// More than the endpoint ever answers to such a question; whoever sends more is not Relevo.
const ANSWER_LIMIT_BYTES: u64 = 64 << 10;

/// The whole answer to `GET path`, headers and all, of whoever listens at that entrance. No token is shown, so only what is
/// open to everybody can be asked for. The server's certificate is not looked at: it is issued for the names by which
/// others reach it, and nothing is told to it that is worth stealing.
///
/// # Errors
/// Nobody answers there.
pub async fn ask(entrance: &Entrance, path: &str) -> io::Result<Vec<u8>> {
    match (&entrance.listen, &entrance.tls) {
        (Listen::Unix(socket), _) => exchange(UnixStream::connect(socket).await?, path).await,
        (Listen::Tcp(address), None) => exchange(TcpStream::connect(address).await?, path).await,
        (Listen::Tcp(address), Some(files)) => {
            let plain = TcpStream::connect(address).await?;
            let mut stream = dressed(plain, files)?;
            Pin::new(&mut stream).connect().await.map_err(io::Error::other)?;
            exchange(stream, path).await
        }
    }
}

fn dressed(plain: TcpStream, files: &TlsFiles) -> io::Result<SslStream<TcpStream>> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    if files.client_ca.is_some() {
        // The server lets its own certificate in, which nobody else can show.
        let certificate = X509::from_pem(&std::fs::read(&files.certificate)?)?;
        let key = PKey::private_key_from_pem_passphrase(&std::fs::read(&files.key)?, b"")?;
        builder.set_certificate(&certificate)?;
        builder.set_private_key(&key)?;
    }
    let ssl = builder.build().configure()?.verify_hostname(false).into_ssl("localhost")?;
    Ok(SslStream::new(ssl, plain)?)
}

/// HTTP 1.0: the answer ends with the connection and is never chunked.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> io::Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}
