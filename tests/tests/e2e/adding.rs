//! Tables that are added to a flow: made on the target when it lacks them, and what may go wrong on the way.

use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Relevo, Version, wait_until, wait_until_some};

use crate::tables::{NEW, OLD, ROWS, joined, moved, write};

const UNKNOWN: &str = r#"
CREATE SCHEMA "My shop";
CREATE TYPE "My shop".mood AS ENUM ('sad; or', 'ok');
CREATE DOMAIN "My shop".positive AS integer CHECK (VALUE > 0);
CREATE TYPE "My shop".pair AS (mood "My shop".mood, count "My shop".positive);
CREATE TYPE "My shop".span AS RANGE (subtype = "My shop".positive);
CREATE SEQUENCE "My shop".numbers START 100;
CREATE TABLE "My shop"."items; --" (id serial PRIMARY KEY, number int DEFAULT nextval('"My shop".numbers') UNIQUE,
    moods "My shop".mood[], both_of "My shop".pair, span "My shop".span, old int REFERENCES old, note text,
    twice int GENERATED ALWAYS AS (1 + 1) STORED);
CREATE INDEX ON "My shop"."items; --" (note, old);
COMMENT ON TABLE "My shop"."items; --" IS 'what is sold';
CREATE TABLE "My shop".parts (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE "My shop".parts_1 PARTITION OF "My shop".parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE "My shop".parts_2 PARTITION OF "My shop".parts DEFAULT;
CREATE TABLE "My shop".left_out (id int PRIMARY KEY);
CREATE TABLE "My shop".pointing (id int PRIMARY KEY, item int REFERENCES "My shop"."items; --",
    nowhere int REFERENCES "My shop".left_out);
INSERT INTO "My shop"."items; --" (moods, both_of, span, old, note)
    SELECT ARRAY['ok'::"My shop".mood], ('("sad; or",' || n || ')')::"My shop".pair, '[1,5)', 1, n FROM generate_series(1, 5000) n;
INSERT INTO "My shop".parts SELECT n, date '2026-01-01' + n % 90 FROM generate_series(1, 500) n;
INSERT INTO "My shop".pointing SELECT n, n FROM generate_series(1, 100) n;
"#;

const SHAPE: &str = r#"
SELECT concat_ws(' | ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
                 obj_description(c.oid))
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
 WHERE c.relnamespace = '"My shop"'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'left_out'
UNION ALL
SELECT concat_ws(' | ', indexname, indexdef) FROM pg_indexes WHERE schemaname = 'My shop' AND tablename <> 'left_out'
UNION ALL
SELECT concat_ws(' | ', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated)
  FROM pg_constraint WHERE connamespace = '"My shop"'::regnamespace AND contype IN ('p', 'u', 'f') AND conname !~ '(nowhere|left_out)'
 ORDER BY 1"#;

async fn tables_that_the_target_lacks_are_made(source: Version, target: Version) {
    let pair = Pair::start(source, target).await;
    pair.source.sql(OLD).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.source.sql(UNKNOWN).await;
    let patterns = ["My shop.items*", "My shop.parts", "My shop.pointing"];
    let added = pair.command("tables").arg("add").args(patterns).arg("--json").finish().expect_code(0).json();
    let made =
        ["My shop.items; --", "My shop.parts", "My shop.parts_1", "My shop.parts_2", "My shop.pointing"];
    assert_eq!(added["created"], serde_json::json!(made), "{added}");
    assert!(added["warnings"][0].as_str().unwrap().contains("has no table My shop.left_out"), "{added}");
    joined(&pair, &["public.old", made[0], made[2], made[3], made[4]]).await;
    assert_eq!(pair.target.column(SHAPE).await, pair.source.column(SHAPE).await);
    pair.source.sql(r#"INSERT INTO "My shop"."items; --" (note) VALUES ('later'); DELETE FROM "My shop".parts WHERE id < 9"#).await;
    pair.caught_up().await;
    for table in [r#""items; --""#, "parts", "pointing"] {
        let count = format!(r#"SELECT count(*)::text || sum(hashtext(t::text)) FROM "My shop".{table} AS t"#);
        let (here, there): (String, String) =
            (pair.source.value(&count).await, pair.target.value(&count).await);
        assert_eq!(here, there, "{table}");
    }
    let log = relevo.stderr();
    assert!(!log.contains("\"level\":\"ERROR\""), "nothing went wrong on the way: {log}");
    relevo.terminate();
}

#[tokio::test]
async fn tables_of_15_that_the_target_lacks_are_made() {
    tables_that_the_target_lacks_are_made(Version::V15, Version::V17).await;
}

#[tokio::test]
async fn tables_of_18_that_the_target_lacks_are_made() {
    tables_that_the_target_lacks_are_made(Version::V18, Version::V14).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_partitions_is_added_as_one_table_and_may_be_split_differently() {
    let pair = Pair::start(Version::V15, Version::V16).await;
    pair.source.sql(OLD).await;
    let via_root = ["--via-partition-root"];
    let mut relevo = pair.relevo().args(via_root).start();
    relevo.wait_until_streaming().await;
    let tree = "CREATE TABLE new (id int PRIMARY KEY, note text) PARTITION BY";
    pair.source
        .sql(&format!(
            "{tree} RANGE (id); CREATE TABLE new_low PARTITION OF new FOR VALUES FROM (0) TO (9000);
             CREATE TABLE new_high PARTITION OF new DEFAULT"
        ))
        .await;
    pair.target
        .sql(&format!(
            "{tree} HASH (id); CREATE TABLE new_0 PARTITION OF new FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE new_1 PARTITION OF new FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
        ))
        .await;
    pair.source.sql(ROWS).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let added = async {
        moved(&pair).await;
        pair.command("tables").args(["add", "public.new"]).finish().expect_code(0);
        joined(&pair, &["public.old", "public.new"]).await;
        moved(&pair).await;
        stop.send(true).unwrap();
    };
    tokio::join!(added, write(&pair.source, "new", &stopped));
    pair.caught_up().await;
    let rows = "SELECT count(*) || ' ' || sum(hashtext(id || note)) FROM new";
    assert_eq!(pair.target.value::<String>(rows).await, pair.source.value::<String>(rows).await);
    relevo.terminate();
}

/// A flow with a Relevo that waits to take it over, and a table that could be added, which takes a while to copy.
async fn with_a_second(source: Version, target: Version) -> (Pair, Relevo, Relevo) {
    let pair = Pair::builder(source, target).proxied().start().await;
    pair.source.sql(OLD).await;
    let mut first = pair.relevo().start();
    first.wait_until_streaming().await;
    let second = pair.relevo().start();
    second.wait_for_log("another session applies this flow; waiting until it ends").await;
    pair.sql_on_both(NEW).await;
    pair.source.sql(ROWS).await;
    pair.source.sql("UPDATE new SET note = repeat(note, 30)").await;
    (pair, first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_relevo_takes_over_while_a_table_is_added() {
    let (pair, mut first, mut second) = with_a_second(Version::V16, Version::V15).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let taken_over = async {
        pair.target_proxy().throttle(Some(2 << 20));
        pair.command("tables").args(["add", "public.new"]).finish().expect_code(0);
        wait_until("the table is on its way", PATIENCE, async || {
            pair.target.value::<bool>("SELECT bool_or(state = 'copying') FROM relevo.table_state").await
        })
        .await;
        first.kill();
        second.wait_until_streaming().await;
        pair.target_proxy().throttle(None);
        joined(&pair, &["public.old", "public.new"]).await;
        moved(&pair).await;
        stop.send(true).unwrap();
    };
    tokio::join!(taken_over, write(&pair.source, "new", &stopped));
    pair.settle().await;
    second.terminate();
}

/// The one that took over believed until its copier looked that every table follows the stream, as when it began. It
/// applied what came for rows that were not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_knows_the_tables_that_were_added_before_its_stream_begins() {
    let (pair, mut first, mut second) = with_a_second(Version::V17, Version::V15).await;
    // The lock of the copy has the inverse key of the only one that is held now.
    let applying = "SELECT ~((classid::bigint << 32) | objid::bigint) FROM pg_locks \
         WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted";
    let key = pair.target.value::<i64>(applying).await;
    pair.target_proxy().throttle(Some(2 << 20));
    pair.command("tables").args(["add", "public.new"]).finish().expect_code(0);
    wait_until("the table is on its way", PATIENCE, async || {
        pair.target.value::<bool>("SELECT bool_or(state = 'copying') FROM relevo.table_state").await
    })
    .await;
    // Whoever waits for it has it before the second one's copier.
    let in_the_way = pair.target.connect(DATABASE).await;
    let waits =
        "SELECT true FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND mode = 'ExclusiveLock'";
    let killed = async {
        wait_until("the lock is waited for", PATIENCE, async || !pair.target.rows(waits).await.is_empty())
            .await;
        first.kill();
        pair.target_proxy().throttle(None);
    };
    let lock = format!("SELECT pg_advisory_lock({key})");
    tokio::join!(in_the_way.sql(&lock), killed);
    second.wait_until_streaming().await;
    pair.source.sql("UPDATE new SET note = note || '.' WHERE id <= 10; DELETE FROM new WHERE id = 11").await;
    pair.caught_up().await;
    assert_eq!(second.metrics().await.sum("relevo_target_missing_rows_total", &[]).unwrap_or(0.0), 0.0);
    in_the_way.sql(&format!("SELECT pg_advisory_unlock({key})")).await;
    joined(&pair, &["public.old", "public.new"]).await;
    pair.settle().await;
    second.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_cannot_be_copied_does_not_stop_the_others() {
    let pair = Pair::start(Version::V17, Version::V16).await;
    pair.source.sql(OLD).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.sql_on_both(NEW).await;
    pair.source.sql(ROWS).await;
    pair.target.sql("ALTER TABLE new ADD CONSTRAINT short CHECK (id < 15000)").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let failing = async {
        pair.command("tables").args(["add", "public.new"]).finish().expect_code(0);
        let failures =
            async || relevo.metrics().await.sum("relevo_errors_total", &[("kind", "check_violation")]);
        wait_until("it has failed again and again", PATIENCE, async || failures().await >= Some(3.0)).await;
        moved(&pair).await;
        let status = relevo.status().await.unwrap();
        assert_eq!(status["state"], "streaming", "{status}");
        assert!(relevo.get("/readyz").await.is_some_and(|answer| answer.code == 200), "{status}");
        assert!(status["last_error"]["text"].as_str().unwrap().contains("short"), "{status}");
        assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM new").await, 0);
        // Somebody mends it.
        pair.target.sql("ALTER TABLE new DROP CONSTRAINT short").await;
        joined(&pair, &["public.old", "public.new"]).await;
        stop.send(true).unwrap();
    };
    tokio::join!(failing, write(&pair.source, "new", &stopped));
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn a_table_that_comes_later_is_said_everywhere() {
    let pair = Pair::start(Version::V15, Version::V18).await;
    pair.source.sql(OLD).await;
    let patterns = ["--exclude", "public.left_*"];
    let mut relevo = pair.relevo().args(patterns).start();
    relevo.wait_until_streaming().await;
    assert_eq!(relevo.metrics().await.value("relevo_tables_not_added"), 0.0);
    pair.source.sql("CREATE TABLE left_alone (id int PRIMARY KEY)").await;
    pair.source.sql(NEW).await;
    relevo.wait_for_log("the table came after the copy and is not replicated").await;
    let said = |status: &serde_json::Value| status["tables"]["not_added"] == 1;
    relevo.wait_for_status("a table that is not added", PATIENCE, said).await;
    assert_eq!(relevo.metrics().await.value("relevo_tables_not_added"), 1.0);
    let outside = pair.command("status").arg("--json").args(patterns).finish().expect_code(0).json();
    assert_eq!(outside["tables"], serde_json::json!({ "copied": 1, "total": 1, "not_added": 1 }));
    let text = pair.command("status").args(patterns).finish().expect_code(0).stdout;
    assert!(text.contains("1 more on the source are not part of the flow"), "{text}");
    let log = relevo.stderr();
    assert!(log.contains("public.new") && !log.contains("left_alone"), "{log}");
    pair.command("tables").args(["add", "public.new"]).args(patterns).finish().expect_code(0);
    joined(&pair, &["public.old", "public.new"]).await;
    wait_until_some("nothing is left out", PATIENCE, async || {
        let count = relevo.metrics().await.value("relevo_tables_not_added");
        if count == 0.0 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    relevo.terminate();
}
