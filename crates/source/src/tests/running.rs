//! Transactions that are streamed while they run: which positions are told meanwhile, and that the server gets its answers
//! while they are read back.

use std::time::Duration;

use bytes::Bytes;
use relevo_model::{ChangeSource, Fault, FaultClass, Side, SourceEvent, SourceLsn, Timestamp, Xid};
use relevo_pgoutput::{Message, StreamStore};

use super::server::{data, keepalive, options, transaction};
use super::stream::{START, end, feedback, lsn, streaming, streaming_with};
use crate::StartOptions;

/// A block of the transaction with some changes of about this size.
fn block(xid: u32, first_segment: bool, changes: u64, size_bytes: usize) -> Vec<u8> {
    let xid = Xid(xid);
    let content = Bytes::from(vec![b'x'; size_bytes]);
    let change = Message::Logical {
        xid: Some(xid),
        transactional: true,
        lsn: SourceLsn::new(150),
        prefix: "test".into(),
        content,
    };
    let mut block = data(150, &Message::StreamStart { xid, first_segment });
    for _ in 0..changes {
        block.extend(data(150, &change));
    }
    block.extend(data(150, &Message::StreamStop));
    block
}

fn commit(xid: u32, at: u64) -> Vec<u8> {
    let (commit_lsn, end_lsn) = (SourceLsn::new(at), SourceLsn::new(at + 1));
    data(
        at + 1,
        &Message::StreamCommit { xid: Xid(xid), commit_lsn, end_lsn, commit_time: Timestamp::default() },
    )
}

fn abort(xid: u32) -> Vec<u8> {
    data(300, &Message::StreamAbort { xid: Xid(xid), subxid: Xid(xid), at: None })
}

