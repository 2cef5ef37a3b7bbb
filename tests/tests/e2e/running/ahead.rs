//! Large transactions that are applied before they have committed: what is seen of them meanwhile, and who does not have to
//! wait for them.

use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Database, Pair, Relevo, Version, wait_until};

use super::{LITTLE, follow, insert, streaming, until_nothing_is_spooled};

const AHEAD: &str = "relevo_transactions_ahead_total";
/// Sessions of Relevo that have changed `t` and not committed.
const WRITERS: &str = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
     WHERE l.relation = 't'::regclass AND l.mode = 'RowExclusiveLock' AND a.application_name LIKE 'relevo_%'";

async fn outcomes(relevo: &Relevo) -> [Option<f64>; 2] {
    let metrics = relevo.metrics().await;
    ["committed", "taken_back"].map(|result| metrics.sum(AHEAD, &[("result", result)]))
}

/// A pair with a table that the flow follows, and a session of the source within a transaction.
async fn begun(source: Version, target: Version) -> (Pair, Relevo, tempfile::TempDir, Database) {
    let pair = streaming(source, target).start().await;
    pair.source
        .sql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE small (id int PRIMARY KEY, v text)")
        .await;
    let (relevo, directory) = follow(&pair, &LITTLE).await;
    pair.source.sql("INSERT INTO t VALUES (0, 'before')").await;
    pair.caught_up().await;
    let session = pair.source.connect(DATABASE).await;
    session.sql("BEGIN").await;
    (pair, relevo, directory, session)
}

async fn until_it_goes_ahead(pair: &Pair) {
    wait_until("rows that have not committed on the source", PATIENCE, async || {
        pair.target.value::<i64>(WRITERS).await > 0
    })
    .await;
}

async fn is_there_with_its_commit(source: Version, target: Version) {
    let (pair, mut relevo, directory, session) = begun(source, target).await;
    for round in 0..5 {
        let from = round * 10_000 + 1;
        insert(&session, "t", from, from + 9999).await;
        session.sql(&format!("UPDATE t SET v = v || '+' WHERE id % 3 = 0 AND id >= {from} OR id = 0")).await;
        session.sql(&format!("DELETE FROM t WHERE id % 10 = 3 AND id >= {from}")).await;
        // What it rests on, and what comes between.
        pair.source
            .sql(&format!("INSERT INTO small VALUES ({round}, 'new'), ({}, 'taken')", round + 100))
            .await;
        session.sql(&format!("UPDATE small SET v = 'changed' WHERE id = {}", round + 100)).await;
        until_it_goes_ahead(&pair).await;
    }
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, 1);
    session.sql("COMMIT").await;
    pair.source.sql("INSERT INTO small VALUES (1000, 'after')").await;
    pair.settle().await;
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM small WHERE v = 'changed'").await, 5);
    assert_eq!(outcomes(&relevo).await, [Some(1.0), Some(0.0)]);
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM relevo.error").await, 0);
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}

macro_rules! for_each_pair {
    ($($name:ident: $source:ident to $target:ident),* $(,)?) => { $(
        mod $name {
            use relevo_tests::Version;

            #[tokio::test]
            async fn a_large_transaction_is_there_with_its_commit() {
                super::is_there_with_its_commit(Version::$source, Version::$target).await;
            }
        }
    )* };
}
for_each_pair!(from_14_to_18: V14 to V18, from_15_to_15: V15 to V15, from_18_to_17: V18 to V17);

#[tokio::test]
async fn a_rollback_to_a_savepoint_or_a_truncate_takes_back_what_went_ahead_and_all_comes_with_the_commit() {
    for statement in ["ROLLBACK TO s", "TRUNCATE small"] {
        let (pair, mut relevo, directory, session) = begun(Version::V15, Version::V16).await;
        insert(&session, "t", 1, 10_000).await;
        session.sql("SAVEPOINT s").await;
        insert(&session, "t", 10_001, 30_000).await;
        until_it_goes_ahead(&pair).await;
        session.sql(statement).await;
        insert(&session, "t", 50_001, 60_000).await;
        wait_until("nothing is locked", PATIENCE, async || pair.target.value::<i64>(WRITERS).await == 0)
            .await;
        session.sql("COMMIT").await;
        pair.settle().await;
        until_nothing_is_spooled(&relevo, &directory).await;
        relevo.terminate();
    }
}

#[tokio::test]
async fn whoever_alters_a_table_of_the_standby_does_not_wait_for_a_transaction_that_still_runs() {
    let (pair, mut relevo, directory, session) = begun(Version::V16, Version::V15).await;
    insert(&session, "t", 1, 10_000).await;
    until_it_goes_ahead(&pair).await;
    let other = pair.target.connect(DATABASE).await;
    let altered = tokio::spawn(async move { other.sql("ALTER TABLE t ADD w int").await });
    let mut from = 10_001;
    while !altered.is_finished() {
        insert(&session, "t", from, from + 4999).await;
        from += 5000;
    }
    altered.await.unwrap();
    session.sql("COMMIT").await;
    pair.caught_up().await;
    let rows = "SELECT count(*), md5(string_agg(v, ',' ORDER BY id)) FROM t";
    assert_eq!(pair.source.rows(rows).await, pair.target.rows(rows).await);
    let [committed, taken_back] = outcomes(&relevo).await;
    assert_eq!((committed, taken_back), (Some(0.0), Some(1.0)));
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}

#[tokio::test]
async fn a_transaction_that_falls_silent_keeps_no_locks_on_the_standby() {
    let (pair, mut relevo, directory, session) = begun(Version::V15, Version::V15).await;
    insert(&session, "t", 1, 10_000).await;
    until_it_goes_ahead(&pair).await;
    pair.target.sql("ALTER TABLE t ALTER v SET STATISTICS 10").await;
    wait_until("taken back", PATIENCE, async || outcomes(&relevo).await == [Some(0.0), Some(1.0)]).await;
    session.sql("COMMIT").await;
    pair.settle().await;
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}

#[tokio::test]
async fn what_only_the_standby_refuses_is_taken_back_and_said_once_it_has_committed() {
    let (pair, mut relevo, directory, session) = begun(Version::V15, Version::V15).await;
    pair.target.sql("INSERT INTO t VALUES (77, 'in the way')").await;
    insert(&session, "t", 1, 20_000).await;
    wait_until("taken back", PATIENCE, async || outcomes(&relevo).await == [Some(0.0), Some(1.0)]).await;
    pair.source.sql("INSERT INTO small VALUES (1, 'goes on')").await;
    pair.caught_up().await;
    session.sql("COMMIT").await;
    let status = relevo.wait_for_state("failed").await;
    assert!(status["state_detail"].as_str().unwrap().contains("(id)=(77)"), "{status}");
    pair.target.sql("DELETE FROM t WHERE id = 77").await;
    pair.settle().await;
    until_nothing_is_spooled(&relevo, &directory).await;
    relevo.terminate();
}
