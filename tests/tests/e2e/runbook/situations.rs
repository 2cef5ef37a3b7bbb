//! The situations of RUNBOOK.md, each brought about on real servers, and what is to be typed then.

use std::collections::BTreeMap;

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Nodes, Relevo, Version, wait_until};
use rustix::process::Signal;
use serde_json::Value;

use super::page::{Page, chapter};
use crate::handover::{SCHEMA, UNARMED, refuses_writes, stubborn, writable};

/// The sections that are tested below.
pub const TESTED: [&str; 11] = [
    "Who is the primary?",
    "A planned switchover",
    "A switchover was refused, gave up or was interrupted",
    "The primary's server is lost",
    "The primary cannot be reached, but may be alive",
    "Only the primary's Relevo is dead",
    "The old primary is back",
    "Two failovers at once",
    "Two nodes claim the role",
    "A standby was left behind",
    "The standby of a cluster differs",
];

const TWO: [Version; 2] = [Version::V15, Version::V15];

fn end(relevos: &mut BTreeMap<String, Relevo>) {
    relevos.values_mut().for_each(Relevo::terminate);
}

/// Kills a switchover right after a step.
async fn killed_after(nodes: &Nodes, to: &str, step: &str) {
    let steps = nodes.steps(&["switchover", "--to", to]).await;
    let at = 1 + steps.iter().position(|known| known == step).expect("the step");
    let command = nodes.command(&["switchover", "--to", to, "--kill-after-step", &at.to_string()]);
    let killed = tokio::task::spawn_blocking(move || command.finish()).await.unwrap();
    assert_eq!(killed.code, None, "{killed:?}");
}

#[tokio::test]
async fn who_is_the_primary_and_a_planned_switchover() {
    let (nodes, mut relevos) = Nodes::up(&TWO, SCHEMA).await;
    let mut page = Page::at("Who is the primary?");
    page.run(&nodes, "relevo status").await;
    page.run(&nodes, "relevo history").await;
    page.end();

    let mut page = Page::at("A planned switchover");
    page.run(&nodes, "relevo switchover --to b --dry-run").await;
    assert!(writable(&nodes, "a").await);
    page.run(&nodes, "relevo switchover --to b").await;
    refuses_writes(&nodes, "a", "b").await;
    nodes.sql("b", "INSERT INTO measure VALUES ('2026-03-03', 1, 1); DELETE FROM measure WHERE n = 7").await;
    nodes.settle("b", "a").await;
    page.run(&nodes, "relevo switchover --to a").await;
    refuses_writes(&nodes, "b", "a").await;
    page.end();
    nodes.settle("a", "b").await;

    let mut page = Page::at("Only the primary's Relevo is dead");
    relevos.get_mut("a").unwrap().kill();
    nodes.sql("a", "INSERT INTO purchase (who) VALUES ('nobody watches')").await;
    nodes.settle("a", "b").await;
    page.run(&nodes, "relevo status").await;
    page.end();
    relevos.remove("a");
    end(&mut relevos);
}

#[tokio::test]
async fn a_switchover_was_refused_gave_up_or_was_interrupted() {
    let (nodes, mut relevos) = Nodes::up(&TWO, SCHEMA).await;
    let mut page = Page::at("A switchover was refused, gave up or was interrupted");
    let open = nodes.node("a").connect("shop").await;
    open.sql("SET application_name = 'psql'; BEGIN; UPDATE setting SET value = 'x'").await;
    let first = nodes.run(&["switchover", "--to", "b", "--max-pause", "8s"], 1);
    let second = async {
        let waits = "SELECT count(*) FROM pg_stat_activity \
                     WHERE application_name = 'relevo_handover' AND wait_event_type = 'Lock'";
        wait_until("it waits", PATIENCE, async || nodes.node("a").value::<i64>(waits).await > 0).await;
        page.run(&nodes, "relevo switchover --to b").await;
    };
    tokio::join!(first, second);
    page.run(&nodes, "relevo switchover --to b --max-pause").await;
    assert!(writable(&nodes, "a").await);
    open.sql("COMMIT").await;
    nodes.caught_up("a", "b").await;

    // It is there, and does nothing.
    relevos["b"].send(Signal::STOP);
    nodes.sql("a", "INSERT INTO setting VALUES ('held up', '')").await;
    page.run(&nodes, "relevo switchover --to b --max-pause").await;
    assert!(writable(&nodes, "a").await);
    relevos["b"].send(Signal::CONT);
    nodes.caught_up("a", "b").await;

    killed_after(&nodes, "b", "fence").await;
    refuses_writes(&nodes, "a", "a").await;
    page.run(&nodes, "relevo switchover --to b --dry-run").await;
    page.run(&nodes, "relevo switchover --to a").await;
    assert!(writable(&nodes, "a").await);
    nodes.sql("a", "INSERT INTO purchase (who) VALUES ('goes on')").await;
    nodes.caught_up("a", "b").await;
    killed_after(&nodes, "b", "fence").await;
    page.run(&nodes, "relevo switchover --to b").await;
    assert!(writable(&nodes, "b").await && !writable(&nodes, "a").await);
    page.end();
    nodes.settle("b", "a").await;
    end(&mut relevos);
}

