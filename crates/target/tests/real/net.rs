//! Batches that are large enough to go as sets: what is folded, and what happens when that does not go well.

use relevo_model::{Batch, Change, ChangeTarget, Fault, FaultClass};

use crate::fixture::{Fixture, delete, insert, move_key, update};

fn batch_of(part: relevo_model::TransactionPart) -> Batch {
    Batch { position: part.end, size_bytes: part.size_bytes, parts: vec![part], ..Batch::default() }
}

#[tokio::test]
async fn many_changes_of_few_rows_become_one_change_of_each() {
    let mut f = Fixture::new(
        "CREATE TABLE t (id int PRIMARY KEY, n int, note text);
         INSERT INTO t SELECT n, 0, 'note ' || n FROM generate_series(1, 20) n",
    )
    .await;
    let t = f.relation("t", "id* n note");
    let changes = (1..=500).map(|n| update(&t, &format!("{}|{n}|~", n % 20 + 1))).collect();
    let applied = f.apply(changes).await;
    assert_eq!((applied.missing_rows, applied.reapplied_changes), (0, 0));
    assert_eq!(f.rows("SELECT sum(n), min(n), count(DISTINCT note) FROM t").await, ["9810|481|20"]);
    let versions =
        f.rows("SELECT count(DISTINCT xmin::text), max((ctid::text::point)[1]) <= 40 FROM t").await;
    assert_eq!(versions, ["1|t"], "each row was written once");
}

#[tokio::test]
async fn rows_of_a_table_that_is_described_anew_within_a_batch_keep_their_columns() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, a text, b text)").await;
    let old = f.relation("t", "id* a");
    let mut new = (*f.relation("t", "id* b")).clone();
    new.id = old.id;
    let new = std::sync::Arc::new(new);
    // Known before the batch in which both descriptions come.
    f.apply(vec![insert(&old, "1|a")]).await;
    let rows = |of, ids: std::ops::Range<i32>| ids.map(move |id| insert(of, &format!("{id}|{id}")));
    f.apply(rows(&old, 100..200).chain(rows(&new, 200..300)).chain(rows(&old, 300..400)).collect()).await;
    let columns = "SELECT count(a) FILTER (WHERE b IS NULL), count(b) FILTER (WHERE a IS NULL) FROM t";
    assert_eq!(f.rows(columns).await, ["201|100"]);
}

/// The tables of a batch are looked up together.
#[tokio::test]
async fn tables_that_are_new_to_the_session_are_looked_up_with_the_first_and_each_counts_when_its_turn_comes()
{
    let mut f = Fixture::new(
        "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE c (id int PRIMARY KEY, n int)",
    )
    .await;
    let (a, b, c) = (f.relation("a", "id* n"), f.relation("b", "id* n"), f.relation("c", "id* n"));
    let mut narrower = (*f.relation("c", "id*")).clone();
    narrower.id = c.id;
    let narrower = std::sync::Arc::new(narrower);
    for changes in [1, 40] {
        let of =
            |relation, from: i32| (from..from + changes).map(move |n| insert(relation, &format!("{n}|{n}")));
        let narrow = (500..500 + changes).map(|n| insert(&narrower, &n.to_string()));
        // Described in two ways within the batch, and both are new.
        f.apply(of(&a, changes * 100).chain(of(&c, changes * 100)).chain(narrow.clone()).collect()).await;
        let error = f.try_apply(of(&a, changes * 200).chain(of(&b, 0)).collect()).await.unwrap_err();
        assert!(error.to_string().contains("public.b"), "{error}");
        f.reopen().await;
        f.admin.sql("CREATE TABLE b (id int PRIMARY KEY, n int)").await;
        f.apply(of(&a, changes * 200).chain(of(&b, 0)).collect()).await;
        f.admin.sql("DROP TABLE b; DELETE FROM c WHERE n IS NULL").await;
        f.reopen().await;
    }
    assert_eq!(f.rows("SELECT count(*), (SELECT count(*) FROM c) FROM a").await, ["82|41"]);
}

#[tokio::test]
async fn a_batch_that_goes_in_many_stretches_is_one_transaction_with_all_of_its_changes() {
    let mut f = Fixture::new(
        "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int);
         INSERT INTO a SELECT n, 0 FROM generate_series(1, 5000) n",
    )
    .await;
    let (a, b) = (f.relation("a", "id* n"), f.relation("b", "id* n"));
    let of = |n: i32| {
        let row = n % 5000 + 1;
        [
            update(&a, &format!("{row}|{n}")),
            insert(&b, &format!("{n}|{n}")),
            update(&b, &format!("{}|-1", n / 2)),
        ]
    };
    let applied = f.apply((0..20000).flat_map(of).collect()).await;
    assert_eq!((applied.missing_rows, applied.reapplied_changes), (0, 0));
    assert_eq!(f.rows("SELECT min(n), max(n), count(DISTINCT xmin::text) FROM a").await, ["15000|19999|1"]);
    assert_eq!(
        f.rows("SELECT count(*), sum(n), count(DISTINCT xmin::text) FROM b").await,
        ["20000|149985000|1"]
    );
}

