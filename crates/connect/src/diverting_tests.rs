//! Tests of taking rows off a stream: any messages, cut anywhere, taken whenever.

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
    prop::collection::vec((prop::sample::select(kinds), length), 0..10)
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
    let mut poll =
        |cx: &mut Context<'_>| Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut room)).is_ready();
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
