//! The primary is lost, and comes back.

use std::collections::BTreeMap;

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Nodes, Relevo, Version, wait_until};
use serde_json::Value;

use super::armed::{armed, c_is_behind};
use super::{SCHEMA, refuses_writes, writable};

/// What b does not get to see: its Relevo is stopped before.
const UNSENT: &str = "
INSERT INTO setting VALUES ('only on a', '1');
UPDATE setting SET value = 'changed on a alone' WHERE name = 'setting 1';
DELETE FROM setting WHERE name = 'setting 2';
UPDATE setting SET name = 'moved on a' WHERE name = 'setting 3';
INSERT INTO purchase (who) VALUES ('only on a');
UPDATE measure SET n = n + 10000 WHERE n = 5;
INSERT INTO logbook (message) VALUES ('only on a');
";
/// What the new primary does meanwhile, some of it to the same rows.
const SINCE: &str = "
UPDATE setting SET value = 'changed on b' WHERE name IN ('setting 1', 'setting 2', 'setting 4');
DELETE FROM setting WHERE name = 'setting 3';
INSERT INTO setting VALUES ('only on a', 'now from b'), ('new on b', '2');
INSERT INTO purchase (who) VALUES ('on b');
UPDATE measure SET value = -1 WHERE n IN (5, 6);
INSERT INTO logbook (message) VALUES ('on b');
";

/// Stops the flow into b, lets a write, and gives the role to b. Returns the Relevos, that of b running.
async fn parted(versions: &[Version], unsent: &str) -> (Nodes, relevo_tests::Relevo, relevo_tests::Relevo) {
    let (nodes, mut relevos) = Nodes::up(versions, SCHEMA).await;
    let (mut of_a, mut of_b) = (relevos.remove("a").unwrap(), relevos.remove("b").unwrap());
    nodes.caught_up("a", "b").await;
    of_a.kill();
    of_b.kill();
    nodes.sql("a", unsent).await;
    nodes.node("a").stop();
    let done = nodes.run(&["failover", "--to", "b"], 0).await;
    assert!(done.stdout.contains("b is the primary since epoch 2"), "{}", done.stdout);
    assert!(done.stdout.contains("Applied from a: everything up to "), "{}", done.stdout);
    assert!(done.stdout.contains("relevo rejoin a"), "{}", done.stdout);
    of_b.restart();
    (nodes, of_a, of_b)
}

async fn comes_back(versions: &[Version], unsent: &str, since: &str) -> Vec<Value> {
    let (nodes, mut of_a, mut of_b) = parted(versions, unsent).await;
    nodes.sql("b", since).await;
    nodes.node("a").start().await;
    of_a.restart();
    let stale = of_a
        .wait_for_status("the stale primary is found out", PATIENCE, |s| {
            s["state"] == "failed" && s["state_detail"].to_string().contains("relevo rejoin a")
        })
        .await;
    assert_eq!((&stale["role"], &stale["epoch"]), (&"standby".into(), &2.into()), "{stale}");
    assert_eq!(of_a.metrics().await.value("relevo_stale_primary"), 1.0);
    refuses_writes(&nodes, "a", "a").await;

    let done = nodes.run(&["rejoin", "a", "--json"], 0).await.json();
    let file = done["salvage"]["file"].as_str().expect("a salvage file");
    let lines = std::fs::read_to_string(file).expect("the salvage file");
    let transactions: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(done["salvage"]["transactions"], transactions.len(), "{done}");
    nodes.settle("b", "a").await;
    of_a.wait_until_streaming().await;
    assert_eq!(of_a.metrics().await.value("relevo_stale_primary"), 0.0);
    refuses_writes(&nodes, "a", "b").await;
    nodes.run(&["verify"], 0).await;
    nodes.sql("b", "INSERT INTO purchase (who) VALUES ('after the return')").await;
    nodes.settle("b", "a").await;
    let slots = "SELECT slot_name::text FROM pg_replication_slots ORDER BY 1";
    assert_eq!(nodes.node("a").column(slots).await, Vec::<String>::new());
    // And it is as good a standby as any.
    nodes.run(&["switchover", "--to", "a"], 0).await;
    nodes.sql("a", "INSERT INTO purchase (who) VALUES ('on a again')").await;
    nodes.settle("a", "b").await;
    of_a.terminate();
    of_b.terminate();
    transactions
}

