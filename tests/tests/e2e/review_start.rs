//! What happens between the steps of the start, and beside the stream: nothing may be lost there, and nobody's rows or slot
//! taken.

use std::time::Duration;

use relevo_tests::pair::Node;
use relevo_tests::{Pair, Relevo, RelevoBuilder, Version, wait_until_some};

const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a transaction on the source that the making of the slot has to wait for.
async fn hold_the_slot(node: &Node) -> relevo_tests::Database {
    let holder = node.try_connect("shop").await.unwrap();
    holder.sql("BEGIN; SELECT pg_current_xact_id()").await;
    holder
}

async fn is_blocked(node: &Node) {
    let query = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                 WHERE NOT l.granted AND a.application_name = 'relevo_e2e'";
    wait_until_some("a session of Relevo that waits for a lock", PATIENCE, async || {
        let waiting: i64 = node.value(query).await;
        if waiting > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn tables_that_change_between_the_plan_and_the_slot_are_neither_lost_nor_left_behind() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source
        .sql(
            "CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
             CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
             CREATE TABLE again (id int PRIMARY KEY, v text);
             INSERT INTO part SELECT n, 'before' FROM generate_series(1, 50) n;
             INSERT INTO again VALUES (1, 'before');",
        )
        .await;
    let holder = hold_the_slot(&pair.source).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_for_log("creating the slot; it waits").await;
    // Decoded from the partitioned table's publication; but the plan knows nothing of its rows.
    pair.source
        .sql(
            "CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (200);
             INSERT INTO part SELECT n, 'before the slot' FROM generate_series(101, 150) n;
             DROP TABLE again;
             CREATE TABLE again (id int PRIMARY KEY, v text);
             INSERT INTO again VALUES (2, 'created again');",
        )
        .await;
    holder.sql("COMMIT").await;
    relevo.wait_until_streaming().await;
    pair.source
        .sql("UPDATE part SET v = v || '!'; INSERT INTO again VALUES (3, 'streamed'); DELETE FROM again WHERE id = 2")
        .await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_table_that_is_written_anew_during_the_copy_does_not_arrive_empty() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    let tables = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE emptied (id int PRIMARY KEY)";
    pair.sql_on_both(tables).await;
    pair.source.sql("INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 1000) n").await;
    pair.source.sql("INSERT INTO emptied SELECT generate_series(1, 1000)").await;
    let holder = hold_the_slot(&pair.source).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_for_log("creating the slot; it waits").await;
    let lock = pair.target.try_connect("shop").await.unwrap();
    lock.sql("BEGIN; LOCK TABLE t").await;
    holder.sql("COMMIT").await;
    is_blocked(&pair.target).await;
    // The snapshot is older than this, so it sees no rows any more; and the stream does not carry them.
    pair.source.sql("ALTER TABLE t ALTER COLUMN v TYPE text USING v || ' written anew'").await;
    // This does the same, but is in the stream.
    pair.source.sql("TRUNCATE emptied").await;
    lock.sql("COMMIT").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, 1000);
    assert_eq!(relevo.stderr().matches("written anew by ALTER TABLE").count(), 1, "{}", relevo.stderr());
    relevo.terminate();
}

#[tokio::test]
async fn a_flow_of_the_same_name_into_another_database_takes_nobodys_slot() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let mut first = pair.relevo().start();
    first.wait_until_streaming().await;
    first.terminate();
    pair.target.create_database("other").await;
    let other = pair.target_url().replace("/shop", "/other");
    let second = RelevoBuilder::run(&pair.source_url(), &other).name("e2e").finish().expect_code(3);
    assert!(second.stderr.contains("--name") && second.stderr.contains("database shop"), "{}", second.stderr);

    pair.source.sql("INSERT INTO t VALUES (2)").await;
    first.restart();
    first.wait_until_streaming().await;
    pair.settle().await;
    first.terminate();
}

#[tokio::test]
async fn a_table_of_another_flow_and_a_schema_of_a_later_version_are_refused() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;

    pair.source.create_database("elsewhere").await;
    pair.source.try_connect("elsewhere").await.unwrap().sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let elsewhere = pair.source_url().replace("/shop", "/elsewhere");
    let second = RelevoBuilder::run(&elsewhere, &pair.target_url()).name("second").finish().expect_code(3);
    assert!(second.stderr.contains("belongs to flow e2e"), "{}", second.stderr);
    relevo.terminate();

    pair.target.sql("INSERT INTO relevo.version VALUES (1000)").await;
    for refused in [
        pair.relevo().finish().expect_code(3),
        pair.command("status").finish().expect_code(1),
        pair.command("reset").finish().expect_code(1),
    ] {
        assert!(refused.stderr.contains("newer Relevo"), "{}", refused.stderr);
    }
    pair.target.sql("DELETE FROM relevo.version WHERE version = 1000").await;
    relevo.restart();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

