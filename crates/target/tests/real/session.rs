//! Who may apply, what a commit carries, what an interruption leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relevo_model::{
    Applied, Batch, Change, ChangeTarget, Fault, FaultClass, FlushProbe, QualifiedName, SourceLsn,
    TransactionPart,
};
use relevo_target::{PgFlushProbe, PgTarget, TargetError, TargetOptions};
use relevo_tests::{Cluster, Version, wait_until};

use crate::fixture::{Fixture, flow, insert, options, update};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn progress_moves_with_the_data_and_with_positions_alone() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let t = f.relation("t", "id*");
    f.apply(vec![insert(&t, "1")]).await;
    let stored = "SELECT applied_lsn, commit_lsn, commit_time FROM relevo.progress";
    assert_eq!(f.rows(stored).await, ["0/230|0/200|2000-01-01 00:00:01+00"]);
    let idle = Batch { position: Some(SourceLsn::new(0x900)), ..Batch::default() };
    let applied = f.target.apply(idle).await.unwrap();
    assert_eq!(applied.position, Some(SourceLsn::new(0x900)));
    assert_eq!(f.rows(stored).await, ["0/900|0/200|2000-01-01 00:00:01+00"]);
    assert_eq!(f.target.progress().applied, SourceLsn::new(0x900));
    let back = Batch { position: Some(SourceLsn::new(0x800)), ..Batch::default() };
    assert!(matches!(f.target.apply(back).await, Err(TargetError::Contract(_))));
}

#[tokio::test]
async fn several_transactions_become_visible_together() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let t = f.relation("t", "id*");
    let parts: Vec<_> = (0..100).map(|id| f.part(vec![insert(&t, &id.to_string())], true, true)).collect();
    let batch = Batch { position: parts.last().unwrap().end, size_bytes: 0, parts, ..Batch::default() };
    f.target.apply(batch).await.unwrap();
    assert_eq!(f.rows("SELECT count(*), count(DISTINCT xmin::text) FROM t").await, ["100|1"]);
}

#[tokio::test]
async fn an_async_commit_is_durable_once_the_probe_says_so() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let t = f.relation("t", "id*");
    let applied = f.apply(vec![insert(&t, "1")]).await;
    let until = applied.durable_at.expect("an async commit");
    let mut probe = PgFlushProbe::open(&f.info().await, &flow()).await.unwrap();
    let started = std::time::Instant::now();
    while probe.flushed().await.unwrap() < until {
        assert!(started.elapsed() < PATIENCE, "the WAL writer does not reach {until}");
        tokio::task::yield_now().await;
    }
    drop(f.target);
    let synchronous = TargetOptions { synchronous_commit: true, ..options() };
    f.target = PgTarget::open(&crate::fixture::info(&f.database).await, synchronous).await.unwrap();
    assert_eq!(f.apply(vec![insert(&t, "2")]).await.durable_at, None);
}

#[tokio::test]
async fn a_transaction_in_parts_is_visible_only_at_its_end() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let t = f.relation("t", "id* v");
    let rows =
        |from: u32| (from..from + 50).map(|id| insert(&t, &format!("{id}|x"))).collect::<Vec<Change>>();
    let batch = |part: TransactionPart| Batch {
        position: part.end,
        size_bytes: 0,
        parts: vec![part],
        ..Batch::default()
    };
    let nothing = Applied { position: None, durable_at: None, missing_rows: 0, reapplied_changes: 0 };
    for interrupted in [true, false] {
        let part = f.part(rows(0), true, false);
        assert_eq!(f.target.apply(batch(part)).await.unwrap(), nothing);
        let part = f.part([rows(50), vec![update(&t, "999|y")]].concat(), false, false);
        assert_eq!(f.target.apply(batch(part)).await.unwrap().missing_rows, 1);
        assert_eq!(f.rows("SELECT count(*) FROM t").await, ["0"]);
        if interrupted {
            let whole = f.batch(vec![]);
            assert!(matches!(f.target.apply(whole).await, Err(TargetError::Contract(_))));
            f.reopen().await;
            assert_eq!(f.target.progress().applied, SourceLsn::new(0x100));
            assert_eq!(
                f.rows("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM relevo.error)").await,
                ["0|0"]
            );
        } else {
            let part = f.part(vec![update(&t, "7|changed")], false, true);
            assert!(f.target.apply(batch(part)).await.unwrap().position.is_some());
        }
    }
    assert_eq!(f.rows("SELECT count(*), count(*) FILTER (WHERE v = 'changed') FROM t").await, ["100|1"]);
    assert_eq!(f.rows("SELECT count(*) FROM relevo.error").await, ["1"]);
}

