//! `relevo errors`: what did not stop the flow.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Version, wait_until};
use serde_json::Value;

use super::assert_says;
use super::documents::is_lsn;

#[tokio::test]
async fn errors_lists_what_did_not_stop_the_flow() {
    let pair = Pair::start(Version::V15, Version::V14).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1), (2), (3)").await;
    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;
    let errors = || pair.command("errors").arg("--json");
    assert_eq!(errors().finish().expect_code(0).json(), Value::Array(Vec::new()));
    assert_says(&pair.command("errors").finish().expect_code(0).stdout, &["0 errors of flow e2e"]);
    pair.target.sql("DELETE FROM t WHERE id < 3").await;
    pair.source.sql("UPDATE t SET n = 7 WHERE id = 1").await;
    pair.source.sql("DELETE FROM t WHERE id = 2").await;
    pair.caught_up().await;
    let listed = errors().finish().expect_code(0).json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    for error in listed {
        assert!(error["id"].is_i64() && error["kind"].is_string() && error["at"].is_string(), "{error}");
        assert!(error["table"] == "public.t" && is_lsn(&error["commit_lsn"]), "{error}");
    }
    // The newest first, with the key that was looked for.
    assert_says(listed[0]["message"].as_str().unwrap(), &["id", "2"]);
    assert_says(listed[1]["message"].as_str().unwrap(), &["id", "1"]);
    let one = errors().args(["--limit", "1"]).finish().expect_code(0).json();
    assert_eq!(one.as_array().unwrap().as_slice(), &listed[..1]);
    let text = pair.command("errors").finish().expect_code(0).stdout;
    assert_says(&text, &["public.t", "2 errors of flow e2e"]);
    assert_eq!(pair.command("status").arg("--json").finish().expect_code(0).json()["errors"], 2);
    let metrics = running.metrics().await;
    assert!(metrics.has_help("relevo_target_missing_rows_total"));
    assert_eq!(metrics.sum("relevo_target_missing_rows_total", &[]), Some(2.0));
    // Cleared once they were shown; what is shown is not cut by that, and other flows keep theirs.
    pair.target
        .sql(
            "INSERT INTO relevo.flow (name, state) VALUES ('other', 'stopped'); \
             INSERT INTO relevo.error (flow, kind, message) VALUES ('other', 'x', 'of another flow')",
        )
        .await;
    let cleared = pair.command("errors").args(["--clear", "--limit", "1"]).finish().expect_code(0).stdout;
    assert_says(&cleared, &["public.t", "1 errors of flow e2e shown", "2 errors of flow e2e removed"]);
    assert_eq!(errors().arg("--clear").finish().expect_code(0).json(), Value::Array(Vec::new()));
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM relevo.error").await, 1);
    running.terminate();
}

#[tokio::test]
async fn the_newest_errors_are_kept_and_older_ones_go() {
    let pair = Pair::start(Version::V14, Version::V18).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;
    running.terminate();
    pair.target
        .sql(
            "INSERT INTO relevo.error (flow, kind, message) \
             SELECT 'e2e', 'missing_row', n::text FROM generate_series(1, 25003) n",
        )
        .await;
    running.restart();
    let count = "SELECT count(*) FROM relevo.error";
    wait_until("only the newest 10000 errors are left", PATIENCE, async || {
        pair.target.value::<i64>(count).await == 10_000
    })
    .await;
    let oldest: i32 = pair.target.value("SELECT min(message::int) FROM relevo.error").await;
    assert_eq!(oldest, 15_004);
    running.terminate();
}