#[tokio::test]
async fn an_old_primary_comes_back_without_a_copy_and_what_only_it_had_is_in_the_file() {
    let salvaged = comes_back(&[Version::V15, Version::V15], UNSENT, SINCE).await;
    // The statements of one message are one transaction (manual, Message Flow).
    assert_eq!(salvaged.len(), 1, "{salvaged:?}");
    let changes = salvaged[0]["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 7, "{changes:?}");
    assert_eq!(changes[0]["new"]["name"], "only on a");
    assert_eq!(changes[2]["op"], "delete");
    assert_eq!(changes[3]["old"]["name"], "setting 3");
    assert_eq!(changes[6]["new"]["message"], "only on a");
}

#[tokio::test]
async fn an_old_primary_comes_back_although_tables_were_truncated_on_either_side() {
    let unsent = "TRUNCATE setting; INSERT INTO setting VALUES ('setting 1', 'alone'); TRUNCATE logbook";
    let since =
        "TRUNCATE purchase; INSERT INTO setting VALUES ('new on b', '2'); UPDATE setting SET value = '' ";
    let salvaged = comes_back(&[Version::V14, Version::V16], unsent, since).await;
    assert_eq!(salvaged[0]["changes"][0]["op"], "truncate");
}

#[tokio::test]
async fn an_old_primary_that_has_nothing_of_its_own_just_follows() {
    let salvaged = comes_back(&[Version::V17, Version::V18], "", SINCE).await;
    assert!(salvaged.is_empty(), "{salvaged:?}");
}

/// Rejoin is killed after every step, and typed again.
#[tokio::test]
async fn a_rejoin_that_is_killed_after_any_step_is_finished_by_the_same_command() {
    let (nodes, mut of_a, mut of_b) = parted(&[Version::V15, Version::V15], UNSENT).await;
    nodes.sql("b", SINCE).await;
    nodes.node("a").start().await;
    of_a.restart();
    of_a.wait_for_state("failed").await;
    // Fenced by its own Relevo, it begins with the file; what that step has learnt dies with the command.
    for (steps, kill_after) in [
        (vec!["salvage", "undo", "restore", "retire"], "1"),
        (vec!["salvage", "undo", "restore", "retire"], "2"),
        (vec!["restore", "retire"], "1"),
        (vec!["restore", "retire"], "2"),
    ] {
        assert_eq!(nodes.steps(&["rejoin", "a"]).await, steps);
        let command = nodes.command(&["rejoin", "a", "--kill-after-step", kill_after]);
        let killed = tokio::task::spawn_blocking(move || command.finish_within(PATIENCE)).await.unwrap();
        assert_eq!(killed.code, None, "{killed:?}");
    }
    nodes.run(&["rejoin", "a"], 0).await;
    nodes.settle("b", "a").await;
    of_a.terminate();
    of_b.terminate();
}

/// Killed after any step of a failover, the same command finishes.
#[tokio::test]
async fn a_failover_that_is_killed_after_any_step_is_finished_by_the_same_command() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V16, Version::V15], SCHEMA).await;
    nodes.caught_up("a", "b").await;
    nodes.node("a").crash();
    let steps = nodes.steps(&["failover", "--to", "b"]).await;
    let promote = steps.iter().position(|step| step == "promote").unwrap();
    for step in 1..=promote {
        let kill_after = step.to_string();
        let command = nodes.command(&["failover", "--to", "b", "--kill-after-step", &kill_after]);
        let killed = tokio::task::spawn_blocking(move || command.finish_within(PATIENCE)).await.unwrap();
        assert_eq!(killed.code, None, "{killed:?}");
        assert!(!writable(&nodes, "b").await, "after step {step} ({})", steps[step - 1]);
    }
    nodes.run(&["failover", "--to", "b"], 0).await;
    assert!(writable(&nodes, "b").await);
    nodes.run(&["failover", "--to", "b"], 0).await;
    for relevo in relevos.values_mut() {
        relevo.kill();
    }
}

