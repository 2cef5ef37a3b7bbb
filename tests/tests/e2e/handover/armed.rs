//! Slots that standbys arm for each other: whoever is behind the new primary at a failover gets from one what it lacks.

use std::collections::BTreeMap;

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Nodes, Relevo, Version, wait_until};

use super::SCHEMA;

const ARMED: &str =
    "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name LIKE 'relevo\\_armed\\_%' ORDER BY 1";
/// What one of the standbys does not get: several transactions, of every kind of change.
const LACKED: [&str; 8] = [
    "INSERT INTO setting VALUES ('lacked', 'x'), ('short-lived', 'y')",
    "UPDATE setting SET value = 'changed' WHERE name IN ('setting 1', 'setting 2', 'lacked')",
    "DELETE FROM setting WHERE name IN ('setting 3', 'short-lived')",
    "UPDATE setting SET name = 'moved' WHERE name = 'setting 4'",
    "BEGIN; INSERT INTO purchase (who) SELECT 'many ' || n FROM generate_series(1, 20000) n; \
     SAVEPOINT s; DELETE FROM purchase WHERE id > 500; ROLLBACK TO s; UPDATE measure SET value = -1 WHERE n < 50; COMMIT",
    "TRUNCATE logbook",
    "INSERT INTO logbook (message) VALUES ('after'), ('after')",
    "UPDATE measure SET at = at + 200 WHERE n = 300",
];

/// Waits until a standby has armed a slot for another one.
pub async fn armed(nodes: &Nodes, on: &str, follower: &str) {
    wait_until(&format!("a slot on {on} for {follower}"), PATIENCE, async || {
        nodes.node(on).column(ARMED).await == [format!("relevo_armed_shop_{follower}")]
    })
    .await;
}

/// Three nodes, with armed slots on both standbys.
async fn up(versions: &[Version]) -> (Nodes, BTreeMap<String, Relevo>) {
    let (nodes, relevos) = Nodes::up(versions, SCHEMA).await;
    for (on, follower) in [("b", "c"), ("c", "b")] {
        armed(&nodes, on, follower).await;
        nodes.caught_up("a", on).await;
        let kept = async || {
            relevos[on].metrics().await.sum("relevo_armed_slot_retained_bytes", &[("standby", follower)])
        };
        wait_until("what it keeps is a metric", PATIENCE, async || {
            kept().await.is_some_and(|bytes| bytes >= 0.0)
        })
        .await;
    }
    (nodes, relevos)
}

/// While the Relevo of c is stopped, b goes on; then the primary is lost.
pub async fn c_is_behind(nodes: &Nodes, relevos: &mut BTreeMap<String, Relevo>) {
    relevos.get_mut("c").unwrap().kill();
    for statement in LACKED {
        nodes.sql("a", statement).await;
    }
    nodes.caught_up("a", "b").await;
    nodes.node("a").crash();
}

/// Where c stands: whether it follows b, and whether that is from before b took the role.
pub async fn stands(nodes: &Nodes) -> (bool, bool) {
    let system: String =
        nodes.node("b").value("SELECT system_identifier::text FROM pg_control_system()").await;
    let role: String =
        nodes.node("b").value("SELECT max(new_lsn)::text FROM relevo.handover WHERE epoch = 2").await;
    let query = |what: String| format!("SELECT {what} FROM relevo.progress WHERE flow = 'shop_c'");
    let c = nodes.node("c");
    (
        c.value(&query(format!("source_system_id = '{system}'"))).await,
        c.value(&query(format!("applied_lsn < '{role}'"))).await,
    )
}

/// The whole cluster goes on with b as its primary, and no row of c was compared or copied.
async fn goes_on(nodes: &Nodes, relevos: &mut BTreeMap<String, Relevo>) {
    nodes
        .sql(
            "b",
            "INSERT INTO purchase (who) VALUES ('on b'); UPDATE setting SET value = 'b' WHERE name = 'moved'",
        )
        .await;
    nodes.settle("b", "c").await;
    let c = nodes.node("c");
    assert_eq!(c.value::<i64>("SELECT count(*) FROM relevo.handover WHERE kind = 'rejoin'").await, 0);
    assert_eq!(c.value::<i32>("SELECT copy_attempt FROM relevo.flow WHERE name = 'shop_c'").await, 1);
    assert_eq!(c.value::<i64>("SELECT count(*) FROM relevo.error").await, 0);
    assert_eq!(nodes.steps(&["rejoin", "c"]).await, Vec::<String>::new());
    assert_eq!(nodes.node("b").column(ARMED).await, Vec::<String>::new(), "the primary keeps none");
    // The old primary comes back, and the two standbys arm slots for each other.
    nodes.node("a").start().await;
    nodes.run(&["rejoin", "a"], 0).await;
    nodes.settle("b", "a").await;
    armed(nodes, "a", "c").await;
    armed(nodes, "c", "a").await;
    relevos.values_mut().for_each(Relevo::terminate);
}

