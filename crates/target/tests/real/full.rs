//! REPLICA IDENTITY FULL, and identities that are no unique key on the target: exactly one row each time.

use crate::fixture::{Fixture, delete, delete_full, insert, update, update_full};

#[tokio::test]
async fn duplicates_count_one_at_a_time() {
    let mut f = Fixture::new(
        "CREATE TABLE t (a int, b text);
         INSERT INTO t VALUES (1, 'x'), (1, 'x'), (1, 'x'), (1, NULL), (1, NULL), (NULL, NULL)",
    )
    .await;
    let t = f.relation("t", "a* b*");
    let applied = f
        .apply(vec![
            delete_full(&t, "1|x"),
            update_full(&t, "1|x", "2|y"),
            delete_full(&t, "1|NULL"),
            update_full(&t, "NULL|NULL", "3|z"),
            update_full(&t, "1|NULL", "1|~"),
        ])
        .await;
    assert_eq!(applied.missing_rows, 0);
    assert_eq!(f.rows("SELECT * FROM t ORDER BY a, b").await, ["1|x", "1|NULL", "2|y", "3|z"]);
    assert_eq!(f.apply(vec![delete_full(&t, "NULL|NULL"), delete_full(&t, "1|y")]).await.missing_rows, 2);
}

#[tokio::test]
async fn of_equal_rows_the_identical_one_is_chosen() {
    let mut f = Fixture::new(
        "CREATE EXTENSION citext;
         CREATE TABLE t (n numeric, c citext, f float8, k text);
         INSERT INTO t VALUES (1.00, 'A', 0, '1'), (1.0, 'A', 0, '2'), (1.0, 'a', 0, '3'), (1.0, 'a', '-0', '4')",
    )
    .await;
    let t = f.relation("t", "n* c* f*");
    f.apply(vec![
        update_full(&t, "1.0|a|-0", "4|~|~"),
        update_full(&t, "1.0|a|0", "3|~|~"),
        delete_full(&t, "1.0|A|0"),
    ])
    .await;
    assert_eq!(f.rows("SELECT k, n FROM t ORDER BY k").await, ["1|1.00", "3|3", "4|4"]);
    // Only an equal one is left: better than none.
    assert_eq!(f.apply(vec![delete_full(&t, "1.0|a|0")]).await.missing_rows, 0);
}

#[tokio::test]
async fn types_without_equality_are_compared_by_their_image() {
    let mut f = Fixture::new(
        "CREATE TYPE pair AS (a int, b int);
         CREATE TABLE t (j json, x xml, p point, r int[], c pair, k int);
         INSERT INTO t VALUES
           ('{\"a\": 1}', '<a/>', '(1,2)', '{1,2}', '(1,2)', 1),
           ('{\"a\":1}', '<a/>', '(1,2)', '{1,2}', '(1,2)', 2),
           ('{\"a\": 1}', '<a/>', '(1,3)', '{1,2}', '(1,2)', 3),
           ('{\"a\": 1}', '<a/>', '(1,2)', '{1,NULL}', '(1,2)', 4),
           ('{\"a\": 1}', '<a/>', '(1,2)', '{1,2}', '(,)', 5),
           ('{\"a\": 1}', '<a/>', '(1,2)', '{1,2}', NULL, 6)",
    )
    .await;
    let t = f.relation("t", "j* x* p* r* c*");
    for (gone, old) in [
        (1, "{\"a\": 1}|<a/>|(1,2)|{1,2}|(1,2)"),
        (4, "{\"a\": 1}|<a/>|(1,2)|{1,NULL}|(1,2)"),
        (6, "{\"a\": 1}|<a/>|(1,2)|{1,2}|NULL"),
        (5, "{\"a\": 1}|<a/>|(1,2)|{1,2}|(,)"),
    ] {
        assert_eq!(f.apply(vec![delete_full(&t, old)]).await.missing_rows, 0, "{old}");
        assert_eq!(f.rows(&format!("SELECT k FROM t WHERE k = {gone}")).await, Vec::<String>::new(), "{old}");
    }
    assert_eq!(f.rows("SELECT k FROM t ORDER BY k").await, ["2", "3"]);
}

#[tokio::test]
async fn rows_at_the_same_place_of_two_partitions_are_told_apart() {
    let mut f = Fixture::new(
        "CREATE TABLE r (id int, v text) PARTITION BY RANGE (id);
         CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (10);
         CREATE TABLE r2 PARTITION OF r FOR VALUES FROM (10) TO (20);
         INSERT INTO r VALUES (1, 'a'), (11, 'a'), (2, 'b'), (12, 'b')",
    )
    .await;
    let r = f.relation("r", "id* v*");
    f.apply(vec![
        update_full(&r, "11|a", "11|changed"),
        delete_full(&r, "2|b"),
        update_full(&r, "1|a", "15|moved"),
    ])
    .await;
    assert_eq!(f.rows("SELECT * FROM r ORDER BY id").await, ["11|changed", "12|b", "15|moved"]);
}

#[tokio::test]
async fn a_key_that_is_not_unique_here_affects_one_row() {
    let mut f =
        Fixture::new("CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'a'), (1, 'a'), (2, 'b')")
            .await;
    let t = f.relation("t", "id* v");
    f.apply(vec![update(&t, "1|x"), delete(&t, "2|NULL")]).await;
    assert_eq!(f.rows("SELECT * FROM t ORDER BY v").await, ["1|a", "1|x"]);
}

#[tokio::test]
async fn identities_of_arrays_ranges_and_enums_find_their_rows() {
    let mut f = Fixture::new(
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN code AS varchar(4);
         CREATE TABLE t (a int[], r int4range, m mood, c code, p char(5), v text, PRIMARY KEY (a, r, m, c, p))",
    )
    .await;
    let t = f.relation("t", "a* r* m* c* p* v");
    let key = "{1,2}|[1,5)|happy|ab|xy   ";
    f.apply(vec![insert(&t, &format!("{key}|1")), update(&t, &format!("{key}|2"))]).await;
    assert_eq!(f.rows("SELECT v FROM t").await, ["2"]);
    assert_eq!(f.apply(vec![delete(&t, &format!("{key}|NULL"))]).await.missing_rows, 0);
}

#[tokio::test]
async fn a_whole_row_is_found_by_place_and_by_any_unique_key() {
    let mut f = Fixture::new(
        "CREATE TABLE t (id int UNIQUE, v numeric);
         INSERT INTO t SELECT n, n FROM generate_series(1, 20000) n; ANALYZE t;
         CREATE TABLE u (v int); INSERT INTO u SELECT n FROM generate_series(1, 20000) n; ANALYZE u",
    )
    .await;
    // The same statements as the target's, so that a planner that chose otherwise would be seen.
    for (table, scan) in [("t", "Index Scan using t_id_key on t"), ("u", "Seq Scan on u")] {
        let column = if table == "t" { "id" } else { "v" };
        let plan = f
            .rows(&format!(
                "EXPLAIN WITH victim AS (SELECT t.ctid AS place FROM ONLY {table} AS t WHERE t.{column} = 5 LIMIT 1) \
                 UPDATE ONLY {table} AS t SET v = 1 FROM victim WHERE t.ctid = victim.place"
            ))
            .await
            .join("\n");
        assert!(plan.contains("Tid Scan on") && plan.contains(scan), "{plan}");
    }
    let t = f.relation("t", "id* v*");
    f.apply((1..=500).map(|n| update_full(&t, &format!("{n}|{n}"), &format!("{n}|0"))).collect()).await;
    assert_eq!(f.rows("SELECT count(*) FROM t WHERE v = 0").await, ["500"]);
}
