//! Rows from one COPY into another: rows pass as they are, memory is bounded, and a target that refuses a row is noticed
//! soon. What a row is, and where the bytes are cut, is decided by pure code.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use relevo_connect::{CopyOut, SqlSession};
use tokio::task::JoinHandle;
use tokio_postgres::{CopyInSink, Error};

use crate::SnapshotError;
use crate::format::Format;
use crate::packing::Packing;
use crate::session::explain;

/// What has gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Copied {
    /// Rows that the source sent.
    pub(crate) sent_rows: u64,
    /// Rows that the target says it has stored.
    pub(crate) stored_rows: u64,
    /// Bytes of these rows, as COPY writes them.
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
    /// What both statements say.
    pub(crate) format: Format,
    /// How many columns they name.
    pub(crate) columns: usize,
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
            Ok(rows) => rows,
            Err(error) => return Err(self.source_error(error).await),
        };
        let mut copied = Copied::default();
        let mut packing = Packing::new(self.format, self.columns);
        let mut more = true;
        while more {
            let sink = match self.target.copy_in::<_, Bytes>(&self.copy_in).await {
                Ok(sink) => sink,
                Err(error) => return Err(self.target_error(error).await),
            };
            let mut told = |rows, bytes| {
                copied.sent_rows += rows;
                copied.bytes += bytes;
                progress(rows, bytes);
            };
            let (stored, open) = self.segment(&mut rows, pin!(sink), &mut packing, &mut told).await?;
            copied.stored_rows += stored;
            more = open;
        }
        Ok(copied)
    }

    /// One COPY into the target: returns the rows that it stored, and whether the source may have more. What is left of a
    /// piece that the source sent is for the next.
    async fn segment(
        &self,
        rows: &mut CopyOut,
        mut sink: Pin<&mut CopyInSink<Bytes>>,
        packing: &mut Packing,
        told: &mut impl FnMut(u64, u64),
    ) -> Result<(u64, bool), SnapshotError> {
        packing.begin();
        let (mut more, mut open) = (true, true);
        while open {
            // However long a row is, it is never held whole.
            let problem = match rows.next().await {
                Ok(Some(piece)) => packing.push(piece).map(|taken| rows.consume(taken)),
                Ok(None) => {
                    more = false;
                    packing.finish()
                }
                // Dropping the sink fails the COPY on the target.
                Err(error) => return Err(self.source_error(error).await),
            };
            problem.map_err(|problem| SnapshotError::Malformed { table: self.table.clone(), problem })?;
            open = more && !packing.is_enough();
            if open && !packing.has_chunk() {
                continue;
            }
            let chunk = if open { packing.take() } else { packing.end() };
            told(chunk.rows, chunk.row_bytes);
            if !chunk.bytes.is_empty()
                && let Err(error) = sink.feed(chunk.bytes).await
            {
                return Err(self.target_error(error).await);
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
