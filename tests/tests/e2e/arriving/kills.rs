//! Kills while tables arrive and the source is written: of Relevo, of the links, of either server, at moments that a
//! seed decides. Every table ends equal, and one that follows the stream is never copied again.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::workload::Checker;
use relevo_tests::{Database, Direction, Pair, Relevo, Seed, Version, soak_factor, wait_until};
use tokio::sync::watch;

const SCHEMA: &str = "
CREATE SEQUENCE numbers START 1000000;
CREATE TABLE large (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, code text UNIQUE, filler text);
INSERT INTO large SELECT n, 0, 'code ' || n, repeat('l', 150) FROM generate_series(1, 15000) n;
CREATE INDEX ON large (n, id);
CREATE TABLE long (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, body text);
ALTER TABLE long ALTER COLUMN body SET STORAGE EXTERNAL;
INSERT INTO long SELECT n, 0, repeat(md5(n::text), 200) FROM generate_series(1, 200) n;
CREATE TABLE parent (id bigint PRIMARY KEY, note text);
CREATE TABLE child (id bigint PRIMARY KEY, parent bigint NOT NULL REFERENCES parent, note text);
INSERT INTO parent SELECT n, 'parent' FROM generate_series(1, 3000) n;
INSERT INTO child SELECT n, n, 'child' FROM generate_series(1, 3000) n;
CREATE TABLE whole_row (a int, b text);
ALTER TABLE whole_row REPLICA IDENTITY FULL;
INSERT INTO whole_row SELECT n % 50, 'same' FROM generate_series(1, 500) n;
CREATE TABLE emptied_1 (id bigint, note text);
CREATE TABLE emptied_2 (id bigint PRIMARY KEY, note text);
INSERT INTO emptied_1 SELECT n, 'old' FROM generate_series(1, 2000) n;
INSERT INTO emptied_2 SELECT n, 'old' FROM generate_series(1, 2000) n;
";

/// Whole transactions. `{k}` is a small number that differs each time.
const CHANGES: [&str; 10] = [
    "INSERT INTO large SELECT nextval('numbers'), {k}, NULL, 'new' FROM generate_series(1, 30)",
    "UPDATE large SET n = n + 1, filler = filler || 'x' WHERE id % 200 = {k}",
    "UPDATE large SET id = nextval('numbers') WHERE id % 2000 = {k} AND id < 15000",
    "DELETE FROM large WHERE id % 1500 = {k}",
    "UPDATE long SET n = n + 1 WHERE id % 20 = {k} % 20",
    "UPDATE long SET body = md5(body) || body WHERE id = 1 + {k}; UPDATE long SET id = -id WHERE id = {k} + 50",
    "BEGIN; INSERT INTO parent VALUES (10000 + {k}, 'new') ON CONFLICT DO NOTHING;
     INSERT INTO child SELECT nextval('numbers'), 10000 + {k}, 'new' FROM generate_series(1, 5);
     UPDATE large SET n = -n WHERE id % 500 = {k}; DELETE FROM child WHERE id = {k} + 100; COMMIT",
    "UPDATE whole_row SET b = b || '.' WHERE ctid IN (SELECT ctid FROM whole_row WHERE a = {k} % 50 LIMIT 2);
     DELETE FROM whole_row WHERE ctid = (SELECT min(ctid) FROM whole_row); INSERT INTO whole_row VALUES ({k} % 50, 'same')",
    "BEGIN; INSERT INTO emptied_2 VALUES (nextval('numbers'), 'goes'); TRUNCATE emptied_1, emptied_2;
     INSERT INTO emptied_1 SELECT n, 'after {k}' FROM generate_series(1, 20) n;
     INSERT INTO emptied_2 SELECT nextval('numbers'), 'after' FROM generate_series(1, 20); COMMIT",
    "INSERT INTO emptied_1 VALUES ({k}, 'more'); INSERT INTO emptied_2 VALUES (nextval('numbers'), 'more')",
];

/// Larger than a batch, and of several tables.
const LARGE_TRANSACTION: &str = "
BEGIN; INSERT INTO large SELECT nextval('numbers'), 1, NULL, repeat('b', 100) FROM generate_series(1, 4000);
UPDATE parent SET note = note || '+'; UPDATE large SET n = n + 1 WHERE id % 4 = 0; COMMIT";