/// As PostGIS does with `spatial_ref_sys`.
#[tokio::test]
async fn the_rows_that_an_extension_brings_itself_do_not_stand_in_the_way() {
    let files = tempfile::tempdir().unwrap();
    let extension = files.path().join("extension");
    std::fs::create_dir(&extension).unwrap();
    for path in [files.path(), &extension] {
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, readable).unwrap();
    }
    std::fs::write(extension.join("gauge.control"), "default_version = '1'\nrelocatable = true\n").unwrap();
    let script = "CREATE TABLE gauge_kind (id int PRIMARY KEY, name text);
        INSERT INTO gauge_kind VALUES (1, 'metre'), (2, 'foot');
        SELECT pg_catalog.pg_extension_config_dump('gauge_kind', '');";
    std::fs::write(extension.join("gauge--1.sql"), script).unwrap();
    let path = format!("{}:$system", files.path().display());
    let pair = Pair::builder(Version::V18, Version::V18)
        .source(|source| source.set("extension_control_path", &path))
        .target(|target| target.set("extension_control_path", &path))
        .start()
        .await;
    pair.source
        .sql("CREATE EXTENSION gauge; INSERT INTO gauge_kind VALUES (3, 'ell'); DELETE FROM gauge_kind WHERE id = 2")
        .await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.source.sql("UPDATE gauge_kind SET name = 'yard' WHERE id = 3").await;
    pair.caught_up().await;
    let rows = "SELECT id || name FROM gauge_kind ORDER BY id";
    assert_eq!(pair.target.column(rows).await, ["1metre", "3yard"]);
    relevo.terminate();
}

async fn wait_for_count(relevo: &Relevo, kind: &str, count: f64) {
    wait_until_some(&format!("{count} of {kind}"), PATIENCE, async || {
        let metrics = relevo.metrics().await;
        let found = metrics.sum("relevo_errors_total", &[("kind", kind)]);
        if found == Some(count) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// What `relevo errors` lists. It is said, and counted, before it is written down.
async fn errors_once_there_are(pair: &Pair, count: usize) -> serde_json::Value {
    wait_until_some(&format!("{count} errors"), PATIENCE, async || {
        let errors = pair.command("errors").arg("--json").finish().expect_code(0).json();
        if errors.as_array().is_some_and(|listed| listed.len() >= count) {
            Ok(errors)
        } else {
            Err(errors.to_string())
        }
    })
    .await
}

#[tokio::test]
async fn what_replication_leaves_out_is_said_once_with_the_way_out() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source
        .sql(
            "CREATE TABLE log (line text); INSERT INTO log VALUES ('one'), ('two');
             CREATE TABLE quiet (line text); INSERT INTO quiet VALUES ('one');
             CREATE TABLE again (id int PRIMARY KEY);",
        )
        .await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.source
        .sql(
            "UPDATE log SET line = line || '!'; DELETE FROM log WHERE line = 'two!';
             INSERT INTO quiet VALUES ('two');
             CREATE TABLE later (id int PRIMARY KEY);
             DROP TABLE again;",
        )
        .await;
    pair.source.sql("CREATE TABLE again (id int PRIMARY KEY)").await;
    wait_for_count(&relevo, "unreplicated_change", 1.0).await;
    wait_for_count(&relevo, "unpublished_table", 1.0).await;
    relevo.wait_for_log("came after the copy and is not replicated").await;
    let errors = errors_once_there_are(&pair, 2).await;
    let listed: Vec<(&str, &str)> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["kind"].as_str().unwrap(), error["table"].as_str().unwrap()))
        .collect();
    assert!(listed.contains(&("unreplicated_change", "public.log")), "{errors}");
    assert!(listed.contains(&("unpublished_table", "public.again")), "{errors}");
    assert_eq!(listed.len(), 2, "{errors}");
    let log = relevo.stderr();
    assert!(log.contains("REPLICA IDENTITY FULL") && log.contains("public.later"), "{log}");
    assert!(!log.contains("public.quiet\",\"kind"), "{log}");
    relevo.terminate();

    // What is changed while nobody looks is found afterwards.
    pair.source.sql("DROP TABLE again; UPDATE quiet SET line = line || '!'").await;
    relevo.restart();
    relevo.wait_until_streaming().await;
    wait_for_count(&relevo, "unreplicated_change", 1.0).await;
    let errors = errors_once_there_are(&pair, 3).await;
    assert_eq!(errors[0]["table"], "public.quiet", "{errors}");
    relevo.terminate();
}

