//! The proxy forwards, and each fault does what it says.

use std::time::{Duration, Instant};

use relevo_tests::{Direction, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A server that sends back what it gets, and a proxy before it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    Proxy::start(port).await
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
}

async fn exchange(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, text);
    Ok(())
}

#[tokio::test]
async fn bytes_and_the_end_of_the_stream_pass() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    exchange(&mut stream, &vec![7; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(proxy.passed_bytes(Direction::ToServer), 100_000);
}

#[tokio::test]
async fn a_cut_resets_connections_and_lets_new_ones_through() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    exchange(&mut stream, b"before").await.unwrap();
    proxy.cut();
    let error = stream.read(&mut [0]).await.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    exchange(&mut connect(&proxy).await, b"after").await.unwrap();
}

#[tokio::test]
async fn refused_connections_are_taken_again_on_the_same_port() {
    let proxy = echo().await;
    exchange(&mut connect(&proxy).await, b"before").await.unwrap();
    proxy.refuse().await;
    let error = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect_err("a refusal");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.accept().await;
    exchange(&mut connect(&proxy).await, b"after").await.unwrap();
}

#[tokio::test]
async fn a_stalled_link_is_silent_and_loses_nothing() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    exchange(&mut stream, b"before").await.unwrap();
    proxy.stall(Direction::ToClient);
    stream.write_all(b"late").await.unwrap();
    let mut answer = [0; 4];
    let silent = tokio::time::timeout(Duration::from_millis(200), stream.read_exact(&mut answer)).await;
    assert!(silent.is_err(), "a stalled link carried something");
    proxy.resume();
    // The read that was given up had taken nothing yet.
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"late");
}

#[tokio::test]
async fn a_stalled_link_can_still_be_cut() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    exchange(&mut stream, b"before").await.unwrap();
    proxy.stall_both();
    stream.write_all(b"lost").await.unwrap();
    proxy.cut();
    assert!(stream.read(&mut [0]).await.is_err());
}

#[tokio::test]
async fn delay_and_throttle_take_their_time() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.delay(Duration::from_millis(50));
    let started = Instant::now();
    exchange(&mut stream, b"there and back").await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(100));
    proxy.delay(Duration::ZERO);
    proxy.throttle(Some(100_000));
    let started = Instant::now();
    exchange(&mut stream, &[1; 30_000]).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_link_is_cut_after_so_many_bytes_and_only_once() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.cut_after(Direction::ToServer, 10);
    let lost = exchange(&mut stream, b"more than ten bytes").await;
    assert!(lost.is_err());
    assert_eq!(proxy.passed_bytes(Direction::ToServer), 10);
    exchange(&mut connect(&proxy).await, b"more than ten bytes").await.unwrap();
}
