//! The page among nodes: all of them are in the picture, from the Relevo beside the primary as from one beside a standby, and
//! hand-overs are listed.

use std::collections::BTreeMap;

use relevo_tests::{Browser, Nodes, Relevo, Version};

use super::{NARROW, WIDE, drawn_at, open, picture, text};
use crate::handover::SCHEMA;

#[tokio::test]
async fn the_live_page_shows_all_nodes_and_the_last_hand_overs() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15, Version::V15], SCHEMA).await;
    let browser = Browser::start().await;
    browser.look_with(WIDE).await;

    open(&browser, &relevos["b"]).await;
    let seen =
        ["a (primary, answers)", "b (standby, answers): streaming", "c (standby, answers): its own Relevo"];
    picture(&browser, "the standby sees all nodes", &seen).await;
    open(&browser, &relevos["a"]).await;
    let reads =
        ["a (primary, answers)", "b (standby, answers): reads", "c (standby, answers): reads", "of WAL kept"];
    picture(&browser, "the primary sees who reads from it", &reads).await;
    assert_eq!(browser.text("state").await, "primary");
    let past = browser.run("return document.getElementById('past-section').hidden").await;
    assert_eq!(past, true, "nobody is ahead of a primary");
    browser.screenshot("page-primary-light-1600").await;

    nodes.run(&["switchover", "--to", "b"], 0).await;
    nodes.settle("b", "a").await;
    nodes.settle("b", "c").await;
    // The page that was open all the time has followed.
    picture(&browser, "the role has moved", &["b (primary, answers)", "a (standby, answers): streaming"])
        .await;
    let first = "[...document.getElementById('handovers').rows].map(row => \
        [...row.cells].map(cell => cell.textContent))[0] ?? []";
    let is_it = |row: &serde_json::Value| row[0] == "switchover" && row[1] == "a → b" && row[3] == "done";
    let row = browser.wait_for("the hand-over is listed", first, is_it).await;
    assert!(text(&row[4]).ends_with(" ms") && row[5] == "2", "{row}");

    is_known_of_a_node_that_is_away(&nodes, &browser, &relevos).await;
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// A node that does not answer stays in the picture, with how long it has been silent.
async fn is_known_of_a_node_that_is_away(
    nodes: &Nodes,
    browser: &Browser,
    relevos: &BTreeMap<String, Relevo>,
) {
    open(browser, &relevos["b"]).await;
    nodes.node("c").crash();
    picture(browser, "c is away", &["c (standby, silent for", "does not read now"]).await;
    drawn_at(browser, NARROW).await;
    browser.screenshot("page-nodes-light-360").await;
    drawn_at(browser, relevo_tests::Screen { dark: true, ..WIDE }).await;
    browser.screenshot("page-nodes-dark-1600").await;
    nodes.node("c").start().await;
    picture(browser, "c is back", &["c (standby, answers): reads"]).await;
}
