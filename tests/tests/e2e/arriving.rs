//! Tables that arrive one after the other while the stream runs: what finished tables see meanwhile, what those that are
//! still copied miss, and what is held on the source for their sake.
//!
//! What may not enter: how the rows of one table are copied (see `copying`).

mod held;
mod kills;
mod place;
mod spool;

use std::path::{Path, PathBuf};

use relevo_tests::pair::Node;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Database, Pair, Relevo, Version, wait_until, wait_until_some};

/// Small enough that tables of a few megabytes come in many parts.
const PARTS: [&str; 2] = ["--copy-split-bytes", "256KiB"];
/// So slow that a giant takes longer than whatever happens beside it.
const SLOW_BYTES_PER_SECOND: u64 = 100 << 10;

/// A table of about 9 MB, and small ones beside it; foreign keys go both ways.
const GIANT: &str = "
CREATE TABLE giant (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, filler text);
INSERT INTO giant SELECT n, 0, repeat('g', 200) FROM generate_series(1, 40000) n;
CREATE INDEX ON giant (n);
CREATE TABLE small (id int PRIMARY KEY, giant int REFERENCES giant, note text);
INSERT INTO small SELECT n, n, 'note ' || n FROM generate_series(1, 500) n;
CREATE TABLE other (id int PRIMARY KEY, note text);
INSERT INTO other SELECT n, 'other ' || n FROM generate_series(1, 500) n;
ALTER TABLE giant ADD COLUMN other int REFERENCES other;
";

/// Two servers with a giant, a slow link to the target, and Relevo with these options.
pub(super) async fn slow_giant(source: Version, target: Version, more: &[&str]) -> (Pair, Relevo) {
    let pair = Pair::builder(source, target).proxied().start().await;
    pair.source.sql(GIANT).await;
    pair.target_proxy().throttle(Some(SLOW_BYTES_PER_SECOND));
    let relevo = pair.relevo().args(["--copy-jobs", "2"]).args(more).start();
    (pair, relevo)
}

/// The state of a table and the LSN of its rows, as recorded on the target; `None` before that is there.
async fn recorded(pair: &Pair, table: &str) -> Option<(String, String)> {
    let session = pair.target.session().await.ok()?;
    let query = format!(
        "SELECT state, coalesce(copied_lsn::text, '') FROM relevo.table_state WHERE table_name = '{table}'"
    );
    let row = session.try_rows(&query).await.ok()?.into_iter().next()?;
    let [Some(state), Some(lsn)] = <[Option<String>; 2]>::try_from(row).ok()? else { return None };
    Some((state, lsn))
}