#[tokio::test(start_paused = true)]
async fn a_position_behind_an_open_transaction_counts_between_its_blocks_only() {
    let (mut source, mut server, _task) = streaming(options(START)).await;
    server.send(block(9, true, 2, 10)).await;
    server.send(transaction(200, 10)).await;
    server.send(keepalive(300, false)).await;
    assert_eq!(end(&mut source).await, 201);
    // Its commit is yet to come, behind this position.
    assert_eq!(source.next().await.unwrap(), SourceEvent::Keepalive(lsn(300)));
    server.send(data(310, &Message::StreamStart { xid: Xid(9), first_segment: false })).await;
    server.send(keepalive(320, false)).await;
    server.send(data(330, &Message::StreamStop)).await;
    server.send(keepalive(340, false)).await;
    assert_eq!(source.next().await.unwrap(), SourceEvent::Keepalive(lsn(340)));
    assert!(source.monitor().streamed_bytes() > 0);
    server.send(commit(9, 400)).await;
    server.send(keepalive(500, false)).await;
    match source.next().await.unwrap() {
        SourceEvent::Part(part) => assert_eq!((part.changes.len(), part.end), (2, Some(lsn(401)))),
        other => panic!("{other:?}"),
    }
    assert_eq!(source.next().await.unwrap(), SourceEvent::Keepalive(lsn(500)));
    assert_eq!(source.monitor().streamed_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_position_is_passed_on_while_a_transaction_is_read_back() {
    let options = StartOptions { part_bytes: 100, buffer_bytes: 300, ..options(START) };
    let (mut source, mut server, _task) = streaming(options).await;
    server.send(block(9, true, 100, 90)).await;
    server.send(commit(9, 400)).await;
    server.send(keepalive(500, true)).await;
    let mut changes = 0;
    loop {
        match source.next().await.unwrap() {
            SourceEvent::Part(part) => {
                changes += part.changes.len();
                assert!(source.monitor().buffered_bytes() < 20_000);
                if part.end.is_some() {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(changes, 100);
    assert_eq!(source.next().await.unwrap(), SourceEvent::Keepalive(lsn(500)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_transaction_that_is_rolled_back() {
    let (mut source, mut server, _task) = streaming(options(START)).await;
    server.send(block(9, true, 5, 100)).await;
    server.send(abort(9)).await;
    server.send(transaction(400, 10)).await;
    assert_eq!(end(&mut source).await, 401);
    assert_eq!(source.monitor().streamed_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_held_is_an_error_that_says_so() {
    let (mut source, mut server, _task) = streaming(options(START)).await;
    server.send(transaction(200, 10)).await;
    server.send(block(9, true, 20, 100_000)).await;
    assert_eq!(end(&mut source).await, 201);
    let error = source.next().await.unwrap_err();
    assert_eq!((error.kind(), error.class()), ("stream_store", FaultClass::Blocked));
    assert!(error.to_string().contains("transaction 9"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_the_source_has_to_wait_is_counted() {
    let (mut source, mut server, _task) = streaming(StartOptions { buffer_bytes: 1, ..options(START) }).await;
    server.send(transaction(200, 1000)).await;
    server.send(transaction(300, 10)).await;
    server.status().await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let paused = source.monitor().paused();
    assert!((99..=101).contains(&paused.as_secs()), "{paused:?}");
    assert_eq!(end(&mut source).await, 201);
    assert_eq!(end(&mut source).await, 301);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(source.monitor().paused().as_secs() <= 101, "{:?}", source.monitor().paused());
}

/// A store whose transactions are nothing but frames that were rolled back, and never end.
struct Endless;

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Fault for Never {
    fn class(&self) -> FaultClass {
        FaultClass::Blocked
    }

    fn side(&self) -> Side {
        Side::Source
    }

    fn kind(&self) -> &'static str {
        "never"
    }
}

struct Dropped;

impl Iterator for Dropped {
    type Item = Result<Option<Bytes>, Never>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(Ok(None))
    }
}

impl StreamStore for Endless {
    type Error = Never;
    type Frames = Dropped;

    fn append(&mut self, _: Xid, _: Xid, _: Bytes) -> Result<(), Never> {
        Ok(())
    }

    fn abort(&mut self, _: Xid, _: Xid) -> Result<(), Never> {
        Ok(())
    }

    fn commit(&mut self, _: Xid) -> Result<Dropped, Never> {
        Ok(Dropped)
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_is_answered_while_a_transaction_is_read_back_however_long_that_takes() {
    let (source, mut server, task) = streaming_with(options(START), Endless).await;
    server.status().await;
    server.send(block(9, true, 1, 10)).await;
    server.send(commit(9, 400)).await;
    for _ in 0..300 {
        tokio::time::advance(Duration::from_secs(1)).await;
        let status = server.status().await;
        assert!(!status.reply, "no answer is asked for while nothing is read");
        assert_eq!(status.flush, lsn(0));
    }
    drop(source);
    task.await.unwrap();
}

/// The queue is emptied by another thread at any moment, also between two looks at whether it is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_taken_before_the_next_frame_however_fast_the_queue_is_emptied() {
    const TRANSACTIONS: u64 = 20_000;
    let options = StartOptions { part_bytes: 100, buffer_bytes: 100, ..options(START) };
    let (mut source, mut server, _task) = streaming(options).await;
    let sending = tokio::spawn(async move {
        for n in 0..TRANSACTIONS {
            let xid = u32::try_from(n + 1).unwrap();
            server.send(block(xid, true, 10, 90)).await;
            server.send(commit(xid, 1000 + 10 * n)).await;
            server.send(transaction(1005 + 10 * n, 90)).await;
        }
        server
    });
    let (mut changes, mut ends, mut told) = (0, 0, START);
    while ends < 2 * TRANSACTIONS {
        // Keeps the loop going round while the queue is full.
        told += 1;
        source.report(feedback(told));
        if let SourceEvent::Part(part) = source.next().await.unwrap() {
            changes += part.changes.len() as u64;
            ends += u64::from(part.end.is_some());
        }
    }
    assert_eq!(changes, 11 * TRANSACTIONS);
    drop(sending.await.unwrap());
}
