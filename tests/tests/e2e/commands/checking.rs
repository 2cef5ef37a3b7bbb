//! `relevo check`: its document, its verdicts, and that what it prints mends what it found.

use relevo_tests::{Pair, SlotHolder, Version};
use serde_json::Value;

use super::{NOWHERE, assert_says, relevo};

/// The findings of `relevo check --json`.
fn findings(pair: &Pair, code: i32) -> Vec<Value> {
    let document = pair.command("check").arg("--json").finish().expect_code(code).json();
    let findings = document["findings"].as_array().unwrap().clone();
    for finding in &findings {
        assert!(finding["check"].is_string() && finding["message"].is_string(), "{finding}");
        let severity = finding["severity"].as_str().unwrap();
        assert!(["ok", "notice", "warning", "error"].contains(&severity), "{finding}");
        assert!([Value::Null, "source".into(), "target".into()].contains(&finding["side"]), "{finding}");
    }
    let order = ["ok", "notice", "warning", "error"];
    let rank = |value: &Value| order.iter().position(|name| value == name).unwrap();
    let worst = findings.iter().map(|finding| rank(&finding["severity"])).max().unwrap();
    assert_eq!(rank(&document["verdict"]), worst, "{document}");
    findings
}

/// The finding of that check, with that severity.
#[track_caller]
fn found<'f>(findings: &'f [Value], check: &str, severity: &str) -> &'f Value {
    findings
        .iter()
        .find(|finding| finding["check"] == check && finding["severity"] == severity)
        .unwrap_or_else(|| {
            let of_check: Vec<&Value> = findings.iter().filter(|finding| finding["check"] == check).collect();
            panic!("no {severity} of {check}: {of_check:?}")
        })
}

#[tokio::test]
async fn check_passes_a_healthy_pair_and_reaches_every_severity() {
    let pair = Pair::builder(Version::V15, Version::V17)
        .source(|source| source.set("max_slot_wal_keep_size", "1GB"))
        .target(|target| target.set("fsync", "on"))
        .start()
        .await;
    pair.source
        .sql("CREATE TABLE t (id int PRIMARY KEY, made timestamptz DEFAULT now(), note text); CREATE SEQUENCE s")
        .await;
    let healthy = findings(&pair, 0);
    for check in [
        "wal_level",
        "replication_slots",
        "wal_senders",
        "output_plugin",
        "clock",
        "replica_identity",
        "version",
    ] {
        found(&healthy, check, "ok");
    }
    let text = pair.command("check").finish().expect_code(0).stdout;
    assert_says(&text, &["wal_level", "0 errors", " ok, "]);

    pair.source
        .sql(
            "CREATE TABLE keyless (id int); CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY);
             CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM t;
             SELECT lo_create(0); CREATE ROLE owner_here; CREATE TABLE owned (id int PRIMARY KEY);
             ALTER TABLE owned OWNER TO owner_here",
        )
        .await;
    let place = pair.source.socket_folder().join("space");
    std::fs::create_dir(&place).unwrap();
    relevo_tests::process::give_to_server_user(&place);
    pair.source.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", place.display())).await;
    pair.source.sql("CREATE TABLE spaced (id int PRIMARY KEY) TABLESPACE fast").await;
    let noted = findings(&pair, 0);
    found(&noted, "unlogged_tables", "notice");
    found(&noted, "materialized_views", "notice");
    assert_says(found(&noted, "large_objects", "warning")["message"].as_str().unwrap(), &["1 large object"]);
    assert_says(
        found(&noted, "large_objects", "warning")["remedy"].as_str().unwrap(),
        &["bytea", "lo_import"],
    );
    assert_says(
        found(&noted, "roles", "warning")["remedy"].as_str().unwrap(),
        &["CREATE ROLE \"owner_here\""],
    );
    assert_says(
        found(&noted, "tablespaces", "warning")["remedy"].as_str().unwrap(),
        &["CREATE TABLESPACE \"fast\""],
    );
    let identity = found(&noted, "replica_identity", "warning");
    assert_eq!(identity["subject"], "public.keyless");
    // The remedy is SQL that works.
    pair.source.sql(identity["remedy"].as_str().unwrap()).await;
    let mended = findings(&pair, 0);
    assert!(
        !mended
            .iter()
            .any(|finding| finding["check"] == "replica_identity" && finding["severity"] == "warning")
    );

    // A table that exists must fit.
    pair.target.sql("CREATE TABLE t (id int PRIMARY KEY, made int); CREATE TABLE keyless (id int)").await;
    let faulty = findings(&pair, 1);
    assert_eq!(found(&faulty, "missing_table", "error")["subject"], "public.owned");
    assert_eq!(found(&faulty, "missing_column", "error")["subject"], "public.t.note");
    let other_type = found(&faulty, "column_type", "warning");
    assert_eq!(other_type["subject"], "public.t.made");
    pair.target.sql("ALTER TABLE t ALTER made DROP DEFAULT, ALTER made TYPE timestamptz USING now()").await;
    assert!(
        !findings(&pair, 1)
            .iter()
            .any(|finding| finding["check"] == "column_type" && finding["severity"] != "ok")
    );
    let text = pair.command("check").finish().expect_code(1);
    assert_says(&text.stdout, &["error", "public.t", "→"]);
    assert_says(&text.stderr, &["must be mended first"]);
}

