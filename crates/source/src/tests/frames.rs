//! Frames arrive whole however the bytes are cut and however often a wait is given up.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use postgres_protocol::message::backend::Message;
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::server::message;
use crate::SourceError;
use crate::frame::{Frame, Framed};

fn name(frame: &Frame) -> (char, Bytes) {
    match frame {
        Frame::CopyBoth => ('W', Bytes::new()),
        Frame::CopyData(content) => ('d', content.clone()),
        Frame::Message(Message::CopyDone) => ('c', Bytes::new()),
        Frame::Message(Message::CommandComplete(body)) => ('C', Bytes::from(body.tag().unwrap().to_owned())),
        Frame::Message(_) => ('?', Bytes::new()),
    }
}

/// Polls once and gives the wait up, as `select!` does with the arms that lose.
fn poll_once(framed: &mut Framed<DuplexStream>) -> Option<(char, Bytes)> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(framed.next()).poll(&mut context) {
        Poll::Ready(frame) => frame.unwrap().as_ref().map(name),
        Poll::Pending => None,
    }
}

fn sample() -> (Vec<u8>, Vec<(char, Bytes)>) {
    let bytes = [
        message(b'W', &[0, 0, 0]),
        message(b'd', b"content"),
        message(b'd', b""),
        message(b'C', b"COPY 0\0"),
        message(b'c', b""),
    ];
    let text = Bytes::from_static;
    let frames = vec![
        ('W', text(b"")),
        ('d', text(b"content")),
        ('d', text(b"")),
        ('C', text(b"COPY 0")),
        ('c', text(b"")),
    ];
    (bytes.concat(), frames)
}

#[tokio::test]
async fn a_frame_may_be_cut_at_every_byte() {
    let (bytes, expected) = sample();
    for cut in 0..=bytes.len() {
        let (mut server, client) = tokio::io::duplex(1 << 12);
        let mut framed = Framed::new(client);
        let mut found = Vec::new();
        for piece in [&bytes[..cut], &bytes[cut..]] {
            server.write_all(piece).await.unwrap();
            while let Some(frame) = poll_once(&mut framed) {
                found.push(frame);
            }
        }
        assert_eq!(found, expected, "cut at {cut}");
    }
}

#[tokio::test]
async fn the_end_of_the_stream_is_orderly_only_between_frames() {
    let (bytes, expected) = sample();
    for cut in [bytes.len(), bytes.len() - 1] {
        let (mut server, client) = tokio::io::duplex(1 << 12);
        server.write_all(&bytes[..cut]).await.unwrap();
        drop(server);
        let mut framed = Framed::new(client);
        for _ in 0..expected.len() - usize::from(cut < bytes.len()) {
            framed.next().await.unwrap().unwrap();
        }
        match framed.next().await {
            Ok(None) => assert_eq!(cut, bytes.len()),
            Err(SourceError::Io { .. }) => assert_ne!(cut, bytes.len()),
            _ => panic!("cut at {cut}"),
        }
    }
}

#[tokio::test]
async fn impossible_lengths_and_unknown_tags_are_errors() {
    let cases: [(&[u8], &str); 4] = [
        (b"d\xff\xff\xff\xff", "limit"),
        (b"d\0\0\0\x03", "limit"),
        (b"?\0\0\0\x04", "cannot be read"),
        (b"HTTP/1.1 400 Bad Request\r\n", "limit"),
    ];
    for (bytes, expected) in cases {
        let (mut server, client) = tokio::io::duplex(1 << 12);
        server.write_all(bytes).await.unwrap();
        let error = Framed::new(client).next().await.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

proptest! {
    #[test]
    fn giving_up_a_wait_at_any_time_loses_nothing(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        pieces in prop::collection::vec((1_usize..400, 0_usize..3), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // Without tokio's budget, which would make a stream that has more to give look empty after so many reads.
        runtime.block_on(tokio::task::coop::unconstrained(async {
            let bytes: Vec<u8> = contents.iter().flat_map(|content| message(b'd', content)).collect();
            let (mut server, client) = tokio::io::duplex(1 << 16);
            let (mut framed, mut found) = (Framed::new(client), Vec::new());
            let mut rest = &bytes[..];
            for (length, polls) in pieces.iter().cycle() {
                let (piece, later) = rest.split_at((*length).min(rest.len()));
                server.write_all(piece).await.unwrap();
                rest = later;
                for _ in 0..*polls {
                    found.extend(poll_once(&mut framed));
                }
                if rest.is_empty() {
                    break;
                }
            }
            while let Some(frame) = poll_once(&mut framed) {
                found.push(frame);
            }
            let found: Vec<_> = found.into_iter().map(|(_, content)| content.to_vec()).collect();
            assert_eq!(found, contents);
        }));
    }
}
