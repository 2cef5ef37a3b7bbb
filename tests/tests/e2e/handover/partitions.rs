//! Links are lost and come back at random, each for itself, while the role moves and clients write on every node that lets
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use relevo_tests::links::State;
use relevo_tests::nodes::connect;
use relevo_tests::relevo::{Finished, PATIENCE};
use relevo_tests::{Links, Nodes, Relevo, Version, soak_factor};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const SEEDS: [u64; 4] = [1, 23, 456, 7890];
/// How many commands are typed for each seed.
const COMMANDS: usize = 12;
/// Who types them.
const PERSON: &str = "person";

/// `ledger` is replicated. Of `witness` only the table is: each database keeps what it has accepted, whoever rewrites the
/// ledger later.
const SCHEMA: &str = "CREATE TABLE ledger (n bigint PRIMARY KEY, node text NOT NULL);
CREATE TABLE witness (n bigint PRIMARY KEY, node text NOT NULL, epoch bigint NOT NULL);";

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("RELEVO_SEED") {
        return vec![seed.parse().expect("RELEVO_SEED is a number")];
    }
    match soak_factor() {
        1 => SEEDS[..2].to_vec(),
        times => SEEDS.into_iter().chain((4..times * 4).map(|_| rand::random())).collect(),
    }
}

/// Writes on one node, whatever it is, as a session that does not mind what sessions are by default. Returns what was
/// acknowledged.
async fn write(config: tokio_postgres::Config, first: i64, stop: watch::Receiver<bool>) -> BTreeSet<i64> {
    let (mut acknowledged, mut session, mut n) = (BTreeSet::new(), None, first);
    while !*stop.borrow() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if session.is_none() {
            session = connect(&config).await.ok();
        }
        let Some(open) = &session else { continue };
        n += 1;
        let statements = format!(
            "SET default_transaction_read_only = off; BEGIN READ WRITE; \
             INSERT INTO ledger SELECT {n}, name FROM relevo.node; \
             INSERT INTO witness SELECT {n}, name, epoch FROM relevo.node; COMMIT"
        );
        match open.batch_execute(&statements).await {
            Ok(()) => {
                acknowledged.insert(n);
            }
            Err(_) => session = None,
        }
    }
    acknowledged
}

struct World {
    nodes: Arc<Nodes>,
    links: Arc<Links>,
    relevos: BTreeMap<String, Relevo>,
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<BTreeSet<i64>>>,
}

impl World {
    async fn start() -> Self {
        let nodes = Nodes::start(&[Version::V15; 3]).await;
        nodes.sql("a", SCHEMA).await;
        let askers = ["a", "b", "c", PERSON];
        let links = Links::start(&nodes, &askers, "[tables]\nexclude = [\"public.witness\"]\n").await;
        let config = nodes.config_of(PERSON);
        let init = nodes.command_by(&config, &["init", "--primary", "a"]);
        tokio::task::spawn_blocking(move || init.finish()).await.unwrap().expect_code(0);
        let relevo = |name: &str| (name.to_owned(), nodes.relevo_by(&nodes.config_of(name), name));
        let mut relevos: BTreeMap<String, Relevo> = nodes.names().map(relevo).collect();
        for name in ["b", "c"] {
            relevos.get_mut(name).unwrap().wait_until_streaming().await;
            nodes.guarded(name).await;
        }
        let (stop, stopped) = watch::channel(false);
        let client = |(at, name): (usize, &str)| {
            let first = (at as i64 + 1) * 1_000_000_000;
            tokio::spawn(write(nodes.node(name).config("shop"), first, stopped.clone()))
        };
        let clients = nodes.names().enumerate().map(client).collect();
        Self { nodes: Arc::new(nodes), links: Arc::new(links), relevos, stop, clients }
    }

    /// Types a command, and changes links while it works.
    async fn type_command(&self, arguments: &[&str], rng: &mut StdRng) -> Finished {
        let command = self.nodes.command_by(&self.nodes.config_of(PERSON), arguments);
        let mut typed = tokio::task::spawn_blocking(move || command.finish_within(PATIENCE));
        loop {
            let pause = Duration::from_millis(rng.random_range(20..400));
            tokio::select! {
                done = &mut typed => return done.expect("the command"),
                () = tokio::time::sleep(pause) => self.change_a_link(rng).await,
            }
        }
    }

    async fn change_a_link(&self, rng: &mut StdRng) {
        let ends: Vec<(&str, &str)> = self.links.ends().collect();
        let (asker, node) = ends[rng.random_range(0..ends.len())];
        // A Relevo stands beside its database; a person is far from some.
        let cuts = if asker == PERSON { 5 } else { 3 };
        let state = match rng.random_range(0..10) {
            0 => State::Silent,
            n if n <= cuts && asker != node => State::Cut,
            _ => State::Open,
        };
        self.links.set(asker, node, state).await;
    }

