//! Values pass through untouched: every type and array, the sides' own settings, the very large, the very many.

use std::time::Duration;

use relevo_tests::{Pair, Version, soak_factor};

const AWKWARD_SCHEMA: &str = include_str!("../../sql/awkward_schema.sql");

/// Made from the awkward tables' columns, so that a type which is added there is here as well.
const ARRAYS: &str = "
DO $$
DECLARE
    columns text;
    arrays text;
    from_table text;
BEGIN
    FOREACH from_table IN ARRAY ARRAY['scalars', 'compounds'] LOOP
        SELECT string_agg(format('%I %s[]', attname, format_type(atttypid, atttypmod)), ', '),
               string_agg(format('ARRAY[%1$I, NULL, %1$I]', attname), ', ')
          INTO columns, arrays
          FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
         WHERE attrelid = ('types.' || from_table)::regclass AND attnum > 1 AND t.typarray <> 0 AND typcategory <> 'A' AND typname !~ 'vector';
        EXECUTE format('CREATE TABLE types.arrays_of_%s (id bigint PRIMARY KEY, %s)', from_table, columns);
        EXECUTE format('INSERT INTO types.arrays_of_%1$s SELECT id, %2$s FROM types.%1$s', from_table, arrays);
    END LOOP;
END $$;
CREATE TABLE types.shapes (id int PRIMARY KEY, i int[], t text[], n numeric[], b bytea[], d date[], v int2vector[]);
INSERT INTO types.shapes VALUES
    (1, '{}', '{}', '{}', '{}', '{}', '{}'), (2, '{{1,2},{3,NULL}}', '{{\"a\",NULL},{\"NULL\",null}}', '{{NaN}}', '{\"\\\\x00\",NULL}', '{infinity,-infinity}', '{\"1 2\",\"\"}'),
    (3, '[0:1]={1,2}', '[-3:-2][5:6]={{\"{}\",\",\"},{\"\\\\\",\"\\\"\"}}', '[7:7]={1.0}', '[0:0]={\"\\\\x\"}', '[2:3]={\"0001-01-01 BC\",2026-01-01}', NULL),
    (4, '{{{{{{1}}}}}}', '{\" \",\"\",\"\t\",\"\n\"}', NULL, NULL, NULL, NULL);
";

