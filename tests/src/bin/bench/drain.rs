//! The drain limit: a reader that takes all that the walsender sends and does nothing with it. As much of the replication
//! protocol as that takes.
//!
//! It lets bytes gather before each read, as Relevo does: one that is woken by each message keeps the walsender from its
//! work, and would understate the limit three times.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::settings::PATIENCE;
use crate::world::{DATABASE, DRAIN_ROLE, DRAIN_SLOT, Prepared};

/// How long bytes gather before each read.
const GATHER: Duration = Duration::from_micros(200);
/// How long the source may be silent.
const SILENCE: Duration = Duration::from_secs(120);
/// How much is read at once, in bytes.
const GULP: usize = 1 << 20;
/// Seconds between 1970 and 2000 do not matter here: the server does nothing with our clock.
const NO_CLOCK: i64 = 0;

/// A stream from the slot. Dropping it ends it.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    /// What was read and not looked at yet.
    buffer: Vec<u8>,
    /// The server's process.
    pub walsender: u32,
}

impl Stream {
    /// Begins to stream.
    pub async fn start(prepared: &Prepared<'_>) -> Self {
        let port = prepared.servers.source.port();
        // Parts of transactions in progress are taken as they come, so that the source need not write them aside.
        let command = format!(
            "START_REPLICATION SLOT {DRAIN_SLOT} LOGICAL 0/0 (proto_version '2', streaming 'on', publication_names 'bench')\0"
        );
        aside(move || Self::connect(port, &command)).await
    }

    fn connect(port: u16, command: &str) -> Result<Self, String> {
        let socket = TcpStream::connect(("127.0.0.1", port)).map_err(told)?;
        socket.set_nodelay(true).map_err(told)?;
        socket.set_read_timeout(Some(SILENCE)).map_err(told)?;
        let mut stream = Self { socket, buffer: Vec::with_capacity(2 * GULP), walsender: 0 };
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        for text in ["user", DRAIN_ROLE, "database", DATABASE, "replication", "database"] {
            startup.extend([text.as_bytes(), &[0]].concat());
        }
        startup.push(0);
        stream.send(&[], &startup)?;
        stream.read_until(b'Z')?;
        stream.send(b"Q", command.as_bytes())?;
        stream.read_until(b'W')?;
        Ok(stream)
    }

    /// Reads up to the first commit that ends behind this position.
    pub async fn drain(mut self, before: u64) -> Self {
        aside(move || {
            while !self.take_frames(|stream, tag, body| stream.is_end(tag, body, before))? {
                thread::sleep(GATHER);
                self.read()?;
            }
            Ok(self)
        })
        .await
    }

    /// Whether a frame is the commit that is waited for. A server that asks for an answer gets one.
    fn is_end(&mut self, tag: u8, body: &[u8], before: u64) -> Result<bool, String> {
        match (tag, body.first()) {
            // XLogData: tag, start, end, clock; then the message of pgoutput.
            (b'd', Some(b'w')) => {
                let message = &body[25..];
                // Commit: tag, flags, LSN, end; stream commit has a transaction number before its flags.
                let end = match message.first() {
                    Some(b'C') => &message[10..18],
                    Some(b'c') => &message[14..22],
                    _ => return Ok(false),
                };
                Ok(u64::from_be_bytes(end.try_into().map_err(told)?) > before)
            }
            (b'd', Some(b'k')) if body.last() == Some(&1) => {
                // Received, flushed and applied nothing: the slot stays where it is.
                let mut status = vec![b'r'];
                status.extend([0; 24]);
                status.extend(NO_CLOCK.to_be_bytes());
                status.push(0);
                self.send(b"d", &status)?;
                Ok(false)
            }
            (b'd', _) => Ok(false),
            (b'E', _) => Err(String::from_utf8_lossy(body).into_owned()),
            _ => Err(format!("an unexpected message {:?}", char::from(tag))),
        }
    }

    fn send(&mut self, tag: &[u8], body: &[u8]) -> Result<(), String> {
        let length = u32::try_from(body.len() + 4).map_err(told)?.to_be_bytes();
        self.socket.write_all(&[tag, &length, body].concat()).map_err(told)
    }

    fn read(&mut self) -> Result<(), String> {
        let held = self.buffer.len();
        self.buffer.resize(held + GULP, 0);
        let count = self.socket.read(&mut self.buffer[held..]).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => format!("the source was silent for {SILENCE:?}"),
            _ => told(error),
        })?;
        self.buffer.truncate(held + count);
        if count == 0 { Err("the source has closed the connection".to_owned()) } else { Ok(()) }
    }

    /// Looks at all whole frames that are there, until one is found.
    fn take_frames(
        &mut self,
        mut found: impl FnMut(&mut Self, u8, &[u8]) -> Result<bool, String>,
    ) -> Result<bool, String> {
        let buffer = std::mem::take(&mut self.buffer);
        let (mut rest, mut is_found) = (&buffer[..], false);
        while !is_found && rest.len() >= 5 {
            let length = u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize + 1;
            let Some(frame) = rest.get(..length) else { break };
            is_found = found(self, frame[0], &frame[5..])?;
            rest = &rest[length..];
        }
        let done = buffer.len() - rest.len();
        self.buffer = buffer;
        self.buffer.drain(..done);
        Ok(is_found)
    }

    fn read_until(&mut self, wanted: u8) -> Result<(), String> {
        let take = |stream: &mut Self, tag: u8, body: &[u8]| {
            match tag {
                b'E' => return Err(String::from_utf8_lossy(body).into_owned()),
                // BackendKeyData begins with the process's number.
                b'K' => {
                    let pid = body[..4].try_into().map_err(told)?;
                    stream.walsender = u32::from_be_bytes(pid);
                }
                _ => {}
            }
            Ok(tag == wanted)
        };
        while !self.take_frames(take)? {
            self.read()?;
        }
        Ok(())
    }
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Does something on a thread of its own. Nobody waits for that thread when the benchmark is given up.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> T {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || drop(sender.send(work())));
    let result = tokio::time::timeout(PATIENCE, receiver).await;
    let result = result.unwrap_or_else(|_| panic!("drain: not at the end within {PATIENCE:?}"));
    result.expect("the thread answers").unwrap_or_else(|error| panic!("drain: {error}"))
}
