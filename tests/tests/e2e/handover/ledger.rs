//! Clients that remember what was acknowledged to them, while the role moves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use relevo_tests::nodes::connect;
use relevo_tests::{Nodes, Version, soak_factor};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Config;

/// What one client was told.
#[derive(Debug, Default)]
pub struct Told {
    /// Committed, by the server's own word.
    pub acknowledged: BTreeSet<i64>,
    /// Nobody knows: the connection was lost before the answer.
    pub unknown: BTreeSet<i64>,
}

/// Clients that write numbered rows through a connection string that names all nodes.
pub struct Clients {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<Told>>,
}

/// The table that they write to.
pub const LEDGER: &str = "
CREATE TABLE ledger (n bigint PRIMARY KEY, client int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE balance (client int PRIMARY KEY, rows bigint NOT NULL);
INSERT INTO balance SELECT n, 0 FROM generate_series(0, 15) n;
";

impl Clients {
    /// Starts so many.
    pub fn start(config: &Config, count: i32) -> Self {
        let (stop, stopped) = watch::channel(false);
        let next = Arc::new(AtomicI64::new(1));
        let tasks = (0..count)
            .map(|client| tokio::spawn(write(config.clone(), client, Arc::clone(&next), stopped.clone())))
            .collect();
        Self { stop, tasks }
    }

    /// Stops them, and says what they were told, all together.
    pub async fn finish(self) -> Told {
        self.stop.send_replace(true);
        let mut all = Told::default();
        for task in self.tasks {
            let told = task.await.expect("a client");
            all.acknowledged.extend(told.acknowledged);
            all.unknown.extend(told.unknown);
        }
        all
    }
}

/// The pause between two transactions of a client: four of them make about a thousand in a second.
const PAUSE: Duration = Duration::from_millis(3);

async fn write(config: Config, client: i32, next: Arc<AtomicI64>, stop: watch::Receiver<bool>) -> Told {
    let mut told = Told::default();
    let mut session = None;
    while !*stop.borrow() {
        let open = match session.take() {
            Some(open) => open,
            None => match connect(&config).await {
                Ok(open) => open,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let n = next.fetch_add(1, Ordering::Relaxed);
        let statements = format!(
            "BEGIN; INSERT INTO ledger VALUES ({n}, {client}); \
             UPDATE balance SET rows = rows + 1 WHERE client = {client}; COMMIT"
        );
        match open.batch_execute(&statements).await {
            Ok(()) => {
                told.acknowledged.insert(n);
                session = Some(open);
                tokio::time::sleep(PAUSE).await;
            }
            // The server has refused it, so it is not there.
            Err(error) if error.as_db_error().is_some_and(|error| error.code().code() == "25006") => {}
            Err(_) => {
                told.unknown.insert(n);
            }
        }
    }
    told
}

/// Holds what is in the ledger against what was told.
pub async fn judge(nodes: &Nodes, primary: &str, told: &Told) {
    judge_with(nodes, primary, told, &BTreeSet::new()).await;
}

/// The same, with what was saved from a primary that was lost.
pub async fn judge_with(nodes: &Nodes, primary: &str, told: &Told, saved: &BTreeSet<i64>) {
    let there = nodes.node(primary).column("SELECT n::text FROM ledger").await;
    let there: BTreeSet<i64> = there.iter().map(|n| n.parse().unwrap()).collect();
    let lost: Vec<_> = told.acknowledged.difference(&there).filter(|n| !saved.contains(n)).collect();
    assert!(
        lost.is_empty(),
        "{} acknowledged rows are lost, such as {:?}",
        lost.len(),
        &lost[..lost.len().min(5)]
    );
    let invented: Vec<_> =
        there.iter().filter(|n| !told.acknowledged.contains(n) && !told.unknown.contains(n)).collect();
    assert!(invented.is_empty(), "rows that were refused are there: {invented:?}");
    let twice: i64 = nodes
        .node(primary)
        .value("SELECT count(*) FROM balance b WHERE rows <> (SELECT count(*) FROM ledger l WHERE l.client = b.client)")
        .await;
    assert_eq!(twice, 0, "a transaction was applied in part, or twice");
}

#[tokio::test]
async fn twenty_switchovers_under_load_lose_nothing_and_repeat_nothing() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], LEDGER).await;
    let clients = Clients::start(&nodes.application(), 4);
    let mut pauses = Vec::new();
    let mut roles = ("a", "b");
    for _ in 0..20 * soak_factor() {
        let (from, to) = roles;
        let before: i64 = nodes.node(from).value("SELECT count(*) FROM ledger").await;
        let done = nodes.run(&["switchover", "--to", to, "--json"], 0).await.json();
        pauses.push(done["pause_ms"].as_u64().expect("a pause"));
        // The clients must have found the new primary before the role moves on.
        relevo_tests::wait_until("writes on the new primary", relevo_tests::relevo::PATIENCE, async || {
            nodes.node(to).value::<i64>("SELECT count(*) FROM ledger").await > before + 20
        })
        .await;
        nodes.caught_up(to, from).await;
        roles = (to, from);
    }
    let told = clients.finish().await;
    nodes.settle(roles.0, roles.1).await;
    judge(&nodes, roles.0, &told).await;
    pauses.sort_unstable();
    println!(
        "{} switchovers, {} acknowledged transactions, write pause: median {} ms, worst {} ms",
        pauses.len(),
        told.acknowledged.len(),
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}