/// Waits until a table is in this state; the LSN of its rows.
pub(super) async fn until_state(pair: &Pair, table: &str, wanted: &str) -> String {
    wait_until_some(&format!("{table} in state {wanted}"), PATIENCE, async || {
        match recorded(pair, table).await {
            Some((state, lsn)) if state == wanted => Ok(lsn),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

pub(super) async fn state_of(pair: &Pair, table: &str) -> String {
    recorded(pair, table).await.expect("a recorded table").0
}

/// Keeps a table's indexes from being built, from when its rows are on their way: it stays `copied`.
///
/// Parts of the table can still be written. To be dropped, or the table never follows the stream.
async fn hold_indexes(pair: &Pair, table: &str) -> Database {
    until_parts(pair, table, 1).await;
    let holder = pair.target.connect(relevo_tests::pair::DATABASE).await;
    holder.sql(&format!("BEGIN; LOCK TABLE {table} IN ROW EXCLUSIVE MODE")).await;
    assert_eq!(state_of(pair, table).await, "copying", "held too late");
    holder
}

pub(super) async fn until_parts(pair: &Pair, table: &str, wanted: usize) {
    let query = format!("SELECT first_block FROM relevo.table_range WHERE table_name = '{table}'");
    wait_until(&format!("{wanted} parts of {table}"), PATIENCE, async || {
        let Ok(session) = pair.target.session().await else { return false };
        session.try_rows(&query).await.is_ok_and(|parts| parts.len() >= wanted)
    })
    .await;
}

/// Every file below a directory.
pub(super) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Where the slot of the flow stands.
async fn confirmed(pair: &Pair) -> String {
    pair.source
        .value("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'relevo_e2e'")
        .await
}

/// Waits until the slot has passed everything that is committed on the source now.
pub(super) async fn until_slot_passes(pair: &Pair) {
    let position: String = pair.source.value("SELECT pg_current_wal_insert_lsn()::text").await;
    let passed = format!(
        "SELECT confirmed_flush_lsn >= '{position}' FROM pg_replication_slots WHERE slot_name = 'relevo_e2e'"
    );
    wait_until("the slot passes", PATIENCE, async || pair.source.value::<bool>(&passed).await).await;
}

async fn assert_foreign_keys_hold(pair: &Pair, wanted: i64) {
    let keys = "SELECT count(*) FROM pg_constraint
                 WHERE contype = 'f' AND convalidated AND connamespace = 'public'::regnamespace";
    assert_eq!(pair.target.value::<i64>(keys).await, wanted);
}

/// What the planner knows of a table: whether it has statistics of columns, and a number of rows.
async fn is_analysed(target: &Node, table: &str) -> bool {
    let known = format!(
        "SELECT EXISTS (SELECT FROM pg_stats WHERE schemaname = 'public' AND tablename = '{table}')
            AND (SELECT reltuples > 0 FROM pg_class WHERE oid = '{table}'::regclass)"
    );
    target.value(&known).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_tables_follow_the_source_while_the_last_giant_is_copied() {
    let (pair, mut relevo) = slow_giant(Version::V15, Version::V17, &[]).await;
    until_state(&pair, "small", "streaming").await;
    assert!(is_analysed(&pair.target, "small").await, "small follows the stream without statistics");
    pair.source
        .sql("UPDATE small SET note = 'changed' WHERE id = 7; UPDATE giant SET n = 1 WHERE id = 7")
        .await;
    wait_until("the change is visible", PATIENCE, async || {
        pair.target.value::<String>("SELECT note FROM small WHERE id = 7").await == "changed"
    })
    .await;
    let ready = relevo.get("/readyz").await.unwrap();
    let status = relevo.status().await.unwrap();
    assert_eq!(state_of(&pair, "giant").await, "copying", "the giant was too fast for this test");
    assert_eq!((ready.code, status["state"].as_str()), (503, Some("copying")), "{}", ready.body);
    let tables = &status["tables"];
    assert!(tables["copied"].as_u64() < tables["total"].as_u64(), "{tables}");
    assert_eq!(tables["total"].as_u64(), Some(3));
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    assert_foreign_keys_hold(&pair, 2).await;
    for table in ["giant", "small", "other"] {
        assert!(is_analysed(&pair.target, table).await, "{table} has no statistics");
    }
    wait_until("/readyz", PATIENCE, async || relevo.get("/readyz").await.is_some_and(|is| is.code == 200))
        .await;
    pair.settle().await;
    relevo.terminate();
}

/// The second attempt has a snapshot of its own; the tables of the first stay as they are and have gone on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_keys_between_tables_of_two_snapshots_are_valid() {
    let (pair, mut relevo) = slow_giant(Version::V14, Version::V18, &[]).await;
    let (small, other) =
        tokio::join!(until_state(&pair, "small", "streaming"), until_state(&pair, "other", "streaming"));
    relevo.kill();
    pair.source
        .sql(
            "INSERT INTO other VALUES (1000, 'new'); INSERT INTO giant VALUES (100000, 0, 'new', 1000);
             INSERT INTO small VALUES (1000, 100000, 'new'); UPDATE giant SET other = 1000 WHERE id = 5;
             DELETE FROM small WHERE giant = 9; DELETE FROM giant WHERE id = 9",
        )
        .await;
    relevo.restart();
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    assert_foreign_keys_hold(&pair, 2).await;
    pair.settle().await;
    for (table, before) in [("small", small), ("other", other)] {
        assert_eq!(recorded(&pair, table).await, Some(("streaming".to_owned(), before.clone())), "{table}");
        assert_ne!(recorded(&pair, "giant").await.unwrap().1, before);
    }
    relevo.terminate();
}
