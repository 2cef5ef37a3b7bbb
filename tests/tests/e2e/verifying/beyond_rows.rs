//! What `relevo verify` compares besides what the stream carries: computed columns, and sequences.

use relevo_tests::Version;
use serde_json::Value;

use super::{counts, repair, streaming, table, verify};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_both_sides_compute_is_compared_and_computed_anew() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED, \
         fixed int GENERATED ALWAYS AS IDENTITY);
         INSERT INTO t (id, n) SELECT n, n FROM generate_series(1, 500) n;
         CREATE TABLE bag (n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
         ALTER TABLE bag REPLICA IDENTITY FULL;
         INSERT INTO bag SELECT n % 5 FROM generate_series(1, 50) n";
    let (pair, mut relevo) = streaming(Version::V15, Version::V16, setup).await;
    pair.source.sql("UPDATE t SET n = n + 1 WHERE id < 10; DELETE FROM t WHERE id = 500").await;
    assert_eq!(verify(&pair).expect_code(0).json()["differences"], 0);
    // Values that the expression does not give, as those of another function's version would be.
    let spoil = "ALTER TABLE t ALTER twice DROP EXPRESSION; UPDATE t SET twice = 0 WHERE id IN (7, 8); \
         UPDATE t SET n = 0 WHERE id = 9; DELETE FROM t WHERE id = 11; ALTER TABLE t DROP COLUMN twice";
    pair.target.connect("shop").await.sql(spoil).await;
    pair.target.sql("ALTER TABLE t ADD COLUMN twice int GENERATED ALWAYS AS (n * 3) STORED").await;
    let said = verify(&pair).expect_code(3).json();
    assert_eq!(counts(&said, "public.t"), [1, 0, 498], "{said}");
    let rows = table(&said, "public.t")["rows"].as_array().unwrap();
    let row = |id: &str| rows.iter().find(|row| row["key"]["id"] == id).expect("a row");
    assert_eq!(row("8")["columns"], serde_json::json!(["twice"]));
    assert_eq!(counts(&said, "public.bag"), [0, 0, 0], "{said}");
    // The two sides compute other things: no repair can mend that, and it says so.
    let done = repair(&pair).expect_code(1);
    assert!(
        done.stderr.contains("498 rows still differ") || done.stderr.contains("499 rows still differ"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("computes by itself"), "{}", done.stderr);
    pair.target
        .sql("ALTER TABLE t DROP COLUMN twice; ALTER TABLE t ADD COLUMN twice int GENERATED ALWAYS AS (n * 2) STORED")
        .await;
    assert_eq!(verify(&pair).expect_code(0).json()["differences"], 0, "the rest was mended");
    pair.target.sql("DELETE FROM bag WHERE n = 3; UPDATE t SET n = 7777 WHERE id = 20").await;
    assert_eq!(repair(&pair).expect_code(0).json()["left"], 0);
    verify(&pair).expect_code(0);
    relevo.terminate();
}

/// The sequences of the document, each with its state.
fn sequences(document: &Value) -> Vec<(&str, &str)> {
    let all = document["sequences"].as_array().expect("sequences");
    all.iter().map(|one| (one["sequence"].as_str().unwrap(), one["state"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_stays_behind_is_a_difference_and_one_that_is_ahead_is_named() {
    let setup = "CREATE TABLE t (id bigserial PRIMARY KEY); INSERT INTO t SELECT FROM generate_series(1, 100); \
         CREATE SEQUENCE ticket; CREATE SEQUENCE down INCREMENT -1; \
         SELECT nextval('ticket'), nextval('down') FROM generate_series(1, 10)";
    let (pair, mut relevo) = streaming(Version::V14, Version::V17, setup).await;
    // They follow with a heartbeat: what is only late is waited for.
    pair.source
        .sql("INSERT INTO t SELECT FROM generate_series(1, 50); SELECT nextval('ticket'), nextval('down')")
        .await;
    let said = verify(&pair).expect_code(0).json();
    assert_eq!((sequences(&said), &said["sequences_behind"]), (vec![], &0.into()), "{said}");

    pair.target.sql("SELECT setval('ticket', 1000)").await;
    let said = verify(&pair).expect_code(0).json();
    assert_eq!(
        (sequences(&said), &said["equal"]),
        (vec![("public.ticket", "ahead")], &true.into()),
        "{said}"
    );

    // Somebody holds it, so that it stays behind.
    let keeper = pair.target.connect("shop").await;
    keeper.sql("BEGIN; ALTER SEQUENCE down MAXVALUE 5").await;
    pair.source.sql("SELECT nextval('down') FROM generate_series(1, 5)").await;
    let late = pair.command("verify").args(&["--json", "--timeout", "3s"]).finish().expect_code(3);
    let said = late.json();
    assert_eq!(sequences(&said), [("public.down", "behind"), ("public.ticket", "ahead")], "{said}");
    assert_eq!((&said["equal"], &said["differences"]), (&false.into(), &0.into()), "{said}");
    assert!(late.stderr.contains("1 sequences of the target are behind"), "{}", late.stderr);
    let text = pair.command("verify").args(&["--timeout", "3s"]).finish().expect_code(3).stdout;
    assert!(text.contains("sequence, behind: -11 on the target, -16 on the source"), "{text}");
    let some = pair.command("verify").args(&["--table", "public.t", "--json"]).finish().expect_code(0).json();
    assert!(sequences(&some).is_empty(), "only those of the chosen tables: {some}");
    keeper.sql("ROLLBACK").await;
    repair(&pair).expect_code(0);
    let down = "SELECT last_value FROM down";
    assert_eq!(pair.target.value::<i64>(down).await, pair.source.value::<i64>(down).await);
    verify(&pair).expect_code(0);
    relevo.terminate();
}