#[tokio::test]
async fn a_standby_that_was_behind_gets_from_the_new_primary_what_it_lacks() {
    let (nodes, mut relevos) = up(&[Version::V15, Version::V14, Version::V16]).await;
    c_is_behind(&nodes, &mut relevos).await;
    let done = nodes.run(&["failover", "--to", "b", "--json"], 0).await;
    assert_eq!(done.json()["left_behind"], serde_json::json!([]), "{}", done.stderr);
    assert!(
        done.stderr.contains("what this node lacks is in the slot that was armed for it"),
        "{}",
        done.stderr
    );
    assert_eq!(stands(&nodes).await, (true, true), "before its Relevo has done anything");
    relevos.get_mut("c").unwrap().restart();
    goes_on(&nodes, &mut relevos).await;
}

/// The command is killed as soon as the role has moved; the Relevo beside the standby does the rest, and is killed as well.
#[tokio::test]
async fn whoever_is_killed_while_a_standby_gets_what_it_lacks_it_gets_all_of_it_once() {
    let (nodes, mut relevos) = up(&[Version::V18, Version::V17, Version::V15]).await;
    c_is_behind(&nodes, &mut relevos).await;
    let steps = nodes.steps(&["failover", "--to", "b"]).await;
    let promote = steps.iter().position(|step| step == "promote").unwrap();
    for step in 1..=promote + 1 {
        let kill_after = step.to_string();
        let command = nodes.command(&["failover", "--to", "b", "--kill-after-step", &kill_after]);
        let killed = tokio::task::spawn_blocking(move || command.finish_within(PATIENCE)).await.unwrap();
        assert_eq!(killed.code, None, "{killed:?}");
    }
    assert_eq!(stands(&nodes).await, (false, false), "nobody has told c yet");
    let of_c = relevos.get_mut("c").unwrap();
    // Killed the moment that something has moved, as often as something moves.
    let position = "SELECT source_system_id || applied_lsn::text FROM relevo.progress WHERE flow = 'shop_c'";
    for _ in 0..6 {
        let before: String = nodes.node("c").value(position).await;
        of_c.restart();
        wait_until("c goes on", PATIENCE, async || nodes.node("c").value::<String>(position).await != before)
            .await;
        of_c.kill();
        nodes.sql("b", "INSERT INTO purchase (who) VALUES ('meanwhile')").await;
    }
    of_c.restart();
    goes_on(&nodes, &mut relevos).await;
}

/// Without the slot it is as it was before there were any: every row is compared.
#[tokio::test]
async fn a_standby_whose_slot_is_gone_is_compared() {
    let (nodes, mut relevos) = up(&[Version::V15; 3]).await;
    relevos.get_mut("b").unwrap().kill();
    nodes.sql("b", "SELECT pg_drop_replication_slot('relevo_armed_shop_c')").await;
    relevos.get_mut("c").unwrap().kill();
    nodes.sql("a", LACKED[0]).await;
    // With its Relevo b comes forward, and arms no slot for a standby that nobody applies to.
    relevos.get_mut("b").unwrap().restart();
    nodes.caught_up("a", "b").await;
    nodes.node("a").crash();
    let done = nodes.run(&["failover", "--to", "b", "--json"], 0).await.json();
    assert_eq!(done["left_behind"], serde_json::json!(["c"]), "{done}");
    relevos.get_mut("c").unwrap().restart();
    relevos.get_mut("c").unwrap().wait_for_state("failed").await;
    assert_eq!(nodes.steps(&["rejoin", "c"]).await, ["resync"]);
    nodes.run(&["rejoin", "c"], 0).await;
    nodes.settle("b", "c").await;
    relevos.values_mut().for_each(Relevo::kill);
}

