//! The second session, for a transaction that still runs on the source.

use std::sync::Arc;
use std::time::Duration;

use relevo_model::{AheadTarget, Applied, Batch, Change, ChangeTarget, SourceLsn, TransactionPart};
use relevo_target::{PgAheadTarget, TargetError, TargetOptions};
use relevo_tests::wait_until;

use crate::fixture::{Fixture, cluster, delete, insert, options, update};

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE datname = current_database() AND wait_event_type = 'Lock'";
const PATIENCE: Duration = Duration::from_secs(30);

async fn open(f: &Fixture) -> PgAheadTarget {
    PgAheadTarget::open(&f.info().await, options()).await.unwrap()
}

fn rows(f: &mut Fixture, t: &Arc<relevo_model::Relation>, from: u32, first: bool) -> TransactionPart {
    let rows: Vec<Change> = (from..from + 100).map(|id| insert(t, &format!("{id}|x"))).collect();
    f.part(rows, first, false)
}

/// The end of the transaction whose parts went before, without changes.
fn end(f: &mut Fixture) -> TransactionPart {
    f.part(Vec::new(), false, true)
}

#[tokio::test]
async fn a_transaction_is_there_with_its_commit_and_others_are_applied_meanwhile() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let t = f.relation("t", "id* v");
    f.apply(vec![insert(&t, "1000|before")]).await;
    let mut ahead = open(&f).await;
    // As it comes: it commits last, and so its header's position is not known yet.
    let mut parts = vec![rows(&mut f, &t, 0, true), rows(&mut f, &t, 100, false)];
    parts.push(f.part(
        vec![update(&t, "7|changed"), delete(&t, "8|NULL"), update(&t, "1000|changed")],
        false,
        false,
    ));
    for part in parts {
        ahead.apply(part).await.unwrap();
    }
    f.apply(vec![insert(&t, "1001|meanwhile")]).await;
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["2"]);
    f.position += 0x100;
    let (end, stored) = (end(&mut f), f.target.progress().applied);
    let Applied { position, missing_rows, .. } = ahead.commit(end.clone(), stored).await.unwrap();
    assert_eq!((position, missing_rows), (end.end, 0));
    let counted = "SELECT count(*), count(*) FILTER (WHERE v = 'changed') FROM t";
    assert_eq!(f.rows(counted).await, ["201|2"]);

    // The first session goes on behind it once it knows, and the second can be used again.
    let mut progress = f.target.progress().clone();
    progress.applied = end.end.unwrap();
    f.target.moved(progress);
    f.apply(vec![insert(&t, "1002|after")]).await;
    let part = rows(&mut f, &t, 2000, true);
    ahead.apply(part).await.unwrap();
    let (end, stored) = (self::end(&mut f), f.target.progress().applied);
    ahead.commit(end, stored).await.unwrap();
    assert_eq!(f.rows(counted).await, ["302|2"]);
}

#[tokio::test]
async fn nothing_is_committed_unless_the_progress_stands_where_it_should() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let t = f.relation("t", "id* v");
    let mut ahead = open(&f).await;
    let part = rows(&mut f, &t, 0, true);
    ahead.apply(part).await.unwrap();
    let (end, stored) = (end(&mut f), f.target.progress().applied);
    f.apply(vec![insert(&t, "1000|meanwhile")]).await;
    let refused = ahead.commit(end.clone(), stored).await;
    assert!(matches!(refused, Err(TargetError::ProgressMoved { .. })), "{refused:?}");
    assert!(matches!(ahead.commit(end, stored).await, Err(TargetError::Spent)));
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["1"]);
}

#[tokio::test]
async fn what_is_dropped_before_its_commit_leaves_nothing() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let t = f.relation("t", "id* v");
    let mut ahead = open(&f).await;
    let part = rows(&mut f, &t, 0, true);
    ahead.apply(part).await.unwrap();
    drop(ahead);
    // The same rows: whoever holds them still would keep this waiting.
    let whole = (0..100).map(|id| insert(&t, &format!("{id}|y"))).collect();
    f.apply(whole).await;
    assert_eq!(f.rows("SELECT count(*), count(DISTINCT v) FROM t").await, ["100|1"]);
}

#[tokio::test]
async fn what_does_not_go_as_it_stands_is_an_error_and_nobody_is_told_of_a_missing_row() {
    for case in ["a missing row", "many", "a row twice"] {
        let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
        let t = f.relation("t", "id* v");
        let mut ahead = open(&f).await;
        let numbers = 0..50;
        let changes: Vec<Change> = match case {
            "a missing row" => vec![update(&t, "999|y")],
            "many" => numbers.map(|id| update(&t, &format!("{}|y", id + 500))).collect(),
            _ => numbers.map(|id| insert(&t, &format!("{}|y", id % 49 + 600))).collect(),
        };
        let part = f.part(changes, true, false);
        let failed = ahead.apply(part).await;
        let expected = matches!(
            failed,
            Err(TargetError::SetCount { .. } | TargetError::Set { .. } | TargetError::Change { .. })
        );
        assert!(expected, "{case}: {failed:?}");
        assert_eq!(f.rows("SELECT count(*) FROM relevo.error").await, ["0"]);
        drop(ahead);
        let idle = Batch { position: Some(SourceLsn::new(0x900)), ..Batch::default() };
        f.target.apply(idle).await.unwrap();
    }
}

