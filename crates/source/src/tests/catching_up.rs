//! A stream that begins far behind the source: whole transactions until it has caught up, then another stream.

use std::sync::Mutex;
use std::time::Duration;

use relevo_connect::ChannelBinding;
use relevo_model::{ChangeSource, Fault, SourceEvent, SourceLsn};
use relevo_pgoutput::MemoryStore;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::server::{Server, begin, change, commit, keepalive, login, message, options, transaction};
use super::stream::{START, end, feedback, lsn};
use crate::catch_up::{FAR_BEHIND_BYTES, SETTLED_AFTER};
use crate::source::{Begun, assemble, streams};
use crate::{PgSource, ReplicationConnection, SourceError, StartOptions};

/// Where the scripted server says that the source is.
const CURRENT: u64 = 1 << 32;

async fn open(client: DuplexStream, options: &StartOptions) -> Result<Begun<DuplexStream>, SourceError> {
    let login = login(ChannelBinding::Prefer);
    let mut connection = ReplicationConnection::log_in(client, &login).await.unwrap().session;
    let begun = crate::start::begin(&mut connection, options).await?;
    Ok((connection, begun))
}

/// A source whose streams are served by two servers, one after the other; the first one has begun.
async fn streaming_twice(start: u64) -> (PgSource, Server, Server, JoinHandle<()>) {
    let ((mut first, client), (second, next)) = (Server::pair(), Server::pair());
    let options = options(start);
    let (begun, ()) = tokio::join!(open(client, &options), first.stream());
    let (connection, begun) = begun.unwrap();
    let store = MemoryStore::new(1 << 20);
    let (source, pump, command, done) = assemble(connection, &options, begun, None, store);
    let next = Mutex::new(Some(next));
    let open_next = move |start_lsn: SourceLsn| {
        let client = next.lock().unwrap().take().expect("two streams at most");
        let options = StartOptions { start_lsn, ..options.clone() };
        async move { open(client, &options).await }
    };
    let task = tokio::spawn(async move {
        let _ = done.send(streams(pump, command, open_next).await);
    });
    (source, first, second, task)
}

/// Reads until the client ends the stream; `None`: it does not, within half a minute.
async fn until_copy_done(server: &mut Server) -> Option<()> {
    let told = async {
        while let Some((tag, _)) = server.message().await {
            if tag == 'c' {
                return;
            }
        }
        panic!("the link was cut");
    };
    timeout(Duration::from_secs(30), told).await.ok()
}

/// Ends the stream as a walsender does, with what it has sent before it has heard of it.
async fn end_stream(server: &mut Server, late: &[u8]) {
    server.send(late).await;
    for (tag, body) in [(b'c', &b""[..]), (b'C', b"COPY 0\0"), (b'C', b"START_REPLICATION\0"), (b'Z', b"I")] {
        server.send(message(tag, body)).await;
    }
}

async fn position(source: &mut PgSource) -> u64 {
    match source.next().await.unwrap() {
        SourceEvent::Keepalive(position) => position.as_u64(),
        other => panic!("{other:?}"),
    }
}

/// Lets the stream catch up and stay so.
async fn catch_up(source: &mut PgSource, server: &mut Server) {
    server.send(keepalive(CURRENT, false)).await;
    assert_eq!(position(source).await, CURRENT);
    sleep(SETTLED_AFTER).await;
    server.send(keepalive(CURRENT + 200, false)).await;
    assert_eq!(position(source).await, CURRENT + 200);
}

#[tokio::test(start_paused = true)]
async fn who_has_caught_up_goes_on_with_transactions_that_still_run() {
    let (mut source, mut first, mut second, _task) = streaming_twice(START).await;
    first.send(transaction(CURRENT - 100, 10)).await;
    assert_eq!(end(&mut source).await, CURRENT - 99);
    catch_up(&mut source, &mut first).await;
    until_copy_done(&mut first).await.expect("the first stream ends");

    // This comes again.
    let half = [begin(CURRENT + 400), change(CURRENT + 400, 10)].concat();
    end_stream(&mut first, &[transaction(CURRENT + 300, 10), half].concat()).await;
    second.trust().await;
    second.identify_at("7", "1/1000").await;
    second.settings().await;
    second.slot(None).await;
    let command = second.copy_both().await;
    assert!(command.starts_with("START_REPLICATION SLOT \"relevo_shop\" LOGICAL 1/C8 ("), "{command}");
    assert!(command.ends_with("streaming 'on')"), "{command}");
    assert_eq!(second.status().await.write, lsn(CURRENT + 200));
    source.report(feedback(CURRENT + 200));
    assert_eq!(second.status().await.flush, lsn(CURRENT + 200));
    for at in [300, 400] {
        second.send(transaction(CURRENT + at, 10)).await;
        assert_eq!(end(&mut source).await, CURRENT + at + 1);
    }
    sleep(2 * SETTLED_AFTER).await;
    second.send(keepalive(CURRENT + 500, false)).await;
    assert_eq!(position(&mut source).await, CURRENT + 500);
    assert!(until_copy_done(&mut second).await.is_none(), "once is enough");
}

#[tokio::test(start_paused = true)]
async fn half_way_through_a_transaction_the_stream_stays() {
    let (mut source, mut first, _second, _task) = streaming_twice(START).await;
    first.send(keepalive(CURRENT, false)).await;
    assert_eq!(position(&mut source).await, CURRENT);
    sleep(SETTLED_AFTER).await;
    first.send([begin(CURRENT + 100), change(CURRENT + 100, 10)].concat()).await;
    first.send(keepalive(CURRENT + 50, false)).await;
    first.send([commit(CURRENT + 100), transaction(CURRENT + 200, 10)].concat()).await;
    assert_eq!(end(&mut source).await, CURRENT + 101);
    assert_eq!(end(&mut source).await, CURRENT + 201);
    assert!(until_copy_done(&mut first).await.is_none(), "nothing says that the server is at rest");
}

#[tokio::test(start_paused = true)]
async fn who_is_near_stays_with_one_stream() {
    let (mut source, mut first, _second, _task) = streaming_twice(CURRENT - FAR_BEHIND_BYTES + 1).await;
    catch_up(&mut source, &mut first).await;
    assert!(until_copy_done(&mut first).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_second_stream_that_does_not_begin_is_an_error_behind_everything_that_came() {
    let (mut source, mut first, mut second, _task) = streaming_twice(START).await;
    first.send(keepalive(CURRENT, false)).await;
    sleep(SETTLED_AFTER).await;
    first.send(transaction(CURRENT + 100, 10)).await;
    first.send(keepalive(CURRENT + 200, false)).await;
    until_copy_done(&mut first).await.expect("the first stream ends");
    end_stream(&mut first, b"").await;
    second.trust().await;
    second.identify("another").await;
    assert_eq!(position(&mut source).await, CURRENT);
    assert_eq!(end(&mut source).await, CURRENT + 101);
    assert_eq!(position(&mut source).await, CURRENT + 200);
    assert_eq!(source.next().await.unwrap_err().class(), relevo_model::FaultClass::Refused);
}

#[tokio::test(start_paused = true)]
async fn closing_between_two_streams_is_quick() {
    let (mut source, mut first, _second, task) = streaming_twice(START).await;
    catch_up(&mut source, &mut first).await;
    until_copy_done(&mut first).await.expect("the first stream ends");
    end_stream(&mut first, b"").await;
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    source.close().await.unwrap();
    task.await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}
