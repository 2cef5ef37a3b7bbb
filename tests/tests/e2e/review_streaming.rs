//! What a review of the streaming path found: rare moments that must not cost data, memory or the truth.

use std::sync::Mutex;

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Relevo, Version, wait_until, wait_until_some};
use rustix::process::Signal;

const CONFIRMED: &str =
    "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'relevo_e2e'";

/// Waits until the slot's reader has answered, and the last thing that it could answer for is known to the server.
async fn heard_of(pair: &Pair) {
    // `write_lsn` is what was told last.
    let told =
        "SELECT pid FROM pg_stat_replication WHERE application_name = 'relevo_e2e' AND write_lsn IS NOT NULL";
    wait_until("the walsender is told positions", PATIENCE, async || {
        !pair.source.rows(told).await.is_empty()
    })
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
    relevo.kill();
    wait_until("the killed one's walsender ends", PATIENCE, async || {
        pair.source.rows("SELECT FROM pg_replication_slots WHERE active").await.is_empty()
    })
    .await;
    let confirmed: String = pair.source.value(CONFIRMED).await;
    relevo.restart();
    relevo.wait_until_streaming().await;
    heard_of(&pair).await;
    assert_eq!(pair.source.value::<String>(CONFIRMED).await, confirmed, "the target's disk has no more");

    pair.target.crash();
    pair.target.start().await;
    pair.settle().await;
    relevo.terminate();
}

/// Rows of a few bytes and rows of 10 MB, while the target stands still: the source is held back. Of a large row several
/// copies exist on its way from one socket to the other, beside those that count: 150 to 196 MiB were seen, of 400 MiB.
#[tokio::test]
async fn memory_stays_bounded_while_the_target_stands_still() {
    const ROW_BYTES: u64 = 10 << 20;
    const MEMORY_BYTES: u64 = 32 << 20;
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
    let small = "INSERT INTO small SELECT n, n FROM generate_series(1, 600000) n".to_owned();
    let large = format!("INSERT INTO large SELECT n, repeat('x', {ROW_BYTES}) FROM generate_series(1, 40) n");
    for (table, changes, most) in
        [("small", small, 3 * MEMORY_BYTES), ("large", large, MEMORY_BYTES + 20 * ROW_BYTES)]
    {
        holder.sql(&format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE")).await;
        pair.source.sql(&changes).await;
        until_held_back(&pair, &relevo).await;
        holder.sql("COMMIT").await;
        pair.caught_up().await;
        let peak = peak_memory_bytes(&relevo) - idle;
        assert!(peak <= most, "{table}: {} MiB beyond what it needs when idle", peak >> 20);
    }
    pair.settle().await;
    relevo.terminate();
}

/// Waits until much is buffered, and the source no longer sends.
async fn until_held_back(pair: &Pair, relevo: &Relevo) {
    const SENT: &str = "SELECT sent_lsn::text FROM pg_stat_replication WHERE application_name = 'relevo_e2e'";
    let last = Mutex::new((Vec::new(), 0));
    wait_until_some("the source is held back", PATIENCE, async || {
        let bytes = relevo.metrics().await.value("relevo_buffer_bytes");
        let sent = pair.source.column(SENT).await;
        let mut last = last.lock().expect("nobody panics here");
        *last = if sent == last.0 { (sent, last.1 + 1) } else { (sent, 0) };
        let stands = last.1 >= 25 && bytes >= f64::from(20 << 20);
        if stands { Ok(()) } else { Err(format!("{bytes} bytes buffered, {last:?}")) }
    })
    .await;
}
