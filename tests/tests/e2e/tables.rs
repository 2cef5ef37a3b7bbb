//! `relevo tables`: the set of tables changes while the flow runs, and while it does not.

use relevo_tests::pair::{DATABASE, Node};
use relevo_tests::relevo::{Finished, PATIENCE};
use relevo_tests::{Pair, Version, wait_until_some};
use serde_json::Value;

fn tables(pair: &Pair, arguments: &[&str]) -> Finished {
    pair.command("tables").args(arguments).finish()
}

fn list(pair: &Pair) -> Value {
    tables(pair, &["--json"]).expect_code(0).json()
}

/// The state of a table in the list; `None` when it is not part of the flow.
fn state(list: &Value, table: &str) -> Option<String> {
    let tables = list["tables"].as_array().unwrap();
    let found = tables.iter().find(|entry| entry["table"] == table)?;
    Some(found["state"].as_str().unwrap().to_owned())
}

fn why_not(list: &Value, table: &str) -> Option<String> {
    let others = list["not_part"].as_array().unwrap();
    let found = others.iter().find(|entry| entry["table"] == table)?;
    Some(found["reason"].as_str().unwrap().to_owned())
}

/// Waits until all these tables follow the stream, and nothing is left to do.
pub async fn joined(pair: &Pair, tables: &[&str]) {
    wait_until_some(&format!("{tables:?} follow the stream"), PATIENCE, async || {
        let names = tables.join("', '");
        let query = format!(
            "SELECT count(*) FILTER (WHERE state = 'streaming' AND schema_name || '.' || table_name IN ('{names}')), \
             (SELECT copied_at IS NOT NULL FROM relevo.flow)::text, string_agg(state, ' ') FROM relevo.table_state"
        );
        let row = pair.target.rows(&query).await.remove(0);
        let done = row[0].as_deref() == Some(&*tables.len().to_string()) && row[1].as_deref() == Some("true");
        if done { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
}

/// Writes to a table over and over until told to stop, and to another one that was there all the time.
pub async fn write(source: &Node, table: &str, stop: &tokio::sync::watch::Receiver<bool>) {
    let session = source.connect(DATABASE).await;
    let mut round = 0;
    while !*stop.borrow() {
        round += 1;
        session
            .sql(&format!(
                "BEGIN; INSERT INTO {table} VALUES ({round} + 1000000, 'new');
                 UPDATE {table} SET note = note || '.' WHERE id % 100 = {round} % 100;
                 DELETE FROM {table} WHERE id = {round};
                 UPDATE old SET note = '{round}' WHERE id = 1; COMMIT"
            ))
            .await;
    }
}

pub const OLD: &str = "CREATE TABLE old (id int PRIMARY KEY, note text); INSERT INTO old VALUES (1, 'one');";
pub const NEW: &str = "CREATE TABLE new (id int PRIMARY KEY, note text);";
pub const ROWS: &str = "INSERT INTO new SELECT n, 'row ' || n FROM generate_series(1, 20000) n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_added_under_writes_and_the_others_never_stop() {
    let pair = Pair::start(Version::V15, Version::V16).await;
    pair.source.sql(OLD).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.sql_on_both(NEW).await;
    pair.source.sql(ROWS).await;
    assert_eq!(why_not(&list(&pair), "public.new").as_deref(), Some("not_added"));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let added = async {
        // Written to before, during and after.
        moved(&pair).await;
        let said = tables(&pair, &["add", "public.new"]).expect_code(0).stdout;
        assert!(
            said.contains("public.new is part of flow e2e now") && said.contains("beside the stream"),
            "{said}"
        );
        joined(&pair, &["public.old", "public.new"]).await;
        moved(&pair).await;
        stop.send(true).unwrap();
    };
    tokio::join!(added, write(&pair.source, "new", &stopped));
    pair.settle().await;
    let listed = list(&pair);
    let new =
        listed["tables"].as_array().unwrap().iter().find(|entry| entry["table"] == "public.new").unwrap();
    assert!(new["copied_lsn"].is_string() && new["copied_rows"].as_i64() > Some(10_000), "{listed}");
    assert_eq!((new["state"].as_str(), new["insert_only"].as_bool()), (Some("streaming"), Some(false)));
    let log = relevo.stderr();
    assert!(!log.contains("\"level\":\"ERROR\""), "nothing went wrong on the way: {log}");
    let again = tables(&pair, &["add", "public.new"]).expect_code(0).stdout;
    assert!(again.contains("already"), "{again}");
    let status = relevo.status().await.unwrap();
    assert_eq!((status["state"].as_str(), status["tables"]["total"].as_u64()), (Some("streaming"), Some(2)));
    relevo.terminate();
}

/// Waits until the table that was there all the time has changed on the target.
pub async fn moved(pair: &Pair) {
    let before: String = pair.target.value("SELECT note FROM old WHERE id = 1").await;
    wait_until_some("old changes on the target", PATIENCE, async || {
        let now: String = pair.target.value("SELECT note FROM old WHERE id = 1").await;
        if now == before { Err(now) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_schema_is_added_while_relevo_is_stopped() {
    let pair = Pair::start(Version::V14, Version::V18).await;
    pair.source.sql(OLD).await;
    let patterns = ["--exclude", "more.secret"];
    let mut relevo = pair.relevo().args(patterns).start();
    relevo.wait_until_streaming().await;
    relevo.terminate();
    pair.sql_on_both(
        "CREATE SCHEMA more; CREATE TABLE more.a (id int PRIMARY KEY); CREATE TABLE more.log (line text);
         CREATE TABLE more.secret (id int PRIMARY KEY);
         CREATE TABLE more.parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE more.parts_1 PARTITION OF more.parts FOR VALUES FROM (0) TO (100)",
    )
    .await;
    pair.source.sql("INSERT INTO more.a VALUES (1); INSERT INTO more.parts VALUES (1); INSERT INTO more.log VALUES ('x')").await;
    let refused = pair.command("tables").args(["add", "more.parts_1"]).args(patterns).finish().expect_code(3);
    assert!(refused.stderr.contains("give more.parts instead"), "{}", refused.stderr);
    let refused = pair.command("tables").args(["add", "more.secret"]).args(patterns).finish().expect_code(3);
    assert!(refused.stderr.contains("leaves out (more.secret)"), "{}", refused.stderr);
    let added = pair.command("tables").args(["add", "more.*", "--json"]).args(patterns).finish();
    let added = added.expect_code(0).json();
    assert_eq!(added["added"], serde_json::json!(["more.a", "more.log", "more.parts_1"]), "{added}");
    assert_eq!(
        (&added["excluded"], &added["running"]),
        (&serde_json::json!(["more.secret"]), &Value::from(false))
    );
    pair.source.sql("INSERT INTO more.a VALUES (2); UPDATE old SET note = 'two'").await;
    relevo.restart();
    joined(&pair, &["public.old", "more.a", "more.log", "more.parts_1"]).await;
    pair.source.sql("INSERT INTO more.a VALUES (3); INSERT INTO more.parts VALUES (3); DELETE FROM more.parts WHERE id = 1").await;
    pair.settle().await;
    let listed = pair.command("tables").arg("--json").args(patterns).finish().expect_code(0).json();
    assert_eq!(why_not(&listed, "more.secret").as_deref(), Some("excluded"));
    assert_eq!(state(&listed, "more.parts_1").as_deref(), Some("streaming"));
    let text = pair.command("tables").arg("list").args(patterns).finish().expect_code(0).stdout;
    assert!(text.contains("insert-only") && text.contains("excluded by the configuration"), "{text}");
    relevo.terminate();
}

#[tokio::test]
async fn a_table_that_the_target_cannot_take_is_refused_and_nothing_changes() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql(OLD).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.source
        .sql(
            "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE TABLE missing (id int PRIMARY KEY DEFAULT one()); CREATE TABLE hollow (id int) PARTITION BY LIST (id)",
        )
        .await;
    pair.sql_on_both("CREATE TABLE filled (id int PRIMARY KEY); INSERT INTO filled VALUES (1)").await;
    pair.target.sql("CREATE TABLE hollow (id int) PARTITION BY LIST (id)").await;
    for (table, says) in [
        ("public.missing", "pg_dump --schema-only --table"),
        ("public.missing", "function public.one() does not exist"),
        ("public.filled", "holds rows that Relevo did not bring"),
        ("public.hollow", "has no partition yet"),
    ] {
        let refused = tables(&pair, &["add", table]).expect_code(3).stderr;
        assert!(refused.contains(table) && refused.contains(says), "{refused}");
    }
    let refused =
        tables(&pair, &["add", "public.missing", "--pg-dump", "/nowhere/pg_dump"]).expect_code(3).stderr;
    assert!(
        refused.contains("pg_dump --schema-only --table") && refused.contains("/nowhere/pg_dump"),
        "{refused}"
    );
    assert!(!pair.target.value::<bool>("SELECT to_regclass('public.missing') IS NOT NULL").await);
    assert!(
        tables(&pair, &["add", "public.typo"])
            .expect_code(1)
            .stderr
            .contains("matches the pattern public.typo")
    );
    assert!(tables(&pair, &["add"]).expect_code(2).stderr.contains("no table is named"));
    assert!(tables(&pair, &["add", "typo"]).expect_code(2).stderr.contains("names no schema"));
    assert_eq!(list(&pair)["tables"].as_array().unwrap().len(), 1);
    assert_eq!(pair.target.value::<i32>("SELECT id FROM filled").await, 1);
    assert!(pair.target.value::<bool>("SELECT copied_at IS NOT NULL FROM relevo.flow").await);
    relevo.terminate();
}

#[tokio::test]
async fn a_table_that_is_removed_keeps_its_rows_and_the_others_go_on() {
    let pair = Pair::start(Version::V16, Version::V15).await;
    pair.source.sql(OLD).await;
    pair.source.sql(NEW).await;
    pair.source.sql("INSERT INTO new VALUES (1, 'stays')").await;
    pair.source
        .sql(
            "CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)",
        )
        .await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    let refused = tables(&pair, &["remove", "public.parts_1"]).expect_code(3).stderr;
    assert!(refused.contains("give public.parts instead"), "{refused}");
    pair.source.sql("INSERT INTO new VALUES (2, 'on its way'); UPDATE old SET note = 'first'").await;
    let said = tables(&pair, &["remove", "public.new", "public.parts"]).expect_code(0).stdout;
    assert!(
        said.contains("public.new is no longer part") && said.contains("rows on the target stay"),
        "{said}"
    );
    pair.source.sql("INSERT INTO new VALUES (3, 'too late'); UPDATE old SET note = 'second'").await;
    pair.caught_up().await;
    assert_eq!(pair.target.column("SELECT id FROM new ORDER BY id").await, ["1", "2"]);
    assert_eq!(pair.target.value::<String>("SELECT note FROM old").await, "second");
    let published = "SELECT count(*) FROM pg_publication_tables WHERE pubname LIKE 'relevo%'";
    assert_eq!(pair.source.value::<i64>(published).await, 1);
    let listed = list(&pair);
    assert_eq!(
        (state(&listed, "public.new"), why_not(&listed, "public.new").as_deref()),
        (None, Some("not_added"))
    );
    relevo.wait_for_status("one table is left", PATIENCE, |status| status["tables"]["total"] == 1).await;
    // Neither the removal nor the next start is an error of a table that is not published.
    relevo.terminate();
    relevo.restart();
    relevo.wait_for_log("came after the copy").await;
    assert_eq!(pair.command("errors").arg("--json").finish().expect_code(0).json(), serde_json::json!([]));
    assert!(
        tables(&pair, &["remove", "public.new"])
            .expect_code(1)
            .stderr
            .contains("no table of flow e2e matches")
    );
    // It comes back when its rows are given up.
    assert!(tables(&pair, &["add", "public.new"]).expect_code(3).stderr.contains("holds rows"));
    pair.target.sql("TRUNCATE new").await;
    tables(&pair, &["add", "public.new", "public.parts"]).expect_code(0);
    joined(&pair, &["public.old", "public.new", "public.parts_1"]).await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relevo_is_killed_while_a_table_is_added() {
    let pair = Pair::builder(Version::V15, Version::V17).proxied().start().await;
    pair.source.sql(OLD).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.sql_on_both(NEW).await;
    pair.source.sql(ROWS).await;
    pair.source.sql("UPDATE new SET note = repeat(note, 30)").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let killed = async {
        pair.target_proxy().throttle(Some(2 << 20));
        tables(&pair, &["add", "public.new"]).expect_code(0);
        // In the middle, twice. The first attempt was that of the other table.
        for attempt in [2, 3] {
            wait_until_some("the table is on its way", PATIENCE, async || {
                let query = "SELECT copy_attempt::text, t.state FROM relevo.flow, relevo.table_state t WHERE table_name = 'new'";
                let row = pair.target.rows(query).await.remove(0);
                let copying = row[1].as_deref() == Some("copying");
                if row[0] == Some(attempt.to_string()) && copying { Ok(()) } else { Err(format!("{row:?}")) }
            })
            .await;
            let refused = tables(&pair, &["remove", "public.new"]).expect_code(3).stderr;
            assert!(refused.contains("is copying public.new"), "{refused}");
            relevo.restart();
        }
        pair.target_proxy().throttle(None);
        joined(&pair, &["public.old", "public.new"]).await;
        stop.send(true).unwrap();
    };
    tokio::join!(killed, write(&pair.source, "new", &stopped));
    pair.settle().await;
    relevo.terminate();
}
