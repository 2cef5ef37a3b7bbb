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

    /// A body whose bytes tell where it belongs.
    fn body(at: usize, length: usize) -> Vec<u8> {
        (0..length).map(|n| (n / 251 + n + at) as u8).collect()
    }

    fn portions(bytes: &[u8], portions: &[usize]) -> Portions {
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
        Portions(given, false)
    }

    /// What came through, and what was taken off.
    #[derive(Default)]
    struct Read {
        passed: Vec<u8>,
        rows: Vec<u8>,
        longest_piece_bytes: usize,
    }

    /// Reads to the end with rooms of these sizes, over and over; rows are taken when they are asked for, until so many
    /// bytes were taken.
    fn read_all(source: Portions, rooms: &[usize], asked: bool, enough: usize) -> Read {
        let diversion = Diversion::default();
        let mut diverted = asked.then(|| diversion.ask());
        let mut stream = Diverting::new(source, diversion);
        let (mut read, mut piece) = (Read::default(), Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        for room in rooms.iter().cycle() {
            if read.rows.len() >= enough {
                diverted = None;
            }
            let mut room = vec![0; *room];
            let mut out = ReadBuf::new(&mut room);
            match Pin::new(&mut stream).poll_read(&mut cx, &mut out) {
                Poll::Pending => assert!(out.filled().is_empty(), "bytes with Pending"),
                Poll::Ready(done) => {
                    done.unwrap();
                    if out.filled().is_empty() {
                        break;
                    }
                    read.passed.extend_from_slice(out.filled());
                }
            }
            take(diverted.as_ref(), &mut cx, &mut piece, &mut read);
        }
        drop(stream);
        while take(diverted.as_ref(), &mut cx, &mut piece, &mut read) {}
        read
    }

    fn take(diverted: Option<&Diverted>, cx: &mut Context<'_>, piece: &mut Vec<u8>, read: &mut Read) -> bool {
        let more = diverted.is_some_and(|diverted| diverted.poll_take(cx, piece) == Poll::Ready(true));
        if more {
            read.rows.extend_from_slice(piece);
            read.longest_piece_bytes = read.longest_piece_bytes.max(piece.len());
        }
        more
    }

    /// Answers before a COPY, the COPY, and what ends it and comes behind.
    #[derive(Debug, Clone)]
    struct Story {
        before: Vec<(u8, usize)>,
        /// Rows, with what may come between them.
        rows: Vec<(u8, usize)>,
        end: u8,
        behind: Vec<(u8, usize)>,
    }

    impl Story {
        /// The bytes of the stream, those that are to pass when the rows are taken off, and the rows.
        fn bytes(&self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
            let (mut all, mut passed, mut rows) = (Vec::new(), Vec::new(), Vec::new());
            let begin = [(COPY_OUT_RESPONSE, 7)];
            let end = [(self.end, 4)];
            let parts = [(&self.before[..], false), (&begin, false), (&self.rows, true), (&end, false)];
            for (messages, taken) in parts.into_iter().chain([(&self.behind[..], false)]) {
                for (kind, length) in messages {
                    let body = body(all.len(), *length);
                    let message = frame(*kind, &body);
                    all.extend_from_slice(&message);
                    match taken && *kind == COPY_DATA {
                        true => rows.extend_from_slice(&body),
                        false => passed.extend_from_slice(&message),
                    }
                }
            }
            (all, passed, rows)
        }
    }

    fn messages(kinds: Vec<u8>) -> impl Strategy<Value = Vec<(u8, usize)>> {
        let length = prop_oneof![8 => 0_usize..200, 2 => 0_usize..20_000, 1 => 60_000_usize..300_000];
        prop::collection::vec((prop::sample::select(kinds), length), 0..30)
    }

    fn story() -> impl Strategy<Value = Story> {
        let row_kinds = vec![COPY_DATA, COPY_DATA, COPY_DATA, COPY_DATA, b'N', b'S', b'A'];
        // Rows before and behind a COPY that was asked for are somebody else's.
        let other_kinds = vec![b'D', b'C', b'Z', b'N', b'1', COPY_DATA];
        let behind = messages([other_kinds.clone(), vec![COPY_OUT_RESPONSE]].concat());
        (messages(other_kinds), messages(row_kinds), prop::sample::select(vec![b'c', b'E']), behind)
            .prop_map(|(before, rows, end, behind)| Story { before, rows, end, behind })
    }

    fn cuts() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(prop_oneof![1_usize..20, 1_usize..100_000], 1..8)
    }

    proptest! {
        #[test]
        fn rows_are_taken_off_and_every_other_byte_comes_through(
            story in story(), cuts in cuts(), rooms in cuts(),
        ) {
            let (all, passed, rows) = story.bytes();
            let read = read_all(portions(&all, &cuts), &rooms, true, usize::MAX);
            prop_assert!(read.passed == passed, "other bytes passed");
            prop_assert!(read.rows == rows, "other bytes were taken off");
            prop_assert!(read.longest_piece_bytes <= PIECE_BYTES);
        }

        #[test]
        fn what_nobody_asked_for_passes_as_it_is(story in story(), cuts in cuts(), rooms in cuts()) {
            let (all, ..) = story.bytes();
            let read = read_all(portions(&all, &cuts), &rooms, false, usize::MAX);
            prop_assert!(read.passed == all && read.rows.is_empty());
        }

        #[test]
        fn rows_that_nobody_takes_any_more_leave_only_whole_messages(
            story in story(), cuts in cuts(), rooms in cuts(), enough in 0_usize..400_000,
        ) {
            let (all, passed, rows) = story.bytes();
            let read = read_all(portions(&all, &cuts), &rooms, true, enough);
            prop_assert!(rows.starts_with(&read.rows));
            // What passed is what would have passed, and perhaps rows.
            let (mut left, mut wanted) = (&read.passed[..], &passed[..]);
            while let Some((header, rest)) = left.split_first_chunk::<HEADER_BYTES>() {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize - 4;
                let message = &left[..HEADER_BYTES + length];
                match wanted.strip_prefix(message) {
                    Some(rest) => wanted = rest,
                    None => prop_assert_eq!(header[0], COPY_DATA),
                }
                left = &rest[length..];
            }
            prop_assert!(left.is_empty() && wanted.is_empty());
        }

        #[test]
        fn what_is_no_message_passes_as_it_is(
            bytes in prop::collection::vec(0_u8..4, 0..400), room in 1_usize..50, asked: bool,
        ) {
            let read = read_all(portions(&bytes, &[7]), &[room], asked, usize::MAX);
            prop_assert_eq!(read.passed, bytes);
        }
    }

    #[test]
    fn a_stream_that_ends_in_a_row_gives_what_it_has() {
        let begin = frame(COPY_OUT_RESPONSE, b"\0\0\0");
        let bytes = [&begin[..], &frame(COPY_DATA, b"1\n"), &frame(COPY_DATA, b"23456\n")[..8]].concat();
        for portion in 1..bytes.len() {
            let read = read_all(portions(&bytes, &[portion]), &[100], true, usize::MAX);
            assert_eq!((&read.passed[..], &read.rows[..]), (&begin[..], &b"1\n234"[..]));
        }
    }

    #[test]
    fn nothing_is_read_while_nobody_takes_rows() {
        let rows = [frame(COPY_OUT_RESPONSE, b""), frame(COPY_DATA, &vec![b'x'; 10 << 20])].concat();
        let diversion = Diversion::default();
        let diverted = diversion.ask();
        let mut stream = Diverting::new(&rows[..], diversion.clone());
        let mut cx = Context::from_waker(Waker::noop());
        let (mut room, mut piece, mut taken) = ([0; 64], Vec::new(), 0);
        let mut poll = |cx: &mut Context<'_>| {
            Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut room)).is_ready()
        };
        assert!(poll(&mut cx), "the header passes");
        while taken < 10 << 20 {
            for _ in 0..3 {
                let ended = poll(&mut cx);
                assert!(!ended || taken + PIECE_BYTES >= 10 << 20);
                assert!(diversion.waiting_bytes() <= PIECE_BYTES);
            }
            assert_eq!(diverted.poll_take(&mut cx, &mut piece), Poll::Ready(true));
            taken += piece.len();
        }
        assert_eq!(taken, 10 << 20);
    }
}