#[tokio::test]
async fn status_keeps_to_its_words_and_never_says_healthy_of_what_it_cannot_see() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    let status = |pair: &Pair| pair.command("status").arg("--json").finish().expect_code(0).json();
    let keys = [
        "name",
        "node",
        "role",
        "epoch",
        "state",
        "source_lsn",
        "received_lsn",
        "applied_lsn",
        "durable_lsn",
        "lag_bytes",
        "lag_seconds",
        "slot",
        "tables",
        "errors",
    ];
    let live = relevo.status().await.unwrap();
    let stored = status(&pair);
    for document in [&live, &stored] {
        for key in keys {
            assert!(document.as_object().unwrap().contains_key(key), "{key}: {document}");
        }
    }
    for key in ["name", "wal_status", "retained_bytes", "safe_bytes"] {
        assert!(stored["slot"].as_object().unwrap().contains_key(key), "{key}: {stored}");
    }
    relevo.kill();
    pair.source.stop();
    let blind = status(&pair);
    assert_eq!(blind["state"], "preparing", "{blind}");
    assert_eq!(blind["unreachable"][0]["side"], "source", "{blind}");
    pair.source.restart().await;
    pair.target.stop();
    let blind = status(&pair);
    assert_eq!(blind["state"], "failed", "{blind}");
    assert_eq!(blind["unreachable"][0]["side"], "target", "{blind}");
}

/// The statements of the README, and nothing else.
#[tokio::test]
async fn the_rights_that_the_readme_names_are_enough() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    let password = relevo_tests::PASSWORD;
    pair.source
        .sql(&format!(
            "CREATE ROLE shop_owner; GRANT CREATE ON SCHEMA public TO shop_owner; SET ROLE shop_owner;
             CREATE TYPE mood AS ENUM ('fine', 'sad');
             CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood);
             CREATE TABLE log (at timestamptz DEFAULT now(), t int REFERENCES t);
             CREATE MATERIALIZED VIEW happy AS SELECT count(*) FROM t WHERE m = 'fine';
             INSERT INTO t (m) VALUES ('fine'), ('sad'); INSERT INTO log (t) VALUES (1);
             RESET ROLE;
             CREATE ROLE relevo LOGIN REPLICATION PASSWORD '{password}';
             GRANT shop_owner TO relevo; GRANT CREATE ON DATABASE shop TO relevo;"
        ))
        .await;
    pair.target
        .sql(&format!(
            "CREATE ROLE relevo LOGIN PASSWORD '{password}';
             GRANT CREATE ON DATABASE shop TO relevo; GRANT CREATE ON SCHEMA public TO relevo;
             GRANT SET ON PARAMETER session_replication_role TO relevo"
        ))
        .await;
    let url = |node: &Node| node.url_as("relevo", password, "shop");
    let (source, target) = (url(&pair.source), url(&pair.target));
    let check = RelevoBuilder::command(&["check", "--source", &source, "--target", &target]).name("e2e");
    let _ = check.clone().finish().expect_code(0);
    let mut relevo = RelevoBuilder::run(&source, &target).name("e2e").start();
    relevo.wait_until_streaming().await;
    pair.source
        .sql("INSERT INTO t (m) VALUES ('fine'); UPDATE t SET m = 'fine'; DELETE FROM t WHERE id = 3")
        .await;
    pair.settle().await;
    // A flow that is at work passes its own check.
    let _ = check.finish().expect_code(0);
    relevo.terminate();
    pair.source.sql("INSERT INTO t (m) VALUES ('sad')").await;
    relevo.restart();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_start_without_the_source_is_seen_and_grows_older_until_the_source_is_there() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    relevo.terminate();
    pair.source.stop();
    relevo.restart();
    let seen = relevo
        .wait_for_status("an outage that is told", PATIENCE, |status| {
            status["state"] == "preparing" && status["last_error"]["side"] == "source"
        })
        .await;
    assert_eq!(relevo.get("/healthz").await.unwrap().code, 200);
    assert_eq!(relevo.get("/readyz").await.unwrap().code, 503);
    let before = seen["lag_seconds"].as_f64().unwrap();
    relevo
        .wait_for_status("a lag that grows", PATIENCE, |status| {
            status["lag_seconds"].as_f64().is_some_and(|lag| lag > before + 1.0)
        })
        .await;
    pair.source.restart().await;
    relevo.wait_until_streaming().await;
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    pair.settle().await;
    relevo.terminate();
}
