//! `relevo verify` and `relevo repair`: never a false alarm, every difference is found, and exactly that is mended.

mod beyond_rows;
mod holding;

use std::time::Duration;

use relevo_tests::relevo::{Finished, PATIENCE};
use relevo_tests::workload::GaplessWriter;
use relevo_tests::{FLOW, Pair, Pgbench, Relevo, Version, wait_until};
use serde_json::Value;

async fn streaming(source: Version, target: Version, setup: &str) -> (Pair, Relevo) {
    let pair = Pair::start(source, target).await;
    pair.source.sql(setup).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.caught_up().await;
    (pair, relevo)
}

fn verify(pair: &Pair) -> Finished {
    pair.command("verify").arg("--json").finish_within(PATIENCE)
}

fn repair(pair: &Pair) -> Finished {
    pair.command("repair").arg("--json").finish_within(PATIENCE)
}

fn table<'a>(document: &'a Value, name: &str) -> &'a Value {
    let tables = document["tables"].as_array().unwrap();
    tables.iter().find(|table| table["table"] == name).unwrap_or_else(|| panic!("no {name} in {document}"))
}

fn counts(document: &Value, name: &str) -> [u64; 3] {
    let table = table(document, name);
    ["missing", "extra", "differing"].map(|field| table[field].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_times_under_load_there_is_no_false_alarm() {
    let pair = Pair::start(Version::V14, Version::V18).await;
    Pgbench::init(&pair.source, "shop", 2).await;
    pair.source
        .sql("CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone SELECT generate_series(1, 1000)")
        .await;
    GaplessWriter::create_table(&pair.source.connect("shop").await).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    let load = Pgbench::start(&pair.source, "shop", &["--client=4", "--time=600", "--rate=400"]);
    let writer = GaplessWriter::start(pair.source.config("shop"), Duration::from_millis(2));
    let mut pauses = Vec::new();
    for run in 0..20 {
        if run % 5 == 4 {
            // Rows that a snapshot does not show any more.
            pair.source.sql("TRUNCATE gone; INSERT INTO gone SELECT generate_series(1, 500)").await;
        }
        let said = verify(&pair).expect_code(0).json();
        assert_eq!((&said["equal"], &said["differences"]), (&Value::from(true), &Value::from(0)), "{said}");
        assert_eq!(said["tables"].as_array().unwrap().len(), 6, "{said}");
        pauses.push(said["pause_ms"].as_u64().unwrap());
    }
    pauses.sort_unstable();
    println!("the flow stood still for {pauses:?} ms");
    load.stop().await;
    writer.finish().await;
    let status = relevo.status().await.unwrap();
    assert_eq!(status["errors"], 0, "a flow that is held has no error: {status}");
    pair.settle().await;
    relevo.terminate();
}

const ONE_OF_EACH: &str = "
CREATE TABLE t (id int PRIMARY KEY, note text, amount numeric(12,2), at timestamptz DEFAULT now());
INSERT INTO t SELECT n, 'note ' || n, n FROM generate_series(1, 3000) n;
CREATE TABLE bag (a int, b text);
ALTER TABLE bag REPLICA IDENTITY FULL;
INSERT INTO bag SELECT n % 5, 'x' FROM generate_series(1, 50) n;
CREATE TABLE pair (a text, b uuid, v jsonb, PRIMARY KEY (a, b));
INSERT INTO pair SELECT 'k' || n, md5(n::text)::uuid, '{\"a\": 1}' FROM generate_series(1, 500) n;
CREATE TABLE same (id int PRIMARY KEY); INSERT INTO same SELECT generate_series(1, 100)";

const SPOIL: &str = "
SET session_replication_role = replica;
UPDATE t SET note = 'another' WHERE id = 7;
UPDATE t SET note = '' WHERE id = 8;
DELETE FROM t WHERE id = 9;
INSERT INTO t VALUES (9001, 'extra', 1);
DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = 1 LIMIT 3);
INSERT INTO bag VALUES (2, 'x'), (2, 'x'), (NULL, NULL);
UPDATE pair SET v = '{\"a\": 2}' WHERE a = 'k17';
UPDATE pair SET a = 'K18' WHERE a = 'k18'";

/// Every row with the transaction that wrote it, except those that were spoiled or are mended.
const UNTOUCHED: &str = "
SELECT md5(string_agg(r, ',' ORDER BY r)) FROM (
    SELECT 't' || id || xmin || ctid::text FROM t WHERE id NOT IN (7, 8, 9, 9001)
    UNION ALL SELECT 'p' || a || xmin || ctid::text FROM pair WHERE lower(a) NOT IN ('k17', 'k18')
    UNION ALL SELECT 's' || id || xmin || ctid::text FROM same
    UNION ALL SELECT 'b' || a || xmin || ctid::text FROM bag WHERE a NOT IN (1, 2)) AS x (r)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_each_is_found_and_exactly_that_is_mended() {
    let (pair, mut relevo) = streaming(Version::V15, Version::V16, ONE_OF_EACH).await;
    // NULL is not the empty text.
    pair.source.sql("UPDATE t SET note = NULL WHERE id = 8").await;
    pair.caught_up().await;
    assert_eq!(verify(&pair).expect_code(0).json()["differences"], 0);
    pair.target.connect("shop").await.sql(SPOIL).await;
    let before: String = pair.target.value(UNTOUCHED).await;

    let said = verify(&pair).expect_code(3).json();
    assert_eq!(counts(&said, "public.t"), [1, 1, 2], "{said}");
    assert_eq!(counts(&said, "public.bag"), [3, 3, 0], "{said}");
    assert_eq!(counts(&said, "public.pair"), [1, 1, 1], "{said}");
    assert_eq!(counts(&said, "public.same"), [0, 0, 0]);
    let rows = table(&said, "public.t")["rows"].as_array().unwrap();
    let row =
        |id: &str| rows.iter().find(|row| row["key"]["id"] == id).unwrap_or_else(|| panic!("{id}: {said}"));
    for (id, kind) in [("7", "differing"), ("8", "differing"), ("9", "missing"), ("9001", "extra")] {
        assert_eq!(row(id)["kind"], kind);
    }
    assert_eq!(row("7")["columns"], serde_json::json!(["note"]));
    let shown = pair.command("verify").args(&["--table", "public.t"]).finish().expect_code(3);
    for part in ["id = \"9\"", "1 missing, 1 extra, 2 differing"] {
        assert!(shown.stdout.contains(part), "{}", shown.stdout);
    }
    assert!(!shown.stdout.contains("pair"), "{}", shown.stdout);

    let differences = async |expected: f64| {
        let shown = async || relevo.metrics().await.sum("relevo_verify_differences", &[]) == Some(expected);
        wait_until("the differences in the metrics", PATIENCE, shown).await;
    };
    differences(13.0).await;
    assert!(relevo.metrics().await.value("relevo_last_verified_timestamp_seconds") > 1e9);

    let planned = pair.command("repair").args(&["--dry-run", "--json"]).finish().expect_code(3).json();
    assert_eq!(planned["differences"], 13, "{planned}");
    assert_eq!(verify(&pair).expect_code(3).json()["differences"], 13, "a dry run mends nothing");

    let done = repair(&pair).expect_code(0).json();
    assert_eq!(done["left"], 0, "{done}");
    let of = |name: &str| {
        ["inserted", "updated", "deleted"].map(|field| table(&done, name)[field].as_u64().unwrap())
    };
    assert_eq!(of("public.t"), [1, 2, 1], "{done}");
    differences(0.0).await;
    assert_eq!(of("public.bag"), [3, 0, 3], "{done}");
    assert_eq!(of("public.pair"), [1, 1, 1], "{done}");
    assert_eq!(verify(&pair).expect_code(0).json()["differences"], 0);
    pair.settle().await;
    let after: String = pair.target.value(UNTOUCHED).await;
    assert_eq!(before, after, "rows were rewritten that did not differ");
    assert_eq!(repair(&pair).expect_code(0).json()["rows"], 0);
    // The stream goes on over what was mended.
    pair.source.sql("UPDATE t SET note = 'on'; DELETE FROM bag WHERE a = 1; DELETE FROM pair").await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_looks_different_is_no_difference() {
    let pair = Pair::start(Version::V15, Version::V17).await;
    pair.source
        .sql(
            "CREATE TABLE t (name text PRIMARY KEY, f float8, r real, n int, c char(8), b bool, tags text[], gone int);
             ALTER TABLE t DROP COLUMN gone",
        )
        .await;
    pair.target
        .sql(
            "CREATE TABLE t (more int DEFAULT 7, tags text[], n bigint, c varchar, b text, name text COLLATE \"C\" \
             PRIMARY KEY, r real, f float8, twice bigint GENERATED ALWAYS AS (n * 2) STORED)",
        )
        .await;
    pair.source
        .sql(
            "INSERT INTO t SELECT (ARRAY['a','B','ä','Z','_','z z'])[1 + n % 6] || n, n / 3.0::float8, 1.1, n, 'ab', \
             n % 2 = 0, ARRAY['x', NULL, ''] FROM generate_series(1, 2000) n; \
             INSERT INTO t VALUES ('nan', 'NaN', '-Infinity', NULL, NULL, NULL, NULL), ('zero', -0.0, 1e-30, 0, '', true, '{}')",
        )
        .await;
    let mut relevo = pair.relevo().args(&["--schema", "existing"]).start();
    relevo.wait_until_streaming().await;
    pair.source.sql("UPDATE t SET f = f * 1.1, c = 'c ' WHERE n % 7 = 0").await;
    let said = verify(&pair).expect_code(0).json();
    assert_eq!(table(&said, "public.t")["source_rows"], 2002, "{said}");
    pair.target
        .sql("UPDATE t SET b = 'true' WHERE name = 'zero'; UPDATE t SET f = 0 WHERE name = 'nan'")
        .await;
    let said = verify(&pair).expect_code(3).json();
    assert_eq!(counts(&said, "public.t"), [0, 0, 2], "{said}");
    repair(&pair).expect_code(0);
    verify(&pair).expect_code(0);
    let more: i64 = pair.target.value("SELECT count(*) FROM t WHERE more = 7").await;
    assert_eq!(more, 2002, "what only the target has stays");
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_refer_to_each_other_are_mended_either_way() {
    let (pair, mut relevo) = streaming(
        Version::V15,
        Version::V15,
        "CREATE TABLE z_parent (id int PRIMARY KEY, favourite int);
         CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES z_parent);
         ALTER TABLE z_parent ADD FOREIGN KEY (favourite) REFERENCES child DEFERRABLE;
         CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree);
         INSERT INTO z_parent SELECT n, NULL FROM generate_series(1, 20) n;
         INSERT INTO child SELECT n, n FROM generate_series(1, 20) n;
         UPDATE z_parent SET favourite = id;
         INSERT INTO tree SELECT n, nullif(n - 1, 0) FROM generate_series(1, 20) n",
    )
    .await;
    let spoil = "SET session_replication_role = replica; DELETE FROM z_parent WHERE id > 10; \
         DELETE FROM child WHERE id > 10; DELETE FROM tree WHERE id IN (5, 6); \
         INSERT INTO z_parent SELECT n, n FROM generate_series(100, 110) n; \
         INSERT INTO child SELECT n, n FROM generate_series(100, 110) n; INSERT INTO tree VALUES (50, 51), (51, 50)";
    pair.target.connect("shop").await.sql(spoil).await;
    assert_eq!(verify(&pair).expect_code(3).json()["differences"], 46);
    let done = repair(&pair).expect_code(0).json();
    assert_eq!((&done["rows"], &done["transactions"]), (&Value::from(46), &Value::from(1)), "{done}");
    verify(&pair).expect_code(0);
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_verify_leaves_a_hold_that_ends_by_itself() {
    let (pair, mut relevo) =
        streaming(Version::V15, Version::V15, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let blocker = pair.source.connect("shop").await;
    blocker.sql("BEGIN; INSERT INTO t VALUES (0)").await;
    // A snapshot of the source waits for it.
    let said = pair.command("verify").args(&["--timeout", "1s"]).finish().expect_code(1).stderr;
    assert!(said.contains("process ") && said.contains("waits for transactions"), "{said}");
    let held = async || {
        pair.target.value::<bool>("SELECT hold_until > clock_timestamp() FROM relevo.progress").await
    };
    let unheld: i64 = pair.target.value("SELECT count(*) FROM relevo.progress WHERE hold_lsn IS NULL").await;
    assert_eq!(unheld, 1, "a verify that gives up lets the flow go");

    let mut verify = pair.command("verify").start();
    let is_held = "SELECT coalesce((SELECT hold_until > clock_timestamp() FROM relevo.progress), false)";
    wait_until("a hold", PATIENCE, async || pair.target.value::<bool>(is_held).await).await;
    relevo.wait_for_state("paused").await;
    verify.kill();
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    assert!(held().await, "it is held");
    let rows: i64 = pair.target.value("SELECT count(*) FROM t").await;
    assert_eq!(rows, 0, "nothing behind the hold");
    blocker.sql("COMMIT").await;
    pair.caught_up().await;
    relevo.wait_for_state("streaming").await;
    self::verify(&pair).expect_code(0);
    relevo.terminate();
    let said = pair.command("verify").finish().expect_code(1).stderr;
    assert!(said.contains(&format!("nobody applies flow {FLOW}")), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_under_way_is_waited_for_or_left_behind() {
    let pair = Pair::builder(Version::V16, Version::V15)
        .source(|source| source.set("logical_decoding_work_mem", "64kB"))
        .start()
        .await;
    pair.source
        .sql("CREATE TABLE t (id int PRIMARY KEY, filler text); CREATE TABLE small (id serial PRIMARY KEY)")
        .await;
    let mut relevo = pair.relevo().args(&["--batch-bytes", "256KiB"]).start();
    relevo.wait_until_streaming().await;
    let large = pair.source.connect("shop").await;
    for round in 0..4 {
        let writing = large.sql(
            "INSERT INTO t SELECT (SELECT coalesce(max(id), 0) FROM t) + n, repeat('x', 100) FROM generate_series(1, 60000) n",
        );
        let comparing = async {
            let pair = &pair;
            pair.source.sql("INSERT INTO small DEFAULT VALUES").await;
            let said = tokio::task::block_in_place(|| verify(pair)).expect_code(0).json();
            assert_eq!(said["differences"], 0, "round {round}: {said}");
        };
        tokio::join!(writing, comparing);
        // It is being applied, in parts.
        assert_eq!(verify(&pair).expect_code(0).json()["differences"], 0);
    }
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_and_tables_without_identity_are_compared_and_mended_too() {
    let pair = Pair::start(Version::V17, Version::V14).await;
    pair.source
        .sql(
            "CREATE TABLE part (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
             CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a');
             CREATE TABLE part_b PARTITION OF part FOR VALUES IN ('b');
             INSERT INTO part SELECT n, CASE WHEN n % 2 = 0 THEN 'a' ELSE 'b' END, 'v' FROM generate_series(1, 500) n;
             CREATE TABLE events (at int, what text); INSERT INTO events SELECT n, 'e' FROM generate_series(1, 100) n",
        )
        .await;
    pair.target
        .sql(
            "CREATE TABLE part (id int, region text, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
             CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (250);
             CREATE TABLE part_2 PARTITION OF part DEFAULT;
             CREATE TABLE events (at int, what text)",
        )
        .await;
    let mut relevo = pair.relevo().args(&["--schema", "existing", "--via-partition-root=true"]).start();
    relevo.wait_until_streaming().await;
    let said = verify(&pair).expect_code(0).json();
    assert_eq!(table(&said, "public.part")["source_rows"], 500, "{said}");
    assert_eq!(table(&said, "public.events")["insert_only"], true, "{said}");
    let spoil = "UPDATE part SET v = 'w' WHERE id IN (10, 300); DELETE FROM part WHERE id IN (11, 301); \
         INSERT INTO part VALUES (0, 'a', 'v'), (1000, 'b', 'v')";
    pair.target.sql(spoil).await;
    // The stream does not carry these.
    pair.source.sql("UPDATE events SET what = 'f' WHERE at < 4; DELETE FROM events WHERE at = 50").await;
    let said = pair
        .command("verify")
        .args(&["--json", "--rate", "10MiB", "--jobs", "1"])
        .finish()
        .expect_code(3)
        .json();
    assert_eq!(counts(&said, "public.part"), [2, 2, 2], "{said}");
    assert_eq!(counts(&said, "public.events"), [3, 4, 0], "{said}");
    let done = repair(&pair).expect_code(0).json();
    assert_eq!(done["rows"], 13, "{done}");
    verify(&pair).expect_code(0);
    pair.command("verify").args(&["--table", "nowhere.*"]).finish().expect_code(2);
    relevo.terminate();
}
