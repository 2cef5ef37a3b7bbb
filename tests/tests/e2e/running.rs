//! Large transactions that reach Relevo while they still run: in memory, in the spool, rolled back in part or as a whole,
//! beside small ones; and what happens when there is no room for them.

mod ahead;
mod room;

use std::path::Path;

use relevo_tests::pair::{DATABASE, PairBuilder};
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Database, Pair, Relevo, Version, wait_until};
use tempfile::TempDir;

/// So little that an eighth of it, the share of running transactions, is less than one of the tests' large ones.
const LITTLE: [&str; 4] = ["--memory", "16MiB", "--batch-bytes", "512KiB"];

/// The source sends transactions of more than 64 kB while they run.
fn streaming(source: Version, target: Version) -> PairBuilder {
    Pair::builder(source, target).source(|source| source.set("logical_decoding_work_mem", "64kB"))
}

/// Relevo with a spool of the test's own, and these options.
async fn follow(pair: &Pair, more: &[&str]) -> (Relevo, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("spool");
    let mut relevo =
        pair.relevo().args(["--spool", spool.to_str().unwrap()]).args(more.iter().copied()).start();
    relevo.wait_until_streaming().await;
    (relevo, directory)
}

fn logs_below(directory: &Path) -> usize {
    let logs = super::arriving::files_below(directory);
    logs.iter()
        .filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log")))
        .count()
}

async fn until_nothing_is_spooled(relevo: &Relevo, directory: &TempDir) {
    wait_until("an empty spool", PATIENCE, async || {
        super::arriving::files_below(directory.path()).is_empty()
            && relevo.metrics().await.value("relevo_spool_bytes") == 0.0
            && relevo.metrics().await.value("relevo_streamed_bytes") == 0.0
    })
    .await;
}

async fn until_streamed(relevo: &Relevo, bytes: f64) {
    wait_until("what a running transaction did arrives", PATIENCE, async || {
        relevo.metrics().await.value("relevo_streamed_bytes") > bytes
    })
    .await;
}

/// Rows that do not compress.
async fn insert(session: &Database, table: &str, from: u32, to: u32) {
    let noise = "md5(random()::text) || md5(random()::text) || md5(random()::text) || md5(random()::text)";
    session.sql(&format!("INSERT INTO {table} SELECT n, {noise} FROM generate_series({from}, {to}) n")).await;
}

async fn two_large_transactions_and_small_ones(source: Version, target: Version) {
    let pair = streaming(source, target).start().await;
    pair.source
        .sql(
            "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
             CREATE TABLE gone (id int PRIMARY KEY, v text); CREATE TABLE small (id int PRIMARY KEY, v text);
             INSERT INTO gone VALUES (1, 'stays after all')",
        )
        .await;
    let (mut relevo, directory) = follow(&pair, &LITTLE).await;
    let (first, second) = tokio::join!(pair.source.connect(DATABASE), pair.source.connect(DATABASE));
    first.sql("BEGIN").await;
    second.sql("BEGIN").await;
    for part in 0..4 {
        let from = part * 10_000 + 1;
        insert(&first, "a", from, from + 4999).await;
        insert(&second, "b", from, from + 4999).await;
        first.sql(&format!("SAVEPOINT s; TRUNCATE gone; UPDATE a SET v = 'gone' WHERE id >= {from}")).await;
        insert(&first, "a", from + 5000, from + 9999).await;
        first.sql("ROLLBACK TO s; RELEASE s; SAVEPOINT kept").await;
        first.sql(&format!("DELETE FROM a WHERE id % 10 = 3 AND id >= {from}; RELEASE kept")).await;
        second.sql("SELECT pg_logical_emit_message(true, 'test', repeat('m', 100000))").await;
        // A small one commits in between, and is applied at once.
        pair.source.sql(&format!("INSERT INTO small VALUES ({part}, 'small')")).await;
        wait_until("the small one is applied", PATIENCE, async || {
            pair.target.value::<i64>("SELECT count(*) FROM small").await == i64::from(part) + 1
        })
        .await;
    }
    until_streamed(&relevo, f64::from(1 << 20)).await;
    wait_until("both are in the spool, or one is", PATIENCE, async || logs_below(directory.path()) > 0).await;
    assert_eq!(
        pair.target.value::<i64>("SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM b)").await,
        0
    );
    // The slot moves on behind the open transactions.
    pair.caught_up().await;
    second.sql("ALTER TABLE b ALTER v SET DEFAULT 'new'; TRUNCATE gone; INSERT INTO b (id) VALUES (0)").await;
    second.sql("COMMIT").await;
    pair.source.sql("INSERT INTO small VALUES (100, 'after the second')").await;
    pair.settle().await;
    first.sql("UPDATE a SET v = v || '+' WHERE id % 2 = 0; COMMIT").await;
    pair.settle().await;
    until_nothing_is_spooled(&relevo, &directory).await;
    let metrics = relevo.metrics().await;
    assert_eq!(metrics.sum("relevo_reconnects_total", &[]), Some(0.0));
    relevo.terminate();
}

macro_rules! for_each_pair {
    ($($name:ident: $source:ident to $target:ident),* $(,)?) => { $(
        mod $name {
            use relevo_tests::Version;

            #[tokio::test]
            async fn two_large_transactions_interleave_with_small_ones() {
                super::two_large_transactions_and_small_ones(Version::$source, Version::$target).await;
            }
        }
    )* };
}
for_each_pair!(from_14_to_15: V14 to V15, from_15_to_18: V15 to V18, from_16_to_17: V16 to V17,
    from_17_to_16: V17 to V16, from_18_to_14: V18 to V14);

