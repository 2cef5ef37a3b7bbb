//! What happens while streaming, in paused time.

use std::time::Duration;

use relevo_model::{ChangeSource, Fault, FaultClass, Feedback, SourceEvent, SourceLsn};
use relevo_pgoutput::{MemoryStore, StreamStore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::server::{
    Server, begin, change, commit, error, keepalive, login, message, notice, options, transaction,
};
use crate::pump::CLOSE_LIMIT;
use crate::source::assemble;
use crate::{PgSource, ReplicationConnection, SourceError, StartOptions};

pub(super) const START: u64 = 100;

/// A source that streams from the scripted server, and the loop that serves it.
pub(super) async fn streaming(options: StartOptions) -> (PgSource, Server, JoinHandle<()>) {
    streaming_with(options, MemoryStore::new(1 << 20)).await
}

/// The same with another store for running transactions.
pub(super) async fn streaming_with<T>(options: StartOptions, store: T) -> (PgSource, Server, JoinHandle<()>)
where
    T: StreamStore<Frames: Send> + Send + 'static,
{
    let (mut server, client) = Server::pair();
    let binding = relevo_connect::ChannelBinding::Prefer;
    let started = async {
        let mut connection = ReplicationConnection::log_in(client, &login(binding)).await.unwrap().session;
        let begun = crate::start::begin(&mut connection, &options).await.unwrap();
        (connection, begun)
    };
    let ((connection, begun), ()) = tokio::join!(started, server.stream());
    let (source, pump, command, done) = assemble(connection, &options, begun, None, store);
    let task = tokio::spawn(async move {
        let _ = done.send(pump.run(command).await);
    });
    (source, server, task)
}

pub(super) fn lsn(position: u64) -> SourceLsn {
    SourceLsn::new(position)
}

pub(super) fn feedback(durable: u64) -> Feedback {
    Feedback { received: lsn(durable), applied: lsn(durable), durable: lsn(durable) }
}

/// The end of the next event, which must be a whole transaction.
pub(super) async fn end(source: &mut PgSource) -> u64 {
    match source.next().await.unwrap() {
        SourceEvent::Part(part) if part.first => part.end.unwrap().as_u64(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn transactions_and_keepalives_come_in_order() {
    let (mut source, mut server, _task) = streaming(options(START)).await;
    server.send(transaction(200, 10)).await;
    server.send(keepalive(300, false)).await;
    server.send(transaction(400, 10)).await;
    assert_eq!(end(&mut source).await, 201);
    assert_eq!(source.next().await.unwrap(), SourceEvent::Keepalive(lsn(300)));
    assert_eq!(end(&mut source).await, 401);
    assert_eq!(source.monitor().received_lsn(), lsn(401));
    assert_eq!(source.monitor().backend_pid(), 42);
}

#[tokio::test(start_paused = true)]
async fn positions_are_told_at_once_when_asked_for_and_never_more_than_was_reported() {
    let (mut source, mut server, _task) = streaming(options(START)).await;
    let first = server.status().await;
    // Nobody has said yet that the target has flushed the start; 0 is "not known" to the server.
    assert_eq!((first.write, first.flush, first.apply), (lsn(START), lsn(0), lsn(START)));
    server.send(transaction(200, 10)).await;
    server.send(keepalive(300, true)).await;
    let before = Instant::now();
    let status = server.status().await;
    assert_eq!((status.write, status.flush, status.apply), (lsn(300), lsn(0), lsn(START)));
    assert!(before.elapsed() < Duration::from_millis(5));
    assert_eq!(end(&mut source).await, 201);

    source.report(Feedback { received: lsn(300), applied: lsn(201), durable: lsn(201) });
    let status = server.status().await;
    assert_eq!((status.write, status.flush, status.apply), (lsn(300), lsn(201), lsn(201)));
    assert!(before.elapsed() < Duration::from_millis(20), "a durable position is told soon");
    // Positions only grow.
    source.report(feedback(150));
    assert_eq!(server.status().await.flush, lsn(201));
}

#[tokio::test(start_paused = true)]
async fn the_server_is_answered_while_nothing_is_taken() {
    let (mut source, mut server, _task) = streaming(StartOptions { buffer_bytes: 1, ..options(START) }).await;
    for at in 0..100 {
        server.send(transaction(200 + 10 * at, 1000)).await;
    }
    let began = Instant::now();
    let mut last = began;
    while began.elapsed() < Duration::from_secs(600) {
        let status = server.status().await;
        assert_eq!(status.flush, lsn(0));
        assert!(!status.reply, "no answer is asked for while nothing is read");
        assert!(last.elapsed() <= Duration::from_millis(1010), "{:?} between two updates", last.elapsed());
        last = Instant::now();
    }
    assert!(source.monitor().buffered_bytes() < 5000, "{}", source.monitor().buffered_bytes());
    for at in 0..100 {
        assert_eq!(end(&mut source).await, 201 + 10 * at);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_comes_after_everything_before_it_and_stays() {
    let (mut source, mut server, task) = streaming(options(START)).await;
    server.send(transaction(200, 10)).await;
    server.send(transaction(300, 10)).await;
    server.send(error("57P01", "terminating connection due to administrator command")).await;
    task.await.unwrap();
    assert_eq!(end(&mut source).await, 201);
    assert_eq!(end(&mut source).await, 301);
    let first = source.next().await.unwrap_err();
    assert_eq!(first.code(), Some("57P01"));
    assert!(matches!(source.next().await.unwrap_err(), SourceError::Failed { .. }));
    source.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_publication_that_the_server_only_warns_of_is_an_error() {
    let (mut source, mut server, _task) = streaming(options(START)).await;
    server.send(notice("01000", "something_else")).await;
    server.send(transaction(200, 10)).await;
    server.send(notice("55000", "LoadPublications")).await;
    server.send(keepalive(300, false)).await;
    assert_eq!(end(&mut source).await, 201);
    let error = source.next().await.unwrap_err();
    assert_eq!((error.kind(), error.class()), ("publication_missing", FaultClass::Blocked));
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_is_an_error() {
    let (mut source, server, _task) = streaming(options(START)).await;
    drop(server);
    let error = source.next().await.unwrap_err();
    assert!(matches!(error, SourceError::Closed { .. } | SourceError::Io { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_shuts_down_is_acknowledged() {
    for farewell in [message(b'c', b""), message(b'C', b"COPY 0\0")] {
        let (mut source, mut server, _task) = streaming(options(START)).await;
        server.status().await;
        server.send(&farewell).await;
        assert_eq!(server.message().await.unwrap().0, 'c');
        assert!(matches!(source.next().await.unwrap_err(), SourceError::ShuttingDown));
    }
}

#[tokio::test(start_paused = true)]
async fn a_keepalive_inside_a_transaction_is_answered_but_not_passed_on() {
    let (mut source, mut server, _task) = streaming(options(START)).await;
    server.status().await;
    server.send(begin(200)).await;
    server.send(keepalive(150, true)).await;
    assert_eq!(server.status().await.flush, lsn(0));
    server.send(change(200, 10)).await;
    server.send(commit(200)).await;
    // Behind what the slot knows, and behind what was passed on: no news.
    server.send(keepalive(START, false)).await;
    server.send(keepalive(201, false)).await;
    server.send(keepalive(210, false)).await;
    assert_eq!(end(&mut source).await, 201);
    assert_eq!(source.next().await.unwrap(), SourceEvent::Keepalive(lsn(210)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_asked_and_then_given_up() {
    let (mut source, mut server, _task) = streaming(options(START)).await;
    let began = Instant::now();
    let served = tokio::spawn(async move {
        let mut asked = 0;
        while let Some((_, body)) = server.message().await {
            asked += usize::from(body[33]);
        }
        asked
    });
    let error = source.next().await.unwrap_err();
    assert!(matches!(error, SourceError::Silent { .. }), "{error}");
    assert!(began.elapsed() >= Duration::from_secs(60) && began.elapsed() < Duration::from_secs(63));
    drop(source);
    assert!(served.await.unwrap() >= 59);
}

#[tokio::test(start_paused = true)]
async fn an_idle_server_that_answers_stays_in_contact() {
    let (mut source, mut server, _task) = streaming(options(START)).await;
    let monitor = source.monitor().clone();
    let answering = tokio::spawn(async move {
        loop {
            if server.status().await.reply {
                server.send(keepalive(START, false)).await;
            }
        }
    });
    let waited = tokio::time::timeout(Duration::from_secs(300), source.next()).await;
    assert!(waited.is_err(), "an idle stream has no news");
    let age = Instant::now().into_std().duration_since(monitor.last_contact().unwrap());
    assert!(age <= Duration::from_millis(2010), "{age:?}");
    answering.abort();
}

#[tokio::test(start_paused = true)]
async fn a_transaction_before_the_start_is_left_out() {
    let (mut source, mut server, _task) = streaming(options(START)).await;
    server.send(transaction(90, 10)).await;
    server.send(transaction(START, 10)).await;
    assert_eq!(end(&mut source).await, START + 1);
}

#[tokio::test(start_paused = true)]
async fn closing_tells_the_last_positions_and_ends_the_stream_in_order() {
    let (mut source, mut server, task) = streaming(options(START)).await;
    server.status().await;
    server.send(transaction(200, 10)).await;
    assert_eq!(end(&mut source).await, 201);
    let served = tokio::spawn(async move {
        let mut last = server.status().await;
        let mut rest = String::new();
        while let Some((tag, _)) = server.message().await {
            rest.push(tag);
            if tag == 'c' {
                server.send(transaction(300, 10)).await;
                server.send(message(b'c', b"")).await;
                server.send(message(b'C', b"COPY 0\0")).await;
                server.send(message(b'Z', b"I")).await;
            }
            if tag == 'd' {
                last.flush = lsn(0);
            }
        }
        (last.flush, rest)
    });
    source.report(feedback(201));
    source.close().await.unwrap();
    task.await.unwrap();
    assert_eq!(served.await.unwrap(), (lsn(201), "cX".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn closing_a_stream_that_has_failed_says_why() {
    let (source, mut server, task) = streaming(options(START)).await;
    server.send(transaction(200, 10)).await;
    server.send(error("57P01", "terminating connection due to administrator command")).await;
    task.await.unwrap();
    assert_eq!(source.close().await.unwrap_err().code(), Some("57P01"));
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_ever() {
    let (source, server, task) = streaming(options(START)).await;
    let began = Instant::now();
    source.close().await.unwrap();
    task.await.unwrap();
    assert!(began.elapsed() <= CLOSE_LIMIT + Duration::from_millis(500));
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_source_ends_the_loop() {
    let (source, mut server, task) = streaming(options(START)).await;
    drop(source);
    task.await.unwrap();
    while server.message().await.is_some() {}
}
