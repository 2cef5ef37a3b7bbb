//! Bounds: memory, the spool's limit, and a target that stands still while there is much to apply.

use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Relevo, Version, soak_factor, wait_until};

use super::{LITTLE, follow, insert, logs_below, streaming, until_nothing_is_spooled, until_streamed};

/// The most memory that the process ever had in use, in bytes.
fn peak_memory_bytes(relevo: &Relevo) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relevo.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The flow has failed because of this transaction, and says what to do.
async fn until_full(relevo: &mut Relevo, xid: i64) {
    relevo
        .wait_for_status("a full spool", PATIENCE, |status| {
            let said = status["state_detail"].as_str().unwrap_or_default();
            let words = [
                format!("transaction {xid} holds "),
                "--spool-limit 1 MiB".to_owned(),
                format!("backend_xid = '{xid}'"),
            ];
            status["state"] == "failed" && words.iter().all(|words| said.contains(words))
        })
        .await;
    let metrics = relevo.metrics().await;
    assert!(metrics.sum("relevo_errors_total", &[("kind", "spool_full")]) >= Some(1.0));
    assert_eq!(metrics.value("relevo_spool_limit_bytes"), f64::from(1 << 20));
}

/// A pair with a transaction that is too large for the spool, and still open.
async fn overfull(
    source: Version,
    target: Version,
) -> (Pair, Relevo, tempfile::TempDir, relevo_tests::Database, i64) {
    let pair = streaming(source, target).start().await;
    pair.source
        .sql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE small (id int PRIMARY KEY)")
        .await;
    let (mut relevo, directory) =
        follow(&pair, &[LITTLE.as_slice(), &["--spool-limit", "1MiB"]].concat()).await;
    let session = pair.source.connect(DATABASE).await;
    session.sql("BEGIN").await;
    let xid = session.value::<i64>("SELECT txid_current()").await;
    pair.source.sql("INSERT INTO small VALUES (1)").await;
    insert(&session, "t", 1, 50_000).await;
    until_full(&mut relevo, xid).await;
    (pair, relevo, directory, session, xid)
}

#[tokio::test]
async fn a_transaction_that_is_too_large_for_the_spool_stops_the_flow_until_it_is_rolled_back() {
    let (pair, mut relevo, directory, session, _) = overfull(Version::V15, Version::V16).await;
    pair.source.sql("INSERT INTO small VALUES (2)").await;
    session.sql("ROLLBACK").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}

#[tokio::test]
async fn a_transaction_that_is_too_large_for_the_spool_is_applied_once_the_limit_is_higher() {
    let (pair, mut relevo, directory, session, xid) = overfull(Version::V18, Version::V15).await;
    session.sql("COMMIT").await;
    pair.source.sql("INSERT INTO small VALUES (2)").await;
    until_full(&mut relevo, xid).await;
    let applied: i64 = pair.target.value("SELECT count(*) FROM t").await;
    assert_eq!(applied, 0);
    relevo.terminate();
    let (mut relevo, _second) = follow(&pair, &LITTLE).await;
    pair.settle().await;
    relevo.terminate();
    assert_eq!(logs_below(directory.path()), 0);
}

/// What a killed Relevo has left in its spool is removed by the next one, which gets all of it again.
#[tokio::test]
async fn what_a_killed_relevo_has_spooled_is_removed_and_comes_again() {
    let pair = streaming(Version::V14, Version::V17).start().await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let (mut relevo, directory) = follow(&pair, &LITTLE).await;
    let session = pair.source.connect(DATABASE).await;
    session.sql("BEGIN").await;
    insert(&session, "t", 1, 30_000).await;
    wait_until("a file in the spool", PATIENCE, async || logs_below(directory.path()) == 1).await;
    relevo.kill();
    assert_eq!(logs_below(directory.path()), 1);
    session.sql("ROLLBACK; BEGIN").await;
    relevo.restart();
    relevo.wait_until_streaming().await;
    until_nothing_is_spooled(&relevo, &directory).await;
    insert(&session, "t", 1, 30_000).await;
    wait_until("a file in the spool", PATIENCE, async || logs_below(directory.path()) == 1).await;
    relevo.restart();
    session.sql("COMMIT").await;
    pair.settle().await;
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}

