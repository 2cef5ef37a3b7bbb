//! Clients that remember what was acknowledged to them, while the role moves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use relevo_tests::nodes::connect;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Nodes, Version, soak_factor, wait_until};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
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
    /// How many transactions were acknowledged.
    count: Arc<AtomicU64>,
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
        let (next, acknowledged) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicU64::new(0)));
        let client = |client| {
            let counts = (Arc::clone(&next), Arc::clone(&acknowledged));
            tokio::spawn(write(config.clone(), client, counts, stopped.clone()))
        };
        let tasks = (0..count).map(client).collect();
        Self { stop, count: acknowledged, tasks }
    }

    /// Waits until so many more are acknowledged, and says how many that was in a second.
    pub async fn go_on(&self, more: u64) -> f64 {
        let (began, before) = (Instant::now(), self.count.load(Ordering::Relaxed));
        let done = || self.count.load(Ordering::Relaxed) - before;
        wait_until("acknowledged transactions", PATIENCE, async || done() >= more).await;
        done() as f64 / began.elapsed().as_secs_f64()
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

/// How often a client begins a transaction, however long the one before has taken: sixteen of them make 1600 in a second.
const EVERY: Duration = Duration::from_millis(10);

async fn write(
    config: Config,
    client: i32,
    (next, acknowledged): (Arc<AtomicI64>, Arc<AtomicU64>),
    stop: watch::Receiver<bool>,
) -> Told {
    let mut told = Told::default();
    let mut session = None;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() {
        ticks.tick().await;
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
                acknowledged.fetch_add(1, Ordering::Relaxed);
                session = Some(open);
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

/// How many transactions are acknowledged between two switchovers: that long the load is measured.
const BETWEEN: u64 = 1500;

/// The bar: a median pause below 1 s at 1000 transactions a second. Both are printed; what is judged is what was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_switchovers_under_load_lose_nothing_and_repeat_nothing() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], LEDGER).await;
    let clients = Clients::start(&nodes.application(), 16);
    let (mut pauses, mut rates) = (Vec::new(), Vec::new());
    let mut roles = ("a", "b");
    clients.go_on(BETWEEN).await;
    for _ in 0..20 * soak_factor() {
        let (from, to) = roles;
        let done = nodes.run(&["switchover", "--to", to, "--json"], 0).await.json();
        pauses.push(done["pause_ms"].as_u64().expect("a pause"));
        // All clients have found the new primary before it is measured, and before the role moves on.
        clients.go_on(200).await;
        rates.push(clients.go_on(BETWEEN).await);
        nodes.caught_up(to, from).await;
        roles = (to, from);
    }
    let told = clients.finish().await;
    nodes.settle(roles.0, roles.1).await;
    judge(&nodes, roles.0, &told).await;
    pauses.sort_unstable();
    rates.sort_by(f64::total_cmp);
    println!(
        "{} switchovers, {} acknowledged transactions, between switchovers {:.0} in a second (median; lowest {:.0}), write \
         pause: median {} ms, worst {} ms",
        pauses.len(),
        told.acknowledged.len(),
        rates[rates.len() / 2],
        rates[0],
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
    for relevo in relevos.values_mut() {
        relevo.terminate();
    }
}
