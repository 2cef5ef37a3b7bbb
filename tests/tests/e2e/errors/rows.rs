//! Rows of the target that are in the way, or not there.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Relevo, Version, wait_until_some};

use super::{assert_says, ends, has_failed, streaming, traces};

#[tokio::test]
async fn target_tables_with_rows_of_somebody_else_are_refused_at_the_first_start() {
    let pair = Pair::start(Version::V15, Version::V14).await;
    pair.sql_on_both("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE \"U u\" (id int PRIMARY KEY)").await;
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    pair.target.sql("INSERT INTO \"U u\" VALUES (7)").await;
    let refused = ends(pair.relevo(), 3, &["U u", "rows that Relevo did not bring", "TRUNCATE"]);
    assert!(!refused.stderr.contains("public.t:"), "only the table that has rows: {}", refused.stderr);
    assert_eq!(traces(&pair).await, [""; 0], "nothing was made on either side");
    assert_eq!(pair.target.column("SELECT id FROM \"U u\"").await, ["7"]);
    pair.target.sql("TRUNCATE \"U u\"").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_row_that_an_update_or_delete_does_not_find_is_logged_counted_and_listed_and_the_flow_goes_on() {
    let pair = Pair::start(Version::V16, Version::V14).await;
    let mut relevo = streaming(
        &pair,
        "CREATE TABLE t (id int, region text, note text, PRIMARY KEY (region, id));
         CREATE TABLE f (a int, b text); ALTER TABLE f REPLICA IDENTITY FULL;
         INSERT INTO t SELECT n, 'eu', 'x' FROM generate_series(1, 1100) n; INSERT INTO f VALUES (1, 'one')",
    )
    .await;
    pair.target.sql("DELETE FROM t; DELETE FROM f").await;
    pair.source
        .sql("UPDATE t SET note = 'y' WHERE id = 1001; DELETE FROM t WHERE id = 1002; DELETE FROM f")
        .await;
    pair.source.sql("INSERT INTO t VALUES (5000, 'us', 'arrives')").await;
    pair.caught_up().await;
    assert_eq!(pair.target.column("SELECT id FROM t").await, ["5000"]);
    assert_eq!(relevo.status().await.map(|status| status["state"].clone()), Some("streaming".into()));

    are_missing(&relevo, 3.0).await;
    let list = pair.command("errors").arg("--json").finish().expect_code(0).json();
    let list = list.as_array().expect("a list");
    let messages: Vec<&str> = list.iter().rev().filter_map(|error| error["message"].as_str()).collect();
    assert_eq!(messages.len(), 3, "{list:?}");
    assert_says(messages[0], &["update", "id=1001", "region=eu"]);
    assert_says(messages[1], &["delete", "id=1002", "region=eu"]);
    assert_says(messages[2], &["delete", "a=1", "b=one"]);
    assert!(list.iter().all(|error| error["kind"] == "missing_row" && error["commit_lsn"].is_string()));
    assert_eq!(list[0]["table"], "public.f");
    let text = pair.command("errors").finish().expect_code(0).stdout;
    assert_says(&text, &["missing_row", "public.t", "id=1001"]);
    assert_says(&relevo.stderr(), &["the row is missing", "id=1001", "id=1002"]);
    assert_eq!(pair.command("status").arg("--json").finish().expect_code(0).json()["errors"], 3);

    let lines = || relevo.stderr().lines().count();
    let before = lines();
    pair.source.sql("UPDATE t SET note = 'z' WHERE id <= 1000").await;
    pair.caught_up().await;
    are_missing(&relevo, 1003.0).await;
    relevo.wait_for_log("more rows are missing").await;
    let said = lines() - before;
    assert!(said <= 30, "a thousand missing rows made {said} lines");
    let newest = pair.command("errors").args(["--json", "--limit", "1"]).finish().expect_code(0).json();
    assert_says(newest[0]["message"].as_str().unwrap_or_default(), &["980 more rows"]);
    relevo.terminate();
}

/// Waits until so many have been counted; that comes just behind the commit.
async fn are_missing(relevo: &Relevo, wanted: f64) {
    wait_until_some("the count of missing rows", PATIENCE, async || {
        let metrics = relevo.metrics().await;
        let found = ["relevo_errors_total", "relevo_target_missing_rows_total"].map(|name| {
            metrics.sum(name, if name.contains("errors") { &[("kind", "missing_row")] } else { &[] })
        });
        if found == [Some(wanted); 2] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_unique_violation_stops_the_flow_with_table_constraint_and_key_and_loses_nothing() {
    let pair = Pair::start(Version::V15, Version::V18).await;
    let mut relevo = streaming(
        &pair,
        "CREATE TABLE t (id int PRIMARY KEY, email text CONSTRAINT one_email UNIQUE, touched int NOT NULL DEFAULT 0)",
    )
    .await;
    pair.target.sql("INSERT INTO t VALUES (100, 'a@example.org')").await;
    // The conflict lies in the middle of what goes in one batch.
    for id in 1..=5 {
        pair.source.sql(&format!("INSERT INTO t VALUES ({id}, 'before {id}')")).await;
    }
    pair.source
        .sql("BEGIN; UPDATE t SET touched = touched + 1; INSERT INTO t VALUES (6, 'a@example.org'); COMMIT")
        .await;
    pair.source.sql("UPDATE t SET touched = touched + 1; INSERT INTO t VALUES (7, 'behind')").await;
    let status = has_failed(
        &mut relevo,
        &[
            "insert on public.t",
            "row id=6",
            "one_email",
            "a@example.org",
            "remove or change the conflicting row",
            "nothing was lost",
        ],
    )
    .await;
    assert!(status["lag_seconds"].as_f64().is_some(), "{status}");
    let visible = pair.target.column("SELECT email FROM t WHERE id > 5 ORDER BY id").await;
    assert_eq!(visible, ["a@example.org"], "nothing of the transaction or behind it is visible");
    let stored = pair.command("status").finish().expect_code(0).stdout;
    assert_says(&stored, &["failed", "one_email"]);
    assert!(relevo.metrics().await.sum("relevo_errors_total", &[("kind", "unique_violation")]) >= Some(1.0));

    // It stays so over a restart, and is mended while it runs.
    relevo.terminate();
    relevo.restart();
    has_failed(&mut relevo, &["one_email"]).await;
    pair.target.sql("DELETE FROM t WHERE id = 100").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    let touched = pair.target.column("SELECT touched FROM t ORDER BY id").await;
    assert_eq!(touched, ["2", "2", "2", "2", "2", "1", "0"], "each update arrived exactly once");
    relevo.terminate();
}