#[tokio::test]
async fn nothing_is_left_of_a_large_transaction_that_is_rolled_back() {
    let pair = streaming(Version::V15, Version::V15).start().await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let (mut relevo, directory) = follow(&pair, &LITTLE).await;
    let session = pair.source.connect(DATABASE).await;
    session.sql("BEGIN").await;
    insert(&session, "t", 1, 30_000).await;
    until_streamed(&relevo, f64::from(1 << 20)).await;
    session.sql("ROLLBACK").await;
    until_nothing_is_spooled(&relevo, &directory).await;
    insert(&session, "t", 1, 10).await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_large_transaction_that_is_prepared_arrives_at_its_end_only() {
    let pair = streaming(Version::V17, Version::V18)
        .source(|source| source.set("max_prepared_transactions", "5"))
        .start()
        .await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let (mut relevo, directory) = follow(&pair, &LITTLE).await;
    let session = pair.source.connect(DATABASE).await;
    for (name, from) in [("commits", 1), ("ends", 50_001)] {
        session.sql("BEGIN").await;
        insert(&session, "t", from, from + 30_000).await;
        session.sql(&format!("PREPARE TRANSACTION '{name}'")).await;
    }
    until_streamed(&relevo, f64::from(1 << 20)).await;
    insert(&session, "t", 200_001, 200_010).await;
    pair.caught_up().await;
    relevo.restart();
    session.sql("COMMIT PREPARED 'commits'").await;
    session.sql("ROLLBACK PREPARED 'ends'").await;
    pair.settle().await;
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, 30_011);
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}

/// Each iteration is a subtransaction of its own; half of them are rolled back.
#[tokio::test]
async fn a_transaction_of_many_subtransactions_arrives_whole() {
    let pair = streaming(Version::V18, Version::V18).start().await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let (mut relevo, directory) = follow(&pair, &LITTLE).await;
    pair.source
        .sql(
            "DO $$ BEGIN FOR i IN 1..20000 LOOP
               BEGIN
                 INSERT INTO t VALUES (i, repeat(md5(i::text), 4));
                 IF i % 2 = 0 THEN RAISE division_by_zero; END IF;
               EXCEPTION WHEN division_by_zero THEN NULL; END;
             END LOOP; END $$",
        )
        .await;
    pair.settle().await;
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, 10_000);
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}

/// The origin that the source gives a transaction stands in its first block.
#[tokio::test]
async fn a_large_transaction_with_an_origin_and_one_that_alters_its_table_arrive() {
    let pair = streaming(Version::V16, Version::V15).start().await;
    pair.sql_on_both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let (mut relevo, directory) = follow(&pair, &["--schema", "existing"]).await;
    let session = pair.source.connect(DATABASE).await;
    session.sql("SELECT pg_replication_origin_create('far')").await;
    session.sql("SELECT pg_replication_origin_session_setup('far')").await;
    session.sql("BEGIN").await;
    insert(&session, "t", 1, 5000).await;
    pair.target.sql("ALTER TABLE t ADD w int").await;
    session.sql("SAVEPOINT s; ALTER TABLE t ADD gone int; UPDATE t SET gone = 1; ROLLBACK TO s").await;
    session.sql("ALTER TABLE t ADD w int; UPDATE t SET w = id WHERE id % 3 = 0").await;
    insert(&session, "t (id, v)", 5001, 9000).await;
    session.sql("COMMIT").await;
    pair.settle().await;
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}

/// A table whose rows are copied while a large transaction changes it, and which joins the stream before that commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_arrives_while_a_large_transaction_of_it_is_open() {
    for commit_first in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        let options = ["--spool", spool.to_str().unwrap(), "--copy-split-bytes", "256KiB"];
        let more: Vec<&str> = options.into_iter().chain(LITTLE).collect();
        let (pair, mut relevo) = super::arriving::slow_giant(Version::V17, Version::V16, &more).await;
        pair.source.reconfigure("logical_decoding_work_mem", "64kB").await;
        super::arriving::until_parts(&pair, "giant", 1).await;
        let session = pair.source.connect(DATABASE).await;
        session
            .sql(
                "BEGIN; UPDATE giant SET n = n + 1 WHERE id % 2 = 0;
                 INSERT INTO giant SELECT n, 0, md5(n::text) FROM generate_series(50001, 60000) n;
                 SAVEPOINT s; UPDATE giant SET n = 77 WHERE id % 4 = 1; ROLLBACK TO s;
                 UPDATE small SET note = 'changed' WHERE id % 2 = 0",
            )
            .await;
        until_streamed(&relevo, 0.0).await;
        assert_eq!(super::arriving::state_of(&pair, "giant").await, "copying", "too fast for this test");
        if commit_first {
            session.sql("COMMIT").await;
            super::arriving::until_slot_passes(&pair).await;
        }
        pair.target_proxy().throttle(None);
        super::arriving::until_state(&pair, "giant", "streaming").await;
        session.sql("UPDATE giant SET n = n + 10 WHERE id % 3 = 0").await;
        if !commit_first {
            session.sql("COMMIT").await;
        }
        relevo.wait_until_streaming().await;
        pair.settle().await;
        until_nothing_is_spooled(&relevo, &directory).await;
        relevo.terminate();
    }
}
