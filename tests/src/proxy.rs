//! A TCP proxy with faults, between Relevo and a server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ports::Port;
use crate::wait::wait_until_some;

/// How long a closed listener may linger.
const BIND_PATIENCE: Duration = Duration::from_secs(10);

/// Which way bytes go through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From Relevo to the server.
    ToServer,
    /// From the server to Relevo.
    ToClient,
}

/// What is wrong with the link now.
#[derive(Debug, Clone, Default)]
struct Faults {
    stalled: [bool; 2],
    delay: Duration,
    bytes_per_second: Option<u64>,
    /// Counts the cuts: a connection ends when it grows.
    cuts: u64,
    /// Counts the half cuts: a connection ends on Relevo's side, and the server is not told.
    half_cuts: u64,
}

/// What all connections of a proxy share.
#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    faults: watch::Sender<Faults>,
    /// Bytes that may still pass before every connection is cut; `u64::MAX` is no limit.
    budget: [AtomicU64; 2],
    passed: [AtomicU64; 2],
}

/// Forwards connections to a port of 127.0.0.1. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Starts to forward to the server.
    pub async fn start(server_port: u16) -> Self {
        let shared = Shared {
            server: (Ipv4Addr::LOCALHOST, server_port).into(),
            faults: watch::Sender::new(Faults::default()),
            budget: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
            passed: [AtomicU64::new(0), AtomicU64::new(0)],
        };
        let proxy = Self { port: Port::reserve(), shared: Arc::new(shared), acceptor: Mutex::new(None) };
        proxy.accept().await;
        proxy
    }

    /// The port on 127.0.0.1 to connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// Resets every connection that there is now. New ones are let through.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Resets every connection on Relevo's side only: the server still believes in its clients, as when a machine
    /// lost its power. New connections are let through.
    pub fn cut_half(&self) {
        self.shared.faults.send_modify(|faults| faults.half_cuts += 1);
    }

    /// Resets every connection and lets nobody connect (connection refused) until [`Proxy::accept`].
    pub async fn refuse(&self) {
        let acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(acceptor) = acceptor {
            acceptor.abort();
            // The listener is closed once the task has ended.
            let _ = acceptor.await;
        }
        self.cut();
    }

    /// Takes connections (again).
    pub async fn accept(&self) {
        // A server that is being started holds what was open at its fork until it runs its own program, and with it the
        // listener that was closed here meanwhile.
        let listener = wait_until_some("a listener at the reserved port", BIND_PATIENCE, async || {
            TcpListener::bind((Ipv4Addr::LOCALHOST, self.port())).await.map_err(|error| error.to_string())
        })
        .await;
        let shared = Arc::clone(&self.shared);
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&shared)));
            }
        });
        if let Some(old) = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).replace(acceptor) {
            old.abort();
        }
    }

    /// Stops forwarding one way. Connections stay open and silent, like behind a firewall that forgot them.
    pub fn stall(&self, direction: Direction) {
        self.shared.faults.send_modify(|faults| faults.stalled[direction as usize] = true);
    }

    /// Stops forwarding both ways.
    pub fn stall_both(&self) {
        self.shared.faults.send_modify(|faults| faults.stalled = [true; 2]);
    }

    /// Forwards again what was stalled; nothing was lost.
    pub fn resume(&self) {
        self.shared.faults.send_modify(|faults| faults.stalled = [false; 2]);
    }

    /// Holds back every chunk for a while, both ways.
    pub fn delay(&self, delay: Duration) {
        self.shared.faults.send_modify(|faults| faults.delay = delay);
    }

    /// Limits how fast bytes pass, in each direction of each connection; `None` is no limit.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        self.shared.faults.send_modify(|faults| faults.bytes_per_second = bytes_per_second);
    }

    /// Lets so many more bytes pass in one direction and then resets every connection, once: possibly in the middle
    /// of a message.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.shared.budget[direction as usize].store(bytes, Ordering::SeqCst);
    }

    /// How many bytes have passed in one direction.
    #[must_use]
    pub fn passed_bytes(&self, direction: Direction) -> u64 {
        self.shared.passed[direction as usize].load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(acceptor) = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take() {
            acceptor.abort();
        }
        self.cut();
    }
}

impl Shared {
    fn cut(&self) {
        self.faults.send_modify(|faults| faults.cuts += 1);
    }

    /// How much of a chunk may pass; the rest is lost with the connection.
    fn spend(&self, direction: Direction, wanted: usize) -> (usize, bool) {
        let budget = &self.budget[direction as usize];
        let wanted_bytes = wanted as u64;
        let before = budget
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
                u64::MAX => None,
                // The fault happens once; then there is no limit again.
                left if left <= wanted_bytes => Some(u64::MAX),
                left => Some(left - wanted_bytes),
            })
            .unwrap_or(u64::MAX);
        if before <= wanted_bytes {
            (usize::try_from(before).unwrap_or(wanted), true)
        } else {
            (wanted, false)
        }
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut faults = shared.faults.subscribe();
    let (cuts, half_cuts) = (faults.borrow().cuts, faults.borrow().half_cuts);
    if let Ok(mut server) = TcpStream::connect(shared.server).await {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        {
            let (client_read, client_write) = client.split();
            let (server_read, server_write) = server.split();
            let both = async {
                tokio::join!(
                    pump(client_read, server_write, Direction::ToServer, &shared),
                    pump(server_read, client_write, Direction::ToClient, &shared),
                );
            };
            tokio::select! {
                () = both => return,
                _ = faults.wait_for(|now| now.cuts != cuts || now.half_cuts != half_cuts) => {}
            }
        }
        if faults.borrow().half_cuts != half_cuts {
            let _ = client.set_zero_linger();
            drop(client);
            // Open and silent until the server gives it up, or there is a cut, or the proxy ends.
            let mut ignored = vec![0; 64 << 10];
            tokio::select! {
                () = async { while server.read(&mut ignored).await.is_ok_and(|length| length > 0) {} } => {}
                _ = faults.wait_for(|now| now.cuts != cuts) => {}
            }
            return;
        }
        let _ = server.set_zero_linger();
    }
    // Closed like this, the other end sees a reset and not an orderly end.
    let _ = client.set_zero_linger();
}

/// Forwards one way until the end of the stream, which is passed on.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, direction: Direction, shared: &Shared) {
    let mut faults = shared.faults.subscribe();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let limit = match faults.borrow().bytes_per_second {
            // A chunk is a 50th of a second's share, so that a throttled link trickles evenly.
            Some(rate) => usize::try_from(rate / 50).unwrap_or(buffer.len()).clamp(1, buffer.len()),
            None => buffer.len(),
        };
        let read = from.read(&mut buffer[..limit]).await;
        let Ok(now) =
            faults.wait_for(|faults| !faults.stalled[direction as usize]).await.map(|now| now.clone())
        else {
            return;
        };
        let length = match read {
            Ok(0) | Err(_) => {
                let _ = to.shutdown().await;
                return;
            }
            Ok(length) => length,
        };
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
        }
        let (allowed, cut) = shared.spend(direction, length);
        if let Some(rate) = now.bytes_per_second {
            tokio::time::sleep(Duration::from_micros(allowed as u64 * 1_000_000 / rate.max(1))).await;
        }
        let written = to.write_all(&buffer[..allowed]).await;
        shared.passed[direction as usize].fetch_add(allowed as u64, Ordering::SeqCst);
        if cut {
            shared.cut();
        }
        if written.is_err() {
            return;
        }
    }
}
