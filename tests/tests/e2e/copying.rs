//! The initial copy as many sessions make it: tables in parts, lost sessions that repeat only their own part, and what
//! follows the rows of each table while others are on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use relevo_tests::pair::{DATABASE, Node};
use relevo_tests::relevo::PATIENCE;
use relevo_tests::workload::GaplessWriter;
use relevo_tests::{FLOW, Pair, Relevo, RelevoBuilder, Version, wait_until, wait_until_some};

/// Small enough that tables of a few megabytes come in many parts.
const PARTS: [&str; 4] = ["--copy-jobs", "3", "--copy-split-bytes", "256KiB"];

const EVERY_KIND: &str = r#"
CREATE TABLE updated (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, filler text) WITH (fillfactor = 60);
INSERT INTO updated SELECT n, 0, repeat('f', 100) FROM generate_series(1, 20000) n;
CREATE TABLE toasted (id int PRIMARY KEY, long text);
ALTER TABLE toasted ALTER COLUMN long SET STORAGE EXTERNAL;
INSERT INTO toasted SELECT n, repeat(md5(n::text), 400) FROM generate_series(1, 300) n;
CREATE TABLE no_columns ();
INSERT INTO no_columns SELECT FROM generate_series(1, 30000);
CREATE TABLE empty (id int PRIMARY KEY, note text);
CREATE TABLE "Gap\s" (a int, gone text, "B ""b" text, id int PRIMARY KEY);
INSERT INTO "Gap\s" SELECT n, 'gone', E'tab\tline\n' || n, n FROM generate_series(1, 15000) n;
ALTER TABLE "Gap\s" DROP COLUMN gone;
CREATE TABLE computed (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, filler text);
INSERT INTO computed (id, filler) SELECT n, repeat('g', 80) FROM generate_series(1, 10000) n;
CREATE TABLE animals (id int PRIMARY KEY, filler text);
CREATE TABLE birds (wings int) INHERITS (animals);
ALTER TABLE birds ADD PRIMARY KEY (id);
INSERT INTO animals SELECT n, repeat('a', 100) FROM generate_series(1, 8000) n;
INSERT INTO birds SELECT n, repeat('b', 100), 2 FROM generate_series(10001, 18000) n;
CREATE TABLE measures (id int, day date, value int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE measures_1 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE measures_2 PARTITION OF measures DEFAULT;
CREATE INDEX measures_value ON measures (value);
INSERT INTO measures SELECT n, date '2026-01-01' + n % 360, n FROM generate_series(1, 20000) n;
CREATE UNLOGGED TABLE unlogged (id int);
"#;

/// Changes rows of every kind of table over and over, until told to stop.
async fn change_rows(source: &Node, stop: &tokio::sync::watch::Receiver<bool>) {
    let session = source.connect(DATABASE).await;
    let mut round = 0;
    while !*stop.borrow() {
        round += 1;
        session
            .sql(&format!(
                "UPDATE updated SET n = n + 1 WHERE id % 50 = {round} % 50;
                 DELETE FROM updated WHERE id = {round}; INSERT INTO updated VALUES ({round} + 100000, 1, 'new');
                 UPDATE toasted SET long = long || 'x' WHERE id = 1 + {round} % 300;
                 INSERT INTO no_columns DEFAULT VALUES; INSERT INTO empty VALUES ({round}, 'late');
                 UPDATE \"Gap\\s\" SET a = -a WHERE id % 100 = {round} % 100;
                 UPDATE computed SET id = id + 100000 WHERE id = {round};
                 UPDATE birds SET wings = wings + 1 WHERE id % 80 = {round} % 80;
                 UPDATE measures SET day = day + 180, value = -value WHERE id % 200 = {round} % 200"
            ))
            .await;
        session.sql("VACUUM updated").await;
    }
}

async fn stays_equal_under_writes(source: Version, target: Version, more: &[&str]) -> Pair {
    let pair = Pair::builder(source, target).proxied().start().await;
    pair.source.sql(EVERY_KIND).await;
    // So slowly that many changes happen meanwhile.
    pair.target_proxy().throttle(Some(3 << 20));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut relevo = pair.relevo().args(PARTS).args(more).start();
    let copied = async {
        relevo.wait_until_streaming().await;
        stop.send(true).unwrap();
    };
    tokio::join!(copied, change_rows(&pair.source, &stopped));
    pair.target_proxy().throttle(None);
    pair.settle().await;
    let attempts: i32 = pair.target.value("SELECT copy_attempt FROM relevo.flow").await;
    assert_eq!(attempts, 1, "writes on the source must not disturb the copy");
    let parts = parts(&pair).await;
    let split: Vec<&str> = parts.keys().map(|(table, _)| table.as_str()).collect();
    for table in ["updated", "toasted", "no_columns", "Gap\\s", "computed", "animals", "birds"] {
        let count = split.iter().filter(|name| **name == table).count();
        assert!(count > 2, "{table} was copied in {count} parts");
    }
    relevo.terminate();
    pair
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_every_kind_are_equal_after_a_copy_in_parts_under_writes() {
    stays_equal_under_writes(Version::V15, Version::V18, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_copied_as_one_table_have_their_keys_and_statistics() {
    let pair = stays_equal_under_writes(Version::V18, Version::V14, &["--via-partition-root"]).await;
    let valid =
        "SELECT bool_and(indisvalid)::text || count(*) FROM pg_index WHERE indrelid = 'measures'::regclass";
    assert_eq!(pair.target.value::<String>(valid).await, "true2");
    let analysed: i64 = pair
        .target
        .value("SELECT count(DISTINCT tablename) FROM pg_stats WHERE tablename LIKE 'measures%'")
        .await;
    assert_eq!(analysed, 3);
}

/// The parts that are there, each with the transaction that brought it.
async fn parts(pair: &Pair) -> BTreeMap<(String, i64), String> {
    let session = pair.target.session().await.unwrap();
    let query = "SELECT table_name, first_block, xmin FROM relevo.table_range";
    let Ok(rows) = session.try_rows(query).await else { return BTreeMap::new() };
    let text = |row: &Vec<Option<String>>, at: usize| row[at].clone().unwrap();
    rows.iter().map(|row| ((text(row, 0), text(row, 1).parse().unwrap()), text(row, 2))).collect()
}

async fn until_parts(pair: &Pair, wanted: usize) -> BTreeMap<(String, i64), String> {
    wait_until_some(&format!("{wanted} parts"), PATIENCE, async || {
        let parts = parts(pair).await;
        if parts.len() >= wanted { Ok(parts) } else { Err(format!("{} parts", parts.len())) }
    })
    .await
}

const LARGE: &str = "
CREATE TABLE large (id int PRIMARY KEY, filler text);
INSERT INTO large SELECT n, repeat('x', 200) FROM generate_series(1, 40000) n;
CREATE INDEX ON large (filler, id);
";

/// A copy of a table of about 9 MB in parts of 512 kB, which takes some seconds.
async fn slow_copy(source: Version, target: Version) -> (Pair, Relevo) {
    let pair = Pair::builder(source, target).proxied().start().await;
    pair.source.sql(LARGE).await;
    pair.target_proxy().throttle(Some(2 << 20));
    let relevo = pair.relevo().args(["--copy-jobs", "2", "--copy-split-bytes", "1MiB"]).start();
    (pair, relevo)
}

/// Ends one of the backends that copy rows, and says whether there was one.
async fn end_one(node: &Node, copies: &str) -> bool {
    let ended = node
        .column(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE application_name = 'relevo_e2e' AND xact_start IS NOT NULL AND query LIKE '{copies}' LIMIT 1"
        ))
        .await;
    !ended.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_lost_on_either_side_repeats_only_its_own_part() {
    let (pair, mut relevo) = slow_copy(Version::V16, Version::V15).await;
    for (round, (node, copies)) in
        [(&pair.target, "COPY%FROM STDIN%"), (&pair.source, "COPY%TO STDOUT%")].into_iter().enumerate()
    {
        let there = until_parts(&pair, 2 + 5 * round).await;
        wait_until("a backend that copies", PATIENCE, async || end_one(node, copies).await).await;
        let later = until_parts(&pair, there.len() + 2).await;
        for (part, transaction) in &there {
            assert_eq!(later.get(part), Some(transaction), "part {part:?} was copied twice");
        }
    }
    relevo.wait_for_log("copy: trying again").await;
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    let (attempts, parts): (i32, i64) = (
        pair.target.value("SELECT copy_attempt FROM relevo.flow").await,
        pair.target.value("SELECT count(*) FROM relevo.table_range").await,
    );
    assert_eq!(attempts, 1);
    let rows: bool = pair
        .target
        .value("SELECT (SELECT sum(rows) FROM relevo.table_range) = 40000 AND copied_rows = 40000 FROM relevo.table_state")
        .await;
    assert!(rows && parts > 10, "{parts} parts");
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relevo_that_is_killed_between_two_parts_begins_the_table_again() {
    let (pair, mut relevo) = slow_copy(Version::V14, Version::V17).await;
    GaplessWriter::create_table(&pair.source.session().await.unwrap()).await;
    let writer = GaplessWriter::start(pair.source.config(DATABASE), Duration::from_millis(20));
    for wanted in [1, 4, 8] {
        until_parts(&pair, wanted).await;
        relevo.kill();
        relevo.restart();
        wait_until("another attempt", PATIENCE, async || parts(&pair).await.len() < wanted).await;
    }
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    writer.finish().await;
    pair.settle().await;
    relevo.terminate();
}

/// Whoever begins another attempt counts it first; what belongs to the one before must not be committed after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_another_one_has_overtaken_writes_no_more() {
    let (pair, mut relevo) = slow_copy(Version::V16, Version::V16).await;
    until_parts(&pair, 2).await;
    pair.target.sql("UPDATE relevo.flow SET copy_attempt = copy_attempt + 1").await;
    relevo.wait_for_log("was given up, because attempt 2 has begun since").await;
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    assert_eq!(pair.target.value::<i32>("SELECT copy_attempt FROM relevo.flow").await, 3);
    relevo.terminate();
}

/// The target loses its last commits in a crash, parts among them; the snapshot is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_a_crash_of_the_target_takes_back_are_copied_again() {
    let (pair, mut relevo) = slow_copy(Version::V15, Version::V15).await;
    for wanted in [3, 9] {
        until_parts(&pair, wanted).await;
        pair.target.crash();
        pair.target.start().await;
    }
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    assert_eq!(pair.target.value::<i32>("SELECT copy_attempt FROM relevo.flow").await, 1);
    let built: i64 =
        pair.target.value("SELECT count(*) FROM pg_index WHERE indrelid = 'large'::regclass").await;
    assert_eq!(built, 2);
    relevo.terminate();
}

/// `ctid`s of one part say nothing about a table that was written anew since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_the_source_rewrites_between_two_parts_arrives_whole() {
    let (pair, mut relevo) = slow_copy(Version::V15, Version::V16).await;
    until_parts(&pair, 3).await;
    // Every second row goes, so that what is left moves to other blocks.
    pair.source.sql("DELETE FROM large WHERE id % 2 = 0").await;
    pair.source.sql("VACUUM FULL large").await;
    relevo.wait_for_log("copy: table begins").await;
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    let copied: bool = pair.target.value("SELECT copied_rows = 40000 FROM relevo.table_state").await;
    assert!(copied, "the snapshot is older than the DELETE");
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_has_its_indexes_and_statistics_while_another_is_on_its_way() {
    let pair = Pair::builder(Version::V17, Version::V15).proxied().start().await;
    pair.source.sql(LARGE).await;
    pair.source
        .sql(
            "CREATE TABLE small (id int PRIMARY KEY, code text UNIQUE, big int REFERENCES large);
             CREATE INDEX small_big ON small (big); CREATE STATISTICS small_both ON code, big FROM small;
             ALTER TABLE small CLUSTER ON small_big;
             INSERT INTO small SELECT n, 'code ' || n, n FROM generate_series(1, 1000) n",
        )
        .await;
    pair.target_proxy().throttle(Some(1 << 20));
    let mut relevo = pair.relevo().args(["--copy-jobs", "2"]).start();
    relevo.wait_for_log("copy: table has its indexes and statistics").await;
    let there = pair
        .target
        .rows(
            "SELECT (SELECT count(*) FROM pg_index WHERE indrelid = 'small'::regclass AND indisvalid),
                    (SELECT count(*) FROM pg_index WHERE indrelid = 'small'::regclass AND indisclustered),
                    (SELECT count(*) FROM pg_statistic_ext_data), (SELECT count(*) FROM pg_stats WHERE tablename = 'small'),
                    (SELECT count(*) FROM pg_constraint WHERE conname = 'small_big_fkey'), (SELECT state FROM relevo.table_state WHERE table_name = 'large'),
                    (SELECT (state IN ('copied', 'streaming'))::text FROM relevo.table_state WHERE table_name = 'small')",
        )
        .await;
    let there: Vec<&str> = there[0].iter().flatten().map(String::as_str).collect();
    assert_eq!(there, ["3", "1", "1", "3", "0", "copying", "true"]);
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    assert!(
        pair.target
            .value::<bool>("SELECT bool_and(convalidated) FROM pg_constraint WHERE contype = 'f'")
            .await
    );
    relevo.terminate();
}

#[tokio::test]
async fn a_foreign_key_into_a_table_without_rows_is_there_and_told() {
    let pair = Pair::start(Version::V15, Version::V17).await;
    pair.source
        .sql(
            "CREATE TABLE left_out (id int PRIMARY KEY); INSERT INTO left_out VALUES (1);
             CREATE TABLE child (id int PRIMARY KEY, other int REFERENCES left_out); INSERT INTO child VALUES (1, 1);
             CREATE TABLE tree (id int, up int, PRIMARY KEY (id)) PARTITION BY HASH (id);
             CREATE TABLE tree_0 PARTITION OF tree FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             ALTER TABLE tree ADD FOREIGN KEY (up) REFERENCES left_out; INSERT INTO tree VALUES (1, 1);
             CREATE TABLE of_tree (id int PRIMARY KEY, leaf int REFERENCES tree); INSERT INTO of_tree VALUES (1, 1)",
        )
        .await;
    let mut relevo = pair.relevo().args(["--exclude", "public.left_out"]).start();
    relevo.wait_until_streaming().await;
    let keys = "SELECT conrelid::regclass || ' ' || convalidated FROM pg_constraint
                 WHERE contype = 'f' AND conparentid = 0 AND connamespace = 'public'::regnamespace ORDER BY 1";
    assert_eq!(pair.target.column(keys).await, ["child false", "of_tree true"]);
    let log = relevo.stderr();
    for told in ["created as NOT VALID, because rows violate it", "left out, because rows violate it"] {
        assert!(log.contains(told), "{told} in: {log}");
    }
    relevo.terminate();
}

/// CREATE PUBLICATION locked its tables one after the other and waited for some while it held others; the server broke the
/// deadlock by failing the application's transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_locks_tables_in_another_order_does_not_fail_when_they_are_published() {
    for (source, target) in [(Version::V14, Version::V15), (Version::V18, Version::V18)] {
        let pair = Pair::start(source, target).await;
        pair.source.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)").await;
        // Whose check comes first fails: not Relevo's.
        pair.source.sql("ALTER ROLE postgres SET deadlock_timeout = '1h'").await;
        let application = pair.source.connect(DATABASE).await;
        application.sql("SET deadlock_timeout = '50ms'; BEGIN; LOCK TABLE b IN SHARE MODE").await;
        let mut relevo = pair.relevo().start();
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'PUBLICATION'";
        wait_until("the publication waits", PATIENCE, async || pair.source.value::<i64>(waits).await == 1)
            .await;
        application.sql("LOCK TABLE a IN SHARE MODE").await;
        application.sql("COMMIT").await;
        relevo.wait_until_streaming().await;
        pair.source.sql("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)").await;
        pair.settle().await;
        relevo.terminate();
    }
}

/// Who published may have taken the right to lock from itself.
#[tokio::test]
async fn tables_that_their_owner_may_not_lock_are_published_all_the_same() {
    let pair = Pair::start(Version::V14, Version::V16).await;
    pair.sql_on_both("CREATE ROLE keeper LOGIN REPLICATION").await;
    pair.source
        .sql(
            "GRANT CREATE ON DATABASE shop TO keeper; GRANT ALL ON SCHEMA public TO keeper; SET ROLE keeper; CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
             INSERT INTO a VALUES (1); REVOKE UPDATE, DELETE, TRUNCATE ON a, b FROM keeper; RESET ROLE",
        )
        .await;
    let source = pair.source_url().replace("postgres@", "keeper@");
    let mut relevo = RelevoBuilder::run(&source, &pair.target_url()).name(FLOW).start();
    relevo.wait_until_streaming().await;
    pair.source.sql("INSERT INTO b VALUES (1)").await;
    pair.settle().await;
    relevo.terminate();
}