/// Every row anew, by INSERT of a few (single statements) and of many (COPY), by UPDATE of each column, by DELETE.
#[tokio::test]
async fn every_value_of_every_type_and_arrays_of_them_arrive_by_every_kind_of_change() {
    let pair = Pair::start(Version::V17, Version::V18).await;
    pair.source.sql(AWKWARD_SCHEMA).await;
    pair.source.sql(ARRAYS).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    for table in ["scalars", "compounds", "arrays_of_scalars", "arrays_of_compounds", "shapes", "markup"] {
        let columns = pair
            .source
            .column(&format!("SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = 'types.{table}'::regclass AND attnum > 1 AND NOT attisdropped ORDER BY attnum"))
            .await;
        let list = columns.join(", ");
        // A run of inserts goes by COPY; with updates in between they go one by one.
        pair.source
            .sql(&format!("INSERT INTO types.{table} (id, {list}) SELECT id + 100 * copy, {list} FROM types.{table}, generate_series(1, 10) copy WHERE id < 100"))
            .await;
        pair.source
            .sql(&format!("DO $$ DECLARE r types.{table}; BEGIN FOR r IN SELECT * FROM types.{table} WHERE id < 100 LOOP
                 r.id := r.id + 5000; INSERT INTO types.{table} VALUES (r.*); UPDATE types.{table} SET id = id WHERE id = r.id; END LOOP; END $$"))
            .await;
        for column in &columns {
            // Another row's value of the same column.
            pair.source
                .sql(&format!("UPDATE types.{table} t SET {column} = o.{column} FROM types.{table} o WHERE t.id BETWEEN 100 AND 199 AND o.id = CASE WHEN t.id % 2 = 0 THEN 1 ELSE 3 END"))
                .await;
        }
        pair.source.sql(&format!("DELETE FROM types.{table} WHERE id BETWEEN 200 AND 299")).await;
    }
    pair.settle().await;
    assert_eq!(relevo.status().await.unwrap()["errors"], 0);
    relevo.terminate();
}

/// Texts that look like something else to a careless hand, and every byte.
#[tokio::test]
async fn texts_and_bytes_of_every_kind_stay_what_they_are() {
    let pair = Pair::start(Version::V14, Version::V18).await;
    pair.source
        .sql("CREATE TABLE texts (id serial PRIMARY KEY, t text, v varchar, c char(3), n name, b bytea, j json, jb jsonb); CREATE TABLE plain_full (t text, b bytea); ALTER TABLE plain_full REPLICA IDENTITY FULL")
        .await;
    let fill = "
        INSERT INTO texts (t) VALUES (''), (NULL), ('NULL'), ('null'), ('\\N'), ('\\.'), (E'\\\\.\\n'), (E'\\\\N\\t\\\\N'), (E'\\b\\f\\n\\r\\t\\v'), ('{}'), ('\"'), (''''), ('$1'), ('\\x00'), (E'\\u00e9'), (E'e\\u0301'), (E'\\U0010FFFF'), (E'\\uFEFFx'), (E'\\u2028'), ('    '), (E'\\x01\\x1f\\x7f');
        INSERT INTO texts (v, c, n) VALUES ('', '', ''), ('x', 'x', 'x'), ('  ', '  ', '  '), (NULL, NULL, NULL), ('ä', 'äöü', 'ä');
        INSERT INTO texts (b) SELECT set_byte('\\x00', 0, n) FROM generate_series(0, 255) n;
        INSERT INTO texts (b) SELECT decode(string_agg(to_hex(n / 16) || to_hex(n % 16), ''), 'hex') FROM generate_series(0, 255) n;
        INSERT INTO texts (t) SELECT chr(n) FROM generate_series(1, 300) n;
        INSERT INTO texts (j, jb) VALUES ('{\"a\":1,\"a\":2, \"b\" : [1.0,1.00,1e5]}', '{\"a\":1,\"a\":2, \"b\" : [1.0,1.00,1e5]}'), ('\"\\ud83d\\ude00 \\n \\u00e9 \\\\\"', '\"\\ud83d\\ude00 \\n \\u00e9 \\\\\"'), ('\"\\u0000\"', NULL), (' [ ] ', '[]'), ('{\"\":null}', '{\"\":null}'), ('1e400', '1e400'), ('-0', '-0');
        INSERT INTO plain_full SELECT t, b FROM texts;";
    pair.source.sql(fill).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    pair.source.sql(fill).await;
    pair.source.sql("UPDATE texts SET t = '' WHERE t IS NULL AND id % 3 = 0; UPDATE texts SET t = NULL WHERE t = '' AND id % 2 = 0; UPDATE texts SET b = b || '\\x00'; UPDATE texts SET c = v, n = v").await;
    pair.source
        .sql("DELETE FROM plain_full WHERE ctid IN (SELECT min(ctid) FROM plain_full GROUP BY t, b)")
        .await;
    pair.settle().await;
    assert_eq!(relevo.status().await.unwrap()["errors"], 0);
    relevo.terminate();
}

/// However database, role and server print them, and whatever they are set to read: the values are the same.
#[tokio::test]
async fn settings_of_servers_databases_and_roles_do_not_touch_values() {
    let settings = |builder: relevo_tests::ClusterBuilder, style: &str| {
        builder
            .set("DateStyle", style)
            .set("bytea_output", "escape")
            .set("xmlbinary", "hex")
            .set("array_nulls", "off")
            .set("transform_null_equals", "on")
            .set("backslash_quote", "off")
            .set("default_text_search_config", "pg_catalog.german")
            .set("standard_conforming_strings", "off")
            .set("escape_string_warning", "off")
            .set("quote_all_identifiers", "on")
            .set("default_transaction_isolation", "serializable")
            .set("statement_timeout", "60s")
            .set("default_table_access_method", "heap")
    };
    let pair = Pair::builder(Version::V16, Version::V15)
        .source(|builder| {
            settings(builder, "German, DMY").set("extra_float_digits", "-15").set("IntervalStyle", "iso_8601")
        })
        .target(|builder| {
            settings(builder, "Postgres, MDY")
                .set("extra_float_digits", "-10")
                .set("IntervalStyle", "postgres_verbose")
                .set("TimeZone", "America/St_Johns")
        })
        .start()
        .await;
    for node in [&pair.source, &pair.target] {
        node.sql("ALTER ROLE postgres SET search_path = 'nowhere'; ALTER DATABASE shop SET TimeZone = 'Antarctica/Troll'; ALTER ROLE postgres IN DATABASE shop SET xmloption = 'document'").await;
        node.sql("ALTER DATABASE shop SET client_encoding = 'LATIN1'; ALTER DATABASE shop SET lc_monetary = 'C.UTF-8'; ALTER ROLE postgres SET statement_timeout = '1h'; ALTER DATABASE shop SET session_replication_role = 'origin'").await;
    }
    let source = pair.source.connect("shop").await;
    source
        .sql(
            "SET search_path = public; SET standard_conforming_strings = on; SET array_nulls = on; SET DateStyle = 'ISO, YMD'; SET client_encoding = 'UTF8'; SET xmloption = content;
             CREATE TABLE v (id serial PRIMARY KEY, ts timestamptz, d date, tt timetz, i interval, f float8, r real, b bytea, m money, x xml, a text[], c regclass, tr tstzrange, fa float8[], name text);
             CREATE FUNCTION fill() RETURNS void LANGUAGE sql SET search_path = public SET DateStyle = 'ISO, YMD' SET xmloption = content SET array_nulls = on AS $$
             INSERT INTO v (ts, d, tt, i, f, r, b, m, x, a, c, tr, fa, name) VALUES
                 ('2026-03-29 01:30:00.123456+00', '2026-02-01', '12:34:56.789+05:45', '1 year -2 mons 3 days -04:05:06.789', 0.1 + 0.2::float8, 1.1::real / 3, '\\x00ff5c27', 1234567.89::numeric::money, 'a <b/>', '{NULL,\"NULL\",\"\"}', 'v', '[2026-01-01 00:00+00,infinity)', ARRAY[1/3.0::float8, 'NaN', '-0'], 'größe 名'),
                 ('0044-03-15 12:00:00+00 BC', '0044-03-15 BC', '24:00+00', '-1 mon', 5e-324, 1e-45, '', (-0.01)::numeric::money, '<!DOCTYPE a><a/>', '{}', NULL, 'empty', '{}', ''),
                 ('infinity', '-infinity', '00:00-15:59', '178000000 years', 1.7976931348623157e308, 3.4028235e38, '\\x5c5c', '92233720368547758.07'::numeric::money, '', NULL, 'pg_class', '(,)', NULL, NULL) $$;
             SELECT fill()",
        )
        .await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.settle().await;
    source.sql("SELECT fill() FROM generate_series(1, 12)").await;
    source.sql("UPDATE v SET f = -f, r = -r, ts = ts + interval '1 us' WHERE id % 3 <> 0; UPDATE v SET id = id + 100 WHERE id < 5; UPDATE v SET m = m / 3, i = i / 2 WHERE id % 3 = 1").await;
    pair.settle().await;
    relevo.terminate();
}

/// Inserted, updated, and left alone while other columns of their row change.
#[tokio::test]
async fn values_of_ten_megabytes_arrive_and_stay_when_they_are_not_sent() {
    let pair = Pair::start(Version::V15, Version::V17).await;
    pair.source
        .sql(
            "CREATE TABLE large (id int PRIMARY KEY, t text, b bytea, j jsonb, other int DEFAULT 0); CREATE TABLE large_full (id int, t text, other int); ALTER TABLE large_full REPLICA IDENTITY FULL;
             CREATE TABLE large_key (k text, other int); CREATE UNIQUE INDEX ON large_key (md5(k));
             ALTER TABLE large ALTER t SET STORAGE EXTERNAL;
             CREATE FUNCTION megabytes(n int, seed int) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(md5((i * seed)::text), '') FROM generate_series(1, n * 32768) i $$;
             INSERT INTO large VALUES (1, megabytes(10, 1), decode(megabytes(10, 2), 'hex'), jsonb_build_object('a', megabytes(5, 3), 'b', megabytes(5, 4)))",
        )
        .await;
    let mut relevo = pair.relevo().args(["--memory", "64MiB", "--batch-bytes", "1MiB"]).start();
    relevo.wait_until_streaming().await;
    pair.source.sql("INSERT INTO large SELECT 2, t, b, j FROM large WHERE id = 1; UPDATE large SET other = 1 WHERE id = 1").await;
    pair.source.sql("UPDATE large SET t = t || 'x' WHERE id = 1; UPDATE large SET b = b || '\\x00', other = 2; UPDATE large SET j = j || '{\"c\": 1}' WHERE id = 2").await;
    pair.source.sql("UPDATE large SET id = 3, other = 3 WHERE id = 1; UPDATE large SET other = 4; DELETE FROM large WHERE id = 2").await;
    pair.source.sql("INSERT INTO large_full SELECT 1, t, 0 FROM large; UPDATE large_full SET other = 1; UPDATE large_full SET t = 'small'; INSERT INTO large_full SELECT 2, t, 0 FROM large; DELETE FROM large_full WHERE id = 2").await;
    pair.settle().await;
    relevo.terminate();
}

/// Both sides learn a label while rows that use it are under way.
#[tokio::test]
async fn a_label_added_to_an_enum_on_both_sides_is_used_at_once() {
    let pair = Pair::start(Version::V14, Version::V14).await;
    pair.source.sql("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[]); INSERT INTO t VALUES (1, 'sad', '{ok,sad}')").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    for label in ["happy", "it''s", "Größe, \"x\""] {
        let add = format!("ALTER TYPE mood ADD VALUE '{label}' BEFORE 'ok'");
        pair.source.sql("UPDATE t SET m = 'ok'").await;
        pair.target.sql(&add).await;
        pair.source.sql(&add).await;
        pair.source.sql(&format!("UPDATE t SET m = '{label}', ms = ARRAY['{label}', NULL, 'ok']::mood[]; INSERT INTO t SELECT max(id) + n, '{label}' FROM t, generate_series(1, 30) n GROUP BY n")).await;
        pair.settle().await;
    }
    // Only on the source: the flow stops with the label's name, and goes on.
    pair.source.sql("ALTER TYPE mood ADD VALUE 'only here'").await;
    pair.source.sql("UPDATE t SET m = 'only here' WHERE id = 1").await;
    let status = relevo.wait_for_state("failed").await;
    assert!(status.to_string().contains("only here"), "{status}");
    pair.target.sql("ALTER TYPE mood ADD VALUE 'only here'").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

/// The memory setting bounds the changes in flight; a transaction travels in parts.
#[tokio::test]
async fn a_million_rows_in_one_transaction_are_inserted_updated_and_deleted_in_bounded_memory() {
    const LIMIT_BYTES: f64 = 400e6;
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source
        .sql(
            "CREATE TABLE many (id int PRIMARY KEY, v text, n bigint); CREATE TABLE few (id int PRIMARY KEY)",
        )
        .await;
    let mut relevo = pair.relevo().args(["--memory", "64MiB"]).start();
    relevo.wait_until_streaming().await;
    // One by one they take longer than inserts do: a part of them shows the bound as well.
    let fifths = if soak_factor() == 1 { 1 } else { 5 };
    for change in [
        "INSERT INTO many SELECT n, 'row ' || n, n FROM generate_series(1, 1000000) n",
        &format!("UPDATE many SET n = n + 1, v = v || '+' WHERE id % 5 < {fifths}"),
        &format!("DELETE FROM many WHERE id % 5 < {fifths}"),
    ] {
        pair.source.sql(&format!("{change}; INSERT INTO few SELECT count(*) FROM few")).await;
        pair.caught_up_within(Duration::from_secs(240)).await;
        let resident_bytes = relevo.metrics().await.value("process_resident_memory_bytes");
        assert!(resident_bytes > 1e6, "{resident_bytes}");
        let peak_bytes = peak_memory_bytes(relevo.pid()).max(resident_bytes);
        assert!(peak_bytes < LIMIT_BYTES, "{change}: {peak_bytes} bytes of memory");
    }
    pair.assert_equal().await;
    relevo.terminate();
}

/// The most that the process ever had resident.
fn peak_memory_bytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}
