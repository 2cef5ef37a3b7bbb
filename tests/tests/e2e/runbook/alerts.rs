//! What RUNBOOK.md says is to be typed when an alert fires: run on a cluster to which just that has happened.

use std::collections::BTreeSet;

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Database, Nodes, Relevo, Version, wait_until};
use rustix::process::Signal;

use super::page::{Page, calls, chapter_of, sections};
use crate::handover::SCHEMA;

const CHAPTER: &str = "Alerts";

/// The sections whose commands are run below.
const TESTED: [&str; 16] = [
    "RelevoHeartbeatMissing",
    "RelevoReconnecting",
    "RelevoNotConsistentYet",
    "RelevoSlotKeepsMuchWal",
    "RelevoNeverVerified",
    "RelevoStalePrimary",
    "RelevoSlotLost",
    "RelevoSlotWalRunsOut",
    "RelevoTablesNotAdded",
    "RelevoErrorsWaiting",
    "RelevoDifferencesFound",
    "RelevoFlowFailed",
    "RelevoLagRising",
    "RelevoDown",
    "RelevoNoPrimary",
    "RelevoSideSilent",
];

/// Whoever gets past the guard of a standby.
async fn intruder(nodes: &Nodes) -> Database {
    let session = nodes.node("b").connect("shop").await;
    session.sql("SET session_replication_role = replica").await;
    session.sql("SET default_transaction_read_only = off").await;
    session
}

/// Runs the SQL that a section shows, on the primary.
async fn run_sql(nodes: &Nodes, title: &str) {
    let sections = sections(&chapter_of(CHAPTER));
    let (_, text) = sections.iter().find(|(known, _)| known == title).expect("the section");
    let (_, block) = text.split_once("```sql\n").expect("SQL");
    let session = nodes.node("a").connect("shop").await;
    for statement in
        block.split("```").next().expect("its end").split(';').filter(|text| !text.trim().is_empty())
    {
        session.sql(statement).await;
    }
}

async fn type_what_is_said(nodes: &Nodes, title: &str) {
    Page::of(CHAPTER, title).run_all(nodes).await;
}

/// Waits until a metric has this value.
async fn shows(relevo: &Relevo, metric: &str, value: f64) {
    let what = format!("{metric} is {value}");
    wait_until(&what, PATIENCE, async || relevo.metrics().await.sum(metric, &[]) == Some(value)).await;
}

#[test]
fn every_section_about_alerts_that_shows_commands_is_tested() {
    let shown: BTreeSet<String> = sections(&chapter_of(CHAPTER))
        .into_iter()
        .filter(|(_, text)| !calls(text).is_empty())
        .map(|(title, _)| title)
        .collect();
    let tested: BTreeSet<String> = TESTED.iter().map(|title| (*title).to_owned()).collect();
    assert_eq!(shown, tested, "a section of RUNBOOK.md, and its test in alerts.rs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_flow_runs() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    for title in [
        "RelevoHeartbeatMissing",
        "RelevoReconnecting",
        "RelevoNotConsistentYet",
        "RelevoSlotKeepsMuchWal",
        "RelevoNeverVerified",
        "RelevoStalePrimary",
    ] {
        type_what_is_said(&nodes, title).await;
    }
    run_sql(&nodes, "RelevoSpoolNearLimit").await;
    run_sql(&nodes, "RelevoSlotWalRunsOut").await;
    let of_b = &relevos["b"];
    wait_until("the limit is in force", PATIENCE, async || {
        of_b.metrics().await.sum("relevo_slot_safe_wal_bytes", &[]).is_some()
    })
    .await;
    type_what_is_said(&nodes, "RelevoSlotWalRunsOut").await;

    nodes.sql("a", "CREATE TABLE invoices (id int PRIMARY KEY)").await;
    let mut page = Page::of(CHAPTER, "RelevoTablesNotAdded");
    page.run(&nodes, "relevo tables").await;
    page.run(&nodes, "relevo tables add").await;
    wait_until("the new table follows the source", PATIENCE, async || {
        nodes.run(&["tables", "--json"], 0).await.json()["tables"].as_array().is_some_and(|tables| {
            tables.iter().any(|t| t["table"] == "public.invoices" && t["state"] == "streaming")
        })
    })
    .await;
    page.run(&nodes, "relevo tables remove").await;
    page.end();

    shows(of_b, "relevo_errors_waiting", 0.0).await;
    intruder(&nodes).await.sql("DELETE FROM setting WHERE name = 'setting 1'").await;
    nodes.sql("a", "UPDATE setting SET value = 'not found' WHERE name = 'setting 1'").await;
    shows(of_b, "relevo_errors_waiting", 1.0).await;
    type_what_is_said(&nodes, "RelevoErrorsWaiting").await;
    shows(of_b, "relevo_errors_waiting", 0.0).await;

    intruder(&nodes).await.sql("UPDATE setting SET value = 'other' WHERE name = 'setting 2'").await;
    type_what_is_said(&nodes, "RelevoDifferencesFound").await;
    nodes.settle("a", "b").await;
    relevos.values_mut().for_each(Relevo::terminate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_does_not() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    let of_b = relevos.get_mut("b").unwrap();
    intruder(&nodes).await.sql("ALTER TABLE setting RENAME COLUMN value TO other").await;
    nodes.sql("a", "UPDATE setting SET value = 'no such column' WHERE name = 'setting 1'").await;
    of_b.wait_for_state("failed").await;
    type_what_is_said(&nodes, "RelevoFlowFailed").await;
    intruder(&nodes).await.sql("ALTER TABLE setting RENAME COLUMN other TO value").await;
    of_b.wait_until_streaming().await;
    nodes.caught_up("a", "b").await;

    of_b.send(Signal::STOP);
    type_what_is_said(&nodes, "RelevoLagRising").await;
    of_b.send(Signal::CONT);
    nodes.caught_up("a", "b").await;

    of_b.kill();
    wait_until("nobody holds the slot", PATIENCE, async || {
        nodes.node("a").value::<i64>("SELECT count(*) FROM pg_replication_slots WHERE active").await == 0
    })
    .await;
    type_what_is_said(&nodes, "RelevoDown").await;
    type_what_is_said(&nodes, "RelevoSlotLost").await;
    of_b.restart();
    of_b.wait_until_streaming().await;

    relevos.get_mut("a").unwrap().kill();
    type_what_is_said(&nodes, "RelevoNoPrimary").await;
    nodes.settle("a", "b").await;

    nodes.node("a").crash();
    type_what_is_said(&nodes, "RelevoSideSilent").await;
    relevos.get_mut("b").unwrap().terminate();
}
