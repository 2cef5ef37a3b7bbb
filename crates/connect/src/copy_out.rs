//! Reading the rows of a COPY as they arrive: in pieces that end anywhere, none of them larger than a bound, however long a
//! row is. What may not enter: what the bytes mean.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_postgres::{Client, CopyOutStream, Error};

use crate::diverting::{Diversion, Diverted};

/// Where the rows of a session's COPYs are taken off its stream, of one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowsAside {
    diversion: Diversion,
    turn: Arc<Mutex<()>>,
}

impl RowsAside {
    /// What the stream gets.
    pub(crate) fn diversion(&self) -> Diversion {
        self.diversion.clone()
    }

    /// Begins a COPY of the session that `client` is.
    pub(crate) async fn copy_out(&self, client: &Client, statement: &str) -> Result<CopyOut, Error> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        // The answers come in the order of the questions. So when this one is there, no row of a COPY that was left in its
        // middle is still to come.
        let statement = client.prepare(statement).await?;
        let rows = self.diversion.ask();
        let end = Box::pin(client.copy_out(&statement).await?);
        Ok(CopyOut { end, rows, piece: Vec::new(), at: 0, _turn: turn })
    }
}

/// The rows of a COPY … TO STDOUT (manual, *COPY*), as they arrive. Dropping it leaves the rest unread; the session can be
/// used afterwards, once the server has sent all of it.
pub struct CopyOut {
    // In this order: nothing may be taken off the stream of a COPY that comes later.
    end: Pin<Box<CopyOutStream>>,
    rows: Diverted,
    piece: Vec<u8>,
    /// How much of the piece has been consumed.
    at: usize,
    _turn: OwnedMutexGuard<()>,
}

impl CopyOut {
    /// How long a piece is at most, in bytes. As much again may wait behind it.
    pub const PIECE_BYTES: usize = crate::diverting::PIECE_BYTES;

    /// The bytes that come next, at least one; `None`: the server has sent all rows. Those that are not
    /// [consumed](Self::consume) come again. Where a piece begins and ends says nothing about rows. A piece is not there
    /// before it is worth the while: half as long as it may be, unless it is the last.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// The server's, or the link is lost; all that came before was returned.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        if self.at >= self.piece.len() {
            self.at = 0;
            self.piece.clear();
            if !poll_fn(|cx| self.rows.poll_take(cx, &mut self.piece)).await {
                match self.end.next().await.transpose()? {
                    None => return Ok(None),
                    // Does not happen, and would be rows all the same.
                    Some(bytes) => self.piece.extend_from_slice(&bytes),
                }
            }
        }
        Ok(self.piece.get(self.at..))
    }

    /// So many bytes of what was returned last have been used.
    pub fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}