#[tokio::test]
async fn the_primarys_server_is_lost_and_comes_back() {
    let (nodes, mut relevos) = Nodes::up(&TWO, SCHEMA).await;
    nodes.sql("a", "UPDATE setting SET value = 'seen' WHERE name = 'setting 1'").await;
    nodes.caught_up("a", "b").await;
    // b does not get to see the rest.
    relevos.get_mut("b").unwrap().kill();
    for alone in [
        "INSERT INTO setting VALUES ('only on a', '1')",
        "UPDATE setting SET value = '2' WHERE name = 'setting 1'",
        "DELETE FROM setting WHERE name IN ('setting 2', 'setting 3')",
    ] {
        nodes.sql("a", alone).await;
    }
    nodes.node("a").crash();
    relevos.get_mut("b").unwrap().restart();
    let mut page = Page::at("The primary's server is lost");
    page.run(&nodes, "relevo failover --to b --dry-run").await;
    page.run(&nodes, "relevo failover --to b").await;
    page.end();
    assert!(writable(&nodes, "b").await);

    nodes.node("a").start().await;
    let of_a = relevos.get_mut("a").unwrap();
    let detail = "node a was the primary, and b is since epoch 2: it is fenced; type relevo rejoin a";
    let shown = format!("{detail} [node_waits]");
    let fenced = |status: &Value| status["state"] == "failed" && status["state_detail"] == shown;
    of_a.wait_for_status("the stale primary is found out", PATIENCE, fenced).await;
    assert_eq!(of_a.metrics().await.value("relevo_stale_primary"), 1.0);
    assert!(chapter().replace('\n', " ").contains(detail), "RUNBOOK.md has another text than {detail}");
    let mut page = Page::at("The old primary is back");
    page.run(&nodes, "relevo rejoin a --dry-run").await;
    page.run(&nodes, "relevo rejoin a --salvage .").await;
    page.run(&nodes, "relevo verify").await;
    page.run(&nodes, "head").await;
    page.end();
    nodes.settle("b", "a").await;
    end(&mut relevos);
}

#[tokio::test]
async fn the_primary_may_be_alive() {
    let (nodes, mut relevos) = Nodes::up(&TWO, SCHEMA).await;
    let mut page = Page::at("The primary cannot be reached, but may be alive");
    page.run(&nodes, "relevo failover --to b").await;
    assert!(writable(&nodes, "a").await);
    page.run(&nodes, "relevo failover --to b --force").await;
    assert!(writable(&nodes, "b").await && !writable(&nodes, "a").await);
    page.end();
    end(&mut relevos);
}

/// The primary is lost, and both standbys hold all that it had. Their Relevos do not run.
async fn lost_with_two_standbys() -> (Nodes, BTreeMap<String, Relevo>) {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15, Version::V15], SCHEMA).await;
    for node in ["b", "c"] {
        nodes.caught_up("a", node).await;
        relevos.get_mut(node).unwrap().kill();
    }
    relevos.remove("a");
    nodes.node("a").crash();
    (nodes, relevos)
}

#[tokio::test]
async fn two_failovers_at_once() {
    let (nodes, mut relevos) = lost_with_two_standbys().await;
    for (node, other) in [("b", "c"), ("c", "b")] {
        nodes.node(other).stop();
        nodes.run(&["failover", "--to", node], 0).await;
        nodes.node(other).start().await;
        nodes.sql(node, &format!("INSERT INTO purchase (who) VALUES ('only on {node}')")).await;
        // As if it could not be seen by the next one.
        if node == "b" {
            nodes.node("b").stop();
        }
    }
    relevos.values_mut().for_each(Relevo::restart);
    let detail = "node b was the primary, and c is since epoch 3: it is fenced; type relevo rejoin b";
    let says = |status: &Value| status["state_detail"].as_str().is_some_and(|said| said.starts_with(detail));
    let fenced = |status: &Value| status["state"] == "failed" && says(status);
    relevos.get_mut("b").unwrap().wait_for_status("the fence", PATIENCE, fenced).await;
    let mut page = Page::at("Two failovers at once");
    page.run(&nodes, "relevo rejoin b").await;
    page.end();
    nodes.settle("c", "b").await;
    end(&mut relevos);
}

