//! What a review of the streaming path found: rare moments that must not cost data, memory or the truth.

use std::time::Duration;

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Relevo, Version, wait_until, wait_until_some};
use rustix::process::Signal;

const CONFIRMED: &str =
    "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'relevo_e2e'";

/// Waits until the slot's reader has answered, and the last thing that it could answer for is known to the server.
async fn heard_of(pair: &Pair) {
    // `write_lsn` is what was told last.
    let told = "SELECT pid FROM pg_stat_replication WHERE application_name = 'relevo_e2e' AND write_lsn IS NOT NULL";
    wait_until("the walsender is told positions", PATIENCE, async || !pair.source.rows(told).await.is_empty())
        .await;
}

/// The memory that the process has ever had in use, in bytes.
fn peak_memory_bytes(relevo: &Relevo) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relevo.pid())).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    kib << 10
}

/// A Relevo that was killed has committed, asynchronously; the next one finds its progress, but the target's disk does
/// not have it yet when the target crashes.
#[tokio::test]
async fn progress_that_is_stored_but_not_flushed_is_not_confirmed_by_the_next_start() {
    let pair = Pair::builder(Version::V15, Version::V15)
        // Else other sessions flush what the flow's leaves to the WAL writer.
        .target(|target| target.set("synchronous_commit", "off").set("autovacuum", "off"))
        .start()
        .await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (0)").await;
    // No heartbeat: nothing else shall be committed.
    let mut relevo = pair.relevo().args(["--heartbeat-interval", "1h"]).start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    pair.target.sql("CHECKPOINT").await;

    let writer: i32 =
        pair.target.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'").await;
    relevo_tests::process::signal(writer.unsigned_abs(), Signal::STOP);
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    wait_until("the row is visible", PATIENCE, async || {
        pair.target.value::<i64>("SELECT count(*) FROM t").await == 2
    })
    .await;
    let confirmed: String = pair.source.value(CONFIRMED).await;
    relevo.kill();
    relevo.restart();
    relevo.wait_until_streaming().await;
    heard_of(&pair).await;
    assert_eq!(pair.source.value::<String>(CONFIRMED).await, confirmed, "the target's disk has no more");

    pair.target.crash();
    pair.target.start().await;
    pair.settle().await;
    relevo.terminate();
}

/// Rows of 10 MB and rows of a few bytes, while the target stands still: the source is held back.
#[tokio::test]
async fn memory_stays_bounded_while_the_target_stands_still() {
    const ROW_BYTES: u64 = 10 << 20;
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source
        .sql(
            "CREATE TABLE large (id int PRIMARY KEY, v text); ALTER TABLE large ALTER v SET STORAGE EXTERNAL;
             CREATE TABLE small (id int PRIMARY KEY, v int)",
        )
        .await;
    let mut relevo = pair.relevo().args(["--memory", "32MiB", "--batch-bytes", "4MiB"]).start();
    relevo.wait_until_streaming().await;
    let idle = peak_memory_bytes(&relevo);
    let holder = pair.target.connect("shop").await;
    for (table, changes) in [
        ("large", format!("INSERT INTO large SELECT n, repeat('x', {ROW_BYTES}) FROM generate_series(1, 12) n")),
        ("small", "INSERT INTO small SELECT n, n FROM generate_series(1, 1500000) n".to_owned()),
    ] {
        holder.sql(&format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE")).await;
        let before = format!("{:?}", relevo.status().await);
        pair.source.sql(&changes).await;
        wait_until_some("the source is held back", PATIENCE, async || {
            let metrics = relevo.metrics().await;
            let bytes = metrics.value("relevo_buffer_bytes");
            if bytes >= f64::from(20 << 20) { Ok(()) } else { Err(format!("{bytes} bytes, {before}")) }
        })
        .await;
        // Long enough for a bound that does not hold to show.
        tokio::time::sleep(Duration::from_secs(2)).await;
        eprintln!("{table}: {} MiB, idle {} MiB", peak_memory_bytes(&relevo) >> 20, idle >> 20);
        holder.sql("COMMIT").await;
        pair.caught_up().await;
        eprintln!("{table} after: {} MiB", peak_memory_bytes(&relevo) >> 20);
    }
    pair.settle().await;
    relevo.terminate();
}