/// Writes until it is stopped, also while the server is gone and comes back.
async fn write(config: tokio_postgres::Config, mut rng: StdRng, stopped: watch::Receiver<bool>) -> u32 {
    let (mut session, mut written): (Option<Database>, u32) = (None, 0);
    while !*stopped.borrow() {
        let Some(open) = &session else {
            session = Database::connect(&config).await.ok();
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let change =
            if rng.random_ratio(1, 150) { LARGE_TRANSACTION } else { CHANGES.choose(&mut rng).unwrap() };
        match open.try_sql(&change.replace("{k}", &rng.random_range(0..150).to_string())).await {
            Ok(()) => written += 1,
            // A statement of ours that is wrong is no fault that was asked for.
            Err(error) if error.as_db_error().is_some_and(|said| !said.code().code().starts_with("57")) => {
                panic!("{change}: {error:?}")
            }
            Err(_) => session = None,
        }
        // What is measured is not how much can be written.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    written
}

/// The tables that follow the stream, each with the LSN of its copied rows; and a pause, so that looking costs little.
const JOINED: &str = "
SELECT coalesce(string_agg(table_name || ' ' || coalesce(copied_lsn::text, ''), ','), '')
  FROM relevo.table_state, pg_sleep(0.02) WHERE state = 'streaming'";

/// Sees that a table which follows the stream does so ever after, with the rows of the same copy.
fn watch_joined(pair: &Pair) -> Checker {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    Checker::start(pair.target.config(DATABASE), JOINED, move |row| {
        let text: String = row.get(0);
        let now: BTreeMap<String, String> = text
            .split(',')
            .filter_map(|table| table.split_once(' '))
            .map(|(table, lsn)| (table.to_owned(), lsn.to_owned()))
            .collect();
        let kept = joined.iter().all(|(table, lsn)| now.get(table) == Some(lsn));
        let before = std::mem::replace(&mut joined, now);
        if kept { Ok(text) } else { Err(format!("{text}; before it was {before:?}")) }
    })
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillRelevo,
    CutSource,
    CutTarget,
    CutBoth,
    CrashSource,
    CrashTarget,
    CrashBoth,
}

async fn inflict(fault: Fault, pair: &Pair, relevo: &mut Relevo) {
    match fault {
        Fault::KillRelevo => relevo.restart(),
        Fault::CutSource => pair.source_proxy().cut(),
        Fault::CutTarget => pair.target_proxy().cut(),
        Fault::CutBoth => {
            pair.source_proxy().cut();
            pair.target_proxy().cut();
        }
        Fault::CrashSource => {
            pair.source.crash();
            pair.source.start().await;
        }
        Fault::CrashTarget => {
            pair.target.crash();
            pair.target.start().await;
        }
        Fault::CrashBoth => {
            pair.source.crash();
            pair.target.crash();
            pair.source.start().await;
            pair.target.start().await;
        }
    }
}

/// When the next fault comes.
#[derive(Debug)]
enum Moment {
    /// So many bytes have gone to the target.
    Sent(u64),
    /// Another table follows the stream, and so many bytes have gone to the target since.
    Joined(u64),
}

impl Moment {
    fn any(rng: &mut StdRng) -> Self {
        match rng.random_range(0..4) {
            0 => Self::Sent(1 << rng.random_range(9..20)),
            1 => Self::Sent(rng.random_range(200_000..2_000_000)),
            _ => Self::Joined(1 << rng.random_range(6..16)),
        }
    }

    /// Waits for it, or until the copy is over.
    async fn comes(&self, pair: &Pair, relevo: &Relevo) {
        let over = async || relevo.status().await.is_some_and(|status| status["state"] == "streaming");
        let link = pair.target_proxy();
        if let Self::Joined(_) = self {
            let before = joined(&states(pair).await);
            wait_until("another table follows the stream", PATIENCE, async || {
                joined(&states(pair).await) > before || over().await
            })
            .await;
        }
        let (Self::Sent(bytes) | Self::Joined(bytes)) = self;
        let before = link.passed_bytes(Direction::ToServer);
        wait_until("bytes of the copy", PATIENCE, async || {
            link.passed_bytes(Direction::ToServer) >= before + bytes || over().await
        })
        .await;
    }
}

/// How far each table is; empty while nothing is recorded.
async fn states(pair: &Pair) -> BTreeMap<String, String> {
    let query = "SELECT table_name, state FROM relevo.table_state";
    let rows = match pair.target.session().await {
        Ok(open) => open.try_rows(query).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect()
}

fn joined(states: &BTreeMap<String, String>) -> usize {
    states.values().filter(|state| *state == "streaming").count()
}

async fn one_copy(source: Version, target: Version, faults: &[Fault], rng: &mut StdRng) {
    let pair = Pair::builder(source, target).proxied().start().await;
    pair.source.sql(SCHEMA).await;
    pair.target_proxy().throttle(Some(4 << 20));
    let (stop, stopped) = watch::channel(false);
    let writer_rng = rand::SeedableRng::seed_from_u64(rng.random());
    let writer = tokio::spawn(write(pair.source.config(DATABASE), writer_rng, stopped));
    let joined = watch_joined(&pair);
    // Either the large tables come in parts, or small ones join beside them.
    let split = if rng.random() { "512KiB" } else { "1GiB" };
    let spool = tempfile::tempdir().unwrap();
    let options =
        ["--copy-jobs", "2", "--copy-split-bytes", split, "--batch-bytes", "128KiB", "--memory", "16MiB"];
    let mut relevo = pair.relevo().args(options).args(["--spool", spool.path().to_str().unwrap()]).start();
    for fault in faults {
        let moment = Moment::any(rng);
        moment.comes(&pair, &relevo).await;
        eprintln!("{fault:?} at {moment:?}, in parts of {split}: {:?}", states(&pair).await);
        inflict(*fault, &pair, &mut relevo).await;
    }
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    stop.send_replace(true);
    let written = writer.await.unwrap();
    pair.settle().await;
    let watched = joined.finish().await;
    let twice = joined_twice(&relevo.stderr());
    assert!(twice.is_empty(), "joined the stream twice: {twice:?}");
    eprintln!("{written} transactions; {watched:?}");
    relevo.terminate();
}

/// The tables of which the log says more than once that they follow the stream from then on.
fn joined_twice(log: &str) -> Vec<String> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("the table has arrived and follows the stream")) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let table = line["table"].as_str().or(line["fields"]["table"].as_str()).expect("a table's name");
        *times.entry(table.to_owned()).or_default() += 1;
    }
    times.into_iter().filter(|(_, times)| *times > 1).map(|(table, _)| table).collect()
}

