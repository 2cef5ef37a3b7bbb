//! The planned hand-over.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Nodes, Relevo, Version, wait_until};

use super::{SCHEMA, refuses_writes, stubborn, writable};

async fn there_and_back(first: Version, second: Version) {
    let (nodes, mut relevos) = Nodes::up(&[first, second], SCHEMA).await;
    refuses_writes(&nodes, "b", "a").await;
    nodes.node("a").sql("INSERT INTO setting VALUES ('before', 'a')").await;

    let done = nodes.run(&["switchover", "--to", "b"], 0).await;
    assert!(done.stdout.contains("b is the primary since epoch 2"), "{}", done.stdout);
    assert!(done.stdout.contains("Writes paused for "), "{}", done.stdout);
    refuses_writes(&nodes, "a", "b").await;
    for (name, role) in [("a", "standby"), ("b", "primary")] {
        let relevo = relevos.get_mut(name).unwrap();
        let status =
            relevo.wait_for_status("its new role", PATIENCE, |s| s["role"] == role && s["epoch"] == 2).await;
        assert_eq!(status["node"], name, "{status}");
    }
    let on_b = nodes.node("b").connect("shop").await;
    assert_eq!(on_b.value::<i64>("SELECT nextval('ticket')").await, 8, "sequences are exact");
    nodes
        .sql("b", "INSERT INTO purchase (who) VALUES ('on b'); DELETE FROM setting WHERE name = 'before'")
        .await;
    nodes.settle("b", "a").await;

    nodes.run(&["switchover", "--to", "a", "--json"], 0).await;
    refuses_writes(&nodes, "b", "a").await;
    nodes.sql("a", "INSERT INTO purchase (who) VALUES ('on a again')").await;
    let on_a = nodes.node("a").connect("shop").await;
    assert_eq!(on_a.value::<i64>("SELECT nextval('ticket')").await, 9);
    nodes.settle("a", "b").await;
    let slots = "SELECT slot_name::text FROM pg_replication_slots ORDER BY 1";
    assert_eq!(nodes.node("a").column(slots).await, ["relevo_shop_b"]);
    assert_eq!(
        nodes.node("b").column(slots).await,
        Vec::<String>::new(),
        "no slot is left that nobody reads"
    );

    let history = nodes.run(&["history", "--json"], 0).await.json();
    let kinds: Vec<(&str, u64)> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["kind"].as_str().unwrap(), entry["epoch"].as_u64().unwrap()))
        .collect();
    assert_eq!(kinds, [("switchover", 3), ("switchover", 2), ("init", 1)], "{history}");
    for (name, relevo) in &mut relevos {
        let failed = relevo.metrics().await.sum("relevo_errors_total", &[]).unwrap_or(0.0);
        assert_eq!(failed, 0.0, "errors of {name}: {}", relevo.stderr());
        relevo.terminate();
    }
}

#[tokio::test]
async fn the_role_moves_there_and_back_between_14_and_15() {
    there_and_back(Version::V14, Version::V15).await;
}

#[tokio::test]
async fn the_role_moves_there_and_back_between_18_and_16() {
    there_and_back(Version::V18, Version::V16).await;
}

