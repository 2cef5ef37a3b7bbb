//! What the flow rests on is taken away while it runs: publications, the slot, schema `relevo`.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Version};

use super::{assert_says, ends, has_failed, streaming, wait_for_value};

const SCHEMA: &str = "
CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE bare (id int);
INSERT INTO t VALUES (1); INSERT INTO u VALUES (1); INSERT INTO bare VALUES (1)";

/// Both ways back to equality that every refusal ends with.
async fn reset_brings_it_back(pair: &Pair) {
    pair.command("reset").finish().expect_code(0);
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

async fn a_publication_that_is_dropped_stops_the_flow(source: Version) {
    let pair = Pair::start(source, Version::V15).await;
    let mut relevo = streaming(&pair, SCHEMA).await;
    pair.source.sql("DROP PUBLICATION relevo_e2e").await;
    pair.source.sql("INSERT INTO t VALUES (2)").await;
    has_failed(&mut relevo, &["source", "publication", "relevo reset"]).await;
    pair.source.sql("INSERT INTO t VALUES (3)").await;
    relevo.terminate();
    relevo.restart();
    has_failed(&mut relevo, &["publication", "relevo reset"]).await;
    relevo.terminate();
    reset_brings_it_back(&pair).await;
}

#[tokio::test]
async fn on_15_a_publication_that_is_dropped_stops_the_flow() {
    a_publication_that_is_dropped_stops_the_flow(Version::V15).await;
}

#[tokio::test]
async fn on_18_a_publication_that_is_dropped_stops_the_flow() {
    a_publication_that_is_dropped_stops_the_flow(Version::V18).await;
}

#[tokio::test]
async fn a_table_that_is_taken_out_of_the_publication_is_told_and_listed_and_the_others_go_on() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    let mut relevo = streaming(&pair, SCHEMA).await;
    pair.source.sql("ALTER PUBLICATION relevo_e2e DROP TABLE u").await;
    pair.source.sql("INSERT INTO u VALUES (2); INSERT INTO t VALUES (2)").await;
    relevo.wait_for_log("do not reach the target").await;
    wait_for_value(&pair.target, "SELECT kind || ' ' || table_name FROM relevo.error", "unpublished_table u")
        .await;
    let listed = pair.command("errors").arg("--json").finish().expect_code(0).json();
    assert_says(&listed.to_string(), &["public.u", "relevo tables remove"]);
    assert!(relevo.metrics().await.sum("relevo_errors_total", &[("kind", "unpublished_table")]) >= Some(1.0));
    wait_for_value(&pair.target, "SELECT max(id)::text FROM t", "2").await;
    relevo.terminate();
    reset_brings_it_back(&pair).await;
}

#[tokio::test]
async fn a_row_filter_in_the_publication_stops_the_flow_until_it_is_gone() {
    let pair = Pair::start(Version::V17, Version::V15).await;
    let mut relevo = streaming(&pair, SCHEMA).await;
    pair.source.sql("ALTER PUBLICATION relevo_e2e SET TABLE t WHERE (id > 100), u").await;
    has_failed(&mut relevo, &["source", "relevo_e2e", "row filters", "relevo reset"]).await;
    // The same at a new start.
    relevo.terminate();
    relevo.restart();
    has_failed(&mut relevo, &["relevo_e2e", "row filters"]).await;
    pair.source.sql("ALTER PUBLICATION relevo_e2e SET TABLE t, u; INSERT INTO t VALUES (2)").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn operations_that_are_taken_out_of_the_publication_stop_the_flow_until_they_are_back() {
    let pair = Pair::start(Version::V16, Version::V15).await;
    let mut relevo = streaming(&pair, SCHEMA).await;
    pair.source.sql("ALTER PUBLICATION relevo_e2e SET (publish = 'insert')").await;
    has_failed(&mut relevo, &["source", "relevo_e2e", "ALTER PUBLICATION", "relevo reset"]).await;
    // Nothing was written meanwhile, so nothing is missing.
    pair.source.sql("ALTER PUBLICATION relevo_e2e SET (publish = 'insert, update, delete, truncate')").await;
    relevo.wait_until_streaming().await;
    pair.source.sql("DELETE FROM t; INSERT INTO t VALUES (7)").await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_slot_that_is_dropped_under_a_running_flow_is_refused_with_the_remedy() {
    let pair = Pair::start(Version::V14, Version::V15).await;
    let mut relevo = streaming(&pair, SCHEMA).await;
    // In one statement, so that Relevo is not faster.
    pair.source
        .sql(
            "DO $$ BEGIN
               LOOP
                 BEGIN PERFORM pg_drop_replication_slot('relevo_e2e'); EXIT;
                 EXCEPTION WHEN object_in_use THEN
                   PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'relevo_e2e';
                 END;
               END LOOP;
             END $$",
        )
        .await;
    pair.source.sql("INSERT INTO t VALUES (2)").await;
    let status = relevo.wait_for_exit(PATIENCE);
    assert_eq!(status.code(), Some(3));
    assert_says(&relevo.stderr(), &["slot \\\"relevo_e2e\\\" does not exist", "relevo reset"]);
    ends(pair.relevo(), 3, &["does not exist on the source", "relevo reset"]);
    reset_brings_it_back(&pair).await;
}

#[tokio::test]
async fn a_schema_relevo_that_is_dropped_on_the_target_stops_the_flow_and_costs_no_row() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    let mut relevo = streaming(&pair, SCHEMA).await;
    pair.target.sql("DROP SCHEMA relevo CASCADE").await;
    pair.source.sql("INSERT INTO t VALUES (2)").await;
    has_failed(&mut relevo, &["target", "relevo.progress"]).await;
    assert_eq!(pair.target.column("SELECT id FROM t").await, ["1"], "what cannot be recorded is not applied");
    relevo.terminate();
    // What Relevo knew of its tables is gone, so it touches none of them.
    ends(pair.relevo(), 3, &["public.t", "rows that Relevo did not bring", "TRUNCATE"]);
    pair.target.sql("TRUNCATE t, u, bare").await;
    relevo.restart();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_schema_relevo_that_is_dropped_on_the_source_does_not_matter() {
    let pair = Pair::start(Version::V15, Version::V14).await;
    let mut relevo = streaming(&pair, SCHEMA).await;
    pair.source.sql("DROP SCHEMA relevo CASCADE; INSERT INTO t VALUES (2)").await;
    pair.settle().await;
    relevo.terminate();
    relevo.restart();
    pair.source.sql("INSERT INTO t VALUES (3)").await;
    pair.settle().await;
    relevo.terminate();
}