/// The parts of what a table has missed come in several batches, and the last one lets it join.
#[tokio::test]
async fn a_table_joins_with_what_it_has_missed_and_the_position_stays() {
    let mut f =
        Fixture::new("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)").await;
    let (t, u) = (f.relation("t", "id*"), f.relation("u", "id*"));
    f.admin.sql(TWO_TABLES).await;
    f.apply(vec![insert(&t, "1")]).await;
    let before = f.target.progress().clone();
    let stored = "SELECT applied_lsn, commit_lsn FROM relevo.progress";
    let stored_before = f.rows(stored).await;

    let missed = |part: TransactionPart, first| TransactionPart { first, end: None, ..part };
    let early = missed(f.part(vec![insert(&u, "7")], true, false), true);
    let late = missed(f.part(vec![insert(&u, "8")], true, false), false);
    f.target.apply(Batch { parts: vec![early], ..Batch::default() }).await.unwrap();
    assert_eq!(f.rows("SELECT count(*) FROM u").await, ["0"]);
    let last = TransactionPart { end: Some(before.applied), ..late };
    let joins = vec![QualifiedName { schema: "public".into(), name: "u".into() }];
    let batch = Batch { parts: vec![last], position: Some(before.applied), joins, ..Batch::default() };
    let applied = f.target.apply(batch.clone()).await.unwrap();
    assert_eq!(applied.position, Some(before.applied));
    assert_eq!(f.target.progress(), &before);
    assert_eq!(f.rows(stored).await, stored_before);
    assert_eq!(f.rows("SELECT id FROM u ORDER BY id").await, ["7", "8"]);
    assert_eq!(
        f.rows("SELECT table_name, state FROM relevo.table_state ORDER BY 1").await,
        ["t|streaming", "u|streaming"]
    );

    // A table that is not recorded as copied does not join, and nothing of it stays.
    let again = Batch { parts: Vec::new(), ..batch };
    let error = f.target.apply(again).await.unwrap_err();
    assert!(matches!(error, TargetError::NotCopied { .. }), "{error}");
    assert_eq!(error.class(), FaultClass::Transient);
    assert!(error.to_string().contains("public.u"), "{error}");
}

const TWO_TABLES: &str = "INSERT INTO relevo.table_state (flow, schema_name, table_name, state, copied_lsn) \
     VALUES ('shop', 'public', 't', 'streaming', '0/100'), ('shop', 'public', 'u', 'copied', '0/180')";

#[tokio::test]
async fn a_dropped_batch_leaves_nothing() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let t = f.relation("t", "id*");
    f.admin.sql("BEGIN; LOCK TABLE t IN EXCLUSIVE MODE").await;
    let batch = f.batch(vec![insert(&t, "1")]);
    let waiting = tokio::time::timeout(Duration::from_millis(200), f.target.apply(batch)).await;
    assert!(waiting.is_err());
    assert!(matches!(f.try_apply(vec![]).await, Err(TargetError::Spent)));
    f.admin.sql("COMMIT").await;
    f.reopen().await;
    // The dropped batch may have been committed by the server all the same: then its progress says so.
    let rows = f.rows("SELECT count(*) FROM t").await;
    let moved = f.target.progress().applied > SourceLsn::new(0x100);
    assert_eq!(rows, [if moved { "1" } else { "0" }]);
}