async fn tables_end_equal(source: Version, target: Version, faults: &[Fault]) {
    let seed = Seed::any();
    eprintln!("seed {}", seed.value());
    let mut rng = seed.rng();
    for copy in 0..soak_factor() {
        let mut faults = faults.to_vec();
        faults.shuffle(&mut rng);
        eprintln!("copy {copy}: {faults:?}");
        one_copy(source, target, &faults, &mut rng).await;
    }
}

macro_rules! tables_end_equal_when {
    ($($name:ident: $source:ident to $target:ident, $faults:expr;)*) => { mod tables_end_equal_when {
        use super::Fault::*;
        use relevo_tests::Version;
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::tables_end_equal(Version::$source, Version::$target, &$faults).await;
            }
        )*
    } };
}
tables_end_equal_when! {
    relevo_is_killed_from_14_to_16: V14 to V16, [KillRelevo; 3];
    relevo_is_killed_from_18_to_17: V18 to V17, [KillRelevo; 3];
    links_are_cut_from_16_to_15: V16 to V15, [CutSource, CutTarget, CutBoth];
    links_are_cut_from_17_to_18: V17 to V18, [CutSource, CutTarget, CutBoth];
    the_target_crashes_from_15_to_18: V15 to V18, [CrashTarget, CrashTarget, KillRelevo];
    the_target_crashes_from_16_to_14: V16 to V14, [CrashTarget, CrashTarget, KillRelevo];
    the_source_crashes_from_17_to_14: V17 to V14, [CrashSource, CrashSource, KillRelevo];
    the_source_crashes_from_14_to_15: V14 to V15, [CrashSource, CrashSource, KillRelevo];
    everything_is_killed_from_18_to_18: V18 to V18, [CrashBoth, KillRelevo, CutBoth, CrashTarget];
    everything_is_killed_from_15_to_16: V15 to V16, [CrashBoth, KillRelevo, CutBoth, CrashSource];
}