    /// For each epoch the nodes that have accepted ordinary writes under it, by their own databases' word.
    async fn accepted(&self) -> BTreeMap<i64, BTreeSet<String>> {
        let mut accepted: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
        for name in self.nodes.names() {
            for row in self.nodes.node(name).rows("SELECT DISTINCT epoch, node FROM witness").await {
                let epoch = row[0].as_deref().expect("an epoch").parse().expect("a number");
                accepted.entry(epoch).or_default().insert(row[1].clone().expect("a node"));
            }
        }
        accepted
    }

    /// Whoever has the highest epoch.
    async fn primary(&self) -> String {
        let mut highest = (0, String::new());
        for name in self.nodes.names() {
            let row = self.nodes.node(name).rows("SELECT epoch, primary_node FROM relevo.node").await;
            let epoch: i64 = row[0][0].as_deref().expect("an epoch").parse().expect("a number");
            highest = highest.max((epoch, row[0][1].clone().expect("a node")));
        }
        highest.1
    }

    /// When all links work again, every node can be brought back without a copy, and nothing that was acknowledged is lost.
    async fn comes_together(mut self) {
        self.links.heal().await;
        self.stop.send_replace(true);
        let mut acknowledged = BTreeSet::new();
        for client in self.clients.drain(..) {
            acknowledged.extend(client.await.expect("a client"));
        }
        let primary = self.primary().await;
        let run = async |arguments: &[&str]| {
            let command = self.nodes.command_by(&self.nodes.config_of(PERSON), arguments);
            let done = tokio::task::spawn_blocking(move || command.finish_within(PATIENCE)).await.unwrap();
            println!("  {arguments:?}: {}", done.stdout.lines().last().unwrap_or_default());
            done.expect_code(0);
        };
        // What was interrupted is finished, or taken back.
        run(&["switchover", "--to", &primary]).await;
        for name in self.nodes.names().filter(|name| *name != primary) {
            run(&["rejoin", name]).await;
            self.nodes.caught_up(&primary, name).await;
            run(&["verify", "--node", name]).await;
        }
        let there = self.nodes.node(&primary).column("SELECT n::text FROM ledger").await;
        let mut kept: BTreeSet<i64> = there.iter().map(|n| n.parse().expect("a number")).collect();
        kept.extend(saved(&self.nodes));
        let lost: Vec<_> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "{} rows are lost, such as {:?}", lost.len(), &lost[..lost.len().min(5)]);
        for relevo in self.relevos.values_mut() {
            relevo.terminate();
        }
    }
}

/// The rows of the ledger in all salvage files.
fn saved(nodes: &Nodes) -> BTreeSet<i64> {
    let files =
        std::fs::read_dir(nodes.folder()).expect("the folder").map(|file| file.expect("a file").path());
    let mut rows = BTreeSet::new();
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "jsonl")) {
        for line in std::fs::read_to_string(file).expect("a salvage file").lines() {
            let transaction: Value = serde_json::from_str(line).expect("JSON");
            for change in transaction["changes"].as_array().expect("changes") {
                let n = change["new"]["n"].as_str().filter(|_| change["table"] == "public.ledger");
                rows.extend(n.map(|n| n.parse::<i64>().expect("a number")));
            }
        }
    }
    rows
}

async fn links_come_and_go(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::start().await;
    for _ in 0..COMMANDS {
        for _ in 0..6 {
            world.change_a_link(&mut rng).await;
        }
        let node = ["a", "b", "c"][rng.random_range(0..3)];
        let mut arguments = match rng.random_range(0..8) {
            0..3 => vec!["failover", "--to", node],
            3 | 4 => vec!["failover", "--to", node, "--force"],
            5 | 6 => vec!["switchover", "--to", node],
            _ => vec!["rejoin", node],
        };
        let kill_after = rng.random_range(1..9).to_string();
        if rng.random_bool(0.3) {
            arguments.extend(["--kill-after-step", &kill_after]);
        }
        let done = world.type_command(&arguments, &mut rng).await;
        let said = done.stderr.lines().last().or(done.stdout.lines().last()).unwrap_or_default();
        println!("  {arguments:?}: {:?}: {said}", done.code);
        assert!(matches!(done.code, None | Some(0 | 1 | 3)), "{done:?}");
        for (epoch, nodes) in world.accepted().await {
            assert_eq!(nodes.len(), 1, "seed {seed}: epoch {epoch}: {nodes:?} have accepted writes");
        }
    }
    world.comes_together().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_nodes_accept_writes_under_one_epoch_whichever_links_are_lost() {
    for seed in seeds() {
        println!("seed {seed}");
        links_come_and_go(seed).await;
    }
}
