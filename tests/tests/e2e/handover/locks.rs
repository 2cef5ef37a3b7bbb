//! Others hold locks that a hand-over needs: it gives up after its limit, says whom to end, and leaves nothing behind.

use std::collections::BTreeMap;

use relevo_tests::{Database, Nodes, Relevo, Version};

use super::{SCHEMA, writable};

async fn pid(session: &Database) -> String {
    session.value::<i32>("SELECT pg_backend_pid()").await.to_string()
}

/// Nothing is left of a switchover to b that was given up.
async fn is_as_before(nodes: &Nodes) {
    assert!(writable(nodes, "a").await && !writable(nodes, "b").await);
    let left = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)";
    assert_eq!(nodes.node("b").value::<i64>(left).await, 0, "slots and publications on b");
    let history = nodes.run(&["history", "--json"], 0).await.json();
    assert_eq!(history[0]["state"], "rolled back", "{history}");
}

async fn up() -> (Nodes, BTreeMap<String, Relevo>) {
    Nodes::up(&[Version::V15, Version::V16], SCHEMA).await
}

#[tokio::test]
async fn a_lock_on_a_table_of_the_primary_keeps_the_fence_out_and_is_named() {
    let (nodes, mut relevos) = up().await;
    let console = nodes.node("a").connect("shop").await;
    console.sql("SET application_name = 'a forgotten console'; BEGIN; LOCK TABLE setting IN ACCESS EXCLUSIVE MODE").await;
    let refused = nodes.run(&["switchover", "--to", "b", "--max-pause", "1500ms"], 1).await;
    let named =
        format!("pid {}, postgres, a forgotten console, idle in transaction for ", pid(&console).await);
    for part in [&named, " s, transaction open for ", "pg_terminate_backend"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    console.sql("COMMIT").await;
    is_as_before(&nodes).await;
    nodes.run(&["switchover", "--to", "b"], 0).await;
    nodes.settle("b", "a").await;
    relevos.values_mut().for_each(Relevo::terminate);
}

/// The publications need a lock on each table of the standby, and the slot waits for everyone there who has written.
#[tokio::test]
async fn locks_on_the_standby_keep_the_slot_from_being_made_and_are_named() {
    let (nodes, mut relevos) = up().await;
    nodes.caught_up("a", "b").await;
    for held in
        ["LOCK TABLE setting IN SHARE MODE", "CREATE TEMP TABLE kept (n int); INSERT INTO kept VALUES (1)"]
    {
        let report = nodes.node("b").connect("shop").await;
        report
            .sql("SET default_transaction_read_only = off; SET application_name = 'a nightly report'")
            .await;
        report.sql(&format!("BEGIN; {held}")).await;
        let refused = nodes.run(&["switchover", "--to", "b"], 1).await;
        let named =
            format!("pid {}, postgres, a nightly report, idle in transaction for ", pid(&report).await);
        for part in [&named, "make the slot and publications", "pg_terminate_backend"] {
            assert!(refused.stderr.contains(part), "{held}: {part}: {}", refused.stderr);
        }
        report.sql("ROLLBACK").await;
        is_as_before(&nodes).await;
    }
    nodes.run(&["switchover", "--to", "b"], 0).await;
    nodes.settle("b", "a").await;
    relevos.values_mut().for_each(Relevo::terminate);
}

/// Behind the fence, when nobody can write any more, it is not tried for longer than writes may pause.
#[tokio::test]
async fn a_lock_on_the_standby_at_the_last_step_is_named_and_the_primary_accepts_writes_again() {
    let (nodes, mut relevos) = up().await;
    nodes.caught_up("a", "b").await;
    let report = nodes.node("b").connect("shop").await;
    // Not in the way of what is made first, nor of whoever applies, as nothing is written to this table.
    report
        .sql("SET application_name = 'a nightly report'; BEGIN; LOCK TABLE logbook IN ROW EXCLUSIVE MODE")
        .await;
    let refused = nodes.run(&["switchover", "--to", "b", "--max-pause", "3s"], 1).await;
    let named = format!("pid {}, postgres, a nightly report, idle in transaction for ", pid(&report).await);
    for part in [&named, "take the role from a", "pg_terminate_backend"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    is_as_before(&nodes).await;
    report.sql("ROLLBACK").await;
    nodes.sql("a", "INSERT INTO purchase (who) VALUES ('goes on')").await;
    nodes.run(&["switchover", "--to", "b"], 0).await;
    nodes.settle("b", "a").await;
    relevos.values_mut().for_each(Relevo::terminate);
}
