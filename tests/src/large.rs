//! A writer of large transactions with savepoints, some of them rolled back, and a reader that knows what every snapshot
//! of them must look like. Both go on while servers are killed under them.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Config;

use crate::database::Database;
use crate::workload::Checker;

/// How long to wait before connecting to a server again that is not there.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(20);

/// Writes rounds of some megabytes into a table of its own. Each row of a round tells how many there are.
#[derive(Debug)]
pub struct LargeWriter {
    stop: watch::Sender<bool>,
    task: JoinHandle<u64>,
}

impl LargeWriter {
    /// Creates the table.
    pub async fn create_table(database: &Database, table: &str) {
        let columns = "round bigint, n int, wanted bigint NOT NULL, filler text, PRIMARY KEY (round, n)";
        database.sql(&format!("CREATE TABLE {table} ({columns})")).await;
    }

    /// Starts to write.
    #[must_use]
    pub fn start(config: Config, table: &str, rng: StdRng) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(write(config, table.to_owned(), rng, stopped)) }
    }

    /// Stops it; yields how many transactions were committed, as far as that is known.
    pub async fn finish(self) -> u64 {
        self.stop.send_replace(true);
        self.task.await.expect("the writer's task")
    }

    /// A reader of the table that finds each round whole, and nothing that was rolled back.
    #[must_use]
    pub fn checker(config: Config, table: &str) -> Checker {
        let query = format!(
            "SELECT coalesce(max(round), 0), coalesce(bool_and(rows = wanted AND fewest = wanted AND NOT gone), true)
               FROM (SELECT round, count(*) AS rows, max(wanted) AS wanted, min(wanted) AS fewest,
                            bool_or(filler LIKE 'gone%') AS gone
                       FROM {table} GROUP BY round) rounds"
        );
        Checker::start(config, query, |row| {
            let (round, whole): (i64, bool) = (row.get(0), row.get(1));
            let text = format!("up to round {round}");
            if whole { Ok(text) } else { Err(format!("{text}: a round in part, or what was rolled back")) }
        })
    }
}

/// One round: rows, then a part that is written, changed, rolled back and written again.
fn round(table: &str, round: i64, rng: &mut StdRng) -> String {
    let (first, all) = (rng.random_range(2000..8000), rng.random_range(8000..16_000));
    let rows = |from: u32, to: u32, word: &str| {
        format!(
            "INSERT INTO {table} SELECT {round}, n, {all}, '{word}' || md5(random()::text) || md5(random()::text)
               FROM generate_series({from}, {to}) n"
        )
    };
    let end = if rng.random_bool(0.25) { "ROLLBACK" } else { "COMMIT" };
    let sleep = rng.random_range(0.0..0.2);
    let clear = if rng.random_bool(0.2) {
        format!("TRUNCATE {table}")
    } else {
        format!("DELETE FROM {table} WHERE round < {round} - 1")
    };
    format!(
        "BEGIN; {clear}; {};
         SAVEPOINT a; {}; UPDATE {table} SET filler = 'gone' WHERE round = {round} AND n % 3 = 0;
         SAVEPOINT b; DELETE FROM {table} WHERE round = {round} AND n % 5 = 0;
         ROLLBACK TO a;
         SELECT pg_sleep({sleep});
         SAVEPOINT c; {}; RELEASE c; UPDATE {table} SET filler = filler || '+' WHERE round = {round} AND n % 7 = 0;
         {end}",
        rows(1, first, ""),
        rows(first + 1, all, "gone"),
        rows(first + 1, all, ""),
    )
}

async fn write(config: Config, table: String, mut rng: StdRng, stopped: watch::Receiver<bool>) -> u64 {
    let mut session: Option<Database> = None;
    let mut rounds = 0;
    while !*stopped.borrow() {
        let Some(open) = &session else {
            session = Database::connect(&config).await.ok();
            if session.is_none() {
                tokio::time::sleep(RECONNECT_INTERVAL).await;
            }
            continue;
        };
        let last = open.try_value::<i64>(&format!("SELECT coalesce(max(round), 0) FROM {table}")).await;
        let written = match last {
            Ok(last) => open.try_sql(&round(&table, last + 1, &mut rng)).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => rounds += 1,
            Err(_) => session = None,
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..500))).await;
    }
    rounds
}