#[tokio::test]
async fn two_nodes_claim_the_role_and_one_is_copied_anew() {
    let (nodes, mut relevos) = lost_with_two_standbys().await;
    nodes.run_without("c", &["failover", "--to", "b"], 0).await;
    nodes.run_without("b", &["failover", "--to", "c"], 0).await;
    nodes.sql("c", "INSERT INTO purchase (who) VALUES ('only on c')").await;
    relevos.values_mut().for_each(Relevo::restart);
    for node in ["b", "c"] {
        let of_node = relevos.get_mut(node).unwrap();
        of_node
            .wait_for_status("two claims are found out", PATIENCE, |status| {
                status["state"] == "failed"
                    && status["state_detail"]
                        .to_string()
                        .contains("b and c claim the role of the primary in epoch 2")
            })
            .await;
        assert_eq!(of_node.metrics().await.value("relevo_stale_primary"), 1.0);
        wait_until("the fence", PATIENCE, async || !writable(&nodes, node).await).await;
    }
    let mut page = Page::at("Two nodes claim the role");
    page.run(&nodes, "relevo status").await;
    page.run(&nodes, "relevo failover --to b --force").await;
    assert!(writable(&nodes, "b").await && !writable(&nodes, "c").await);
    page.run(&nodes, "relevo rejoin c").await;
    page.end();
    nodes.settle("b", "c").await;

    // Nobody knows any more what a has written on its own.
    nodes.node("a").start().await;
    nodes.sql("a", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
    let refused = nodes.run(&["rejoin", "a"], 3).await;
    assert!(refused.stderr.contains("let it be copied anew"), "{}", refused.stderr);
    let chapter = chapter();
    let script =
        chapter.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("statements");
    let session = nodes.node("a").connect("postgres").await;
    for statement in script.lines().filter(|line| !line.is_empty()) {
        session.sql(statement).await;
    }
    relevos.insert("a".to_owned(), nodes.relevo("a"));
    relevos.get_mut("a").unwrap().wait_until_streaming().await;
    nodes.settle("b", "a").await;
    end(&mut relevos);
}

#[tokio::test]
async fn a_standby_was_left_behind() {
    let (nodes, mut relevos) = Nodes::up_with(&[Version::V15; 3], SCHEMA, UNARMED).await;
    for node in ["b", "c"] {
        nodes.caught_up("a", node).await;
    }
    // c is away while the role moves, and holds all that b holds.
    relevos.get_mut("c").unwrap().kill();
    nodes.node("c").stop();
    nodes.node("a").crash();
    nodes.run(&["failover", "--to", "b"], 0).await;
    nodes.node("c").start().await;
    let mut page = Page::at("A standby was left behind");
    page.run(&nodes, "relevo rejoin c").await;
    relevos.get_mut("c").unwrap().restart();
    nodes.sql("b", "INSERT INTO purchase (who) VALUES ('on b')").await;
    nodes.settle("b", "c").await;

    // And once more, without all that the next primary holds.
    nodes.node("a").start().await;
    nodes.run(&["rejoin", "a"], 0).await;
    relevos.get_mut("c").unwrap().kill();
    nodes.sql("b", "INSERT INTO purchase (who) VALUES ('without c')").await;
    nodes.caught_up("b", "a").await;
    nodes.node("b").crash();
    nodes.run(&["failover", "--to", "a"], 0).await;
    let of_c = relevos.get_mut("c").unwrap();
    of_c.restart();
    of_c.wait_for_state("failed").await;
    page.run(&nodes, "relevo rejoin c").await;
    page.end();
    nodes.settle("a", "c").await;
    end(&mut relevos);
}

#[tokio::test]
async fn both_sides_differ() {
    let (nodes, mut relevos) = Nodes::up(&TWO, SCHEMA).await;
    let past = stubborn(&nodes, "b").await;
    past.sql("SET session_replication_role = replica").await;
    past.sql(
        "DELETE FROM setting WHERE name = 'setting 1'; UPDATE setting SET value = '?' WHERE name = 'setting 2'",
    )
    .await;
    let mut page = Page::at("The standby of a cluster differs");
    page.run(&nodes, "relevo verify").await;
    page.run(&nodes, "relevo repair --dry-run").await;
    page.run(&nodes, "relevo repair").await;
    page.run(&nodes, "relevo verify --table").await;
    page.end();
    nodes.settle("a", "b").await;
    end(&mut relevos);
}

/// The example of a hook is one, and its variables are those of the table.
#[tokio::test]
async fn hooks_are_told_what_the_runbook_says() {
    let (nodes, mut relevos) = Nodes::up(&TWO, SCHEMA).await;
    let chapter = chapter();
    let example =
        chapter.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let told = nodes.folder().join("told");
    nodes.configure(&example.replace("/var/log/relevo-hooks", &told.display().to_string()));
    nodes.run(&["switchover", "--to", "b"], 0).await;
    let host = |node: &str| format!("127.0.0.1:{}", nodes.node(node).port());
    let expected = format!("on_promote shop switchover 2 a {} b {}\n", host("a"), host("b"));
    assert_eq!(std::fs::read_to_string(&told).expect("the hook was run"), expected);
    for variable in example.split('$').skip(1).map(|rest| rest.split([' ', '\\']).next().unwrap()) {
        assert!(chapter.contains(&format!("`{variable}`")), "{variable} is not in the table");
    }
    end(&mut relevos);
}
