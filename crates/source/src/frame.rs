//! Frames of the PostgreSQL protocol over any byte stream, in both directions.
//!
//! Everything here is cancel-safe: a frame that is half read and bytes that are half written live in [`Framed`],
//! never in a future, so dropping a future at any point loses nothing. What may not enter: what a frame means.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::backend::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::SourceError;

/// How much room a read offers. A read that fills it says that more is waiting.
const READ_BYTES: usize = 128 * 1024;
/// Tag and length.
const HEADER_BYTES: usize = 5;
/// The longest frame that is accepted, length word included. The server builds a message in one allocation of at
/// most 1 GiB (`MaxAllocSize` in `utils/memutils.h`), so a longer one is not a PostgreSQL message.
pub(crate) const MAX_FRAME_BYTES: usize = (1 << 30) + 64;

const COPY_DATA: u8 = b'd';
const COPY_BOTH: u8 = b'W';

/// One message of the server.
pub(crate) enum Frame {
    /// `W`: the stream begins. `postgres_protocol` does not know it.
    CopyBoth,
    /// `d`: the content of a CopyData message.
    CopyData(Bytes),
    /// Any other message.
    Message(Message),
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// How many bytes came.
    pub bytes: usize,
    /// The read filled the room that it was given: more is probably waiting.
    pub filled: bool,
}

/// A byte stream that is read and written in frames.
pub(crate) struct Framed<S> {
    stream: S,
    input: BytesMut,
    output: BytesMut,
    /// What broke the stream while it still had bytes to hand out.
    broken: Option<std::io::Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Framed<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), output: BytesMut::new(), broken: None }
    }

    /// Where the next messages to the server are written. They go out with [`Framed::send`] or [`Framed::drive`].
    pub(crate) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Takes the next whole frame out of what has been read, without reading.
    pub(crate) fn take(&mut self) -> Result<Option<Frame>, SourceError> {
        let Some((tag, length)) = self.header() else { return Ok(None) };
        if !(4..=MAX_FRAME_BYTES).contains(&length) {
            return Err(SourceError::FrameLength { tag: char::from(tag), length_bytes: length });
        }
        let total = 1 + length;
        if self.input.len() < total {
            return Ok(None);
        }
        let mut frame = self.input.split_to(total);
        match tag {
            COPY_DATA => {
                frame.advance(HEADER_BYTES);
                Ok(Some(Frame::CopyData(frame.freeze())))
            }
            COPY_BOTH => Ok(Some(Frame::CopyBoth)),
            _ => match Message::parse(&mut frame) {
                Ok(Some(message)) => Ok(Some(Frame::Message(message))),
                Ok(None) => {
                    Err(SourceError::protocol(format!("frame {:?} is shorter than it says", tag as char)))
                }
                Err(source) => Err(SourceError::BadFrame { tag: char::from(tag), source }),
            },
        }
    }

    /// Tag and length of the next frame, once they are there.
    fn header(&self) -> Option<(u8, usize)> {
        let (tag, rest) = self.input.split_first()?;
        let length = u32::from_be_bytes(*rest.first_chunk::<4>()?);
        Some((*tag, usize::try_from(length).unwrap_or(usize::MAX)))
    }

    /// The next frame, reading and writing as needed. `None`: the server closed the stream between two frames.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, SourceError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.drive(true).await?.bytes == 0 {
                return match self.input.len() {
                    0 => Ok(None),
                    _ => Err(SourceError::Io {
                        doing: "reading from the source",
                        source: std::io::ErrorKind::UnexpectedEof.into(),
                    }),
                };
            }
        }
    }

    /// Writes what is in the output, and with `read` also reads what is there; resolves when that is something
    /// (0 bytes: end of stream). Without `read` it only ever resolves with an error.
    ///
    /// Both directions go on together: a server that waits for us to read may not keep us from writing, nor the
    /// other way about.
    pub(crate) async fn drive(&mut self, read: bool) -> Result<Received, SourceError> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_write_out(cx) {
                return Poll::Ready(Err(error));
            }
            if read { self.poll_read_in(cx) } else { Poll::Pending }
        })
        .await
    }

    /// Writes out everything that is in the output.
    pub(crate) async fn send(&mut self) -> Result<(), SourceError> {
        poll_fn(|cx| self.poll_write_out(cx)).await
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SourceError>> {
        let failed = |source| SourceError::Io { doing: "writing to the source", source };
        while !self.output.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output)).map_err(failed)?;
            if written == 0 {
                return Poll::Ready(Err(failed(std::io::ErrorKind::WriteZero.into())));
            }
            self.output.advance(written);
        }
        Pin::new(&mut self.stream).poll_flush(cx).map_err(failed)
    }

    /// Reads all that is there, up to the room. A TLS stream hands out one record a read, and the walsender makes each
    /// message a record of its own, so one read alone would say little about how much is waiting.
    fn poll_read_in(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, SourceError>> {
        let failed = |source| Err(SourceError::Io { doing: "reading from the source", source });
        if let Some(source) = self.broken.take() {
            return Poll::Ready(failed(source));
        }
        // Frames that were handed out keep their share of an old buffer alive; a new one is begun when little room
        // is left, so that reads stay large.
        if self.input.capacity() - self.input.len() < READ_BYTES / 4 {
            self.input.reserve(READ_BYTES);
        }
        let mut received = Received { bytes: 0, filled: false };
        loop {
            let read = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(received)),
                Poll::Ready(Ok(bytes)) => received.bytes += bytes,
                Poll::Ready(Err(source)) if received.bytes == 0 => return Poll::Ready(failed(source)),
                // What came before the error counts first.
                Poll::Ready(Err(source)) => {
                    self.broken = Some(source);
                    return Poll::Ready(Ok(received));
                }
                Poll::Pending if received.bytes == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(received)),
            }
            if self.input.len() == self.input.capacity() {
                received.filled = true;
                return Poll::Ready(Ok(received));
            }
        }
    }
}
