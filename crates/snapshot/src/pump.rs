//! Rows from one COPY into another: bytes pass as they are, memory is bounded, and a target that refuses a row is
//! noticed soon.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use relevo_connect::SqlSession;
use tokio::task::JoinHandle;
use tokio_postgres::{CopyInSink, CopyOutStream, Error};

use crate::SnapshotError;
use crate::session::explain;

/// How many bytes are sent to the target at once. A single row that is longer goes alone.
const CHUNK_BYTES: usize = 128 * 1024;

/// How many bytes one COPY into the target takes. The server's verdict is only seen at a COPY's end, so a large
/// table goes in several, within the same transaction: a row that the target refuses in the first gigabyte is not
/// found out after the last.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// What has gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Copied {
    /// Rows that the source sent.
    pub(crate) sent_rows: u64,
    /// Rows that the target says it has stored.
    pub(crate) stored_rows: u64,
    /// Bytes of COPY text.
    pub(crate) bytes: u64,
}

/// How often is told how much was sent.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Rows and bytes sent so far.
#[derive(Default)]
struct Sent(AtomicU64, AtomicU64);

impl Sent {
    fn add(&self, rows: u64, bytes: u64) {
        self.0.fetch_add(rows, Ordering::Relaxed);
        self.1.fetch_add(bytes, Ordering::Relaxed);
    }

    fn so_far(&self) -> (u64, u64) {
        (self.0.load(Ordering::Relaxed), self.1.load(Ordering::Relaxed))
    }
}

/// A task that ends with whoever waits for it.
struct Owned<T>(JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The two statements of a table's copy, and its name for errors.
pub(crate) struct Pump {
    pub(crate) source: Arc<SqlSession>,
    pub(crate) target: Arc<SqlSession>,
    pub(crate) copy_out: String,
    pub(crate) copy_in: String,
    pub(crate) table: String,
}

impl Pump {
    /// Copies until the source has no more rows, in a task of its own: then several use several cores, and what wakes it
    /// (the tasks of both connections) runs on the same core most of the time. `progress` gets the rows and bytes since
    /// it was last told.
    ///
    /// The caller holds a transaction open on the target. On an error, or when the future is dropped, the COPY on
    /// the target has not ended in order, so its transaction cannot be committed.
    pub(crate) async fn run(self, progress: impl Fn(u64, u64)) -> Result<Copied, SnapshotError> {
        let sent = Arc::new(Sent::default());
        let counted = Arc::clone(&sent);
        let work = async move { self.copy(|rows, bytes| counted.add(rows, bytes)).await };
        let mut task = Owned(tokio::spawn(work));
        let mut told = (0, 0);
        let mut tell = || {
            let now = sent.so_far();
            if now != told {
                progress(now.0 - told.0, now.1 - told.1);
                told = now;
            }
        };
        loop {
            match tokio::time::timeout(PROGRESS_INTERVAL, &mut task.0).await {
                Err(_) => tell(),
                Ok(ended) => {
                    tell();
                    return ended.unwrap_or_else(|error| match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // The runtime is being shut down.
                        Err(_) => Err(SnapshotError::Stopped),
                    });
                }
            }
        }
    }

    async fn copy(&self, progress: impl Fn(u64, u64)) -> Result<Copied, SnapshotError> {
        let mut rows = match self.source.copy_out(&self.copy_out).await {
            Ok(rows) => pin!(rows),
            Err(error) => return Err(self.source_error(error).await),
        };
        let mut copied = Copied::default();
        let mut more = true;
        while more {
            let sink = match self.target.copy_in::<_, Bytes>(&self.copy_in).await {
                Ok(sink) => sink,
                Err(error) => return Err(self.target_error(error).await),
            };
            let (stored, open) = self.segment(rows.as_mut(), pin!(sink), &mut copied, &progress).await?;
            copied.stored_rows += stored;
            more = open;
        }
        Ok(copied)
    }

    /// One COPY into the target: returns the rows that it stored, and whether the source may have more.
    async fn segment(
        &self,
        mut rows: Pin<&mut CopyOutStream>,
        mut sink: Pin<&mut CopyInSink<Bytes>>,
        copied: &mut Copied,
        progress: &impl Fn(u64, u64),
    ) -> Result<(u64, bool), SnapshotError> {
        let end_bytes = copied.bytes + SEGMENT_BYTES;
        let mut chunk = Chunk::default();
        let mut more = true;
        while more && !(copied.bytes >= end_bytes && chunk.is_empty_between_rows()) {
            match rows.next().await {
                None => more = false,
                Some(Ok(piece)) => chunk.push(&piece),
                // Dropping the sink fails the COPY on the target.
                Some(Err(error)) => return Err(self.source_error(error).await),
            }
            let full = chunk.buffer.len() >= CHUNK_BYTES;
            if full || (!more && !chunk.buffer.is_empty()) {
                let bytes = chunk.take(copied, progress);
                if let Err(error) = sink.feed(bytes).await {
                    return Err(self.target_error(error).await);
                }
            }
        }
        match sink.finish().await {
            Ok(stored) => Ok((stored, more)),
            Err(error) => Err(self.target_error(error).await),
        }
    }

    async fn source_error(&self, error: Error) -> SnapshotError {
        explain(&self.source, format!("reading the rows of {}", self.table), error).await
    }

    async fn target_error(&self, error: Error) -> SnapshotError {
        explain(&self.target, format!("writing the rows of {}", self.table), error).await
    }
}

