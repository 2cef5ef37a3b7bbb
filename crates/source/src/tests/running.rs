//! Transactions that are streamed while they run: which positions are told meanwhile, and that the server gets its answers
//! while they are read back.

use std::time::Duration;

use bytes::Bytes;
use relevo_model::{Ahead, ChangeSource, Fault, FaultClass, Side, SourceEvent, SourceLsn, Timestamp, Xid};
use relevo_pgoutput::{Message, StreamStore};
use tokio::time::timeout;

use super::server::{data, keepalive, options, transaction};
use super::stream::{START, end, feedback, lsn, streaming, streaming_with};
use crate::{PgSource, StartOptions};

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

fn goes_ahead() -> StartOptions {
    StartOptions { ahead: true, part_bytes: 300, ..options(START) }
}

async fn ahead(source: &mut PgSource) -> Ahead {
    match source.next().await.unwrap() {
        SourceEvent::Ahead(ahead) => ahead,
        other => panic!("{other:?}"),
    }
}

/// The parts of transaction 9 that come before its commit, and then its commit.
async fn all_ahead(source: &mut PgSource) -> usize {
    let mut changes = 0;
    loop {
        match ahead(source).await {
            Ahead::Part(part) => changes += part.changes.len(),
            Ahead::Commit(last) => {
                assert_eq!(last.end, Some(lsn(401)));
                return changes + last.changes.len();
            }
            Ahead::Abort(xid) => panic!("{xid:?} was rolled back"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_follows_a_transaction_that_went_ahead_before_it_is_settled() {
    for committed in [true, false] {
        let (mut source, mut server, _task) = streaming(goes_ahead()).await;
        server.send(block(9, true, 20, 90)).await;
        server.send(commit(9, 400)).await;
        server.send(transaction(500, 10)).await;
        // More than that is there, but it is not read.
        server.send(keepalive(600, true)).await;
        assert_eq!(all_ahead(&mut source).await, 20);
        assert!(timeout(Duration::from_secs(5), source.next()).await.is_err());
        source.settle_ahead(Xid(9), committed);
        let mut changes = 0;
        let end = loop {
            match source.next().await.unwrap() {
                SourceEvent::Part(part) if part.header.xid == Xid(9) => changes += part.changes.len(),
                SourceEvent::Part(part) => break part.end,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((changes, end), (if committed { 0 } else { 20 }, Some(lsn(501))));
        assert_eq!(source.next().await.unwrap(), SourceEvent::Keepalive(lsn(600)));
        assert_eq!(source.monitor().streamed_bytes(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_gets_its_answers_while_a_transaction_waits_to_be_settled() {
    let (mut source, mut server, task) = streaming(goes_ahead()).await;
    server.send(block(9, true, 20, 90)).await;
    server.send(commit(9, 400)).await;
    assert_eq!(all_ahead(&mut source).await, 20);
    for _ in 0..100 {
        server.status().await;
    }
    assert!(!task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_while_it_runs_comes_whole_behind_its_commit() {
    let (mut source, mut server, _task) = streaming(goes_ahead()).await;
    server.send(block(9, true, 20, 90)).await;
    assert!(matches!(ahead(&mut source).await, Ahead::Part(part) if part.first));
    source.settle_ahead(Xid(9), false);
    server.send(block(9, false, 20, 90)).await;
    server.send(commit(9, 400)).await;
    let mut changes = 0;
    loop {
        match source.next().await.unwrap() {
            SourceEvent::Part(part) => {
                changes += part.changes.len();
                if part.end.is_some() {
                    break;
                }
            }
            // What was on its way already.
            SourceEvent::Ahead(Ahead::Part(_) | Ahead::Commit(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(changes, 40);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_the_source_has_from_elsewhere_does_not_go_ahead() {
    let options = StartOptions { skip_applied: Some(SourceLsn::ZERO), ..goes_ahead() };
    let (mut source, mut server, _task) = streaming(options).await;
    let xid = Xid(9);
    let mark = Message::Logical {
        xid: Some(xid),
        transactional: true,
        lsn: SourceLsn::new(150),
        prefix: "relevo".into(),
        content: "applied".into(),
    };
    server.send(data(150, &Message::StreamStart { xid, first_segment: true })).await;
    server.send(data(150, &mark)).await;
    server.send(data(150, &Message::StreamStop)).await;
    server.send(block(9, false, 20, 90)).await;
    server.send(commit(9, 400)).await;
    loop {
        match source.next().await.unwrap() {
            SourceEvent::Part(part) => {
                assert!(part.changes.is_empty(), "it is passed over");
                if part.end == Some(lsn(401)) {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
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
