//! `relevo wait`: what was committed on the source before the call is on the target when it returns 0, and it says why when
//! it does not.

use std::time::Duration;

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{FLOW, Pair, Relevo, RelevoBuilder, Version};

/// How far a position that is never reached lies ahead.
const FAR: &str = "FFFF/0";

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "expected {part:?} in: {said}");
    }
}

async fn streaming(source: Version, target: Version, options: &[&str]) -> (Pair, Relevo) {
    let pair = Pair::start(source, target).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY, note text)").await;
    let mut relevo = pair.relevo().args(options).start();
    relevo.wait_until_streaming().await;
    (pair, relevo)
}

/// `relevo wait` with the target alone.
fn target_only(pair: &Pair, lsn: &str) -> RelevoBuilder {
    RelevoBuilder::command(&["wait", "--target", &pair.target_url(), "--name", FLOW, "--lsn", lsn])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wrote_on_the_source_reads_it_on_the_target() {
    // No heartbeat and no other session helps the position on.
    let (pair, mut relevo) = streaming(Version::V14, Version::V18, &["--heartbeat-interval", "1h"]).await;
    for id in 0..20 {
        // A commit that nobody has flushed counts as well.
        let commit = if id % 2 == 0 { "on" } else { "off" };
        let session = pair.source.connect("shop").await;
        session.sql(&format!("SET synchronous_commit = {commit}")).await;
        session.sql(&format!("INSERT INTO t VALUES ({id}, 'mine')")).await;
        if id % 4 == 3 {
            // Nothing else has been written behind it; a large one is still on its way.
            session.sql(&format!("UPDATE t SET note = repeat('x', 1000000) WHERE id = {id}")).await;
        }
        let said = pair.command("wait").args(&["--now", "--json"]).finish().expect_code(0).json();
        let there: i64 = pair.target.value(&format!("SELECT count(*) FROM t WHERE id = {id}")).await;
        assert_eq!(there, 1, "row {id} after {said}");
        assert_eq!(said["reached"], true);
        assert_eq!(said["behind_bytes"], 0);
        assert_eq!(said["name"], FLOW);
        assert!(said["lsn"].is_string() && said["applied_lsn"].is_string(), "{said}");
        assert!(said["waited_seconds"].is_number(), "{said}");
    }
    // Nothing was written at all.
    let said = pair.command("wait").arg("--now").finish().expect_code(0).stdout;
    assert_says(&said, &["flow e2e has applied", "it stands at"]);
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_position_needs_no_source() {
    let (pair, mut relevo) = streaming(Version::V15, Version::V15, &["--heartbeat-interval", "1s"]).await;
    pair.source.sql("INSERT INTO t VALUES (1, 'mine')").await;
    let lsn: String = pair.source.value("SELECT pg_current_wal_insert_lsn()::text").await;
    target_only(&pair, &lsn).finish().expect_code(0);
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, 1);
    pair.source.stop();
    target_only(&pair, &lsn).finish().expect_code(0);
    // The only flow of the target need not be named.
    let unnamed = RelevoBuilder::command(&["wait", "--target", &pair.target_url(), "--lsn", &lsn]);
    unnamed.finish().expect_code(0);
    let said = pair.command("wait").args(&["--now", "--timeout", "1s"]).finish().expect_code(1).stderr;
    assert_says(&said, &["not within 1.0 s", "the source could not be asked"]);
    pair.source.start().await;
    pair.command("wait").arg("--now").finish().expect_code(0);
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_in_vain_says_where_it_stands_and_why() {
    let (pair, mut relevo) = streaming(Version::V16, Version::V17, &[]).await;
    let wait = |arguments: &[&str]| {
        let finished = pair.command("wait").args(&["--timeout", "500ms"]).args(arguments).finish();
        finished.expect_code(1)
    };
    let said = wait(&["--lsn", FAR]).stderr;
    assert_says(
        &said,
        &["FFFF/0 is not applied within 0.5 s", "flow e2e stands at", "before it", "streaming"],
    );
    relevo.terminate();
    pair.source.sql("INSERT INTO t VALUES (1, 'mine')").await;
    let said = wait(&["--now", "--json"]);
    assert_says(&said.stderr, &["flow e2e stands at", "before it", "its state is stopped"]);
    let json = said.json();
    assert_eq!(json["reached"], false);
    assert!(json["behind_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{json}");

    let unknown = RelevoBuilder::command(&["wait", "--target", &pair.target_url(), "--lsn", "0/1"]);
    let said = unknown.name("nobodys").finish().expect_code(1).stderr;
    assert_says(&said, &["the target knows of no flow nobodys"]);
    let other = pair.target.url("postgres");
    let nowhere = RelevoBuilder::command(&["wait", "--target", &other, "--lsn", "0/1"]);
    assert_says(&nowhere.finish().expect_code(1).stderr, &["no schema relevo"]);
    // Positions of another source mean nothing.
    let (source, target) = (pair.target.url("postgres"), pair.target_url());
    let other = RelevoBuilder::command(&["wait", "--now", "--source", &source, "--target", &target]);
    let said = other.name(FLOW).finish().expect_code(1).stderr;
    assert_says(&said, &["flow e2e follows database \"shop\"", "cannot be compared"]);
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let target = "postgres://nobody@127.0.0.1:1/nothing";
    for (arguments, parts) in [
        (vec![], vec!["--lsn", "--now"]),
        (vec!["--now", "--lsn", "0/1"], vec!["cannot be used with"]),
        (vec!["--lsn", "somewhere"], vec!["\"somewhere\" is not an LSN", "16/B374D848"]),
        (vec!["--lsn", "0/1", "--timeout", "0s"], vec!["more than 0s"]),
        (vec!["--lsn", "0/1", "--timeout", "soon"], vec!["--timeout"]),
        (vec!["--now"], vec!["--source", "RELEVO_SOURCE_URL"]),
    ] {
        let command = RelevoBuilder::command(&["wait", "--target", target]).args(&arguments);
        assert_says(&command.finish().expect_code(2).stderr, &parts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_down_for_a_moment_is_waited_for() {
    let (pair, mut relevo) = streaming(Version::V17, Version::V14, &[]).await;
    pair.source.sql("INSERT INTO t VALUES (1, 'mine')").await;
    pair.target.stop();
    let said = pair.command("wait").args(&["--now", "--timeout", "1s"]).finish().expect_code(1).stderr;
    assert_says(&said, &["is not applied within 1.0 s", "the last answer was an error"]);
    let mut waiting = pair.command("wait").args(&["--now", "--timeout", "5min"]).start();
    waiting.wait_for_log("asked again until the time is up").await;
    pair.target.start().await;
    assert_eq!(waiting.wait_for_exit(PATIENCE).code(), Some(0), "{}", waiting.stderr());
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, 1);
    // A session that is lost while it waits.
    let mut waiting = pair.command("wait").args(&["--lsn", FAR, "--timeout", "5min"]).start();
    let asking =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'relevo'";
    relevo_tests::wait_until("the session of relevo wait is ended", PATIENCE, async || {
        pair.target.value::<i64>(asking).await > 0
    })
    .await;
    waiting.wait_for_log("asked again until the time is up").await;
    assert!(waiting.try_exit().is_none());
    waiting.kill();
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_first_copy_runs_nothing_counts_as_applied() {
    let pair = Pair::start(Version::V18, Version::V16).await;
    pair.sql_on_both("CREATE TABLE first (id int PRIMARY KEY); CREATE TABLE second (id int PRIMARY KEY)")
        .await;
    pair.source.sql("INSERT INTO first VALUES (1); INSERT INTO second VALUES (1)").await;
    // The second table's rows cannot come.
    let holder = pair.target.connect("shop").await;
    holder.sql("BEGIN; LOCK TABLE second IN ROW EXCLUSIVE MODE").await;
    let mut relevo = pair.relevo().args(&["--schema", "existing"]).start();
    relevo
        .wait_for_status("the first table has arrived", Duration::from_secs(60), |status| {
            status["tables"]["copied"] == 1
        })
        .await;
    pair.source.sql("INSERT INTO second VALUES (2)").await;
    let said = pair.command("wait").args(&["--now", "--timeout", "3s"]).finish().expect_code(1).stderr;
    assert_says(&said, &["its state is copying", "its initial copy is not complete"]);
    holder.sql("COMMIT").await;
    pair.command("wait").arg("--now").finish().expect_code(0);
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM second").await, 2);
    relevo.terminate();
}
