//! Clients that find the primary by themselves: pgbench's transaction through a connection string that names both nodes.
//! (pgbench itself ends at the first error.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use relevo_tests::nodes::connect;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_postgres::Config;

/// What the clients were told by the servers.
#[derive(Debug, Default)]
pub struct Told {
    /// Transactions that were committed, by the server's word.
    pub acknowledged: AtomicU64,
    /// Transactions that a node refused because it is not the primary.
    pub refused: AtomicU64,
    /// Transactions whose connection was lost before the answer.
    pub unknown: AtomicU64,
}

/// Clients at work, until they are dropped.
pub struct Clients {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    told: Arc<Told>,
}

impl Clients {
    /// Starts so many, which make so many transactions a second together.
    pub fn start(config: &Config, count: u32, rate: u32, scale: u32) -> Self {
        let (told, stop) = (Arc::new(Told::default()), Arc::new(AtomicBool::new(false)));
        let each = Duration::from_secs(1) * count / rate;
        let client =
            |_| tokio::spawn(work(config.clone(), each, scale, (Arc::clone(&told), Arc::clone(&stop))));
        let tasks = (0..count).map(client).collect();
        Self { stop, tasks, told }
    }

    /// What they were told so far.
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// Ends them, each with the answer to its last transaction.
    pub async fn finish(mut self) -> Arc<Told> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.expect("a client");
        }
        Arc::clone(&self.told)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn work(config: Config, each: Duration, scale: u32, (told, stop): (Arc<Told>, Arc<AtomicBool>)) {
    let mut clock = interval(each);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = None;
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        let open = match session.take() {
            Some(open) => open,
            None => match connect(&config).await {
                Ok(open) => open,
                Err(_) => {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let count = match open.batch_execute(&transaction(scale)).await {
            Ok(()) => {
                session = Some(open);
                &told.acknowledged
            }
            Err(error) if error.as_db_error().is_some() => &told.refused,
            Err(_) => &told.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// As `pgbench` makes it (manual, *pgbench*, "What Is the Transaction Actually Performed in pgbench?").
fn transaction(scale: u32) -> String {
    let (account, teller, branch) = (
        rand::random_range(1..=100_000 * scale),
        rand::random_range(1..=10 * scale),
        rand::random_range(1..=scale),
    );
    let delta = rand::random_range(-5000..=5000);
    format!(
        "BEGIN; UPDATE pgbench_accounts SET abalance = abalance + ({delta}) WHERE aid = {account}; \
         UPDATE pgbench_tellers SET tbalance = tbalance + ({delta}) WHERE tid = {teller}; \
         UPDATE pgbench_branches SET bbalance = bbalance + ({delta}) WHERE bid = {branch}; \
         INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) \
         VALUES ({teller}, {branch}, {account}, {delta}, CURRENT_TIMESTAMP); COMMIT"
    )
}