/// Whatever instant the command is killed at: typed again, it finishes.
#[tokio::test]
async fn a_switchover_that_is_killed_after_any_step_is_finished_by_the_same_command() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    let mut primary = ("a", "b");
    let steps = nodes.steps(&["switchover", "--to", "b"]).await;
    assert!(steps.contains(&"promote".to_owned()), "{steps:?}");
    for step in 1..=steps.len() {
        let (from, to) = primary;
        nodes.sql(from, &format!("INSERT INTO setting VALUES ('round {step}', '{from}')")).await;
        let kill_after = step.to_string();
        let command = nodes.command(&["switchover", "--to", to, "--kill-after-step", &kill_after]);
        let killed = tokio::task::spawn_blocking(move || command.finish()).await.unwrap();
        assert_eq!(killed.code, None, "killed after step {step}: {}{}", killed.stdout, killed.stderr);
        let both = writable(&nodes, from).await && writable(&nodes, to).await;
        assert!(!both, "after step {step} ({}) both accept writes", steps[step - 1]);
        nodes.run(&["switchover", "--to", to], 0).await;
        assert!(writable(&nodes, to).await && !writable(&nodes, from).await);
        nodes.sql(to, &format!("INSERT INTO purchase (who) VALUES ('round {step} on {to}')")).await;
        nodes.settle(to, from).await;
        primary = (to, from);
    }
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// Killed between fence and promotion, a switchover can also be taken back.
#[tokio::test]
async fn an_interrupted_switchover_is_taken_back_by_naming_the_old_primary() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V16, Version::V16], SCHEMA).await;
    let steps = nodes.steps(&["switchover", "--to", "b"]).await;
    let fence = 1 + steps.iter().position(|step| step == "fence").unwrap();
    let kill_after = fence.to_string();
    let command = nodes.command(&["switchover", "--to", "b", "--kill-after-step", &kill_after]);
    tokio::task::spawn_blocking(move || command.finish()).await.unwrap();
    refuses_writes(&nodes, "a", "a").await;
    nodes.run(&["switchover", "--to", "a"], 0).await;
    assert!(writable(&nodes, "a").await && !writable(&nodes, "b").await);
    nodes.node("a").sql("INSERT INTO setting VALUES ('again', 'a')").await;
    nodes.settle("a", "b").await;
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// A transaction that stays open keeps the fence out; it is named, and nobody else is kept waiting for longer than said.
#[tokio::test]
async fn a_transaction_that_stays_open_is_named_and_writes_go_on() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V17], SCHEMA).await;
    let open = nodes.node("a").connect("shop").await;
    open.sql("SET application_name = 'a forgotten console'; BEGIN; UPDATE setting SET value = 'x'").await;
    let refused = nodes.run(&["switchover", "--to", "b", "--max-pause", "1500ms"], 1).await;
    assert!(refused.stderr.contains("a forgotten console"), "{}", refused.stderr);
    nodes.node("a").sql("INSERT INTO purchase (who) VALUES ('goes on')").await;
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(nodes.node("b").value::<i64>(slots).await, 0, "what was made for it is gone");
    open.sql("COMMIT").await;
    nodes.run(&["switchover", "--to", "b"], 0).await;
    nodes.settle("b", "a").await;
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// A table that comes later on a standby, by whoever may make it, is guarded too.
#[tokio::test]
async fn a_table_that_comes_later_is_guarded() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    // Only a session in which ordinary triggers do not fire can make one.
    let session = stubborn(&nodes, "b").await;
    session.sql("SET session_replication_role = replica").await;
    session.sql("CREATE TABLE later (n int)").await;
    wait_until("the later table is guarded", PATIENCE, async || {
        stubborn(&nodes, "b").await.try_sql("INSERT INTO later VALUES (1)").await.is_err()
    })
    .await;
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

#[tokio::test]
async fn what_would_not_be_safe_is_refused_with_what_to_do() {
    let nodes = Nodes::start(&[Version::V15, Version::V15]).await;
    nodes.node("a").sql(SCHEMA).await;
    let refused = nodes.run(&["switchover", "--to", "b"], 3).await;
    assert!(refused.stderr.contains("relevo init"), "{}", refused.stderr);
    nodes.run(&["init", "--primary", "x"], 2).await;
    nodes.run(&["init", "--primary", "a"], 0).await;
    nodes.run(&["init", "--primary", "a"], 0).await;
    nodes.run(&["init", "--primary", "b"], 3).await;
    let refused = nodes.run(&["switchover", "--to", "b"], 3).await;
    assert!(refused.stderr.contains("relevo run --node b"), "{}", refused.stderr);
    let mut relevo = nodes.relevo("b");
    relevo.wait_until_streaming().await;
    let refused = nodes.run(&["failover", "--to", "b"], 3).await;
    assert!(refused.stderr.contains("relevo switchover --to b"), "{}", refused.stderr);
    nodes.run(&["switchover", "--to", "nobody"], 2).await;
    relevo.terminate();
    let refused = nodes.run(&["switchover", "--to", "b"], 3).await;
    assert!(refused.stderr.contains("no Relevo applies"), "{}", refused.stderr);
}

