//! Primaries whose server is killed at random moments under load, with one standby and with two.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use relevo_tests::relevo::{Finished, PATIENCE};
use relevo_tests::{Nodes, Version, soak_factor, wait_until};
use serde_json::Value;

use super::ledger::{Clients, LEDGER, judge_with};

/// One loss for each.
const SEEDS: [u64; 10] = [3, 17, 101, 4242, 65_537, 900_001, 7_777_777, 20_251_122, 1 << 40, u64::MAX];

/// So many of the list, or the one in `RELEVO_SEED`. A soak takes all, and as many new ones for each further time.
fn seeds(few: usize) -> Vec<u64> {
    if let Ok(seed) = std::env::var("RELEVO_SEED") {
        return vec![seed.parse().expect("RELEVO_SEED is a number")];
    }
    match soak_factor() {
        1 => SEEDS[..few].to_vec(),
        times => SEEDS.into_iter().chain((10..times * 10).map(|_| rand::random())).collect(),
    }
}

/// What became of the nodes that were not to have the role.
#[derive(Debug, Default)]
struct Tally {
    /// Standbys that went on from their own position.
    followed: usize,
    /// Standbys that were behind the new primary, or ahead: made equal without a copy.
    compared: usize,
    /// Old primaries that came back.
    returned: usize,
}

/// Gives the role to `to`, or to the standby that the refusal names because it has more. Returns who has it.
async fn fail_over(nodes: &Nodes, to: &str) -> String {
    let mut to = to.to_owned();
    // What was received is still being applied: who has more may change.
    for _ in 0..10 {
        let command = nodes.command(&["failover", "--to", &to]);
        let Finished { code, stdout, stderr } =
            tokio::task::spawn_blocking(move || command.finish_within(PATIENCE)).await.expect("the command");
        if code == Some(0) {
            return to;
        }
        let better = stderr.split("type relevo failover --to ").nth(1).and_then(|rest| rest.get(..1));
        assert_eq!(code, Some(3), "{stdout}\n{stderr}");
        to = better.unwrap_or_else(|| panic!("{stderr}")).to_owned();
    }
    panic!("every standby says that another one has more");
}

/// Waits until more rows are on the node.
async fn arrives(nodes: &Nodes, node: &str, more: i64) {
    let count = "SELECT count(*) FROM ledger";
    let before: i64 = nodes.node(node).value(count).await;
    wait_until(&format!("writes on {node}"), PATIENCE, async || {
        nodes.node(node).value::<i64>(count).await > before + more
    })
    .await;
}

/// Lets a node rejoin, and takes what was saved of its ledger.
async fn rejoin(nodes: &Nodes, node: &str, saved: &mut BTreeSet<i64>) -> Vec<String> {
    let done = nodes.run(&["rejoin", node, "--json"], 0).await.json();
    if let Some(file) = done["salvage"]["file"].as_str() {
        let lines = std::fs::read_to_string(file).expect("the salvage file");
        let transactions = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        for transaction in transactions {
            for change in transaction["changes"].as_array().expect("changes") {
                if change["table"] == "public.ledger" && change["op"] == "insert" {
                    saved.insert(change["new"]["n"].as_str().expect("a number").parse().expect("a number"));
                }
            }
        }
    }
    let steps = done["steps"].as_array().expect("steps");
    steps.iter().map(|step| step["step"].as_str().expect("a word").to_owned()).collect()
}

/// Once for each seed: nothing that the new primary's side had is lost, the files and the primary together hold every
/// acknowledged commit, every node is as the primary in the end, and none was copied again.
async fn primaries_are_killed(versions: &[Version], seeds: &[u64]) -> Tally {
    let (nodes, mut relevos) = Nodes::up(versions, LEDGER).await;
    let clients = Clients::start(&nodes.application(), 4);
    let (mut saved, mut tally) = (BTreeSet::new(), Tally::default());
    let mut standbys: Vec<String> = relevos.keys().filter(|name| *name != "a").cloned().collect();
    let mut old = "a".to_owned();
    for seed in seeds {
        println!("seed {seed}: {old} is killed");
        let mut rng = StdRng::seed_from_u64(*seed);
        for standby in &standbys {
            arrives(&nodes, standby, 100).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        nodes.node(&old).crash();
        let new = fail_over(&nodes, &standbys[rng.random_range(0..standbys.len())]).await;
        arrives(&nodes, &new, 100).await;
        standbys.retain(|standby| *standby != new);
        for standby in &standbys {
            match rejoin(&nodes, standby, &mut saved).await.iter().any(|step| step == "resync") {
                true => tally.compared += 1,
                false => tally.followed += 1,
            }
            nodes.caught_up(&new, standby).await;
        }
        nodes.node(&old).start().await;
        rejoin(&nodes, &old, &mut saved).await;
        nodes.caught_up(&new, &old).await;
        tally.returned += 1;
        standbys.push(std::mem::replace(&mut old, new));
    }
    let told = clients.finish().await;
    for standby in &standbys {
        nodes.settle(&old, standby).await;
    }
    println!("{} acknowledged, {} rows in salvage files; {tally:?}", told.acknowledged.len(), saved.len());
    judge_with(&nodes, &old, &told, &saved).await;
    for name in relevos.keys() {
        let attempts = "SELECT coalesce(max(copy_attempt), 0) FROM relevo.flow";
        assert!(nodes.node(name).value::<i32>(attempts).await <= 1, "{name} was copied again");
    }
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
    tally
}

#[tokio::test]
async fn primaries_that_are_killed_under_load_lose_nothing_that_is_not_in_a_file() {
    let seeds = seeds(10);
    let tally = primaries_are_killed(&[Version::V15, Version::V15], &seeds).await;
    assert_eq!(tally.returned, seeds.len());
}

/// The standby that is left follows the new primary from its own position when it holds just what that one held, and is
/// compared otherwise.
#[tokio::test]
async fn of_three_nodes_the_standby_that_is_left_goes_on_without_a_copy() {
    let seeds = seeds(4);
    let tally = primaries_are_killed(&[Version::V15, Version::V16, Version::V15], &seeds).await;
    assert_eq!((tally.returned, tally.followed + tally.compared), (seeds.len(), seeds.len()));
}
