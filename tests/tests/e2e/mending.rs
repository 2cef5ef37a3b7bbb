//! What `relevo check` prints mends what it has found: the statements of each verdict are run as they stand, on the side
//! that they are for, and the check passes. No more is done than what is printed, and no other statement is run.

use std::collections::BTreeSet;

use relevo_tests::cluster::PASSWORD;
use relevo_tests::pair::Node;
use relevo_tests::{FLOW, Pair, RelevoBuilder, SlotHolder, Version};
use serde_json::Value;

/// Verdicts of `relevo check` as role `relevo` on both sides.
fn findings(pair: &Pair) -> Vec<Value> {
    let [source, target] = [&pair.source, &pair.target].map(|node| node.url_as("relevo", PASSWORD, "shop"));
    let check = RelevoBuilder::command(&["check", "--json", "--source", &source, "--target", &target]);
    let finished = check.name(FLOW).finish();
    assert!(finished.code.is_some_and(|code| code <= 1), "{finished:?}");
    if finished.code == Some(1) {
        let said: Value = serde_json::from_str(finished.stderr.lines().last().unwrap()).expect("JSON");
        assert_eq!((&said["kind"], &said["exit_code"]), (&"check".into(), &1.into()), "{said}");
    }
    finished.json()["findings"].as_array().unwrap().clone()
}

/// Those of one check that are not well.
fn faults(findings: &[Value], check: &str) -> Vec<Value> {
    findings
        .iter()
        .filter(|finding| finding["check"] == check && finding["severity"] != "ok")
        .cloned()
        .collect()
}

fn side<'p>(pair: &'p Pair, finding: &Value) -> &'p Node {
    match finding["side"].as_str() {
        Some("source") => &pair.source,
        Some("target") => &pair.target,
        other => panic!("which side? {other:?}: {finding}"),
    }
}

/// Runs what stands there, and restarts the server if it says so.
async fn mend(pair: &Pair, finding: &Value) {
    let statements = finding["sql"].as_array().unwrap();
    assert!(!statements.is_empty(), "no statement mends {finding}");
    let node = side(pair, finding);
    let session = node.connect("shop").await;
    for statement in statements {
        println!("{}: {statement}", finding["check"]);
        session.sql(statement.as_str().unwrap()).await;
    }
    drop(session);
    if finding["remedy"].as_str().unwrap().contains("restart the server") {
        node.restart().await;
    }
}

/// Mends whatever these checks find, and sees that nothing of it is found again. Each of them must find something.
async fn mended(pair: &Pair, checks: &[&str]) {
    let mut left: BTreeSet<&str> = checks.iter().copied().collect();
    // Some faults are seen only when others are mended: what a role may not see it cannot miss.
    for _ in 0..4 {
        let found = findings(pair);
        for check in checks {
            for fault in faults(&found, check) {
                assert!(fault["expected"].is_string(), "{fault}");
                mend(pair, &fault).await;
                left.remove(check);
            }
        }
    }
    assert_eq!(left, BTreeSet::new(), "these have found nothing: {:#?}", findings(pair));
    let found = findings(pair);
    for check in checks {
        assert_eq!(faults(&found, check), Vec::<Value>::new());
    }
}

/// A role that may log in and nothing more.
async fn with_a_poor_role(pair: &Pair) {
    pair.sql_on_both(&format!("CREATE ROLE relevo LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE shop_owner"))
        .await;
}

#[tokio::test]
async fn every_right_that_is_missing_is_granted_by_what_is_printed() {
    let pair = Pair::start(Version::V16, Version::V17).await;
    with_a_poor_role(&pair).await;
    let tables = "CREATE SCHEMA shut AUTHORIZATION shop_owner; SET ROLE shop_owner;
        CREATE TABLE shut.a (id int PRIMARY KEY); RESET ROLE;
        CREATE TABLE secret (id int PRIMARY KEY); ALTER TABLE secret OWNER TO shop_owner;
        ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE secret FORCE ROW LEVEL SECURITY;
        CREATE SCHEMA relevo; CREATE TABLE relevo.thing (id int GENERATED ALWAYS AS IDENTITY)";
    pair.sql_on_both(tables).await;
    pair.source.sql("SET ROLE shop_owner; CREATE SEQUENCE shut.numbers; RESET ROLE").await;
    pair.source.sql("CREATE ROLE second_owner; CREATE EXTENSION hstore").await;
    pair.source.sql("CREATE TABLE other (id int PRIMARY KEY); ALTER TABLE other OWNER TO second_owner").await;
    pair.target.sql("CREATE TABLE other (id int PRIMARY KEY)").await;
    let checks = [
        "replication_right",
        "schema_rights",
        "table_rights",
        "sequence_rights",
        "publication_right",
        "row_security",
        "create_right",
        "replica_role",
        "roles",
        "extensions",
        "long_transactions",
    ];
    mended(&pair, &checks).await;
}