#[tokio::test]
async fn check_finds_what_the_server_lacks() {
    let pair = Pair::builder(Version::V18, Version::V14)
        .source(|source| source.set("max_replication_slots", "2").set("max_wal_senders", "1"))
        .start()
        .await;
    pair.source
        .sql("CREATE TABLE t (id int PRIMARY KEY); CREATE EXTENSION hstore; CREATE EXTENSION btree_gist")
        .await;
    pair.source.sql("CREATE PUBLICATION p FOR TABLE t").await;
    pair.source.sql("SELECT pg_create_logical_replication_slot('held', 'pgoutput')").await;
    let holder = SlotHolder::start(&pair.source, "shop", "somebody", "held", "p").await;
    found(&findings(&pair, 1), "wal_senders", "error");
    drop(holder);
    // A transaction that writes keeps a slot from being created; it is named, however young it is.
    let writer = pair.source.connect("shop").await;
    writer.sql("BEGIN; INSERT INTO t VALUES (1)").await;
    let slow = findings(&pair, 0);
    found(&slow, "output_plugin", "warning");
    let long = found(&slow, "long_transactions", "warning");
    assert_says(&long.to_string(), &["relevo-tests", "pg_terminate_backend"]);
    writer.sql("ROLLBACK").await;
    pair.source.sql("SELECT pg_create_logical_replication_slot('second', 'pgoutput')").await;
    let full = findings(&pair, 1);
    assert_says(
        found(&full, "replication_slots", "error")["remedy"].as_str().unwrap(),
        &["max_replication_slots"],
    );
    assert!(
        full.iter().any(|finding| finding["check"] == "extensions" && finding["subject"] == "hstore"),
        "{full:?}"
    );

    let low = Pair::builder(Version::V16, Version::V18)
        .source(|source| source.set("wal_level", "replica"))
        .start()
        .await;
    low.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let found_low = findings(&low, 1);
    assert_says(
        found(&found_low, "wal_level", "error")["remedy"].as_str().unwrap(),
        &["wal_level = 'logical'", "restart"],
    );
    low.source.sql("ALTER SYSTEM SET wal_level = 'logical'").await;
    low.source.restart().await;
    found(&findings(&low, 0), "wal_level", "ok");

    let nobody = relevo(&["check", "--json", "--source", NOWHERE, "--target", &low.target_url()])
        .finish()
        .expect_code(1)
        .json();
    let of: Vec<Value> = nobody["findings"].as_array().unwrap().clone();
    assert_eq!(found(&of, "connect", "error")["side"], "source");
    assert_eq!(found(&of, "connect", "ok")["side"], "target");
}
