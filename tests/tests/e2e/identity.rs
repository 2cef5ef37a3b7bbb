//! Which row is meant: keys and how they move, replica identities, partitions.

use relevo_tests::{Comparison, Pair, Version};
use serde_json::Value;

/// Keys of one table each, from the plain to those whose equality is not identity.
const KEYED: &str = "
CREATE SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN code AS varchar(9) CHECK (VALUE <> '');

CREATE TABLE plain (id int PRIMARY KEY, v text);
CREATE TABLE composed (a int, b text, c date, v text, PRIMARY KEY (b, c, a));
CREATE TABLE by_citext (k ext.citext PRIMARY KEY, v text);
CREATE TABLE by_folded (k text COLLATE folded PRIMARY KEY, v text);
CREATE TABLE by_numeric (k numeric PRIMARY KEY, v text);
CREATE TABLE by_float (k float8 PRIMARY KEY, v text);
CREATE TABLE by_padded (k char(5) PRIMARY KEY, v text);
CREATE TABLE by_bytes (k bytea PRIMARY KEY, v text);
CREATE TABLE by_array (k int[] PRIMARY KEY, v text);
CREATE TABLE by_range (k tstzrange PRIMARY KEY, v text);
CREATE TABLE by_multirange (k int4multirange PRIMARY KEY, v text);
CREATE TABLE by_composite (k pair PRIMARY KEY, v text);
CREATE TABLE by_enum (k colour PRIMARY KEY, v text);
CREATE TABLE by_domain (k code PRIMARY KEY, v text);
CREATE TABLE by_jsonb (k jsonb PRIMARY KEY, v text);
CREATE TABLE by_interval (k interval PRIMARY KEY, v text);
CREATE TABLE by_timetz (k timetz PRIMARY KEY, v text);
CREATE TABLE by_inet (k inet PRIMARY KEY, v text);
CREATE TABLE by_bits (k varbit PRIMARY KEY, v text);
CREATE TABLE by_vector (k tsvector PRIMARY KEY, v text);
CREATE TABLE by_char (k \"char\", n name, o oid, PRIMARY KEY (k, n, o), v text);
CREATE TABLE by_unique (id int PRIMARY KEY, k text NOT NULL, l int NOT NULL, v text);
CREATE UNIQUE INDEX by_unique_k ON by_unique (k, l);
ALTER TABLE by_unique REPLICA IDENTITY USING INDEX by_unique_k;
-- An index may hold columns that are no part of the key.
CREATE TABLE by_covering (id int, v text, more text, CONSTRAINT covering PRIMARY KEY (id) INCLUDE (more));

INSERT INTO plain SELECT n, 'v' || n FROM generate_series(1, 20) n;
INSERT INTO composed SELECT n % 5, 'b' || n, date '2026-01-01' + n, 'v' FROM generate_series(1, 20) n;
INSERT INTO by_citext VALUES ('Ann', 1), ('bob', 2), ('Eve', 3), ('', 4);
INSERT INTO by_folded VALUES ('Ann', 1), ('bob', 2), ('Eve', 3), ('', 4);
INSERT INTO by_numeric VALUES (1.0, 1), (2.00, 2), ('NaN', 3), ('-Infinity', 4), (0.000, 5), (1e40, 6);
INSERT INTO by_float VALUES (0.1, 1), ('-0', 2), ('NaN', 3), ('Infinity', 4), (5e-324, 5);
INSERT INTO by_padded VALUES ('a', 1), ('ab  ', 2), ('', 3), ('ä', 4);
INSERT INTO by_bytes VALUES ('', 1), ('\\x00', 2), ('\\x5c', 3), ('\\xff27', 4);
INSERT INTO by_array VALUES ('{}', 1), ('{1,NULL}', 2), ('{{1,2},{3,4}}', 3), ('[0:1]={1,2}', 4), ('{1,2}', 5);
INSERT INTO by_range VALUES ('empty', 1), ('(,)', 2), ('[2026-01-01,infinity)', 3), ('[2026-01-01,2026-01-02]', 4);
INSERT INTO by_multirange VALUES ('{}', 1), ('{(,)}', 2), ('{[1,3),[7,9)}', 3);
INSERT INTO by_composite VALUES ((1, 'x'), 1), ((1, NULL), 2), ((NULL, NULL), 3), ((2, '(,)\"'), 4);
INSERT INTO by_enum VALUES ('red', 1), ('blue', 2);
INSERT INTO by_domain VALUES ('a', 1), ('b', 2);
INSERT INTO by_jsonb VALUES ('{\"a\": 1.0}', 1), ('{\"a\": 2}', 2), ('[]', 3), ('null', 4);
INSERT INTO by_interval VALUES ('1 day', 1), ('30 days', 2), ('-1 mon +1 day', 3);
INSERT INTO by_timetz VALUES ('12:00+00', 1), ('12:00+05:30', 2), ('24:00-15:59', 3);
INSERT INTO by_inet VALUES ('10.0.0.1', 1), ('10.0.0.1/8', 2), ('::1', 3);
INSERT INTO by_bits VALUES (B'', 1), (B'0', 2), (B'00', 3);
INSERT INTO by_vector VALUES ('', 1), ('a:1A b', 2);
INSERT INTO by_char VALUES ('x', 'n', 1, 1), ('', '', 4294967295, 2), ('\\', 'x\"y', 0, 3);
INSERT INTO by_unique SELECT n, 'k' || n % 4, n, 'v' FROM generate_series(1, 12) n;
INSERT INTO by_covering SELECT n, 'v', 'more' FROM generate_series(1, 5) n;
";

/// In each table every row is updated, keys are moved where nothing else is, and rows are deleted.
const KEY_CHANGES: &str = "
UPDATE by_citext SET v = v || '!';
UPDATE by_citext SET k = upper(k::text)::ext.citext WHERE k OPERATOR(ext.=) 'bob';
UPDATE by_citext SET v = 'found', k = 'ANN' WHERE k OPERATOR(ext.=) 'ann';
DELETE FROM by_citext WHERE k OPERATOR(ext.=) 'EVE';
UPDATE by_folded SET v = v || '!';
UPDATE by_folded SET k = 'BOB' WHERE k = 'bob';
UPDATE by_folded SET k = 'Änn' WHERE k = 'ann';
DELETE FROM by_folded WHERE k = 'eve';
UPDATE by_numeric SET v = v || '!';
UPDATE by_numeric SET k = 1.000 WHERE k = 1;
UPDATE by_numeric SET k = 0 WHERE k = 0;
DELETE FROM by_numeric WHERE k IN (2, 'NaN');
UPDATE by_float SET v = v || '!';
UPDATE by_float SET k = 0 WHERE k = 0;
DELETE FROM by_float WHERE k IN ('NaN', 5e-324);
";

/// The same for tables that need no care of their own.
const OTHERS: &[&str] = &[
    "by_padded",
    "by_bytes",
    "by_array",
    "by_range",
    "by_multirange",
    "by_composite",
    "by_enum",
    "by_domain",
    "by_jsonb",
    "by_interval",
    "by_timetz",
    "by_inet",
    "by_bits",
    "by_vector",
    "by_char",
    "by_unique",
    "by_covering",
];

const KEY_CHAINS: &str = "
-- Two keys change places through a third.
BEGIN;
UPDATE plain SET id = -1 WHERE id = 1;
UPDATE plain SET id = 1, v = v || ' was 2' WHERE id = 2;
UPDATE plain SET id = 2 WHERE id = -1;
COMMIT;
-- Every key moves by one, from the end.
DO $$ BEGIN FOR n IN REVERSE 20..1 LOOP UPDATE plain SET id = id + 1 WHERE id = n; END LOOP; END $$;
-- Every key moves in one statement, and back by another one.
BEGIN;
UPDATE plain SET id = id + 1000;
UPDATE plain SET id = id - 1001, v = v || '<';
COMMIT;
-- A row's place is taken by a new row, several times.
BEGIN;
DELETE FROM plain WHERE id = 5;
INSERT INTO plain VALUES (5, 'second');
UPDATE plain SET id = 500 WHERE id = 5;
INSERT INTO plain VALUES (5, 'third');
UPDATE plain SET v = 'second, changed' WHERE id = 500;
DELETE FROM plain WHERE id = 5;
UPDATE plain SET id = 5 WHERE id = 500;
COMMIT;
BEGIN;
UPDATE composed SET a = a + 1 WHERE b = 'b1';
UPDATE composed SET b = b || 'x', c = c + 1;
UPDATE composed SET b = left(b, -1), v = 'moved' WHERE a > 2;
DELETE FROM composed WHERE a = 0;
COMMIT;
BEGIN;
UPDATE by_unique SET l = l + 100;
UPDATE by_unique SET k = 'k9', l = l - 100 WHERE id % 2 = 0;
UPDATE by_unique SET id = id + 50;
DELETE FROM by_unique WHERE k = 'k1';
COMMIT;
";

#[tokio::test]
async fn rows_are_found_by_keys_of_every_kind_and_keys_move() {
    let pair = Pair::start(Version::V16, Version::V18).await;
    pair.source.sql(KEYED).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.source.sql(KEY_CHANGES).await;
    for table in OTHERS {
        pair.source
            .sql(&format!(
                "UPDATE {table} SET v = v || ' found';
                 DELETE FROM {table} WHERE ctid = (SELECT max(ctid) FROM {table});
                 CREATE TEMPORARY TABLE one ON COMMIT DROP AS SELECT * FROM {table} LIMIT 1;
                 DELETE FROM {table} WHERE ctid = (SELECT min(ctid) FROM {table});
                 INSERT INTO {table} SELECT * FROM one"
            ))
            .await;
    }
    pair.source.sql(KEY_CHAINS).await;
    pair.settle().await;
    nothing_was_missing(&relevo.status().await.unwrap());
    relevo.terminate();
}

/// Every change found its row.
fn nothing_was_missing(status: &Value) {
    assert_eq!(status["errors"], 0, "{status}");
}

const WHOLE_ROWS: &str = "
CREATE SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
CREATE EXTENSION hstore SCHEMA ext;
CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE duplicates (a int, b text);
CREATE TABLE looks (n numeric, c ext.citext, f float8, g float4, t text COLLATE folded, p char(4));
CREATE TABLE without_equality (j json, x xml, p point, t txid_snapshot, b box, l line, q jsonpath);
CREATE TABLE compound (r int4range, m nummultirange, a text[], ja json[], c pair, h ext.hstore, pa point[]);
CREATE TABLE keyed_too (id int PRIMARY KEY, v text, n numeric);
CREATE TABLE large (id int, big text, other text);
CREATE TABLE one_column (v int);
ALTER TABLE duplicates REPLICA IDENTITY FULL;
ALTER TABLE looks REPLICA IDENTITY FULL;
ALTER TABLE without_equality REPLICA IDENTITY FULL;
ALTER TABLE compound REPLICA IDENTITY FULL;
ALTER TABLE keyed_too REPLICA IDENTITY FULL;
ALTER TABLE large REPLICA IDENTITY FULL;
ALTER TABLE one_column REPLICA IDENTITY FULL;
INSERT INTO duplicates VALUES (1, 'x'), (1, 'x'), (1, 'x'), (1, NULL), (1, NULL), (NULL, NULL), (NULL, NULL), (NULL, '');
INSERT INTO looks VALUES (1.0, 'A', 0, 0, 'a', 'x'), (1.00, 'a', '-0', '-0', 'A', 'x'), (1.000, 'A', '-0', 0, 'A', 'x'),
    (1.0, 'A', 0, 0, 'a', 'x'), ('NaN', '', 'NaN', 'NaN', '', ''), ('NaN', '', 'NaN', 'NaN', '', '');
INSERT INTO without_equality VALUES
    ('{\"a\":1}', '<a/>', '(1,2)', '10:20:', '(1,1),(0,0)', '{1,2,3}', '$.a'), ('{\"a\": 1}', '<a />', '(1,2)', '10:20:', '(1,1),(0,0)', '{1,2,3}', '$.a'),
    ('{\"a\":1}', '<a/>', '(1,2)', '10:20:', '(1,1),(0,0)', '{1,2,3}', '$.a'), (NULL, NULL, NULL, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('1', 'x', '(0,-0)', '1:1:', '(2,2),(1,1)', '{1,0,0}', '$');
INSERT INTO compound VALUES
    ('[1,2)', '{[1.0,2.00]}', '{a,NULL}', ARRAY['1'::json], (1, 'x'), 'a=>1', ARRAY['(1,2)'::point]), ('[1,2)', '{[1.00,2.0]}', '{a,NULL}', ARRAY['1'::json], (1, 'x'), 'a=>1', ARRAY['(1,2)'::point]),
    ('empty', '{}', '{}', '{}', (NULL, NULL), '', '{}'), ('empty', '{}', '{}', '{}', NULL, '', '{}'), (NULL, NULL, NULL, NULL, (NULL, NULL), NULL, NULL);
INSERT INTO keyed_too SELECT n, 'v' || n, n FROM generate_series(1, 10) n;
INSERT INTO large SELECT n, (SELECT string_agg(md5((n * i)::text), '') FROM generate_series(1, 400) i), 'o' FROM generate_series(1, 4) n;
INSERT INTO large SELECT * FROM large;
INSERT INTO one_column VALUES (1), (1), (NULL), (NULL);
";
const WHOLE_ROW_CHANGES: &str = "
UPDATE duplicates SET b = 'was x' WHERE ctid = (SELECT min(ctid) FROM duplicates WHERE b = 'x');
DELETE FROM duplicates WHERE ctid = (SELECT min(ctid) FROM duplicates WHERE b = 'x');
DELETE FROM duplicates WHERE ctid = (SELECT min(ctid) FROM duplicates WHERE a IS NULL AND b IS NULL);
UPDATE duplicates SET a = NULL WHERE ctid = (SELECT min(ctid) FROM duplicates WHERE a = 1 AND b IS NULL);
UPDATE duplicates SET a = a;
UPDATE looks SET p = 'y' WHERE n::text = '1.00';
UPDATE looks SET n = 1.0000 WHERE n::text = '1.000';
DELETE FROM looks WHERE ctid = (SELECT min(ctid) FROM looks WHERE n::text = '1.0');
DELETE FROM looks WHERE ctid = (SELECT max(ctid) FROM looks WHERE n = 'NaN');
UPDATE without_equality SET p = '(3,4)' WHERE ctid = (SELECT min(ctid) FROM without_equality WHERE j::text = '{\"a\":1}');
UPDATE without_equality SET j = '2' WHERE j::text = '{\"a\": 1}';
DELETE FROM without_equality WHERE ctid = (SELECT min(ctid) FROM without_equality WHERE j IS NULL);
DELETE FROM without_equality WHERE j::text = '1';
UPDATE compound SET a = a || 'more'::text WHERE m::text = '{[1.00,2.0]}';
DELETE FROM compound WHERE r = 'empty' AND c IS NOT DISTINCT FROM NULL;
UPDATE compound SET r = '[5,6)' WHERE r IS NULL;
UPDATE keyed_too SET id = id + 1 WHERE id = 10;
UPDATE keyed_too SET n = n + 0.5, v = NULL;
DELETE FROM keyed_too WHERE id < 3;
UPDATE large SET other = 'changed' WHERE ctid = (SELECT min(ctid) FROM large WHERE id = 2);
DELETE FROM large WHERE ctid = (SELECT min(ctid) FROM large WHERE id = 3);
UPDATE large SET big = big || 'x' WHERE id = 4;
DELETE FROM one_column WHERE ctid = (SELECT min(ctid) FROM one_column WHERE v IS NULL);
UPDATE one_column SET v = 2 WHERE ctid = (SELECT min(ctid) FROM one_column WHERE v = 1);
";

#[tokio::test]
async fn with_identity_full_each_of_equal_rows_counts_once_and_the_identical_one_is_meant() {
    let pair = Pair::start(Version::V14, Version::V16).await;
    pair.source.sql(WHOLE_ROWS).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    for change in WHOLE_ROW_CHANGES.split(";\n").filter(|change| !change.trim().is_empty()) {
        pair.source.sql(change).await;
    }
    pair.settle().await;
    nothing_was_missing(&relevo.status().await.unwrap());
    relevo.terminate();
}

/// Publishing updates of such tables would make them fail on the source.
#[tokio::test]
async fn tables_without_identity_are_insert_only_and_the_application_is_not_hindered() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source
        .sql(
            "CREATE TABLE heap (a int, b text); INSERT INTO heap SELECT n, 'before' FROM generate_series(1, 5) n;
             CREATE TABLE nothing (id int PRIMARY KEY, b text); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
             CREATE TABLE late_key (id int PRIMARY KEY DEFERRABLE, b text);
             CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES;
             CREATE TABLE emptied (a int); INSERT INTO emptied VALUES (1);
             CREATE TABLE keyed (id int PRIMARY KEY, b text);",
        )
        .await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    for table in ["heap", "nothing", "late_key"] {
        relevo.wait_for_log(&format!("\"public.{table}\"")).await;
    }
    pair.source
        .sql(
            "INSERT INTO heap SELECT n, 'after' FROM generate_series(6, 40) n; INSERT INTO nothing VALUES (1, 'x'), (2, 'y');
             INSERT INTO late_key VALUES (1, 'x'); INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
             TRUNCATE emptied; INSERT INTO emptied VALUES (2); INSERT INTO keyed VALUES (1, 'x')",
        )
        .await;
    pair.settle().await;
    pair.source
        .sql(
            "UPDATE heap SET b = 'x'; DELETE FROM heap WHERE a = 1; UPDATE nothing SET b = 'z'; DELETE FROM nothing WHERE id = 1;
             UPDATE late_key SET b = 'y'; DELETE FROM no_columns; UPDATE keyed SET b = 'updated'",
        )
        .await;
    pair.caught_up().await;
    assert_eq!(pair.target.column("SELECT b FROM keyed").await, ["updated"]);
    assert_eq!(pair.target.column("SELECT DISTINCT b FROM heap ORDER BY b").await, ["after", "before"]);
    assert_eq!(pair.target.column("SELECT count(*) FROM nothing WHERE b IN ('x', 'y')").await, ["2"]);
    pair.source.sql("TRUNCATE heap, nothing, no_columns, late_key").await;
    pair.settle().await;
    relevo.terminate();
}

/// The relation message says the new identity; statements for the old one are no longer used.
#[tokio::test]
async fn an_identity_may_change_while_the_flow_runs() {
    let pair = Pair::start(Version::V17, Version::V15).await;
    pair.source
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, v text);
             CREATE UNIQUE INDEX t_code ON t (code);
             INSERT INTO t SELECT n, 'c' || n, 'v' FROM generate_series(1, 10) n;
             CREATE TABLE full_then_keyed (id int NOT NULL, v text); ALTER TABLE full_then_keyed REPLICA IDENTITY FULL;
             INSERT INTO full_then_keyed SELECT n, 'v' FROM generate_series(1, 10) n",
        )
        .await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    let change = "UPDATE t SET v = v || '+'; UPDATE t SET id = id + 100, code = code || 'x' WHERE id % 2 = 0;
                  UPDATE t SET id = id - 100 WHERE id > 100; DELETE FROM t WHERE id = ";
    pair.source.sql(&format!("{change} 1")).await;
    for (identity, id) in [("USING INDEX t_code", 2), ("FULL", 3), ("DEFAULT", 4)] {
        pair.source
            .sql(&format!(
                "BEGIN; {change} {id}; ALTER TABLE t REPLICA IDENTITY {identity}; {change} {id}0; COMMIT"
            ))
            .await;
        pair.source.sql(change.rsplit_once(';').unwrap().0).await;
        pair.settle().await;
    }
    pair.source.sql("UPDATE full_then_keyed SET v = 'w'").await;
    pair.sql_on_both("ALTER TABLE full_then_keyed ADD PRIMARY KEY (id)").await;
    pair.source.sql("ALTER TABLE full_then_keyed REPLICA IDENTITY DEFAULT; UPDATE full_then_keyed SET id = id + 20, v = 'x'; DELETE FROM full_then_keyed WHERE id = 22").await;
    pair.settle().await;
    nothing_was_missing(&relevo.status().await.unwrap());
    relevo.terminate();
}