/// b applied in one transaction what c has the first half of. No position of b is the one at which c stands.
#[tokio::test]
async fn a_standby_that_stands_within_a_batch_is_compared() {
    let (nodes, mut relevos) = up(&[Version::V15; 3]).await;
    let console = nodes.node("b").connect("shop").await;
    console.sql("BEGIN READ WRITE; LOCK TABLE setting IN EXCLUSIVE MODE").await;
    nodes.sql("a", "INSERT INTO setting VALUES ('waits', '')").await;
    let waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'setting'::regclass";
    wait_until("b waits", PATIENCE, async || nodes.node("b").value(waits).await).await;
    nodes.sql("a", "INSERT INTO logbook (message) VALUES ('first')").await;
    nodes.caught_up("a", "c").await;
    relevos.get_mut("c").unwrap().kill();
    nodes.sql("a", "INSERT INTO logbook (message) VALUES ('second')").await;
    // What is not there yet when b goes on would be a transaction of its own.
    let sent: String = nodes.node("a").value("SELECT pg_current_wal_insert_lsn()::text").await;
    nodes.sql("a", "SELECT pg_logical_emit_message(false, 'relevo-tests', '')").await;
    let all_sent = format!(
        "SELECT coalesce(max(write_lsn) >= '{sent}', false) FROM pg_stat_replication WHERE application_name = 'relevo_shop_b'"
    );
    wait_until("b has received it", PATIENCE, async || nodes.node("a").value(&all_sent).await).await;
    console.sql("ROLLBACK").await;
    nodes.caught_up("a", "b").await;
    nodes.node("a").crash();
    let done = nodes.run(&["failover", "--to", "b", "--json"], 0).await;
    assert_eq!(done.json()["left_behind"], serde_json::json!(["c"]), "{}", done.stderr);
    assert!(done.stderr.contains("in one, and the standby has some of them"), "{}", done.stderr);
    nodes.run(&["rejoin", "c"], 0).await;
    relevos.get_mut("c").unwrap().restart();
    nodes.settle("b", "c").await;
    relevos.values_mut().for_each(Relevo::kill);
}

/// A slot moves on with the standby that it is for, and does not keep more than it may.
#[tokio::test]
async fn an_armed_slot_follows_its_standby_and_is_dropped_when_it_keeps_too_much() {
    let limit = "[handover]\narmed_wal = \"64MiB\"\n";
    let (nodes, mut relevos) = Nodes::up_with(&[Version::V15; 3], SCHEMA, limit).await;
    armed(&nodes, "b", "c").await;
    nodes.sql("a", LACKED[0]).await;
    nodes.caught_up("a", "b").await;
    nodes.caught_up("a", "c").await;
    let here: String = nodes.node("b").value("SELECT pg_current_wal_insert_lsn()::text").await;
    nodes.sql("a", LACKED[1]).await;
    let moved = format!("SELECT max(confirmed_flush_lsn) >= '{here}' FROM pg_replication_slots");
    wait_until("the slot has moved", PATIENCE, async || nodes.node("b").value(&moved).await).await;
    // c is away; b writes more than the slot may keep.
    relevos.get_mut("c").unwrap().kill();
    for _ in 0..4 {
        nodes
            .sql("a", "INSERT INTO purchase (who) SELECT repeat('x', 1000) FROM generate_series(1, 25000)")
            .await;
    }
    nodes.caught_up("a", "b").await;
    wait_until("the slot is dropped", PATIENCE, async || nodes.node("b").column(ARMED).await.is_empty())
        .await;
    relevos["b"].wait_for_log("handover.armed_wal is 67108864").await;
    relevos.get_mut("c").unwrap().restart();
    nodes.caught_up("a", "c").await;
    armed(&nodes, "b", "c").await;
    // A switchover leaves none on the new primary, and new ones on the standbys.
    nodes.run(&["switchover", "--to", "b"], 0).await;
    armed(&nodes, "a", "c").await;
    armed(&nodes, "c", "a").await;
    assert_eq!(nodes.node("b").column(ARMED).await, Vec::<String>::new());
    nodes.settle("b", "a").await;
    nodes.settle("b", "c").await;
    relevos.values_mut().for_each(Relevo::terminate);
}