/// Only the primary's Relevo is dead, or it cannot be reached from here: a failover that would lose writes is refused.
#[tokio::test]
async fn a_failover_is_refused_while_the_primary_takes_writes_and_forced_it_fences_first() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    relevos.get_mut("a").unwrap().kill();
    let refused = nodes.run(&["failover", "--to", "b"], 3).await;
    assert!(refused.stderr.contains("relevo switchover --to b"), "{}", refused.stderr);
    assert!(writable(&nodes, "a").await);
    nodes.run(&["failover", "--to", "b", "--force"], 0).await;
    assert!(writable(&nodes, "b").await && !writable(&nodes, "a").await);
    nodes.run(&["failover", "--to", "a"], 3).await;
    relevos.get_mut("a").unwrap().restart();
    nodes.run(&["rejoin", "a"], 0).await;
    nodes.settle("b", "a").await;
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// b and c get the role from a lost primary by two commands, and neither sees the other.
async fn two_failovers() -> (Nodes, BTreeMap<String, Relevo>) {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15, Version::V15], SCHEMA).await;
    nodes.caught_up("a", "b").await;
    nodes.caught_up("a", "c").await;
    relevos.values_mut().for_each(Relevo::kill);
    nodes.node("a").crash();
    (nodes, relevos)
}

/// The later epoch counts: the other node is a stale primary like any, and comes back like one, with what it wrote in a file.
#[tokio::test]
async fn two_failovers_that_do_not_see_each_other_have_epochs_of_their_own() {
    let (nodes, mut relevos) = two_failovers().await;
    // A link that is cut, as far as the command can tell.
    for (node, other) in [("b", "c"), ("c", "b")] {
        nodes.node(other).stop();
        nodes.run(&["failover", "--to", node], 0).await;
        nodes.node(node).stop();
        nodes.node(other).start().await;
    }
    nodes.node("c").start().await;
    assert!(writable(&nodes, "b").await && writable(&nodes, "c").await, "both have the role by now");
    let epoch = "SELECT epoch FROM relevo.node";
    let epochs = (nodes.node("b").value::<i64>(epoch).await, nodes.node("c").value::<i64>(epoch).await);
    assert_eq!(epochs, (2, 3));
    nodes.sql("b", UNSENT).await;
    nodes.sql("c", SINCE).await;
    for name in ["b", "c"] {
        relevos.get_mut(name).unwrap().restart();
    }
    let of_b = relevos.get_mut("b").unwrap();
    let found_out =
        |s: &Value| s["state"] == "failed" && s["state_detail"].to_string().contains("relevo rejoin b");
    of_b.wait_for_status("the stale primary is found out", PATIENCE, found_out).await;
    refuses_writes(&nodes, "b", "b").await;
    assert!(writable(&nodes, "c").await);
    assert_eq!(nodes.steps(&["rejoin", "b"]).await, ["salvage", "resync", "retire", "retire"]);
    for kill_after in ["1", "2"] {
        let command = nodes.command(&["rejoin", "b", "--kill-after-step", kill_after]);
        let killed = tokio::task::spawn_blocking(move || command.finish_within(PATIENCE)).await.unwrap();
        assert_eq!(killed.code, None, "{killed:?}");
    }
    assert_eq!(nodes.steps(&["rejoin", "b"]).await, ["resync", "retire", "retire"]);
    nodes.run(&["rejoin", "b"], 0).await;
    let file = std::fs::read_to_string(nodes.folder().join("relevo-salvage-shop-b-epoch-3.jsonl")).unwrap();
    let saved: Value = serde_json::from_str(file.lines().next().expect("a transaction")).unwrap();
    assert_eq!((file.lines().count(), saved["changes"].as_array().unwrap().len()), (1, 7), "{file}");
    nodes.settle("c", "b").await;
    nodes.node("a").start().await;
    relevos.get_mut("a").unwrap().restart();
    nodes.run(&["rejoin", "a"], 0).await;
    nodes.settle("c", "a").await;
    for name in ["a", "b"] {
        // Those that they arm for each other are no remains.
        let slots =
            "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name NOT LIKE 'relevo\\_armed\\_%'";
        assert_eq!(nodes.node(name).column(slots).await, Vec::<String>::new(), "slots on {name}");
        let attempts = "SELECT max(copy_attempt) FROM relevo.flow";
        assert_eq!(nodes.node(name).value::<i32>(attempts).await, 1, "{name} was not copied again");
    }
    relevos.values_mut().for_each(Relevo::terminate);
}

