//! The HTTP endpoint of `relevo run`.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Version, wait_until};

use super::assert_says;

#[tokio::test]
async fn every_endpoint_answers_and_readyz_fails_while_rows_are_copied() {
    // A limit, so that there is something to tell of what is left of it.
    let limited = Pair::builder(Version::V14, Version::V14)
        .source(|source| source.set("max_slot_wal_keep_size", "1GB"));
    let pair = limited.start().await;
    let table = "CREATE TABLE t (id int PRIMARY KEY)";
    pair.sql_on_both(table).await;
    pair.source.sql("INSERT INTO t SELECT generate_series(1, 100)").await;
    // A lock that the rows have to wait for, and nothing before them.
    let lock = pair.target.connect("shop").await;
    lock.sql("BEGIN; LOCK TABLE t IN SHARE MODE").await;
    let mut running = pair.relevo().args(["--schema", "existing"]).start();
    running.wait_for_state("copying").await;
    let ready = running.get("/readyz").await.unwrap();
    assert_eq!(ready.code, 503, "{ready:?}");
    assert_says(&ready.body, &["copying"]);
    assert_eq!(running.get("/healthz").await.unwrap().code, 200);
    lock.sql("COMMIT").await;
    running.wait_until_streaming().await;
    wait_until("/readyz", PATIENCE, async || {
        running.get("/readyz").await.is_some_and(|answer| answer.code == 200)
    })
    .await;

    let page = running.get("/").await.unwrap();
    assert_eq!(page.code, 200);
    assert_says(&page.headers.to_lowercase(), &["content-type: text/html", "content-security-policy"]);
    assert_says(&page.body, &["page.js", "page.css"]);
    for (path, kind) in
        [("/page.js", "javascript"), ("/page.css", "css"), ("/api/status", "application/json")]
    {
        let answer = running.get(path).await.unwrap();
        assert_eq!(answer.code, 200, "{path}");
        assert_says(&answer.headers.to_lowercase(), &[kind, "cache-control: no-store"]);
    }
    let nothing = running.get("/nothing").await.unwrap();
    assert_eq!(nothing.code, 404);
    assert_says(&nothing.body, &["/metrics", "/api/status"]);

    pair.source.sql("INSERT INTO t VALUES (1000); UPDATE t SET id = 1001 WHERE id = 1000; DELETE FROM t WHERE id = 1001").await;
    pair.settle().await;
    // Nothing is told of a stage before it is known: the target flushes a little after its commit.
    let durable =
        async || running.metrics().await.sum("relevo_replication_lag_bytes", &[("stage", "durable")]);
    wait_until("the durable position", PATIENCE, async || durable().await.is_some()).await;
    let metrics = running.metrics().await;
    for name in [
        "relevo_replication_lag_seconds",
        "relevo_replication_lag_bytes",
        "relevo_commit_to_visible_seconds",
        "relevo_transactions_applied_total",
        "relevo_changes_applied_total",
        "relevo_batch_transactions",
        "relevo_batch_apply_seconds",
        "relevo_buffer_bytes",
        "relevo_slot_retained_wal_bytes",
        "relevo_slot_safe_wal_bytes",
        "relevo_reconnects_total",
        "relevo_copy_rows_total",
        "relevo_tables",
        "relevo_role",
        "relevo_epoch",
        "relevo_build_info",
    ] {
        assert!(metrics.has_help(name), "no # HELP {name}");
    }
    for operation in ["insert", "update", "delete"] {
        let count = metrics.sum("relevo_changes_applied_total", &[("op", operation)]);
        assert!(count.is_some_and(|count| count >= 1.0), "{operation}: {count:?}");
    }
    for stage in ["received", "applied", "durable"] {
        assert!(metrics.sum("relevo_replication_lag_bytes", &[("stage", stage)]).is_some(), "{stage}");
    }
    assert_eq!(metrics.sum("relevo_tables", &[("state", "streaming")]), Some(1.0));
    assert!((metrics.value("relevo_copy_rows_total") - 100.0).abs() < 0.5);
    running.terminate();
}