/// Rows that wait to be sent together: the source sends each in a message of its own.
struct Chunk {
    buffer: BytesMut,
    /// The last byte ends a row.
    between_rows: bool,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { buffer: room(), between_rows: false }
    }
}

/// An empty buffer that holds a chunk, and the row that fills it, without growing.
fn room() -> BytesMut {
    BytesMut::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8)
}

/// How many rows end in these bytes. In COPY's text format a line feed only stands at the end of a row; within values
/// it is written as `\n` (manual, *COPY*, *Text Format*). In stretches that a byte can count, which the compiler turns
/// into a few instructions each.
fn rows(bytes: &[u8]) -> u64 {
    let stretch = |stretch: &[u8]| stretch.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
    bytes.chunks(usize::from(u8::MAX)).map(|bytes| u64::from(stretch(bytes))).sum()
}

impl Chunk {
    fn push(&mut self, piece: &[u8]) {
        self.between_rows = piece.last().map_or(self.between_rows, |byte| *byte == b'\n');
        self.buffer.extend_from_slice(piece);
    }

    fn is_empty_between_rows(&self) -> bool {
        self.buffer.is_empty() && self.between_rows
    }

    fn take(&mut self, copied: &mut Copied, progress: &impl Fn(u64, u64)) -> Bytes {
        let bytes = std::mem::replace(&mut self.buffer, room()).freeze();
        let (rows, length) = (rows(&bytes), bytes.len() as u64);
        copied.sent_rows += rows;
        copied.bytes += length;
        progress(rows, length);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_however_the_bytes_are_cut() {
        let text = b"1\ta\\nb\n2\t\\N\n\n";
        for cut in 0..text.len() {
            let (mut chunk, mut copied) = (Chunk::default(), Copied::default());
            chunk.push(&text[..cut]);
            chunk.push(&text[cut..]);
            assert!(chunk.between_rows);
            assert_eq!(&chunk.take(&mut copied, &|_, _| {})[..], text);
            assert_eq!((copied.sent_rows, copied.bytes), (3, text.len() as u64));
            assert!(chunk.buffer.is_empty());
        }
    }

    #[test]
    fn rows_are_counted_over_any_length() {
        for length in [0, 1, 254, 255, 256, 100_000] {
            assert_eq!(rows(&vec![b'\n'; length]), length as u64);
            assert_eq!(rows(&vec![b'x'; length]), 0);
        }
    }
}
