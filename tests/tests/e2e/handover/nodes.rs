//! More than two nodes, hooks, and clients that find the primary.

use std::process::Command;

use relevo_tests::install::newest_client_bin;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Nodes, Version, wait_until};

use super::{SCHEMA, UNARMED};

#[tokio::test]
async fn the_other_standbys_follow_the_new_primary_without_a_copy() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V16, Version::V15], SCHEMA).await;
    let attempts = "SELECT copy_attempt FROM relevo.flow WHERE name = 'shop_c'";
    nodes.run(&["switchover", "--to", "b"], 0).await;
    nodes.sql("b", "INSERT INTO purchase (who) VALUES ('on b')").await;
    nodes.settle("b", "a").await;
    nodes.settle("b", "c").await;
    nodes.run(&["switchover", "--to", "c"], 0).await;
    nodes.sql("c", "INSERT INTO purchase (who) VALUES ('on c')").await;
    nodes.settle("c", "a").await;
    nodes.settle("c", "b").await;
    assert_eq!(nodes.node("c").value::<i32>(attempts).await, 1, "copied once");
    nodes.caught_up("c", "a").await;
    nodes.caught_up("c", "b").await;

    // The primary is lost: whoever has the same rows as the new one follows it.
    nodes.node("c").crash();
    nodes.run(&["failover", "--to", "a"], 0).await;
    nodes.sql("a", "INSERT INTO purchase (who) VALUES ('on a')").await;
    nodes.settle("a", "b").await;
    nodes.node("c").start().await;
    nodes.run(&["rejoin", "c"], 0).await;
    nodes.settle("a", "c").await;
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// A standby that was away during a switchover goes on by itself when it is back.
#[tokio::test]
async fn a_standby_that_was_away_follows_the_new_primary_when_it_is_back() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15, Version::V15], SCHEMA).await;
    let of_a =
        async |name: &str, standby: &str| relevos["a"].metrics().await.sum(name, &[("standby", standby)]);
    for standby in ["b", "c"] {
        wait_until("a knows who reads", PATIENCE, async || {
            of_a("relevo_standby_slot_active", standby).await == Some(1.0)
        })
        .await;
    }
    relevos.get_mut("c").unwrap().kill();
    nodes
        .sql(
            "a",
            "INSERT INTO purchase (who) SELECT repeat('while c is away', 1000) FROM generate_series(1, 1000)",
        )
        .await;
    let of_a =
        async |name: &str, standby: &str| relevos["a"].metrics().await.sum(name, &[("standby", standby)]);
    wait_until("a says what it keeps for c", PATIENCE, async || {
        of_a("relevo_standby_slot_active", "c").await == Some(0.0)
            && of_a("relevo_standby_slot_retained_wal_bytes", "c").await.is_some_and(|bytes| bytes > 1e5)
            && of_a("relevo_standby_slot_active", "b").await == Some(1.0)
    })
    .await;
    nodes.run(&["switchover", "--to", "b"], 0).await;
    nodes.sql("b", "INSERT INTO purchase (who) VALUES ('on b')").await;
    relevos.get_mut("c").unwrap().restart();
    nodes.settle("b", "c").await;
    nodes.settle("b", "a").await;
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// The role went away and came back while a standby was away: what the old and new primary got meanwhile is not lost to it.
#[tokio::test]
async fn a_standby_that_was_away_while_the_role_went_and_came_back_has_everything() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15, Version::V15], SCHEMA).await;
    relevos.get_mut("c").unwrap().kill();
    nodes.sql("a", "INSERT INTO purchase (who) VALUES ('while c is away')").await;
    nodes.run(&["switchover", "--to", "b"], 0).await;
    nodes.sql("b", "INSERT INTO purchase (who) VALUES ('on b'); UPDATE setting SET value = 'b'").await;
    nodes.settle("b", "a").await;
    nodes.run(&["switchover", "--to", "a"], 0).await;
    nodes.sql("a", "INSERT INTO purchase (who) VALUES ('on a again')").await;
    relevos.get_mut("c").unwrap().restart();
    nodes.settle("a", "c").await;
    nodes.settle("a", "b").await;
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// At a failover a standby may be behind the new primary, or ahead of it. Without armed slots nobody can tell it what it lacks;
/// so every row is compared, those that differ are rewritten, and it follows from there, while the new primary is written to.
#[tokio::test]
async fn a_standby_that_was_behind_or_ahead_at_a_failover_is_made_equal_without_a_copy() {
    let versions = [Version::V15, Version::V15, Version::V16];
    let (nodes, mut relevos) = Nodes::up_with(&versions, SCHEMA, UNARMED).await;
    nodes.caught_up("a", "b").await;
    nodes.caught_up("a", "c").await;
    for (behind, ahead, round) in [("c", "b", 1), ("b", "c", 2)] {
        let primary = if round == 1 { "a" } else { "b" };
        let standbys = if round == 1 { ["b", "c"] } else { ["a", "c"] };
        let (behind, ahead) = if round == 1 { (behind, ahead) } else { ("a", ahead) };
        relevos.get_mut(behind).unwrap().kill();
        let write = format!(
            "INSERT INTO setting VALUES ('behind {round}', 'x'); DELETE FROM setting WHERE name = 'setting {round}'; \
             UPDATE purchase SET who = 'round {round}' WHERE id % 7 = {round}; INSERT INTO logbook (message) VALUES ('r{round}')"
        );
        nodes.sql(primary, &write).await;
        nodes.caught_up(primary, ahead).await;
        nodes.node(primary).crash();
        // In the second round the one that has less gets the role by force.
        let (to, left) = if round == 1 { (ahead, behind) } else { (behind, ahead) };
        if round == 2 {
            let refused = nodes.run(&["failover", "--to", to], 3).await;
            assert!(refused.stderr.contains(&format!("relevo failover --to {ahead}")), "{}", refused.stderr);
        }
        let force: &[&str] = if round == 1 { &[] } else { &["--force"] };
        nodes.run(&[&["failover", "--to", to], force].concat(), 0).await;
        relevos.get_mut(behind).unwrap().restart();
        nodes
            .sql(
                to,
                &format!(
                    "INSERT INTO setting VALUES ('since {round}', 'x'); UPDATE measure SET value = {round}"
                ),
            )
            .await;
        let writing = nodes.node(to).connect("shop").await;
        let writer = tokio::spawn(async move {
            for n in 0..50 {
                writing.sql(&format!("INSERT INTO purchase (who) VALUES ('live {n}')")).await;
            }
        });
        relevos.get_mut(left).unwrap().wait_for_state("failed").await;
        assert_eq!(nodes.steps(&["rejoin", left]).await, ["resync"]);
        nodes.run(&["rejoin", left], 0).await;
        writer.await.expect("the writer");
        nodes.settle(to, left).await;
        let attempts = format!("SELECT copy_attempt FROM relevo.flow WHERE name = 'shop_{left}'");
        assert_eq!(nodes.node(left).value::<i32>(&attempts).await, 1, "no copy was made");
        nodes.node(primary).start().await;
        nodes.run(&["rejoin", primary], 0).await;
        nodes.settle(to, primary).await;
        assert!(standbys.contains(&to));
    }
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// The manual's way for libpq: several hosts, and target_session_attrs=read-write.
#[tokio::test]
async fn psql_follows_the_primary_and_hooks_are_told() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    let told = nodes.folder().join("hooks");
    let hook = format!(
        "echo $RELEVO_HOOK $RELEVO_HANDOVER $RELEVO_OLD_PRIMARY $RELEVO_NEW_PRIMARY $RELEVO_EPOCH >> '{}'",
        told.display()
    );
    nodes.configure(&format!("[hooks]\non_fence = \"{hook}\"\non_promote = \"{hook}\"\n"));
    let ports = format!("{},{}", nodes.node("a").port(), nodes.node("b").port());
    let port_of_primary = || {
        let url = format!(
            "host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname=shop target_session_attrs=read-write"
        );
        let output = Command::new(newest_client_bin().join("psql"))
            .args([&url, "-XAtc", "SELECT current_setting('port')"])
            .env("PGPASSWORD", relevo_tests::PASSWORD)
            .output()
            .expect("psql");
        String::from_utf8(output.stdout).expect("a port").trim().to_owned()
    };
    assert_eq!(port_of_primary(), nodes.node("a").port().to_string());
    nodes.run(&["switchover", "--to", "b"], 0).await;
    assert_eq!(port_of_primary(), nodes.node("b").port().to_string());
    let told = std::fs::read_to_string(told).expect("the hooks were run");
    assert_eq!(told, "on_fence switchover a b 2\non_promote switchover a b 2\n");
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}

/// The standby's own Relevo was never there before: it learns from the others what it is.
#[tokio::test]
async fn a_node_that_was_not_reached_by_init_learns_from_the_others() {
    let nodes = Nodes::start(&[Version::V15, Version::V15]).await;
    nodes.node("a").sql(SCHEMA).await;
    nodes.node("b").stop();
    let done = nodes.run(&["init", "--primary", "a"], 0).await;
    assert!(done.stdout.contains("b: not reached"), "{}", done.stdout);
    nodes.node("b").start().await;
    let mut relevo = nodes.relevo("b");
    relevo.wait_until_streaming().await;
    let status = nodes.command(&["status", "--json"]).finish().expect_code(0).json();
    assert_eq!((&status["name"], &status["state"]), (&"shop_b".into(), &"streaming".into()), "{status}");
    wait_until("guarded", PATIENCE, async || {
        nodes.node("b").value::<bool>("SELECT fenced FROM relevo.node").await
    })
    .await;
    relevo.terminate();
}