/// Their files name different nodes, so both may get the role in one epoch: whoever sees both fences both, until somebody
/// decides. The other one comes back without a copy.
#[tokio::test]
async fn two_claims_of_one_epoch_are_fenced_until_somebody_decides() {
    let (nodes, mut relevos) = two_failovers().await;
    nodes.run_without("c", &["failover", "--to", "b"], 0).await;
    nodes.run_without("b", &["failover", "--to", "c"], 0).await;
    assert!(writable(&nodes, "b").await && writable(&nodes, "c").await, "both claim the role by now");
    nodes.sql("c", UNSENT).await;
    nodes.sql("b", SINCE).await;
    let refused = nodes.run(&["switchover", "--to", "b"], 3).await;
    assert!(refused.stderr.contains("in the same epoch 2"), "{}", refused.stderr);
    for name in ["b", "c"] {
        relevos.get_mut(name).unwrap().restart();
    }
    for name in ["b", "c"] {
        let relevo = relevos.get_mut(name).unwrap();
        relevo.wait_for_state("failed").await;
        wait_until("both are fenced", PATIENCE, async || !writable(&nodes, name).await).await;
        assert_eq!(relevo.metrics().await.value("relevo_stale_primary"), 1.0);
    }
    nodes.run(&["failover", "--to", "b"], 3).await;
    nodes.run(&["failover", "--to", "b", "--force"], 0).await;
    assert!(writable(&nodes, "b").await && !writable(&nodes, "c").await);
    // b has no slot for c yet: the file of its failover did not name it.
    assert_eq!(nodes.steps(&["rejoin", "c"]).await, ["salvage", "arm", "resync", "retire"]);
    let done = nodes.run(&["rejoin", "c", "--json"], 0).await.json();
    assert_eq!(
        (&done["salvage"]["transactions"], &done["salvage"]["rows"]),
        (&1.into(), &7.into()),
        "{done}"
    );
    nodes.settle("b", "c").await;
    relevos.remove("a");
    relevos.values_mut().for_each(Relevo::terminate);
}