#[tokio::test]
async fn only_one_session_applies_a_flow() {
    let f = Fixture::new("").await;
    let info = f.info().await;
    let second =
        tokio::spawn(
            async move { PgTarget::open(&info, options()).await.map(|target| target.backend_pid()) },
        );
    let waits = || async {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'relevo_shop' \
             AND datname = current_database() AND query LIKE '%pg_locks%'";
        f.rows(sessions).await == ["1"]
    };
    wait_until("the second session looks who holds the lock", PATIENCE, waits).await;
    assert!(!second.is_finished());
    drop(f.target);
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_earlier_session_of_the_same_process_is_ended() {
    let f = Fixture::new("").await;
    let previous_pid = Some(f.target.backend_pid());
    let info = f.info().await;
    let target = PgTarget::open(&info, TargetOptions { previous_pid, ..options() }).await.unwrap();
    assert_ne!(Some(target.backend_pid()), previous_pid);
}

#[tokio::test]
async fn a_fenced_database_still_takes_the_flow() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let t = f.relation("t", "id*");
    f.admin.sql(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", f.database)).await;
    f.reopen().await;
    f.apply(vec![insert(&t, "1")]).await;
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["1"]);
}

/// Cancels and kills at random moments, also between the BEGIN and the COMMIT that are under way together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_cancelled_each_batch_is_there_whole_and_once() {
    let mut f = Fixture::new("CREATE TABLE t (batch int, n int)").await;
    let t = f.relation("t", "batch* n*");
    let database = f.database.clone();
    // How long the disturber lets things be at most. It follows what the applying session gets done, so that some
    // batches get through and some do not, however fast the machine is.
    let calm = Arc::new(AtomicU64::new(1));
    let disturber_calm = Arc::clone(&calm);
    let disturber = tokio::spawn(async move {
        let admin = crate::fixture::cluster().await.connect(&database).await;
        for round in 0_u32.. {
            let how = if round.is_multiple_of(8) { "terminate" } else { "cancel" };
            let everyone = format!(
                "SELECT pg_{how}_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = 'relevo_shop' AND datname = current_database() AND state <> 'idle'"
            );
            admin.rows(&everyone).await;
            // Pauses that differ from round to round, so that the moment does too.
            let longest = disturber_calm.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_micros(u64::from(round) * 7919 % longest)).await;
        }
    });
    let started = std::time::Instant::now();
    let (mut done, mut errors) = (0_u64, 0_u32);
    while done < 300 || errors < 30 {
        assert!(started.elapsed() < PATIENCE * 2, "{done} batches, {errors} errors");
        // The progress says which batch is the next.
        done = (f.target.progress().applied.as_u64() - 0x100) / 0x100;
        let next = done + 1;
        let part = TransactionPart {
            end: Some(SourceLsn::new(0x100 + next * 0x100)),
            ..f.part((0..3).map(|n| insert(&t, &format!("{next}|{n}"))).collect(), true, true)
        };
        let batch = Batch { position: part.end, size_bytes: 0, parts: vec![part], ..Batch::default() };
        if f.target.apply(batch).await.is_err() {
            errors += 1;
            let info = f.info().await;
            f.target = loop {
                calm.fetch_add(500, Ordering::Relaxed);
                if let Some(target) = retry_open(&info, f.target.backend_pid()).await {
                    break target;
                }
            };
        } else {
            let longest = calm.load(Ordering::Relaxed);
            calm.store((longest - longest / 8).max(1), Ordering::Relaxed);
        }
    }
    disturber.abort();
    let done = (f.target.progress().applied.as_u64() - 0x100) / 0x100;
    assert_eq!(
        f.rows("SELECT count(*), count(DISTINCT batch), max(batch), count(DISTINCT (batch, n)) FROM t").await,
        [format!("{}|{done}|{done}|{}", done * 3, done * 3)]
    );
}

/// Opens again; `None` when that was disturbed too.
async fn retry_open(info: &relevo_connect::ConnInfo, previous: i32) -> Option<PgTarget> {
    use relevo_model::{Fault, FaultClass};
    match PgTarget::open(info, TargetOptions { previous_pid: Some(previous), ..options() }).await {
        Ok(target) => Some(target),
        Err(error) if error.class() == FaultClass::Transient => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_physical_standby_is_told_apart_before_its_progress_is_believed() {
    let server = Cluster::create(Version::V15).await;
    let info = server.url("postgres").parse().unwrap();
    // There is no schema `relevo`, so it would be refused for its progress.
    server.stop();
    std::fs::write(server.data().join("standby.signal"), "").unwrap();
    server.start().await;
    let error = PgTarget::open(&info, options()).await.err().unwrap();
    assert!(matches!(error, TargetError::Standby { .. }), "{error}");
    assert_eq!((error.class(), error.kind()), (FaultClass::Blocked, "read_only"));
}
