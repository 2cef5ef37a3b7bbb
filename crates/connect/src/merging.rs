//! Rows of a COPY come in a message each (manual, *Message Flow*, *COPY Operations*). This makes one message of those
//! that have arrived together, so that whoever reads them has work for each read and not for each row. All other
//! messages, and what a row is, pass as they are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The type of a CopyData message.
const COPY_DATA: u8 = b'd';
/// A message's type and its length, which counts itself but not the type.
const HEADER_BYTES: usize = 5;
/// What is read at once as long as no rows come.
const SMALL_BYTES: usize = 8 * 1024;
/// What is read at once when rows come. A message that is longer passes in pieces.
const LARGE_BYTES: usize = 64 * 1024;

/// A stream on which a server speaks, from its first message on.
#[derive(Debug)]
pub(crate) struct Merging<S> {
    stream: S,
    buffer: Vec<u8>,
    /// What was read and not handed out yet: from here …
    start: usize,
    /// … to here.
    end: usize,
    /// So many bytes of the message that comes next are handed out as they are.
    passing: usize,
    /// Nothing comes any more.
    ended: bool,
}

impl<S> Merging<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: vec![0; SMALL_BYTES], start: 0, end: 0, passing: 0, ended: false }
    }

    /// Hands out what can be.
    fn hand_out(&mut self, out: &mut ReadBuf<'_>) {
        while out.remaining() > 0 && self.start < self.end {
            if self.passing > 0 {
                let count = self.passing.min(self.end - self.start).min(out.remaining());
                out.put_slice(&self.buffer[self.start..self.start + count]);
                self.start += count;
                self.passing -= count;
                continue;
            }
            let Some((kind, length)) = self.message(self.start) else { return };
            if kind == COPY_DATA {
                if self.merge(out) {
                    continue;
                }
                if self.end - self.start < length && length <= LARGE_BYTES {
                    // The rest comes, and perhaps more rows with it.
                    if self.buffer.len() < LARGE_BYTES {
                        self.buffer.resize(LARGE_BYTES, 0);
                    }
                    return;
                }
            }
            self.passing = length;
        }
    }

    /// The type of the message that begins here, and its length with its header, if the header has arrived. What is no
    /// message passes as it is: it is for the reader to say so.
    fn message(&self, at: usize) -> Option<(u8, usize)> {
        let header = self.buffer[at..self.end].first_chunk::<HEADER_BYTES>()?;
        let [kind, length @ ..] = *header;
        match usize::try_from(u32::from_be_bytes(length)) {
            Ok(length) if length >= HEADER_BYTES - 1 => Some((kind, length.saturating_add(1))),
            _ => Some((0, usize::MAX)),
        }
    }

    /// Hands out the rows that are there and have room, as one message. `false`: there is none.
    fn merge(&mut self, out: &mut ReadBuf<'_>) -> bool {
        let header = out.filled().len();
        let mut any = false;
        while let Some((COPY_DATA, length)) = self.message(self.start)
            && length <= self.end - self.start
        {
            let row = self.start + HEADER_BYTES..self.start + length;
            if out.remaining() < if any { row.len() } else { length } {
                break;
            }
            if !any {
                out.put_slice(&[COPY_DATA, 0, 0, 0, 0]);
                any = true;
            }
            out.put_slice(&self.buffer[row]);
            self.start += length;
        }
        if any {
            let message = &mut out.filled_mut()[header..];
            // Shorter than the room was, and that was a buffer's.
            let length = u32::try_from(message.len() - 1).unwrap_or(u32::MAX);
            message[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        }
        any
    }
}

