//! Connections that must live, and slots that must move, whatever else goes on.

use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Version, wait_until, wait_until_some};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, filler text)";
const CONFIRMED: &str = "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots";

/// Nothing happens in the replicated database, much in another one of the same server: the slot may not keep that
/// server's WAL for ever.
async fn the_slot_of_an_idle_database_moves(source: Version, target: Version, heartbeat_interval: &str) {
    let pair = Pair::start(source, target).await;
    pair.source.sql(TABLE).await;
    pair.source.create_database("busy").await;
    let busy = pair.source.connect("busy").await;
    busy.sql("CREATE TABLE noise (id int, filler text)").await;
    let mut relevo = pair.relevo().args(["--heartbeat-interval", heartbeat_interval]).start();
    relevo.wait_until_streaming().await;
    for round in 0..2 {
        busy.sql("INSERT INTO noise SELECT n, repeat('x', 500) FROM generate_series(1, 5000) n").await;
        let written: i64 = pair.source.value("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").await;
        wait_until_some(&format!("the slot passes the noise of round {round}"), PATIENCE, async || {
            // It goes on being busy.
            busy.sql("INSERT INTO noise VALUES (1, 'x')").await;
            let confirmed: i64 = pair.source.value(CONFIRMED).await;
            if confirmed >= written { Ok(()) } else { Err(format!("{confirmed} of {written}")) }
        })
        .await;
    }
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn the_slot_of_an_idle_database_in_a_busy_server_moves_with_the_heartbeat() {
    the_slot_of_an_idle_database_moves(Version::V14, Version::V15, "1s").await;
}

#[tokio::test]
async fn the_slot_of_an_idle_database_in_a_busy_server_moves_without_a_heartbeat() {
    the_slot_of_an_idle_database_moves(Version::V18, Version::V18, "1h").await;
}

/// The target cannot apply for five times as long as the source waits for a sign of life.
#[tokio::test]
async fn the_stream_outlives_an_apply_that_is_blocked_for_longer_than_wal_sender_timeout() {
    let pair = Pair::builder(Version::V15, Version::V18)
        .source(|source| source.set("wal_sender_timeout", "2s"))
        .start()
        .await;
    pair.source.sql(TABLE).await;
    // So little memory that reading stops too.
    let mut relevo = pair.relevo().args(["--memory", "16MiB", "--batch-bytes", "1MiB"]).start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    let walsender = async || pair.source.value::<i32>("SELECT pid FROM pg_stat_replication").await;
    let before = walsender().await;
    let locker = pair.target.connect(DATABASE).await;
    locker.sql("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
    for part in 0..4 {
        let (from, to) = (part * 20_000 + 1, (part + 1) * 20_000);
        let insert = format!("INSERT INTO t SELECT n, repeat('x', 400) FROM generate_series({from}, {to}) n");
        pair.source.sql(&insert).await;
    }
    wait_until("10 s behind", PATIENCE, async || {
        relevo.metrics().await.value("relevo_replication_lag_seconds") > 10.0
    })
    .await;
    let buffered = relevo.metrics().await.value("relevo_buffer_bytes");
    assert!(buffered < f64::from(24 << 20), "{buffered} bytes in memory, 16 MiB are allowed");
    assert!(buffered > f64::from(8 << 20), "{buffered} bytes in memory: the memory did not fill");
    locker.sql("COMMIT").await;
    pair.settle().await;
    assert_eq!(walsender().await, before, "the connection to the source is another one");
    let metrics = relevo.metrics().await;
    assert_eq!(metrics.sum("relevo_reconnects_total", &[]), Some(0.0));
    relevo.terminate();
}

/// PostgreSQL's own shutdown waits until walsenders have had everything confirmed (`WalSndDone`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_stopped_in_order_is_not_held_up() {
    for (source, target) in [(Version::V14, Version::V15), (Version::V18, Version::V18)] {
        let pair = Pair::start(source, target).await;
        pair.source.sql(TABLE).await;
        let mut relevo = pair.relevo().start();
        relevo.wait_until_streaming().await;
        for (round, pause) in [("at once after a write", false), ("when all is quiet", true)] {
            pair.source
                .sql(&format!("INSERT INTO t SELECT 1 + coalesce(max(id), 0), '{round}' FROM t"))
                .await;
            if pause {
                pair.settle().await;
            }
            let begun = std::time::Instant::now();
            pair.source.stop();
            let took = begun.elapsed();
            assert!(took.as_secs_f64() < 8.0, "{round}: the source took {took:?} to stop");
            pair.source.start().await;
            relevo.wait_until_streaming().await;
            pair.settle().await;
        }
        relevo.terminate();
    }
}
