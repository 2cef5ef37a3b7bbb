//! Primary keys and unique constraints come out as they are on the source, although their indexes are built first.

use relevo_tests::{Pair, Version};

/// Keys of every kind that a dump can hold.
const KEYS: &str = r#"
SET allow_in_place_tablespaces = on;
CREATE SCHEMA "My keys";
CREATE TABLE plain (id bigint PRIMARY KEY, code text NOT NULL UNIQUE, other int, extra text);
CREATE INDEX plain_other ON plain (other, extra);
CREATE UNIQUE INDEX plain_lower ON plain (lower(code));
ALTER TABLE plain CLUSTER ON plain_other;
COMMENT ON CONSTRAINT plain_code_key ON plain IS 'one code each';
COMMENT ON INDEX plain_pkey IS 'the number';
CREATE TABLE "My keys"."odd; ( -- name" ("a b" int, "C" text, d int, e int,
    CONSTRAINT "p ""k" PRIMARY KEY ("C", "a b") INCLUDE (d),
    CONSTRAINT "u)" UNIQUE (d, e) WITH (fillfactor = 55, deduplicate_items = off));
CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE, code int UNIQUE DEFERRABLE INITIALLY DEFERRED, third int NOT NULL);
ALTER TABLE deferred ADD CONSTRAINT third UNIQUE (third);
ALTER TABLE deferred REPLICA IDENTITY USING INDEX third;
ALTER TABLE deferred CLUSTER ON third;
CREATE TABLE spaced (id int, code text COLLATE "C", PRIMARY KEY (id) USING INDEX TABLESPACE fast,
    UNIQUE (code) USING INDEX TABLESPACE fast);
CREATE TABLE excluded (id int PRIMARY KEY, span int4range, EXCLUDE USING gist (span WITH &&));
CREATE TABLE parent (id int PRIMARY KEY, note text);
CREATE TABLE child (more int UNIQUE) INHERITS (parent);
ALTER TABLE child ADD PRIMARY KEY (id);
CREATE TABLE tree (id int, day date, UNIQUE (id, day), PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
CREATE TABLE tree_1 PARTITION OF tree FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE tree_2 PARTITION OF tree DEFAULT;
ALTER TABLE tree_2 ADD CONSTRAINT own UNIQUE (id);
CREATE TABLE pointing (id int PRIMARY KEY, plain bigint REFERENCES plain, code text REFERENCES plain (code));
INSERT INTO plain SELECT n, 'c' || n, n % 7, 'x' FROM generate_series(1, 500) n;
INSERT INTO "My keys"."odd; ( -- name" SELECT n, 'c' || n, n, n FROM generate_series(1, 500) n;
INSERT INTO deferred SELECT n, n, n FROM generate_series(1, 500) n;
INSERT INTO spaced SELECT n, n FROM generate_series(1, 500) n;
INSERT INTO excluded SELECT n, int4range(n, n + 1) FROM generate_series(1, 500) n;
INSERT INTO parent SELECT n FROM generate_series(1, 500) n;
INSERT INTO child SELECT n, 'x', n FROM generate_series(1, 500) n;
INSERT INTO tree SELECT n, date '2026-01-01' + n FROM generate_series(1, 100) n;
INSERT INTO pointing SELECT n, n, 'c' || n FROM generate_series(1, 500) n;
"#;

const NULLS: &str = "CREATE TABLE nulls (id int PRIMARY KEY, code int, UNIQUE NULLS NOT DISTINCT (code))";
const PERIODS: &str =
    "CREATE TABLE periods (id int4range, span daterange, PRIMARY KEY (id, span WITHOUT OVERLAPS))";

/// Everything that a key is, as the catalogs have it.
const DESCRIBED: &str = "
SELECT concat_ws(' | ', i.indrelid::regclass, ic.relname, pg_get_indexdef(i.indexrelid), pg_get_constraintdef(k.oid), k.conname,
       k.contype, k.condeferrable, k.condeferred, k.conislocal, k.coninhcount, i.indisunique, i.indisprimary, i.indisexclusion,
       i.indimmediate, i.indisclustered, i.indisreplident, i.indisvalid, i.indisready, ic.reloptions, t.spcname,
       up.inhparent::regclass, obj_description(k.oid, 'pg_constraint'), obj_description(ic.oid, 'pg_class'),
       pg_get_userbyid(ic.relowner))
  FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
  LEFT JOIN pg_tablespace t ON t.oid = ic.reltablespace LEFT JOIN pg_inherits up ON up.inhrelid = ic.oid
 WHERE n.nspname IN ('public', 'My keys')
UNION ALL
SELECT concat_ws(' | ', c.oid::regclass, a.attname, a.attnotnull, c.relreplident)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
 WHERE n.nspname IN ('public', 'My keys') AND c.relkind IN ('r', 'p')
 ORDER BY 1";

async fn keys_are_the_same(source: Version, target: Version, more: &[&str]) {
    let pair = Pair::start(source, target).await;
    let space = "CREATE TABLESPACE fast LOCATION ''";
    for node in [&pair.source, &pair.target] {
        node.sql("SET allow_in_place_tablespaces = on").await;
        node.sql(space).await;
    }
    pair.source.sql(KEYS).await;
    for statement in more {
        pair.source.sql(statement).await;
    }
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    assert_eq!(pair.target.column(DESCRIBED).await, pair.source.column(DESCRIBED).await);
    let built_apart: i64 = pair
        .target
        .value("SELECT count(*) FROM relevo.schema_statement WHERE statement LIKE '%USING INDEX%ADD CONSTRAINT%' OR statement LIKE '%ADD CONSTRAINT%USING INDEX%'")
        .await;
    assert!(built_apart >= 12, "{built_apart} keys were built as an index first");
    pair.source.sql("INSERT INTO plain VALUES (1000, 'new'); UPDATE deferred SET code = -code").await;
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn keys_of_14_on_15() {
    keys_are_the_same(Version::V14, Version::V15, &[]).await;
}

#[tokio::test]
async fn keys_of_15_on_16() {
    keys_are_the_same(Version::V15, Version::V16, &[NULLS]).await;
}

#[tokio::test]
async fn keys_of_16_on_17() {
    keys_are_the_same(Version::V16, Version::V17, &[NULLS]).await;
}

#[tokio::test]
async fn keys_of_17_on_14() {
    keys_are_the_same(Version::V17, Version::V14, &[]).await;
}

#[tokio::test]
async fn keys_of_18_on_18() {
    keys_are_the_same(Version::V18, Version::V18, &[NULLS, PERIODS]).await;
}