/// Everything that counts at once: running transactions, the queue, what is being applied.
#[tokio::test]
async fn a_million_rows_in_one_transaction_stay_within_64_mib_of_the_bound() {
    const MEMORY_BYTES: u64 = 32 << 20;
    let pair = Pair::start(Version::V15, Version::V18).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    // As servers have it: the transaction comes in blocks of 64 MB and more.
    let (mut relevo, directory) = follow(&pair, &["--memory", "32MiB", "--batch-bytes", "4MiB"]).await;
    let rows = 1_000_000 * soak_factor();
    pair.source
        .sql(&format!(
            "INSERT INTO t SELECT n, 'row ' || n || repeat('x', n % 50) FROM generate_series(1, {rows}) n"
        ))
        .await;
    pair.caught_up_within(4 * PATIENCE * soak_factor()).await;
    let peak = peak_memory_bytes(&relevo);
    eprintln!("{} MiB at most", peak >> 20);
    assert!(peak <= MEMORY_BYTES + (64 << 20), "{} MiB", peak >> 20);
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, i64::from(rows));
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}

/// The target stands still for several times as long as the source waits for a sign of life, with more to apply than fits
/// into memory: memory fills, the source waits, and the connection lives.
#[tokio::test]
async fn the_connection_outlives_a_target_that_stands_still_with_a_large_backlog() {
    const MEMORY_BYTES: u64 = 16 << 20;
    let pair = streaming(Version::V18, Version::V15)
        .source(|source| source.set("wal_sender_timeout", "2s"))
        .start()
        .await;
    pair.source
        .sql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE small (id int PRIMARY KEY, v text)")
        .await;
    let (mut relevo, directory) = follow(&pair, &LITTLE).await;
    let walsender = async || pair.source.value::<i32>("SELECT pid FROM pg_stat_replication").await;
    let before = walsender().await;
    let open = pair.source.connect(DATABASE).await;
    open.sql("BEGIN").await;
    insert(&open, "t", 100_001, 130_000).await;
    until_streamed(&relevo, f64::from(1 << 20)).await;
    pair.target.freeze();
    // The first is read back from the spool while its parts wait; many small ones follow.
    let session = pair.source.connect(DATABASE).await;
    session.sql("BEGIN").await;
    insert(&session, "t", 1, 100_000).await;
    session.sql("COMMIT").await;
    for part in 0..4_u32 {
        insert(&session, "small", part * 10_000 + 1, (part + 1) * 10_000).await;
    }
    wait_until("reading has paused for 8 s", PATIENCE, async || {
        relevo.metrics().await.value("relevo_reading_paused_seconds_total") > 8.0
    })
    .await;
    let metrics = relevo.metrics().await;
    let buffered = metrics.value("relevo_buffer_bytes");
    assert_eq!(metrics.value("relevo_buffer_limit_bytes"), MEMORY_BYTES as f64);
    assert!(buffered <= MEMORY_BYTES as f64 * 1.25, "{buffered} bytes in memory");
    assert!(metrics.value("relevo_spool_bytes") > 0.0, "the open transaction is in the spool");
    assert!(metrics.value("relevo_spool_bytes") <= metrics.value("relevo_spool_limit_bytes"));
    pair.target.thaw();
    pair.caught_up_within(2 * PATIENCE).await;
    assert_eq!(walsender().await, before, "the connection to the source is another one");
    open.sql("COMMIT").await;
    pair.settle().await;
    let metrics = relevo.metrics().await;
    assert_eq!(metrics.sum("relevo_reconnects_total", &[]), Some(0.0));
    assert!(
        peak_memory_bytes(&relevo) <= MEMORY_BYTES + (64 << 20),
        "{} MiB",
        peak_memory_bytes(&relevo) >> 20
    );
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}
