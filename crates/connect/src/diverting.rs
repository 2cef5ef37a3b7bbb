//! The rows of a COPY come in a message each (manual, *Message Flow*, *COPY Operations*), and tokio-postgres holds a message
//! until all of it is there. Rows that somebody has asked for are therefore taken off the stream before it sees them, as
//! bytes, however many messages they are or however long one is. All other messages pass as they are; so do rows that
//! nobody asked for. What may not enter: what a row is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The type of a CopyData message.
const COPY_DATA: u8 = b'd';
/// The type of a CopyOutResponse: rows begin.
const COPY_OUT_RESPONSE: u8 = b'H';
/// NoticeResponse, NotificationResponse, ParameterStatus: they may come at any time, between rows too.
const AT_ANY_TIME: [u8; 3] = [b'N', b'A', b'S'];
/// A message's type and its length, which counts itself but not the type.
const HEADER_BYTES: usize = 5;
/// What is read at once as long as no rows come.
const SMALL_BYTES: usize = 8 * 1024;
/// What is read at once when rows come.
const LARGE_BYTES: usize = 64 * 1024;
/// As many bytes of rows wait at most until somebody takes them; then nothing is read any more.
pub(crate) const PIECE_BYTES: usize = 128 * 1024;
/// As many are enough to call whoever takes them.
const ENOUGH_BYTES: usize = 64 * 1024;

/// How far a COPY has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Nobody wants rows.
    #[default]
    Nobody,
    /// Those of the COPY that begins next are wanted.
    Asked,
    /// It has begun.
    Rows,
    /// It has ended, or the stream has. What tokio-postgres gets next says which.
    Over,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Rows that wait.
    rows: Vec<u8>,
    /// Who waits for rows.
    taker: Option<Waker>,
    /// Who waits until they are taken.
    reader: Option<Waker>,
}

impl State {
    fn call_taker(&mut self) {
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }

    fn over(&mut self) {
        if matches!(self.phase, Phase::Asked | Phase::Rows) {
            self.phase = Phase::Over;
            self.call_taker();
        }
    }
}

/// What the stream and whoever takes its rows share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diversion(Arc<Mutex<State>>);

impl Diversion {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the rows of the COPY whose answer comes next. No other may be asked for, nor under way.
    pub(crate) fn ask(&self) -> Diverted {
        let mut state = self.lock();
        state.phase = Phase::Asked;
        state.rows.clear();
        Diverted(self.clone())
    }

    /// How many bytes of rows nobody has taken yet.
    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.lock().rows.len()
    }
}

/// The rows of one COPY. When it is dropped, what is left of them passes like any other message.
#[derive(Debug)]
pub(crate) struct Diverted(Diversion);

impl Diverted {
    /// Exchanges what is in `piece` for rows. `false`: there are no more, and the stream says why.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, piece: &mut Vec<u8>) -> Poll<bool> {
        let mut state = self.0.lock();
        let over = state.phase == Phase::Over;
        if state.rows.len() < ENOUGH_BYTES && !over {
            state.taker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        piece.clear();
        std::mem::swap(&mut state.rows, piece);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        Poll::Ready(!piece.is_empty())
    }
}

impl Drop for Diverted {
    fn drop(&mut self) {
        if let Some(reader) = std::mem::take(&mut *self.0.lock()).reader {
            reader.wake();
        }
    }
}

/// A stream on which a server speaks, from its first message on.
#[derive(Debug)]
pub(crate) struct Diverting<S> {
    stream: S,
    buffer: Vec<u8>,
    /// What was read and not handed out yet: from here …
    start: usize,
    /// … to here.
    end: usize,
    /// So many bytes of the message that comes next are handed out as they are.
    passing: usize,
    /// So many bytes of a message with rows are still to come, and its header is not handed out.
    row_bytes: usize,
    /// Rows are taken off.
    diverts: bool,
    /// Nothing comes any more.
    ended: bool,
    diversion: Diversion,
}

impl<S> Diverting<S> {
    pub(crate) fn new(stream: S, diversion: Diversion) -> Self {
        Self {
            stream,
            buffer: vec![0; SMALL_BYTES],
            start: 0,
            end: 0,
            passing: 0,
            row_bytes: 0,
            diverts: false,
            ended: false,
            diversion,
        }
    }