/// b takes over from a, and c, which was behind, takes over from both: what b had from a and c had not was in no file. Once c had
/// been let follow b, once it had never seen b.
#[tokio::test]
async fn what_a_lost_primary_had_from_the_one_before_it_is_in_the_file_too() {
    for follows in [true, false] {
        let (nodes, mut relevos) = Nodes::up(&[Version::V15; 3], SCHEMA).await;
        armed(&nodes, "b", "c").await;
        nodes.caught_up("a", "c").await;
        c_is_behind(&nodes, &mut relevos).await;
        if !follows {
            nodes.node("c").crash();
        }
        nodes.run(&["failover", "--to", "b"], 0).await;
        nodes.sql("b", "INSERT INTO purchase (who) VALUES ('only on b')").await;
        relevos.get_mut("b").unwrap().kill();
        nodes.node("b").crash();
        if !follows {
            nodes.node("c").start().await;
        }
        nodes.run(&["failover", "--to", "c"], 0).await;
        nodes.sql("c", "INSERT INTO purchase (who) VALUES ('on c')").await;
        relevos.get_mut("c").unwrap().restart();
        nodes.node("b").start().await;
        relevos.get_mut("b").unwrap().restart();
        let done = nodes.run(&["rejoin", "b", "--json"], 0).await.json();
        assert_eq!(done["warnings"], serde_json::json!([]), "{done}");
        let file = done["salvage"]["file"].as_str().expect("a salvage file");
        let saved = std::fs::read_to_string(file).expect("the salvage file");
        for lacked in ["lacked", "many 20000", "moved", "only on b", "\"op\":\"truncate\""] {
            assert!(saved.contains(lacked), "follows {follows}: {lacked} is not in the file");
        }
        for had in ["customer 1", "line 20"] {
            assert!(!saved.contains(had), "follows {follows}: {had} never was elsewhere");
        }
        nodes.settle("c", "b").await;
        nodes.node("a").start().await;
        nodes.run(&["rejoin", "a"], 0).await;
        nodes.settle("c", "a").await;
        relevos.values_mut().for_each(Relevo::terminate);
    }
}

/// The Relevo beside a former primary fences it, and so does the command that lets it rejoin. Whoever came second took the place of
/// the fence away for a moment, and a rejoin that looked then said that the node is not fenced.
#[tokio::test]
async fn a_fence_that_stands_is_not_set_again_by_whoever_has_waited_for_it() {
    let (nodes, mut of_a, mut of_b) = parted(&[Version::V15, Version::V15], UNSENT).await;
    nodes.node("a").start().await;
    nodes
        .sql(
            "a",
            "CREATE TABLE public.places (n int GENERATED ALWAYS AS IDENTITY, of text, lsn pg_lsn);
             CREATE FUNCTION public.note_place() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO public.places (of, lsn) VALUES (NEW.primary_node, NEW.fence_lsn); RETURN NULL; END $$;
             CREATE TRIGGER note_place AFTER UPDATE ON relevo.node FOR EACH ROW EXECUTE FUNCTION public.note_place();
             ALTER TABLE relevo.node ENABLE ALWAYS TRIGGER note_place",
        )
        .await;
    // Somebody who fences a holds the row; the Relevo has seen that a is not fenced, and waits for it.
    let other = nodes.node("a").connect("shop").await;
    other
        .sql("SET session_replication_role = replica; BEGIN READ WRITE; SELECT FROM relevo.node FOR UPDATE")
        .await;
    of_a.restart();
    let waits = "SELECT count(*) FROM pg_stat_activity \
                 WHERE wait_event_type = 'Lock' AND query LIKE '%relevo.node%FOR UPDATE%'";
    wait_until("the Relevo waits", PATIENCE, async || nodes.node("a").value::<i64>(waits).await > 0).await;
    let place = "UPDATE relevo.node SET fenced = true, fence_lsn = pg_current_wal_insert_lsn(); COMMIT";
    other.sql(place).await;
    of_a.wait_for_status("a is found out", PATIENCE, |s| {
        s["state"] == "failed" && s["state_detail"].to_string().contains("relevo rejoin a")
    })
    .await;
    nodes.run(&["rejoin", "a"], 0).await;
    nodes.settle("b", "a").await;
    let places = "SELECT DISTINCT coalesce(lsn::text, 'none') FROM public.places \
                  WHERE of = 'a' AND n >= (SELECT min(n) FROM public.places WHERE lsn IS NOT NULL)";
    assert_eq!(nodes.node("a").column(places).await.len(), 1, "the place never changes");
    of_a.terminate();
    of_b.terminate();
}
