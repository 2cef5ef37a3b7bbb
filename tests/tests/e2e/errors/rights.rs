//! Settings and rights that are missing: every one is named at once, and the statements that come with them mend it.

use relevo_tests::pair::Node;
use relevo_tests::{Pair, RelevoBuilder, Version};
use serde_json::Value;

use super::{assert_says, fails, has_failed, traces};

#[tokio::test]
async fn a_source_that_cannot_decode_or_has_no_slot_or_sender_left_is_named_with_the_setting_to_change() {
    let pair = Pair::builder(Version::V14, Version::V15)
        .source(|source| {
            source.set("wal_level", "replica").set("max_replication_slots", "1").set("max_wal_senders", "0")
        })
        .start()
        .await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    pair.source.sql("SELECT pg_create_physical_replication_slot('of_somebody')").await;
    fails(
        pair.relevo(),
        &[
            "source: wal_level is replica",
            "ALTER SYSTEM SET wal_level = 'logical'",
            "1 of 1 replication slots",
            "ALTER SYSTEM SET max_replication_slots",
            "0 of 0 WAL senders",
            "ALTER SYSTEM SET max_wal_senders",
        ],
    );
    let slots = traces(&pair).await;
    assert_eq!(slots, ["slot of_somebody"], "nothing was made on either side");

    mend(&pair, &pair.command("check")).await;
    pair.source.restart().await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

/// Does what `relevo check --json` says for each error, as a superuser. Returns how many there were.
async fn mend(pair: &Pair, check: &RelevoBuilder) -> usize {
    let found = check.clone().arg("--json").finish().expect_code(1).json();
    let errors: Vec<&Value> = found["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter(|finding| finding["severity"] == "error")
        .collect();
    for error in &errors {
        let node: &Node = if error["side"] == "source" { &pair.source } else { &pair.target };
        let remedy = error["remedy"].as_str().unwrap_or_else(|| panic!("no remedy: {error}"));
        // Words may follow the statement.
        let statement = remedy.split_once(';').map_or(remedy, |(statement, _)| statement);
        node.sql(statement).await;
    }
    errors.len()
}

const SCHEMA: &str = "
CREATE ROLE shop_owner;
CREATE SCHEMA stock AUTHORIZATION shop_owner;
SET ROLE shop_owner;
CREATE TABLE stock.item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
INSERT INTO stock.item (name) VALUES ('a'), ('b');
RESET ROLE;
";

#[tokio::test]
async fn a_role_without_rights_is_told_every_statement_that_gives_them_and_needs_no_superuser_then() {
    let pair = Pair::start(Version::V16, Version::V15).await;
    pair.source.sql(SCHEMA).await;
    pair.source.sql("CREATE ROLE copier LOGIN PASSWORD 'x'").await;
    pair.target.sql("CREATE ROLE shop_owner; CREATE ROLE copier LOGIN PASSWORD 'x' IN ROLE shop_owner").await;
    pair.target.sql("REVOKE CREATE ON DATABASE shop FROM PUBLIC").await;
    let source = pair.source.url_as("copier", "x", "shop");
    let target = pair.target.url_as("copier", "x", "shop");
    let run = || RelevoBuilder::run(&source, &target).name("e2e");
    fails(
        run(),
        &[
            "ALTER ROLE \"copier\" REPLICATION",
            "GRANT SELECT ON",
            "GRANT CREATE ON DATABASE \"shop\" TO \"copier\"",
            "GRANT SET ON PARAMETER session_replication_role TO \"copier\"",
            "stock.item",
        ],
    );
    assert_eq!(traces(&pair).await, [""; 0], "nothing was made on either side");

    // What hides behind a missing right is found once that is given.
    let check = RelevoBuilder::command(&["check", "--source", &source, "--target", &target]).name("e2e");
    let mut rounds = 0;
    while check.clone().finish().code != Some(0) {
        rounds += 1;
        assert!(rounds <= 3, "{}", check.clone().finish().stdout);
        mend(&pair, &check).await;
    }
    let mut relevo = run().start();
    relevo.wait_until_streaming().await;
    pair.source.sql("INSERT INTO stock.item (name) VALUES ('c')").await;
    pair.settle().await;

    // The same while it runs.
    pair.target.sql("SET ROLE shop_owner; REVOKE INSERT ON stock.item FROM shop_owner").await;
    pair.target.sql("REVOKE INSERT ON stock.item FROM copier, shop_owner; RESET ROLE").await;
    pair.source.sql("INSERT INTO stock.item (name) VALUES ('d')").await;
    has_failed(&mut relevo, &["insert on stock.item", "permission denied", "grant the right"]).await;
    pair.target.sql("GRANT INSERT ON stock.item TO copier, shop_owner").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;

    pair.target.sql("REVOKE SET ON PARAMETER session_replication_role FROM copier").await;
    pair.target.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'copier'").await;
    let status = has_failed(&mut relevo, &["may not set session_replication_role"]).await;
    let detail = status["state_detail"].as_str().unwrap_or_default();
    assert_says(detail, &["GRANT SET ON PARAMETER session_replication_role"]);
    pair.target.sql("GRANT SET ON PARAMETER session_replication_role TO copier").await;
    relevo.wait_until_streaming().await;
    pair.source.sql("INSERT INTO stock.item (name) VALUES ('e')").await;
    pair.settle().await;

    pair.source.sql("ALTER ROLE copier NOREPLICATION").await;
    pair.source.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'copier'").await;
    pair.source.sql("INSERT INTO stock.item (name) VALUES ('f')").await;
    has_failed(&mut relevo, &["source", "REPLICATION"]).await;
    pair.source.sql("ALTER ROLE copier REPLICATION").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn on_a_target_of_version_14_the_replica_role_needs_a_function_and_the_message_has_it() {
    let pair = Pair::start(Version::V15, Version::V14).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.target.sql("CREATE ROLE copier LOGIN PASSWORD 'x'; GRANT CREATE ON DATABASE shop TO copier").await;
    let run =
        || RelevoBuilder::run(&pair.source_url(), &pair.target.url_as("copier", "x", "shop")).name("e2e");
    fails(
        run(),
        &["session_replication_role", "GRANT EXECUTE ON FUNCTION relevo_rights.replica_role(boolean)"],
    );
    let check = ["check", "--json", "--source", &pair.source_url(), "--target"];
    let check = RelevoBuilder::command(&check).arg(&pair.target.url_as("copier", "x", "shop")).name("e2e");
    let found = check.finish().expect_code(1).json();
    let errors = found["findings"].as_array().expect("findings").iter();
    let errors: Vec<&Value> = errors.filter(|finding| finding["severity"] == "error").collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    pair.target.sql(errors[0]["remedy"].as_str().expect("a remedy")).await;
    let mut relevo = run().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}