impl<S: AsyncRead + Unpin> Merging<S> {
    /// Reads what comes, behind what is there. There is room: what fills the buffer can be handed out.
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
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Merging<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        loop {
            this.hand_out(out);
            if out.filled().len() > before || out.remaining() == 0 || this.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(this.fill(cx))?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Merging<S> {
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
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Gives its bytes in these portions, and sometimes nothing.
    struct Portions(VecDeque<Vec<u8>>, bool);

    impl AsyncRead for Portions {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.1 = !self.1;
            if self.1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(mut portion) = self.0.pop_front() {
                let rest = portion.split_off(portion.len().min(out.remaining()));
                out.put_slice(&portion);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    /// Reads to the end with rooms of these sizes, over and over.
    fn read_all(bytes: &[u8], portions: &[usize], rooms: &[usize]) -> Vec<u8> {
        let (mut left, mut given) = (bytes, VecDeque::new());
        for portion in portions.iter().cycle() {
            let (now, later) = left.split_at(left.len().min(*portion));
            given.push_back(now.to_vec());
            left = later;
            if left.is_empty() {
                break;
            }
        }
        given.retain(|portion| !portion.is_empty());
        let mut merging = Merging::new(Portions(given, false));
        let (mut read, mut cx) = (Vec::new(), Context::from_waker(std::task::Waker::noop()));
        for room in rooms.iter().cycle() {
            let mut room = vec![0; *room];
            let mut out = ReadBuf::new(&mut room);
            match Pin::new(&mut merging).poll_read(&mut cx, &mut out) {
                Poll::Pending => assert!(out.filled().is_empty(), "bytes with Pending"),
                Poll::Ready(done) => {
                    done.unwrap();
                    if out.filled().is_empty() {
                        break;
                    }
                    read.extend_from_slice(out.filled());
                }
            }
        }
        read
    }

    /// The messages, with those of rows that follow each other put together.
    fn messages(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut all: Vec<(u8, Vec<u8>)> = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
            let [kind, length @ ..] = *header;
            let (body, rest) = rest.split_at(u32::from_be_bytes(length) as usize - 4);
            match all.last_mut() {
                Some((COPY_DATA, rows)) if kind == COPY_DATA => rows.extend_from_slice(body),
                _ => all.push((kind, body.to_vec())),
            }
            bytes = rest;
        }
        assert!(bytes.is_empty(), "the end of a message is missing");
        all
    }

    fn stream() -> impl Strategy<Value = Vec<(u8, usize)>> {
        let kind = prop_oneof![4 => Just(COPY_DATA), 1 => prop::sample::select(vec![b'D', b'C', b'Z', b'N'])];
        let length = prop_oneof![8 => 0_usize..200, 2 => 0_usize..20_000, 1 => 60_000_usize..150_000];
        prop::collection::vec((kind, length), 0..60)
    }

    proptest! {
        #[test]
        fn every_byte_of_every_message_comes_through_in_its_order(
            stream in stream(),
            portions in prop::collection::vec(prop_oneof![1_usize..20, 1_usize..100_000], 1..8),
            rooms in prop::collection::vec(prop_oneof![1_usize..20, 1_usize..20_000], 1..8),
        ) {
            let body = |(at, length): (usize, usize)| -> Vec<u8> { (0..length).map(|n| (n + at) as u8).collect() };
            let bytes: Vec<u8> =
                stream.iter().enumerate().flat_map(|(at, (kind, length))| frame(*kind, &body((at, *length)))).collect();
            let read = read_all(&bytes, &portions, &rooms);
            prop_assert!(read.len() <= bytes.len());
            prop_assert_eq!(messages(&read), messages(&bytes));
        }

        #[test]
        fn what_is_no_message_passes_as_it_is(
            bytes in prop::collection::vec(0_u8..4, 0..400), room in 1_usize..50,
        ) {
            prop_assert_eq!(read_all(&bytes, &[7], &[room]), bytes);
        }
    }

    #[test]
    fn rows_that_came_together_are_one_message() {
        let rows: Vec<u8> = (0..100).flat_map(|n| frame(COPY_DATA, format!("{n}\n").as_bytes())).collect();
        let read = read_all(&[rows, frame(b'c', b"")].concat(), &[100_000], &[8192]);
        assert_eq!(read.iter().filter(|byte| **byte == COPY_DATA).count(), 1);
        assert_eq!(messages(&read).len(), 2);
    }

    #[test]
    fn a_stream_that_ends_in_a_message_gives_what_it_has() {
        let row = frame(COPY_DATA, b"1\n");
        assert_eq!(read_all(&row[..6], &[3], &[100]), &row[..6]);
    }
}