    /// Hands out what can be. Pending: rows have to be taken first.
    fn hand_out(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<()> {
        while self.start < self.end {
            if self.passing > 0 {
                if out.remaining() == 0 {
                    break;
                }
                let count = self.passing.min(self.end - self.start).min(out.remaining());
                out.put_slice(&self.buffer[self.start..self.start + count]);
                self.start += count;
                self.passing -= count;
                continue;
            }
            let Some((kind, length)) = self.next_message() else { break };
            if self.diverts && kind == COPY_DATA {
                ready!(self.divert(cx));
                continue;
            }
            self.follow(kind);
            self.passing = length;
        }
        Poll::Ready(())
    }

    /// The type of the message that comes next, or of whose rows more come, and the length of the former with its
    /// header, if that has arrived. What is no message passes as it is: it is for the reader to say so.
    fn next_message(&self) -> Option<(u8, usize)> {
        if self.row_bytes > 0 {
            return Some((COPY_DATA, 0));
        }
        let header = self.buffer[self.start..self.end].first_chunk::<HEADER_BYTES>()?;
        let [kind, length @ ..] = *header;
        match usize::try_from(u32::from_be_bytes(length)) {
            Ok(length) if length >= HEADER_BYTES - 1 => Some((kind, length.saturating_add(1))),
            _ => Some((0, usize::MAX)),
        }
    }

    /// A message that is no row, or not one to take off: does a COPY begin or end with it?
    fn follow(&mut self, kind: u8) {
        if self.diverts {
            if !AT_ANY_TIME.contains(&kind) {
                self.diverts = false;
                self.diversion.lock().over();
            }
        } else if kind == COPY_OUT_RESPONSE {
            let mut state = self.diversion.lock();
            if state.phase == Phase::Asked {
                state.phase = Phase::Rows;
                self.diverts = true;
                if self.buffer.len() < LARGE_BYTES {
                    self.buffer.resize(LARGE_BYTES, 0);
                }
            }
        }
    }

    /// Takes off what is there of messages with rows. Pending: as much waits as may.
    fn divert(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.diversion.lock();
        if state.phase != Phase::Rows {
            // Nobody wants them any more. Of a message that has lost its header nothing can be handed out.
            drop(state);
            let lost = self.row_bytes.min(self.end - self.start);
            self.start += lost;
            self.row_bytes -= lost;
            self.diverts = self.row_bytes > 0;
            return Poll::Ready(());
        }
        let rows = &mut state.rows;
        let full = loop {
            if self.row_bytes == 0 {
                match self.buffer[self.start..self.end].first_chunk::<HEADER_BYTES>() {
                    Some([COPY_DATA, length @ ..]) => {
                        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                        // Whatever is shorter is no message.
                        let Some(length) = length.checked_sub(HEADER_BYTES - 1) else { break false };
                        self.row_bytes = length;
                        self.start += HEADER_BYTES;
                    }
                    _ => break false,
                }
            }
            let there = self.row_bytes.min(self.end - self.start);
            let count = there.min(PIECE_BYTES.saturating_sub(rows.len()));
            rows.extend_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            self.row_bytes -= count;
            if count < there {
                break true;
            }
            if self.start == self.end {
                break false;
            }
        };
        if full || state.rows.len() >= ENOUGH_BYTES {
            state.call_taker();
        }
        match full {
            true => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            false => Poll::Ready(()),
        }
    }
}

impl<S: AsyncRead + Unpin> Diverting<S> {
    /// Reads what comes, behind what is there. There is room: what is there is less than a header.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let mut read = ReadBuf::new(&mut self.buffer[self.end..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        let count = read.filled().len();
        self.end += count;
        if count == 0 {
            self.ended = true;
            self.passing = usize::MAX;
            self.diversion.lock().over();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for Diverting<S> {
    fn drop(&mut self) {
        self.diversion.lock().over();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Diverting<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        loop {
            let handed_out = this.hand_out(cx, out);
            if out.filled().len() > before || out.remaining() == 0 || this.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(handed_out);
            ready!(this.fill(cx))?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Diverting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "diverting_tests.rs"]
mod tests;