/// The command and the Relevo beside the old primary both let it follow. Whoever came second set the progress back to where the new
/// primary took the role, and what had been confirmed to the slot meanwhile was lost.
#[tokio::test]
async fn the_old_primary_is_let_follow_once_although_two_are_at_it() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V16, Version::V17], SCHEMA).await;
    nodes
        .sql(
            "a",
            "CREATE TABLE public.followed (application text);
             CREATE FUNCTION public.note_follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO public.followed VALUES (current_setting('application_name')); RETURN NULL; END $$;
             CREATE TRIGGER note_follow AFTER INSERT OR UPDATE ON relevo.progress
                 FOR EACH ROW EXECUTE FUNCTION public.note_follow();
             ALTER TABLE relevo.progress ENABLE ALWAYS TRIGGER note_follow",
        )
        .await;
    // Nobody can let a follow before this is given free.
    let in_the_way = nodes.node("a").connect("shop").await;
    in_the_way.sql("BEGIN READ WRITE; LOCK TABLE relevo.progress IN SHARE MODE").await;
    let switched = nodes.run(&["switchover", "--to", "b"], 0);
    let both = async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        wait_until("both wait", PATIENCE, async || nodes.node("a").value::<i64>(waits).await >= 2).await;
        in_the_way.sql("COMMIT").await;
    };
    tokio::join!(switched, both);
    nodes.sql("b", "INSERT INTO purchase (who) VALUES ('on b')").await;
    nodes.settle("b", "a").await;
    let followed = "SELECT count(*) FROM public.followed WHERE application <> 'relevo_shop_a'";
    assert_eq!(nodes.node("a").value::<i64>(followed).await, 1);
    relevos.values_mut().for_each(Relevo::terminate);
}

/// Two people, one incident. The second command had looked before the first gave the role to b, and went on by what it had seen:
/// it took the closed old primary for one that it had fenced itself, and gave the role to c although b had it and took writes.
#[tokio::test]
async fn a_second_command_does_nothing_while_another_is_at_work() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V16, Version::V17, Version::V15], SCHEMA).await;
    // A slot on c is made only once this has ended.
    let in_the_way = nodes.node("c").connect("shop").await;
    in_the_way
        .sql("SET session_replication_role = replica; BEGIN READ WRITE; CREATE TEMP TABLE t (n int)")
        .await;
    let first = nodes.run(&["switchover", "--to", "c"], 0);
    let others = async {
        let held = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_create_logical_replication_slot%' \
                    AND wait_event_type = 'Lock' AND application_name = 'relevo_handover'";
        wait_until("it is at work", PATIENCE, async || nodes.node("c").value::<i64>(held).await == 1).await;
        // A rehearsal changes nothing.
        assert!(nodes.steps(&["switchover", "--to", "b"]).await.contains(&"promote".to_owned()));
        let commands = [["switchover", "--to", "b"], ["failover", "--to", "b"], ["rejoin", "b", "--json"]];
        let [one, two, three] = commands.each_ref().map(|arguments| nodes.run(arguments, 3));
        let refused = tokio::join!(one, two, three);
        for refused in [refused.0, refused.1, refused.2] {
            assert!(refused.stderr.contains("another hand-over command is at work"), "{}", refused.stderr);
            assert!(refused.stderr.contains("(pid "), "{}", refused.stderr);
        }
        in_the_way.sql("COMMIT").await;
    };
    tokio::join!(first, others);
    assert!(writable(&nodes, "c").await && !writable(&nodes, "a").await && !writable(&nodes, "b").await);
    nodes.sql("c", "INSERT INTO purchase (who) VALUES ('on c')").await;
    nodes.settle("c", "a").await;
    nodes.settle("c", "b").await;
    // Whoever is killed is not at work any more.
    nodes.run(&["switchover", "--to", "b"], 0).await;
    nodes.settle("b", "c").await;
    relevos.values_mut().for_each(Relevo::terminate);
}
