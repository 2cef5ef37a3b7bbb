//! Writers on the source and readers on the target that know what every snapshot must look like.
//!
//! Both go on while servers are killed under them: they connect again, and look again where they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Config, Row};

use crate::database::Database;
use crate::relevo::PATIENCE;
use crate::wait::wait_until;

/// How long to wait before connecting to a server again that is not there.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(20);

/// pgbench changes an account, a teller and a branch by the same amount and notes it in the history.
const PGBENCH_SUMS: &str = "
SELECT (SELECT coalesce(sum(abalance), 0)::text FROM pgbench_accounts),
       (SELECT coalesce(sum(tbalance), 0)::text FROM pgbench_tellers),
       (SELECT coalesce(sum(bbalance), 0)::text FROM pgbench_branches),
       (SELECT coalesce(sum(delta), 0)::text FROM pgbench_history)";

/// A table of consecutive numbers; every row tells the last number of its transaction.
const CREATE_NUMBERS: &str =
    "CREATE TABLE gapless (n bigint PRIMARY KEY, last_of_transaction bigint NOT NULL, filler text)";
const NUMBERS: &str = "
SELECT count(*), coalesce(min(n), 1), coalesce(max(n), 0),
       coalesce((SELECT last_of_transaction FROM gapless ORDER BY n DESC LIMIT 1), 0)
  FROM gapless";
const LAST_NUMBER: &str = "SELECT coalesce(max(n), 0) FROM gapless";
const WRITE_NUMBERS: &str = "
INSERT INTO gapless SELECT n, $2, repeat('x', (n % 50)::int) FROM generate_series($1::bigint, $2::bigint) n";

/// A reader that judges one snapshot after the other. Start it when the target is complete for the first time.
#[derive(Debug)]
pub struct Checker {
    stop: watch::Sender<bool>,
    changes: Arc<AtomicU64>,
    task: JoinHandle<Checked>,
}

/// What a checker has seen.
#[derive(Debug, Default, Clone)]
pub struct Checked {
    /// How many snapshots were judged.
    pub snapshots: u64,
    /// How many of them differed from the one before: whether the data moved at all.
    pub changes: u64,
    /// How many times the connection was lost.
    pub reconnects: u64,
    /// The first snapshot that must not exist.
    pub violation: Option<String>,
}

impl Checker {
    /// Checks that pgbench's sums are equal.
    #[must_use]
    pub fn pgbench(config: Config) -> Self {
        Self::start(config, PGBENCH_SUMS, |row| {
            let sums: Vec<String> = (0..4).map(|column| row.get(column)).collect();
            let text = format!("accounts, tellers, branches, history: {}", sums.join(", "));
            if sums.iter().all(|sum| *sum == sums[0]) { Ok(text) } else { Err(text) }
        })
    }

    /// Checks that the numbers of a [`GaplessWriter`] are a prefix without gaps, that ends with a whole transaction,
    /// and never becomes shorter.
    #[must_use]
    pub fn gapless(config: Config) -> Self {
        let mut longest = 0;
        Self::start(config, NUMBERS, move |row| {
            let [count, min, max, last]: [i64; 4] = [0, 1, 2, 3].map(|column| row.get(column));
            let text =
                format!("count {count}, from {min} to {max}, last transaction to {last}, before {longest}");
            if count != max || min != 1 || last != max || max < longest {
                return Err(text);
            }
            longest = max;
            Ok(format!("1 to {max}"))
        })
    }

    /// Runs `query`, which yields one row, again and again; `judge` describes the snapshot, as `Err` when it must
    /// not exist.
    #[must_use]
    pub fn start(
        config: Config,
        query: impl Into<String>,
        judge: impl FnMut(&Row) -> Result<String, String> + Send + 'static,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let changes = Arc::default();
        let task = tokio::spawn(check(config, query.into(), judge, (stopped, Arc::clone(&changes))));
        Self { stop, changes, task }
    }

    /// Waits until more than so many snapshots differed from the one before.
    pub async fn moves(&self, more_than: u64) {
        wait_until("the data to move", PATIENCE, async || {
            // Whoever has seen what must not exist sees no more, and says so at the end.
            self.task.is_finished() || self.changes.load(Ordering::Relaxed) > more_than
        })
        .await;
    }

    /// Stops it; panics if it saw what must not exist, or nothing at all.
    pub async fn finish(self) -> Checked {
        self.stop.send_replace(true);
        let checked = self.task.await.expect("the checker's task");
        if let Some(violation) = &checked.violation {
            panic!(
                "a snapshot that the source never had: {violation} (after {} good ones)",
                checked.snapshots
            );
        }
        assert!(checked.snapshots > 0, "no snapshot could be taken");
        checked
    }
}

async fn check(
    config: Config,
    query: String,
    mut judge: impl FnMut(&Row) -> Result<String, String>,
    (stopped, changes): (watch::Receiver<bool>, Arc<AtomicU64>),
) -> Checked {
    let mut checked = Checked::default();
    let mut before = String::new();
    let mut session: Option<Database> = None;
    // At least one look after the stop was asked for: the end state counts too.
    let mut last_round = false;
    while !last_round {
        last_round = *stopped.borrow();
        if session.is_none() {
            session = Database::connect(&config).await.ok();
        }
        let row = match &session {
            Some(open) => open.query_one(&query, &[]).await.ok(),
            None => None,
        };
        let Some(row) = row else {
            checked.reconnects += u64::from(session.take().is_some());
            tokio::time::sleep(RECONNECT_INTERVAL).await;
            continue;
        };
        match judge(&row) {
            Ok(text) => {
                checked.snapshots += 1;
                checked.changes += u64::from(text != before);
                changes.store(checked.changes, Ordering::Relaxed);
                before = text;
            }
            Err(text) => {
                checked.violation = Some(text);
                return checked;
            }
        }
        tokio::task::yield_now().await;
    }
    checked
}

/// Writes consecutive numbers, some in each transaction.
#[derive(Debug)]
pub struct GaplessWriter {
    stop: watch::Sender<bool>,
    task: JoinHandle<i64>,
}

impl GaplessWriter {
    /// Creates the table.
    pub async fn create_table(database: &Database) {
        database.sql(CREATE_NUMBERS).await;
    }

    /// Starts to write, with a pause after each transaction.
    #[must_use]
    pub fn start(config: Config, pause: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(write(config, pause, stopped)) }
    }

    /// Stops it; yields the last number that was committed.
    pub async fn finish(self) -> i64 {
        self.stop.send_replace(true);
        self.task.await.expect("the writer's task")
    }
}

async fn write(config: Config, pause: Duration, stopped: watch::Receiver<bool>) -> i64 {
    let mut session: Option<(Database, i64)> = None;
    loop {
        let Some((open, last)) = &mut session else {
            // Whether a commit took place whose answer was lost, only the table can say.
            session = match Database::connect(&config).await {
                Ok(open) => match open.try_value(LAST_NUMBER).await {
                    Ok(last) => Some((open, last)),
                    Err(_) => None,
                },
                Err(_) => None,
            };
            if session.is_none() {
                tokio::time::sleep(RECONNECT_INTERVAL).await;
            }
            continue;
        };
        if *stopped.borrow() {
            return *last;
        }
        let next = *last + 1 + *last % 5;
        match open.execute(WRITE_NUMBERS, &[&(*last + 1), &next]).await {
            Ok(_) => *last = next,
            Err(_) => session = None,
        }
        tokio::time::sleep(pause).await;
    }
}
