//! The metrics of the contract: they are there, with their types, and they move with what they mean.

use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Metrics, Pair, Version, wait_until};

const CONTRACT: [(&str, &str); 18] = [
    ("relevo_replication_lag_seconds", "gauge"),
    ("relevo_replication_lag_bytes", "gauge"),
    ("relevo_commit_to_visible_seconds", "histogram"),
    ("relevo_transactions_applied_total", "counter"),
    ("relevo_changes_applied_total", "counter"),
    ("relevo_batch_transactions", "histogram"),
    ("relevo_batch_apply_seconds", "histogram"),
    ("relevo_buffer_bytes", "gauge"),
    ("relevo_spool_bytes", "gauge"),
    ("relevo_slot_retained_wal_bytes", "gauge"),
    ("relevo_slot_safe_wal_bytes", "gauge"),
    ("relevo_reconnects_total", "counter"),
    ("relevo_errors_total", "counter"),
    ("relevo_copy_rows_total", "counter"),
    ("relevo_tables", "gauge"),
    ("relevo_role", "gauge"),
    ("relevo_epoch", "gauge"),
    ("relevo_build_info", "gauge"),
];
const SCHEMA: &str = "
CREATE TABLE one (id int PRIMARY KEY, note text);
CREATE TABLE two (id int PRIMARY KEY);
INSERT INTO one SELECT n, 'before' FROM generate_series(1, 70) n;
INSERT INTO two SELECT generate_series(1, 30);
";

fn changes(metrics: &Metrics, op: &str) -> f64 {
    metrics.sum("relevo_changes_applied_total", &[("op", op)]).unwrap_or_else(|| panic!("no op {op}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_of_the_contract_are_there_and_move() {
    let pair = Pair::builder(Version::V15, Version::V15)
        // A limit, so that there is something to say about how safe the slot is.
        .source(|source| source.set("max_slot_wal_keep_size", "2GB"))
        .proxied()
        .start()
        .await;
    pair.source.sql(SCHEMA).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    let durable: (&str, &str) = ("stage", "durable");
    wait_until("the slot was looked at, and something is flushed", PATIENCE, async || {
        let metrics = relevo.metrics().await;
        metrics.sum("relevo_slot_safe_wal_bytes", &[]).is_some()
            && metrics.sum("relevo_replication_lag_bytes", &[durable]).is_some()
    })
    .await;
    let before = relevo.metrics().await;
    assert!((before.value("relevo_copy_rows_total") - 100.0).abs() < 0.5);
    assert_eq!(before.sum("relevo_tables", &[("state", "streaming")]), Some(2.0));
    assert_eq!(before.sum("relevo_tables", &[]), Some(2.0));
    assert_eq!(before.sum("relevo_role", &[("role", "standby")]), Some(1.0));
    assert_eq!(before.sum("relevo_role", &[("role", "primary")]), Some(0.0));
    assert_eq!(before.sum("relevo_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    for stage in ["received", "applied", "durable"] {
        assert!(before.sum("relevo_replication_lag_bytes", &[("stage", stage)]).is_some(), "{stage}");
    }
    for side in ["source", "target"] {
        assert_eq!(before.sum("relevo_reconnects_total", &[("side", side)]), Some(0.0), "{side}");
    }

    for statement in [
        "INSERT INTO one SELECT n, 'later' FROM generate_series(71, 80) n",
        "UPDATE one SET note = 'changed' WHERE id <= 7",
        "DELETE FROM one WHERE id <= 3",
        "TRUNCATE two",
    ] {
        pair.source.sql(statement).await;
    }
    pair.settle().await;
    let after = relevo.metrics().await;
    for (op, expected) in [("insert", 10.0), ("update", 7.0), ("delete", 3.0), ("truncate", 1.0)] {
        let counted = changes(&after, op) - changes(&before, op);
        assert!((counted - expected).abs() < 0.5, "{op}: {counted} instead of {expected}");
    }
    let grown = |name: &str| after.value(name) - before.value(name);
    let transactions = grown("relevo_transactions_applied_total");
    assert!(transactions >= 4.0, "{transactions} transactions");
    assert!((grown("relevo_commit_to_visible_seconds_count") - transactions).abs() < 0.5);
    assert!((grown("relevo_batch_transactions_sum") - transactions).abs() < 0.5);
    let batches = grown("relevo_batch_apply_seconds_count");
    assert!(batches >= 1.0 && batches <= transactions, "{batches} batches");
    assert!(grown("relevo_batch_apply_seconds_sum") > 0.0);
    let visible = grown("relevo_commit_to_visible_seconds_sum");
    assert!(visible > 0.0 && visible < 60.0 * transactions, "{visible} s in sum");

    a_blocked_apply_shows(&pair, &relevo).await;
    pair.target_proxy().cut();
    wait_until("the lost target is counted", PATIENCE, async || {
        let metrics = relevo.metrics().await;
        metrics.sum("relevo_reconnects_total", &[("side", "target")]) >= Some(1.0)
            && metrics.sum("relevo_errors_total", &[]) >= Some(1.0)
    })
    .await;
    let body = relevo.get("/metrics").await.unwrap().body;
    for (name, kind) in CONTRACT {
        assert!(body.contains(&format!("# TYPE {name} {kind}\n")), "{name} is not a {kind}");
        assert!(body.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    pair.settle().await;
    relevo.terminate();
}

/// While the target holds a lock: bytes wait in memory, the source keeps WAL for the slot, the lag in bytes grows.
async fn a_blocked_apply_shows(pair: &Pair, relevo: &relevo_tests::Relevo) {
    let locker = pair.target.connect(DATABASE).await;
    locker.sql("BEGIN; LOCK TABLE one IN ACCESS EXCLUSIVE MODE").await;
    pair.source.sql("INSERT INTO one SELECT n, repeat('x', 500) FROM generate_series(1001, 6000) n").await;
    wait_until("what is blocked shows", PATIENCE, async || {
        let metrics = relevo.metrics().await;
        metrics.value("relevo_buffer_bytes") > 2e6
            && metrics.value("relevo_slot_retained_wal_bytes") > 2e6
            && metrics.sum("relevo_replication_lag_bytes", &[("stage", "applied")]) > Some(2e6)
            && metrics.sum("relevo_replication_lag_bytes", &[("stage", "received")]) < Some(1e5)
    })
    .await;
    locker.sql("COMMIT").await;
    pair.settle().await;
    wait_until("nothing waits any more", PATIENCE, async || {
        let metrics = relevo.metrics().await;
        metrics.value("relevo_buffer_bytes") == 0.0 && metrics.value("relevo_replication_lag_seconds") == 0.0
    })
    .await;
}
