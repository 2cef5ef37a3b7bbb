//! Inserts, updates and deletes by key.

use std::sync::Arc;

use bytes::Bytes;
use relevo_model::{Cell, Change, Fault, FaultClass, Relation, Row};

use crate::fixture::{Fixture, delete, insert, move_key, update};

#[tokio::test]
async fn rows_are_matched_by_column_name_and_extra_columns_keep_their_defaults() {
    let mut f = Fixture::new(
        "CREATE TABLE t (extra text DEFAULT 'kept', b text, id int PRIMARY KEY, a text);
         INSERT INTO t VALUES ('mine', 'b0', 0, 'a0')",
    )
    .await;
    let t = f.relation("t", "id* a b");
    f.apply(vec![
        insert(&t, "1|a1|NULL"),
        insert(&t, "2||b2"),
        update(&t, "0|new|~"),
        update(&t, "1|NULL|b1"),
    ])
    .await;
    f.apply(vec![delete(&t, "2|NULL|NULL"), move_key(&t, "0|NULL|NULL", "5|~|moved")]).await;
    assert_eq!(
        f.rows("SELECT id, a, b, extra FROM t ORDER BY id").await,
        ["1|NULL|b1|kept", "5|new|moved|mine"]
    );
}

/// Two rows that exchange their keys are moved one over the other. Where one of them was lost, nothing is in the way of that,
/// and the second move once took the row that the first had brought.
#[tokio::test]
async fn a_row_that_was_lost_does_not_let_another_be_moved_twice() {
    let moves = |t: &Arc<Relation>| {
        vec![
            move_key(t, "1|NULL", "9|~"),
            move_key(t, "2|NULL", "1|~"),
            move_key(t, "9|NULL", "2|~"),
            // Numbers that are equal have several texts.
            move_key(t, "3|NULL", "8|~"),
            move_key(t, "4|NULL", "3.0|~"),
            move_key(t, "8|NULL", "4.0|~"),
        ]
    };
    for (lost, missing, left) in [
        ("NULL", 0, ["1|two", "2|one", "3.0|four", "4.0|three"].as_slice()),
        ("1, 3", 4, &["1|two", "3.0|four"]),
        ("2, 4", 2, &["2|one", "4.0|three"]),
    ] {
        let mut f = Fixture::new(&format!(
            "CREATE TABLE t (id numeric PRIMARY KEY, v text);
             INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four');
             DELETE FROM t WHERE id IN ({lost})",
        ))
        .await;
        let t = f.relation("t", "id* v");
        let more = |from: u32| (from..from + 200).map(|n| insert(&t, &format!("{n}|")));
        let changes = more(100).chain(moves(&t)).chain(more(300)).collect();
        assert_eq!(f.apply(changes).await.missing_rows, missing, "without {lost}");
        assert_eq!(f.rows("SELECT * FROM t WHERE id < 100 ORDER BY id").await, left, "without {lost}");
    }
}

#[tokio::test]
async fn long_runs_of_inserts_carry_every_byte() {
    let mut f =
        Fixture::new("CREATE TABLE t (\"Id\" int PRIMARY KEY, v text); CREATE TABLE u (v text)").await;
    let (t, u) = (f.relation("t", "Id* v"), f.relation("u", "v"));
    let nasty: Vec<String> = (0..300).map(|n| format!("\\{n}\\N\t\r\n\\.é\u{1F600}'\"$1")).collect();
    let mut changes: Vec<Change> = Vec::new();
    for (n, text) in nasty.iter().enumerate() {
        let text = if n % 7 == 0 { Cell::Null } else { Cell::Text(Bytes::from(text.clone())) };
        let id = Cell::Text(Bytes::from(n.to_string()));
        changes.push(Change::Insert { relation: t.clone(), new: Row(vec![id, text]) });
    }
    // A field that is empty, and lines that look like the end marker.
    for value in ["", "\\.", "\\N"].iter().cycle().take(30) {
        changes.push(insert(&u, value));
    }
    changes.push(update(&t, "299|last"));
    f.apply(changes).await;
    for (n, text) in nasty.iter().enumerate().take(299) {
        let row = f
            .admin
            .query_one("SELECT v FROM t WHERE \"Id\" = $1", &[&i32::try_from(n).unwrap()])
            .await
            .unwrap();
        assert_eq!(row.get::<_, Option<&str>>(0), (n % 7 != 0).then_some(text.as_str()));
    }
    assert_eq!(f.rows("SELECT v FROM t WHERE \"Id\" = 299").await, ["last"]);
    assert_eq!(f.rows("SELECT v, count(*) FROM u GROUP BY v ORDER BY v").await, ["|10", "\\.|10", "\\N|10"]);
}

#[tokio::test]
async fn values_in_binary_form_are_passed_on() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text, n int)").await;
    let t = f.relation("t", "id* v n");
    let binary = |id: i32| {
        let id = Cell::Binary(Bytes::copy_from_slice(&id.to_be_bytes()));
        let new = Row(vec![id.clone(), Cell::Text(Bytes::from_static(b"x")), id]);
        Change::Insert { relation: t.clone(), new }
    };
    f.apply((1..=40).map(binary).collect()).await;
    assert_eq!(f.rows("SELECT count(*), sum(id), sum(n) FROM t").await, ["40|820|820"]);
}

