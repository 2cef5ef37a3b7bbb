//! The second session, for a transaction that still runs on the source.

use std::sync::Arc;
use std::time::Duration;

use relevo_model::{AheadTarget, Applied, Batch, Change, ChangeTarget, SourceLsn, TransactionPart};
use relevo_target::{PgAheadTarget, TargetError};
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