#[tokio::test]
async fn jobs_that_come_and_go_leave_nothing() {
    let mut f = Fixture::new("CREATE TABLE jobs (id int PRIMARY KEY, job text)").await;
    let jobs = f.relation("jobs", "id* job");
    let comes_and_goes = |n: i32| [insert(&jobs, &format!("{n}|x")), delete(&jobs, &format!("{n}|NULL"))];
    let applied = f.apply((1..=100).flat_map(comes_and_goes).collect()).await;
    assert_eq!(applied.reapplied_changes, 0);
    // One that the target has and the source had not is a conflict, not something to be deleted on the way.
    f.admin.sql("INSERT INTO jobs VALUES (50, 'of somebody else')").await;
    let error = f.refusal((1..=100).flat_map(comes_and_goes).collect()).await;
    assert!(error.to_string().contains("row id=50"), "{error}");
    assert_eq!(f.rows("SELECT * FROM jobs").await, ["50|of somebody else"]);
}

#[tokio::test]
async fn unique_values_that_change_hands_are_applied_in_order() {
    let mut f = Fixture::new(
        "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE); INSERT INTO t SELECT n, n FROM generate_series(1, 40) n",
    )
    .await;
    let t = f.relation("t", "id* u");
    let swap = |n: i32| {
        [
            update(&t, &format!("{n}|{}", -n)),
            update(&t, &format!("{}|{n}", n + 1)),
            update(&t, &format!("{n}|{}", n + 1)),
        ]
    };
    let back = |n: i32| {
        [
            update(&t, &format!("{n}|{}", -n)),
            update(&t, &format!("{}|{}", n + 1, n + 1)),
            update(&t, &format!("{n}|{n}")),
        ]
    };
    let odd = || (1..40).step_by(2);
    assert_eq!(f.apply(odd().flat_map(swap).collect()).await.reapplied_changes, 60);
    assert_eq!(f.rows("SELECT u FROM t ORDER BY id LIMIT 4").await, ["2", "1", "4", "3"]);
    // The table goes in order at once now, and nothing has to be applied twice.
    assert_eq!(f.apply(odd().flat_map(back).collect()).await.reapplied_changes, 0);
    assert_eq!(f.rows("SELECT count(*) FROM t WHERE id = u").await, ["40"]);
}

#[tokio::test]
async fn keys_that_change_hands_need_no_second_attempt() {
    let mut f = Fixture::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, n FROM generate_series(1, 40) n",
    )
    .await;
    let t = f.relation("t", "id* v");
    // The last moves first, as UPDATE t SET id = id + 1 has to.
    let moves = (1..=40).rev().map(|n| move_key(&t, &format!("{n}|NULL"), &format!("{}|{n}", n + 1)));
    let applied = f.apply(moves.collect()).await;
    assert_eq!((applied.missing_rows, applied.reapplied_changes), (0, 0));
    assert_eq!(f.rows("SELECT count(*) FROM t WHERE id = v::int + 1").await, ["40"]);
}

#[tokio::test]
async fn a_row_that_is_missing_among_many_is_named() {
    let mut f = Fixture::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, n FROM generate_series(1, 40) n WHERE n <> 7",
    )
    .await;
    let t = f.relation("t", "id* v");
    let applied = f.apply((1..=40).map(|n| update(&t, &format!("{n}|new"))).collect()).await;
    assert_eq!((applied.missing_rows, applied.reapplied_changes), (1, 40));
    assert_eq!(f.rows("SELECT count(*) FROM t WHERE v = 'new'").await, ["39"]);
    let recorded = f.rows("SELECT message FROM relevo.error").await;
    assert!(recorded.len() == 1 && recorded[0].contains("id=7"), "{recorded:?}");
}

#[tokio::test]
async fn a_part_of_a_large_transaction_is_taken_back_alone() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE)").await;
    let t = f.relation("t", "id* u");
    let first = f.part((1..=40).map(|n| insert(&t, &format!("{n}|{n}"))).collect(), true, false);
    f.target.apply(batch_of(first)).await.unwrap();
    let mut swaps: Vec<Change> = (21..=40).map(|n| update(&t, &format!("{n}|{}", n + 100))).collect();
    swaps.extend([update(&t, "1|0"), update(&t, "2|1"), update(&t, "1|2")]);
    let second = f.part(swaps, false, false);
    let applied = f.target.apply(batch_of(second)).await.unwrap();
    assert_eq!((applied.position, applied.reapplied_changes), (None, 23));
    let last = f.part((3..=20).map(|n| delete(&t, &format!("{n}|NULL"))).collect(), false, true);
    f.target.apply(batch_of(last)).await.unwrap();
    let seen =
        f.rows("SELECT count(*), sum(u) FILTER (WHERE id < 3), min(u) FILTER (WHERE id > 2) FROM t").await;
    assert_eq!(seen, ["22|3|121"]);
}