#[tokio::test]
async fn generated_always_identities_take_the_sources_values() {
    let mut f = Fixture::new(
        "CREATE TABLE k (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, extra int DEFAULT 7,
                         g text GENERATED ALWAYS AS (v || '!') STORED);
         CREATE TABLE n (id int PRIMARY KEY, seq int GENERATED ALWAYS AS IDENTITY, v text)",
    )
    .await;
    let (k, n) = (f.relation("k", "id* v"), f.relation("n", "id* seq v"));
    f.apply((1..=20).map(|id| insert(&k, &format!("{id}|v"))).collect()).await;
    f.apply(vec![
        insert(&k, "100|v"),
        update(&k, "100|w"),
        move_key(&k, "100|NULL", "200|~"),
        move_key(&k, "200|NULL", "200|z"),
        insert(&n, "1|50|a"),
        update(&n, "1|50|b"),
        update(&n, "1|51|~"),
    ])
    .await;
    assert_eq!(f.rows("SELECT id, v, extra, g FROM k WHERE id > 50").await, ["200|z|7|z!"]);
    assert_eq!(f.rows("SELECT * FROM n").await, ["1|51|b"]);
    let applied = f.apply(vec![move_key(&k, "999|NULL", "998|x")]).await;
    assert_eq!(applied.missing_rows, 1);
}

#[tokio::test]
async fn foreign_keys_and_ordinary_triggers_do_not_fire_but_always_triggers_do() {
    let mut f = Fixture::new(
        "CREATE TABLE p (id int PRIMARY KEY);
         CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p);
         CREATE TABLE seen (what text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.seen VALUES (TG_NAME || ' ' || TG_OP); RETURN NEW; END $$;
         CREATE TRIGGER ordinary BEFORE INSERT ON c FOR EACH ROW EXECUTE FUNCTION note();
         CREATE TRIGGER always BEFORE INSERT ON c FOR EACH ROW EXECUTE FUNCTION note();
         ALTER TABLE c ENABLE ALWAYS TRIGGER always",
    )
    .await;
    let c = f.relation("c", "id* p");
    f.apply((0..20).map(|id| insert(&c, &format!("{id}|99"))).collect()).await;
    assert_eq!(f.rows("SELECT count(*) FROM c").await, ["20"]);
    assert_eq!(f.rows("SELECT what, count(*) FROM seen GROUP BY 1").await, ["always INSERT|20"]);
}

#[tokio::test]
async fn children_are_tables_of_their_own_and_partitions_are_not() {
    let mut f = Fixture::new(
        "CREATE TABLE parent (id int PRIMARY KEY, v text);
         CREATE TABLE child () INHERITS (parent);
         INSERT INTO child VALUES (1, 'child'); INSERT INTO parent VALUES (1, 'parent');
         CREATE TABLE r (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (10);
         CREATE TABLE r2 PARTITION OF r FOR VALUES FROM (10) TO (20)",
    )
    .await;
    let (parent, root) = (f.relation("parent", "id* v"), f.relation("r", "id* v"));
    f.apply(vec![update(&parent, "1|changed"), insert(&root, "1|a"), move_key(&root, "1|NULL", "11|b")])
        .await;
    assert_eq!(f.rows("SELECT v FROM parent ORDER BY v").await, ["changed", "child"]);
    assert_eq!(f.rows("SELECT tableoid::regclass, id, v FROM r").await, ["r2|11|b"]);
    f.apply(vec![delete(&parent, "1|NULL"), delete(&root, "11|NULL")]).await;
    assert_eq!(f.rows("SELECT v FROM parent").await, ["child"]);
    assert_eq!(f.rows("SELECT count(*) FROM r").await, ["0"]);
}

#[tokio::test]
async fn missing_rows_are_counted_logged_and_written_down_and_do_not_stop_the_flow() {
    let mut f =
        Fixture::new("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'a')").await;
    let t = f.relation("t", "id* a");
    let applied = f
        .apply(vec![
            update(&t, "7|x"),
            delete(&t, "8|NULL"),
            update(&t, "9|~"),
            update(&t, "1|~"),
            update(&t, "1|b"),
        ])
        .await;
    assert_eq!(applied.missing_rows, 3);
    assert_eq!(f.rows("SELECT * FROM t").await, ["1|b"]);
    let recorded = "SELECT kind, schema_name, table_name, commit_lsn, message FROM relevo.error ORDER BY id";
    assert_eq!(
        f.rows(recorded).await,
        [
            "missing_row|public|t|0/200|update: row id=7 is not on the target; the change was skipped",
            "missing_row|public|t|0/200|delete: row id=8 is not on the target; the change was skipped",
            "missing_row|public|t|0/200|update: row id=9 is not on the target; the change was skipped",
        ]
    );
    f.admin.sql("TRUNCATE relevo.error").await;
    let applied = f.apply((100..3000).map(|id| update(&t, &format!("{id}|x"))).collect()).await;
    assert_eq!(applied.missing_rows, 2900);
    let last = f.rows("SELECT count(*) OVER (), message FROM relevo.error ORDER BY id DESC LIMIT 1").await;
    assert_eq!(last, ["21|2880 more rows were not on the target; their changes were skipped"]);
    assert_eq!(f.apply(vec![]).await.missing_rows, 0);
}

#[tokio::test]
async fn a_relation_that_the_source_describes_anew_is_looked_up_anew() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, a text)").await;
    let old = f.relation("t", "id* a");
    f.apply(vec![insert(&old, "1|a")]).await;
    f.admin.sql("ALTER TABLE t ADD COLUMN b text").await;
    let mut new = (*f.relation("t", "b id* a")).clone();
    new.id = old.id;
    let new = std::sync::Arc::new(new);
    // What the old description was looked up for may no longer fit: the batch comes again with a fresh look.
    let changes = || vec![insert(&old, "2|b"), insert(&new, "b3|3|c"), update(&new, "b1|1|~")];
    let error = f.refusal(changes()).await;
    assert_eq!(error.class(), FaultClass::Transient, "{error}");
    f.apply(changes()).await;
    assert_eq!(f.rows("SELECT id, a, b FROM t ORDER BY id").await, ["1|a|b1", "2|b|NULL", "3|c|b3"]);
}