#[tokio::test]
async fn it_does_not_keep_others_waiting_for_its_locks() {
    let mut f =
        Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1000, 'x')").await;
    let t = f.relation("t", "id* v");
    for statement in ["ALTER TABLE t ADD w int", "UPDATE t SET v = 'mine' WHERE id = 1000"] {
        let mut ahead = open(&f).await;
        let part = f.part(vec![update(&t, "1000|theirs")], true, false);
        ahead.apply(part).await.unwrap();
        let other = cluster().await.connect(&f.database).await;
        let waiting = tokio::spawn(async move { other.sql(statement).await });
        wait_until("somebody who waits", PATIENCE, async || f.rows(WAITING).await != ["0"]).await;
        let part = rows(&mut f, &t, 0, false);
        let given_up = ahead.apply(part).await;
        assert!(matches!(given_up, Err(TargetError::WaitedFor)), "{given_up:?}");
        drop(ahead);
        waiting.await.unwrap();
    }
}

#[tokio::test]
async fn whoever_opens_the_target_ends_what_a_predecessor_has_left_open() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let t = f.relation("t", "id* v");
    let mut left = open(&f).await;
    let part = rows(&mut f, &t, 0, true);
    left.apply(part).await.unwrap();
    f.reopen().await;
    let whole = (0..100).map(|id| insert(&t, &format!("{id}|y"))).collect();
    f.apply(whole).await;
    let part = rows(&mut f, &t, 200, false);
    assert!(left.apply(part).await.is_err(), "its session is gone");
    // One after the other: the second ends the first.
    let (first, _second) = (open(&f).await, open(&f).await);
    drop(first);
    f.apply(vec![insert(&t, "500|z")]).await;
}

/// A batch of two transactions that insert these rows.
fn two(f: &mut Fixture, t: &Arc<relevo_model::Relation>, from: u32) -> Batch {
    let mut insert = |from: u32| {
        let rows = (from..from + 50).map(|id| insert(t, &format!("{id}|x"))).collect();
        f.part(rows, true, true)
    };
    let parts = vec![insert(from), insert(from + 50)];
    Batch { position: parts[1].end, parts, ..Batch::default() }
}

#[tokio::test]
async fn a_batch_beside_another_is_there_behind_it_and_says_which_transactions_it_holds() {
    const SAID: &str = "SELECT data FROM pg_logical_slot_peek_changes('said', NULL, NULL, 'include-xids', 'off') \
         WHERE data LIKE '%prefix: relevo%'";
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let t = f.relation("t", "id* v");
    f.apply(vec![insert(&t, "5000|before")]).await;
    f.rows("SELECT pg_create_logical_replication_slot('said', 'test_decoding')").await;
    let options = TargetOptions { marked: true, ..options() };
    let mut ahead = PgAheadTarget::open(&f.info().await, options).await.unwrap();
    let (first, second) = (two(&mut f, &t, 0), two(&mut f, &t, 100));
    assert!(ahead.prepare(&second).await.unwrap());
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["1"]);
    ahead.look().await.unwrap();
    f.target.apply(first).await.unwrap();
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["101"]);
    let stored = f.target.progress().applied;
    let applied = ahead.commit_prepared(&second, stored).await.unwrap();
    assert_eq!(applied.position, second.position);
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["201"]);

    let [first, last] = [0, 1].map(|part| second.parts[part].header.commit_lsn);
    let after = SourceLsn::new(stored.as_u64() - 1);
    let which = format!("content:applied 7123 {after} {first} {last}");
    // Decoded as far as it is flushed.
    wait_until("what the transaction says", PATIENCE, async || !f.rows(SAID).await.is_empty()).await;
    let said = f.rows(SAID).await;
    assert!(said.len() == 2 && said[0].ends_with("content:applied"), "{said:?}");
    assert!(said[1].ends_with(&which), "{which}: {said:?}");
    f.rows("SELECT pg_drop_replication_slot('said')").await;
}

#[tokio::test]
async fn a_batch_beside_one_that_did_not_come_to_its_end_is_refused() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let t = f.relation("t", "id* v");
    let mut ahead = open(&f).await;
    let (first, second) = (two(&mut f, &t, 0), two(&mut f, &t, 100));
    assert!(ahead.prepare(&second).await.unwrap());
    let refused = ahead.commit_prepared(&second, first.position.unwrap()).await;
    assert!(matches!(refused, Err(TargetError::ProgressMoved { .. })), "{refused:?}");
    drop(ahead);
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["0"]);
}

#[tokio::test]
async fn what_shows_the_order_of_rows_goes_alone() {
    for table in [
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
         ALTER TABLE t ENABLE ALWAYS TRIGGER f",
        "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
         CREATE TABLE p PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "CREATE TABLE root (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
         CREATE TABLE t PARTITION OF root FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    ] {
        let mut f = Fixture::new(table).await;
        let t = f.relation("t", "id* v");
        let mut ahead = open(&f).await;
        let batch = two(&mut f, &t, 0);
        assert!(!ahead.prepare(&batch).await.unwrap(), "{table}");
    }
}

#[tokio::test]
async fn it_is_noticed_that_the_batch_before_waits() {
    let mut f =
        Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text UNIQUE); INSERT INTO t VALUES (0, 'taken')")
            .await;
    let t = f.relation("t", "id* v");
    let mut ahead = open(&f).await;
    let first = f.batch(vec![insert(&t, "1|same")]);
    let second = f.batch(vec![insert(&t, "2|same")]);
    assert!(ahead.prepare(&second).await.unwrap());
    let database = f.database.clone();
    let (mut target, watcher) = (f.target, f.admin);
    let applying = tokio::spawn(async move { target.apply(first).await });
    wait_until("somebody who waits", PATIENCE, async || watcher.value::<i64>(WAITING).await > 0).await;
    assert!(matches!(ahead.look().await, Err(TargetError::WaitedFor)), "{database}");
    drop(ahead);
    applying.await.unwrap().unwrap();
}