const PARTITIONED: &str = "
CREATE TABLE event (id int, at date NOT NULL, region text NOT NULL, v text, PRIMARY KEY (id, at, region)) PARTITION BY RANGE (at);
CREATE TABLE event_25 PARTITION OF event FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE event_26 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (region);
CREATE TABLE event_26_north PARTITION OF event_26 FOR VALUES IN ('north');
CREATE TABLE event_26_rest (dropped int, v text, region text NOT NULL, at date NOT NULL, id int NOT NULL);
ALTER TABLE event_26_rest DROP COLUMN dropped;
ALTER TABLE event_26 ATTACH PARTITION event_26_rest DEFAULT;
CREATE TABLE hashed (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
";
const PARTITIONED_ROWS: &str = "
INSERT INTO event SELECT n, date '2025-01-01' + n * 7, CASE n % 3 WHEN 0 THEN 'north' ELSE 'r' || n % 3 END, 'v' || n FROM generate_series(1, 100) n;
INSERT INTO hashed SELECT n, 'v' || n FROM generate_series(1, 50) n;
";
/// Rows change in place, move between leaves of one level and of several, and leave.
const PARTITION_CHANGES: &str = "
UPDATE event SET v = v || '+' WHERE id % 2 = 0;
UPDATE event SET region = 'north' WHERE region = 'r1' AND id % 4 = 0;
UPDATE event SET at = at + 365 WHERE at < '2025-06-01';
UPDATE event SET at = at - 365, id = id + 1000 WHERE region = 'r2' AND at >= '2026-01-01';
DELETE FROM event WHERE id % 7 = 0;
INSERT INTO event_26_rest (id, at, region, v) VALUES (5000, '2026-02-02', 'straight', 'into the leaf');
UPDATE hashed SET id = id + 1000 WHERE id % 3 = 0;
BEGIN; DELETE FROM hashed WHERE id < 10; SAVEPOINT s; TRUNCATE hashed; ROLLBACK TO s; INSERT INTO hashed VALUES (1, 'again'); COMMIT;
";

#[tokio::test]
async fn partitions_are_followed_leaf_to_leaf_also_attached_detached_and_new_ones() {
    let pair = Pair::start(Version::V14, Version::V17).await;
    pair.source.sql(PARTITIONED).await;
    pair.source.sql(PARTITIONED_ROWS).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.source.sql(PARTITION_CHANGES).await;
    pair.settle().await;

    // A partition that both sides get while the flow runs.
    let create = "CREATE TABLE event_27 PARTITION OF event FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')";
    pair.target.sql(create).await;
    pair.source.sql(create).await;
    pair.source.sql("INSERT INTO event VALUES (1, '2027-01-01', 'r', 'new'), (2, '2027-01-01', 'r', 'new'); UPDATE event SET v = 'x' WHERE at >= '2027-01-01' AND id = 1").await;
    pair.settle().await;

    // Truncation of the root, and of one leaf.
    pair.source
        .sql("TRUNCATE hashed; INSERT INTO hashed VALUES (3, 'x'), (4, 'y'); TRUNCATE event_26_north")
        .await;
    pair.settle().await;

    // One that was filled before it was attached is not in the publication until then.
    let table = "CREATE TABLE event_28 (LIKE event INCLUDING ALL)";
    let attach =
        "ALTER TABLE event ATTACH PARTITION event_28 FOR VALUES FROM ('2028-01-01') TO ('2029-01-01')";
    pair.sql_on_both(table).await;
    pair.sql_on_both(attach).await;
    pair.source.sql("INSERT INTO event VALUES (1, '2028-01-01', 'r', 'attached')").await;
    pair.settle().await;
    // What was done before it is detached arrives, and its table stays on the target.
    pair.source.sql("UPDATE event SET v = 'last' WHERE at = '2028-01-01'; ALTER TABLE event DETACH PARTITION event_28").await;
    pair.caught_up().await;
    assert_eq!(pair.target.column("SELECT v FROM event_28").await, ["last"]);
    pair.source.sql("DROP TABLE event_28").await;

    // One that only the source has stops the flow with its name, and nothing is lost when it comes.
    pair.source.sql("CREATE TABLE event_29 PARTITION OF event FOR VALUES FROM ('2029-01-01') TO ('2030-01-01'); INSERT INTO event VALUES (1, '2029-05-05', 'r', 'waits'); INSERT INTO hashed VALUES (5, 'behind it')").await;
    relevo.wait_for_state("failed").await;
    relevo.wait_for_log("event_29").await;
    assert_eq!(pair.target.column("SELECT count(*) FROM hashed WHERE id = 5").await, ["0"]);
    pair.target
        .sql("CREATE TABLE event_29 PARTITION OF event FOR VALUES FROM ('2029-01-01') TO ('2030-01-01')")
        .await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn by_their_root_partitions_reach_a_target_that_is_partitioned_differently() {
    let pair = Pair::start(Version::V15, Version::V14).await;
    pair.source.sql(PARTITIONED).await;
    pair.source.sql(PARTITIONED_ROWS).await;
    // One without partitions, one with others.
    pair.target
        .sql(
            "CREATE TABLE event (v text, region text, extra int DEFAULT 7, at date, id int, PRIMARY KEY (id, at, region));
             CREATE TABLE hashed (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
             CREATE TABLE hashed_low PARTITION OF hashed FOR VALUES FROM (MINVALUE) TO (20);
             CREATE TABLE hashed_high PARTITION OF hashed FOR VALUES FROM (20) TO (MAXVALUE)",
        )
        .await;
    let mut relevo = pair.relevo().arg("--via-partition-root").start();
    relevo.wait_until_streaming().await;
    let equal = async || {
        pair.caught_up().await;
        Comparison::default().by_root().assert_equal(&pair.source, &pair.target).await;
    };
    equal().await;
    pair.source.sql(PARTITION_CHANGES).await;
    equal().await;
    // What happens to partitions on the source is nothing to the target.
    pair.source
        .sql(
            "CREATE TABLE event_27 PARTITION OF event FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
             INSERT INTO event VALUES (1, '2027-01-01', 'r', 'new'), (2, '2027-01-01', 'r', 'new');
             UPDATE event SET at = '2025-01-01' WHERE at = '2027-01-01' AND id = 1;
             CREATE TABLE event_28 (LIKE event INCLUDING ALL);
             ALTER TABLE event ATTACH PARTITION event_28 FOR VALUES FROM ('2028-01-01') TO ('2029-01-01');
             INSERT INTO event_28 VALUES (1, '2028-01-01', 'r', 'attached')",
        )
        .await;
    equal().await;
    pair.source.sql("TRUNCATE hashed; INSERT INTO hashed VALUES (3, 'x'), (40, 'y')").await;
    equal().await;
    relevo.terminate();
}

#[tokio::test]
async fn inheritance_keeps_each_table_its_own() {
    let pair = Pair::start(Version::V18, Version::V14).await;
    pair.source
        .sql(
            "CREATE TABLE animal (id int PRIMARY KEY, name text);
             CREATE TABLE bird (wingspan numeric, PRIMARY KEY (id)) INHERITS (animal);
             CREATE TABLE parrot (words text[], PRIMARY KEY (id)) INHERITS (bird);
             INSERT INTO animal VALUES (1, 'worm'), (2, 'cat');
             INSERT INTO bird VALUES (1, 'gull', 1.4); INSERT INTO parrot VALUES (1, 'Polly', 0.5, '{hello}')",
        )
        .await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.source
        .sql(
            "UPDATE animal SET name = upper(name); UPDATE ONLY animal SET id = 10 WHERE id = 1;
             DELETE FROM ONLY bird WHERE id = 1; INSERT INTO bird VALUES (10, 'swift', 0.4);
             UPDATE bird SET wingspan = wingspan * 2",
        )
        .await;
    pair.settle().await;
    pair.source.sql("TRUNCATE ONLY bird; INSERT INTO parrot VALUES (2, 'Coco', 1, '{}')").await;
    pair.settle().await;
    pair.source
        .sql("DELETE FROM animal WHERE id = 2; TRUNCATE animal; INSERT INTO bird VALUES (3, 'x', 1)")
        .await;
    pair.settle().await;
    relevo.terminate();
}
