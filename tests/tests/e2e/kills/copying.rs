//! Kills in the initial copy: while the schema, the rows or the indexes are on their way. A table is never half there.

use std::time::Duration;

use rand::RngExt as _;
use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::workload::GaplessWriter;
use relevo_tests::{Direction, Pair, Relevo, Seed, Version, soak_factor, wait_until};

const SCHEMA: &str = "
CREATE TABLE parent (id int PRIMARY KEY, name text UNIQUE, filler text);
CREATE TABLE child (id int PRIMARY KEY, parent_id int NOT NULL REFERENCES parent, amount numeric);
CREATE TABLE no_key (n int, note text);
CREATE INDEX ON child (parent_id); CREATE INDEX ON child (amount); CREATE INDEX ON no_key (n);
CREATE VIEW amounts AS SELECT parent_id, sum(amount) FROM child GROUP BY 1;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER nothing BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION nothing();
INSERT INTO parent SELECT n, 'parent ' || n, repeat('x', 60) FROM generate_series(1, 20000) n;
INSERT INTO child SELECT n, 1 + n % 20000, n / 7.0 FROM generate_series(1, 40000) n;
INSERT INTO no_key SELECT n % 100, 'note ' || n FROM generate_series(1, 20000) n;
";
/// These do not change while they are copied, so a table that is there at all must be there whole.
const TABLES: [&str; 3] = ["parent", "child", "no_key"];

/// One row for a table that exists: its state, and a sum over its rows.
fn look_at(table: &str) -> String {
    format!(
        "SELECT coalesce((SELECT state FROM relevo.table_state WHERE table_name = '{table}'), 'unknown'),
                (SELECT count(*) || ' rows, ' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {table} t)"
    )
}

async fn assert_no_table_is_half_there(pair: &Pair) -> Vec<String> {
    let mut states = Vec::new();
    for table in TABLES {
        if pair.target.value::<bool>(&format!("SELECT to_regclass('{table}') IS NULL")).await {
            states.push("absent".to_owned());
            continue;
        }
        let rows = pair.target.rows(&look_at(table)).await;
        let [Some(state), Some(there)] = &rows[0][..] else { panic!("{rows:?}") };
        let whole: String = pair
            .source
            .value(&format!(
                "SELECT count(*) || ' rows, ' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {table} t"
            ))
            .await;
        let empty = there == "0 rows, 0";
        assert!(empty || *there == whole, "{table} ({state}) is half there: {there} of {whole}");
        let complete = state == "copied" || state == "streaming";
        assert!(!(complete && empty), "{table} is {state} and empty");
        states.push(state.clone());
    }
    states
}

/// Waits until so many bytes have gone to the target, or the copy is over.
async fn until_sent(pair: &Pair, relevo: &Relevo, bytes: u64) {
    let link = pair.target_proxy();
    let before = link.passed_bytes(Direction::ToServer);
    wait_until("bytes of the copy", PATIENCE, async || {
        link.passed_bytes(Direction::ToServer) >= before + bytes
            || relevo.status().await.is_some_and(|status| status["state"] == "streaming")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_killed_again_and_again_leaves_no_half_copied_table() {
    let seed = Seed::any();
    eprintln!("seed {}", seed.value());
    let mut rng = seed.rng();
    let pair = Pair::builder(Version::V14, Version::V15).proxied().start().await;
    pair.source.sql(SCHEMA).await;
    GaplessWriter::create_table(&pair.source.session().await.unwrap()).await;
    let writer = GaplessWriter::start(pair.source.config(DATABASE), Duration::from_millis(20));
    // Slow enough that every phase can be hit: about 4 MB of rows.
    pair.target_proxy().throttle(Some(6 << 20));
    let mut relevo = pair.relevo().start();
    let kills = 8 * soak_factor();
    for kill in 0..kills {
        // Half of them anywhere in the rows, the others mostly in the beginning; what is behind the rows has a test of
        // its own.
        let bytes =
            if rng.random() { rng.random_range(500_000..4_500_000) } else { 1 << rng.random_range(9..20) };
        until_sent(&pair, &relevo, bytes).await;
        let what = match kill % 4 {
            0 | 2 => {
                relevo.kill();
                "relevo"
            }
            1 => {
                pair.target_proxy().cut();
                pair.source_proxy().cut();
                "both links"
            }
            _ => {
                pair.target.crash();
                pair.target.start().await;
                "the target"
            }
        };
        let states = assert_no_table_is_half_there(&pair).await;
        eprintln!("killed {what} {bytes} bytes on; {states:?}");
        if kill % 2 == 0 {
            relevo.restart();
        }
    }
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    writer.finish().await;
    pair.settle().await;
    assert_schema_is_complete(&pair).await;
    relevo.terminate();
}

/// Indexes, constraints and triggers come after the rows, each in a transaction of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_killed_between_two_indexes_ends_with_all_of_them() {
    let pair = Pair::start(Version::V15, Version::V18).await;
    pair.source.sql(SCHEMA).await;
    let mut relevo = pair.relevo().start();
    let done = "SELECT count(*) FROM relevo.schema_statement WHERE done";
    for wanted in [1, 4, 7] {
        wait_until("statements behind the rows", PATIENCE, async || {
            let session = pair.target.session().await.unwrap();
            session.try_value::<i64>(done).await.is_ok_and(|count| count >= wanted)
        })
        .await;
        relevo.kill();
        assert_no_table_is_half_there(&pair).await;
        relevo.restart();
    }
    relevo.wait_until_streaming().await;
    pair.settle().await;
    assert_schema_is_complete(&pair).await;
    relevo.terminate();
}

/// The source dies while its rows are read; its snapshot is gone with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_source_crashes_begins_again_and_ends_equal() {
    let pair = Pair::builder(Version::V18, Version::V18).proxied().start().await;
    pair.source.sql(SCHEMA).await;
    pair.target_proxy().throttle(Some(6 << 20));
    let mut relevo = pair.relevo().start();
    until_sent(&pair, &relevo, 2 << 20).await;
    pair.source.crash();
    pair.source.start().await;
    assert_no_table_is_half_there(&pair).await;
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    assert_schema_is_complete(&pair).await;
    relevo.terminate();
}

async fn assert_schema_is_complete(pair: &Pair) {
    let objects = "
        SELECT string_agg(name, ', ' ORDER BY name) FROM (
            SELECT 'index ' || indexrelid::regclass FROM pg_index WHERE indisvalid
               AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
            UNION ALL SELECT 'constraint ' || conname FROM pg_constraint
             WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
            UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL SELECT 'view ' || viewname FROM pg_views WHERE schemaname = 'public'
        ) AS all_of_it (name)";
    let (source, target): (String, String) =
        tokio::join!(pair.source.value(objects), pair.target.value(objects));
    assert_eq!(source, target);
    let slots: i64 = pair.source.value("SELECT count(*) FROM pg_replication_slots").await;
    assert_eq!(slots, 1, "slots of attempts that failed were left behind");
}