#[tokio::test]
async fn a_trigger_that_fires_sees_the_order_of_the_source() {
    let mut f = Fixture::new(
        "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE seen (n int, rows bigint, top int);
         CREATE TABLE watched (n int PRIMARY KEY);
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO public.seen SELECT NEW.n, count(*), max(v) FROM public.t; RETURN NEW; END $$;
         CREATE TRIGGER look AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION look();
         ALTER TABLE watched ENABLE ALWAYS TRIGGER look",
    )
    .await;
    let (t, watched) = (f.relation("t", "id* v"), f.relation("watched", "n*"));
    let mut changes: Vec<Change> = (1..=30).map(|n| insert(&t, &format!("{n}|1"))).collect();
    changes.push(insert(&watched, "1"));
    changes.extend((1..=30).map(|n| update(&t, &format!("{n}|2"))));
    changes.push(insert(&watched, "2"));
    changes.extend((1..=29).map(|n| delete(&t, &format!("{n}|NULL"))));
    changes.push(insert(&watched, "3"));
    assert_eq!(f.apply(changes).await.reapplied_changes, 0);
    assert_eq!(f.rows("SELECT * FROM seen ORDER BY n").await, ["1|30|1", "2|30|2", "3|1|2"]);
}

#[tokio::test]
async fn a_copy_that_the_server_refuses_to_begin_is_told_like_any_other_error() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let t = f.relation("t", "id* v");
    let rows = |from: i32| (from..from + 30).map(|n| insert(&t, &format!("{n}|x"))).collect::<Vec<_>>();
    f.apply(rows(1)).await;
    f.admin.sql("ALTER TABLE t RENAME COLUMN v TO w").await;
    let error = f.refusal(rows(101)).await;
    assert_eq!((error.class(), error.kind()), (FaultClass::Transient, "table_altered"), "{error}");
    f.admin.sql("ALTER TABLE t RENAME COLUMN w TO v").await;
    f.apply(rows(101)).await;
    assert_eq!(f.rows("SELECT count(*) FROM t").await, ["60"]);
}

#[tokio::test]
async fn large_rows_and_large_keys_go_as_they_are() {
    let mut f = Fixture::new("CREATE TABLE t (id text PRIMARY KEY, v text)").await;
    let t = f.relation("t", "id* v");
    let key = |n: i32| format!("{n}{}", "k".repeat(500));
    let large = "\"\\,()\u{e4}".repeat(20_000);
    f.apply((1..=20).map(|n| insert(&t, &format!("{}|{}", key(n), &large[..n as usize * 7000]))).collect())
        .await;
    f.apply(
        (1..=20).map(|n| update(&t, &format!("{}|{}", key(n), &large[..(21 - n as usize) * 7000]))).collect(),
    )
    .await;
    let expected: usize = (1..=20).map(|n| n * 7000).sum();
    assert_eq!(f.rows("SELECT sum(octet_length(v)) FROM t").await, [expected.to_string()]);
}

#[tokio::test]
async fn the_updates_of_a_large_transaction_go_through_a_temporary_table() {
    let mut f = Fixture::new(
        "CREATE DOMAIN filled AS text NOT NULL;
         CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v filled, w text NOT NULL);
         INSERT INTO t SELECT n, n, 'v' || n, 'w' || n FROM generate_series(1, 3000) n",
    )
    .await;
    let t = f.relation("t", "id* u v w");
    let whole = |n: i32| update(&t, &format!("{n}|{}|new {n}|\\,\"{n}", n + 10_000));
    let first = f.part((1..=3000).map(whole).collect(), true, false);
    assert_eq!(f.target.apply(batch_of(first)).await.unwrap().reapplied_changes, 0);
    let some = |n: i32| update(&t, &format!("{n}|{}|~|~", n + 20_000));
    let second = f.part((1..=2000).map(some).collect(), false, false);
    assert_eq!(f.target.apply(batch_of(second)).await.unwrap().reapplied_changes, 0);
    // What fails takes the temporary table's rows back with it; the next part uses it again.
    let mut clash: Vec<Change> = (1..=1500).map(some).collect();
    clash.extend([update(&t, "1|0|~|~"), update(&t, "2|20001|~|~"), update(&t, "1|20002|~|~")]);
    let third = f.part(clash, false, false);
    assert_eq!(f.target.apply(batch_of(third)).await.unwrap().reapplied_changes, 1503);
    let last = f.part((1..=3000).map(|n| update(&t, &format!("{n}|~|~|last {n}"))).collect(), false, true);
    f.target.apply(batch_of(last)).await.unwrap();
    let seen = f
        .rows(
            "SELECT count(*), count(*) FILTER (WHERE v = 'new ' || id AND w = 'last ' || id), sum(u) FROM t",
        )
        .await;
    let sum: i64 = (1..=3000).map(|n| n + if n <= 2000 { 20_000 } else { 10_000 }).sum();
    assert_eq!(seen, [format!("3000|3000|{sum}")]);
    assert_eq!(f.rows("SELECT count(*) FROM pg_class WHERE relname LIKE 'relevo_stage%'").await, ["0"]);
}
