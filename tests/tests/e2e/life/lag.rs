//! Lag in seconds: 0 when everything has arrived, and growing as soon as one end cannot be reached.

use std::time::{Duration, Instant};

use relevo_tests::process::signal;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Direction, Pair, Relevo, Version, wait_until, wait_until_some};
use rustix::process::Signal;

const LAG: &str = "relevo_replication_lag_seconds";
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)";

async fn lag(relevo: &Relevo) -> f64 {
    relevo.metrics().await.value(LAG)
}

async fn code(relevo: &Relevo, path: &str) -> u16 {
    relevo.get(path).await.map_or(0, |answer| answer.code)
}

async fn until_caught_up_and_ready(relevo: &Relevo) {
    wait_until_some("a lag of 0, and ready", PATIENCE, async || {
        let (lag, ready) = (lag(relevo).await, code(relevo, "/readyz").await);
        if lag == 0.0 && ready == 200 { Ok(()) } else { Err(format!("lag {lag}, /readyz {ready}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_of_an_idle_database_that_has_caught_up_is_0_and_stays_0() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql(TABLE).await;
    let mut relevo = pair.relevo().args(["--heartbeat-interval", "1s"]).start();
    relevo.wait_until_streaming().await;
    until_caught_up_and_ready(&relevo).await;
    let heartbeats =
        async || relevo.metrics().await.sum("relevo_changes_applied_total", &[("op", "message")]).unwrap();
    let enough = heartbeats().await + 5.0;
    let mut samples = Vec::new();
    while heartbeats().await < enough {
        samples.push(lag(&relevo).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A look may fall into the instant in which a heartbeat is on its way.
    let zeros = samples.iter().filter(|lag| **lag == 0.0).count();
    assert!(zeros * 10 >= samples.len() * 9, "{zeros} of {} looks saw 0: {samples:?}", samples.len());
    until_caught_up_and_ready(&relevo).await;
    let bytes = relevo.metrics().await.sum("relevo_replication_lag_bytes", &[("stage", "applied")]);
    assert!(bytes.is_some(), "the lag in bytes is known");
    relevo.terminate();
}

/// What the outside sees of an outage that begins now: a lag that grows at the clock's pace and never falls, not ready,
/// alive.
async fn the_lag_grows(what: &str, relevo: &Relevo) {
    let begun = Instant::now();
    let (mut highest, mut alive) = (0.0, 0);
    loop {
        let now = lag(relevo).await;
        assert!(now >= highest, "{what}: the lag fell from {highest} to {now}");
        highest = now;
        assert_eq!(code(relevo, "/healthz").await, 200, "{what}: relevo is alive");
        alive += 1;
        // A side that is silent for 10 s makes it unready even if nothing has failed yet.
        if highest > 4.0 && code(relevo, "/readyz").await == 503 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: lag {highest}, still ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lasted = begun.elapsed().as_secs_f64();
    assert!(highest > lasted - 4.0, "{what}: a lag of {highest} after {lasted} s");
    assert!(highest < lasted + 4.0, "{what}: a lag of {highest} after {lasted} s");
    assert!(alive > 5, "{what}: {alive} looks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_grows_while_the_source_cannot_be_reached() {
    let pair = Pair::builder(Version::V14, Version::V15).proxied().start().await;
    pair.source.sql(TABLE).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    until_caught_up_and_ready(&relevo).await;

    pair.source_proxy().refuse().await;
    the_lag_grows("the source refuses connections", &relevo).await;
    let status = relevo.status().await.unwrap();
    assert_eq!(status["state"], "preparing", "{status}");
    assert!(status["state_detail"].as_str().unwrap().contains("source"), "{status}");
    pair.source_proxy().accept().await;
    until_caught_up_and_ready(&relevo).await;

    pair.source_proxy().stall_both();
    the_lag_grows("the link to the source hangs", &relevo).await;
    pair.source_proxy().resume();
    until_caught_up_and_ready(&relevo).await;

    pair.source.freeze();
    the_lag_grows("the source is frozen", &relevo).await;
    pair.source.thaw();
    until_caught_up_and_ready(&relevo).await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_grows_while_the_target_cannot_be_reached() {
    let pair = Pair::builder(Version::V15, Version::V18).proxied().start().await;
    pair.source.sql(TABLE).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    until_caught_up_and_ready(&relevo).await;

    pair.target_proxy().refuse().await;
    the_lag_grows("the target refuses connections", &relevo).await;
    let status = relevo.status().await.unwrap();
    assert_eq!(status["state"], "preparing", "{status}");
    pair.target_proxy().accept().await;
    until_caught_up_and_ready(&relevo).await;

    // One way is enough.
    pair.target_proxy().stall(Direction::ToClient);
    the_lag_grows("the target's answers do not arrive", &relevo).await;
    pair.target_proxy().resume();
    until_caught_up_and_ready(&relevo).await;

    pair.target.freeze();
    the_lag_grows("the target is frozen", &relevo).await;
    pair.target.thaw();
    until_caught_up_and_ready(&relevo).await;
    pair.settle().await;
    relevo.terminate();
}

/// Everything else answers: only the stream of changes stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_grows_while_only_the_stream_hangs() {
    let pair = Pair::start(Version::V18, Version::V18).await;
    pair.source.sql(TABLE).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    until_caught_up_and_ready(&relevo).await;
    let walsender: i32 = pair.source.value("SELECT pid FROM pg_stat_replication").await;
    let walsender = u32::try_from(walsender).unwrap();
    signal(walsender, Signal::STOP);
    pair.source.sql("INSERT INTO t VALUES (1000)").await;
    wait_until("a lag of 4 s", PATIENCE, async || lag(&relevo).await > 4.0).await;
    let bytes = relevo.metrics().await.sum("relevo_replication_lag_bytes", &[("stage", "received")]).unwrap();
    assert!(bytes > 0.0, "{bytes} bytes behind");
    signal(walsender, Signal::CONT);
    until_caught_up_and_ready(&relevo).await;
    pair.settle().await;
    relevo.terminate();
}