#[tokio::test]
async fn every_setting_that_is_in_the_way_is_changed_by_what_is_printed() {
    let pair = Pair::builder(Version::V18, Version::V14)
        .source(|source| {
            source
                .set("max_replication_slots", "1")
                .set("max_wal_senders", "1")
                .set("idle_replication_slot_timeout", "300")
        })
        .target(|target| target.set("fsync", "off"))
        .start()
        .await;
    with_a_poor_role(&pair).await;
    pair.sql_on_both("ALTER ROLE relevo SUPERUSER").await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await;
    pair.source.sql("SELECT pg_create_logical_replication_slot('held', 'pgoutput')").await;
    let holder = SlotHolder::start(&pair.source, "shop", "somebody", "held", "p").await;
    // Both restart the server, each once.
    mended(&pair, &["wal_senders", "replication_slots", "durability"]).await;
    drop(holder);
    // Two faults, one behind the other.
    let idle = faults(&findings(&pair), "slot_retention");
    assert!(idle[0]["message"].as_str().unwrap().contains("idle_replication_slot_timeout"), "{idle:?}");
    mended(&pair, &["slot_retention"]).await;

    let low = Pair::builder(Version::V15, Version::V16)
        .source(|source| source.set("wal_level", "replica"))
        .start()
        .await;
    with_a_poor_role(&low).await;
    low.sql_on_both("ALTER ROLE relevo SUPERUSER").await;
    low.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    mended(&low, &["wal_level"]).await;
}

#[tokio::test]
async fn tables_that_do_not_fit_are_made_to_fit_by_what_is_printed() {
    let pair = Pair::start(Version::V14, Version::V18).await;
    with_a_poor_role(&pair).await;
    pair.sql_on_both("ALTER ROLE relevo SUPERUSER").await;
    pair.source
        .sql(
            "CREATE TABLE keyless (id int); CREATE TABLE nothing (id int PRIMARY KEY);
             ALTER TABLE nothing REPLICA IDENTITY NOTHING; CREATE UNLOGGED TABLE lost (id int PRIMARY KEY);
             CREATE TABLE t (id int PRIMARY KEY, note text, made text, free text, sum int)",
        )
        .await;
    pair.target
        .sql(
            "CREATE TABLE keyless (id int); CREATE TABLE nothing (id int PRIMARY KEY);
             CREATE TABLE lost (id int PRIMARY KEY);
             CREATE TABLE t (id int, made varchar(5), free text NOT NULL, extra int NOT NULL,
                             sum int GENERATED ALWAYS AS (id * 2) STORED)",
        )
        .await;
    let checks = [
        "replica_identity",
        "unlogged_tables",
        "missing_column",
        "column_type",
        "column_not_null",
        "extra_column",
        "generated_column",
        "target_key",
    ];
    mended(&pair, &checks).await;
    let found = findings(&pair);
    let well =
        |check: &str| found.iter().any(|finding| finding["check"] == check && finding["severity"] == "ok");
    assert!(well("tables_match") && well("replica_identity"), "{found:#?}");
}

#[tokio::test]
async fn open_transactions_and_large_objects_go_by_what_is_printed() {
    let pair = Pair::start(Version::V17, Version::V15).await;
    with_a_poor_role(&pair).await;
    pair.sql_on_both("ALTER ROLE relevo SUPERUSER").await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); SELECT lo_create(0); SELECT lo_create(0)").await;
    // What would throw something away is never among the statements: it is a sentence, and somebody's decision.
    let found = findings(&pair);
    let objects = faults(&found, "large_objects");
    assert_eq!(objects[0]["sql"], Value::Array(Vec::new()), "{objects:?}");
    let remedy = objects[0]["remedy"].as_str().unwrap();
    let (_, statement) = remedy.split_once("if nobody needs them: ").expect("the statement");
    pair.source.sql(statement).await;
    assert_eq!(faults(&findings(&pair), "large_objects"), Vec::<Value>::new());

    let writer = pair.source.connect("shop").await;
    writer.sql("BEGIN; INSERT INTO t VALUES (1)").await;
    let found = findings(&pair);
    let open = faults(&found, "long_transactions");
    assert_eq!((open.len(), &open[0]["sql"]), (1, &Value::Array(Vec::new())), "{open:?}");
    let statement = open[0]["remedy"].as_str().unwrap();
    assert!(statement.starts_with("SELECT pg_catalog.pg_terminate_backend("), "{statement}");
    pair.source.sql(statement).await;
    assert_eq!(faults(&findings(&pair), "long_transactions"), Vec::<Value>::new());
}
