//! The comparison finds what differs, and only that.

use relevo_tests::{Comparison, Pair, Version};

const SCHEMA: &str = r#"
CREATE SCHEMA "Größe";
CREATE TABLE "Größe"."Ta""ble" (id int PRIMARY KEY, "Wert" text, amount numeric, at timestamptz, m money, x xml);
CREATE TABLE no_columns ();
CREATE TABLE duplicates (a int);
CREATE TABLE parts (id int, v text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE UNLOGGED TABLE not_compared_unlogged (a int);
CREATE SCHEMA relevo;
CREATE TABLE relevo.not_compared (a int);
"#;
const ROWS: &str = r#"
INSERT INTO "Größe"."Ta""ble" VALUES (1, E'tab\tand\nline', 'NaN', '2024-02-29 12:00:00+05:45', 1234.5, '<a/>'),
    (2, NULL, 1.10, 'infinity', NULL, NULL);
INSERT INTO duplicates VALUES (1), (1), (NULL);
INSERT INTO parts VALUES (1, 'one');
"#;

#[tokio::test]
async fn equal_databases_are_equal_whatever_the_servers_settings_and_the_order_of_rows_and_columns() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.sql_on_both(SCHEMA).await;
    pair.sql_on_both(ROWS).await;
    pair.source.sql("CREATE TABLE t (a int, b text, dropped int); ALTER TABLE t DROP dropped").await;
    pair.target.sql("CREATE TABLE t (extra int DEFAULT 7, b text, a int)").await;
    pair.source.sql("INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')").await;
    pair.target
        .sql("INSERT INTO t (a, b) VALUES (2, 'y'), (1, 'x'); INSERT INTO relevo.not_compared VALUES (1)")
        .await;
    pair.target.sql("INSERT INTO not_compared_unlogged VALUES (1)").await;
    let equal = Comparison::default().assert_equal(&pair.source, &pair.target).await;
    assert_eq!((equal.tables, equal.rows), (5, 8));
    let by_root = Comparison::default().by_root().assert_equal(&pair.source, &pair.target).await;
    assert_eq!((by_root.tables, by_root.rows), (5, 8));
}

#[tokio::test]
async fn each_kind_of_difference_is_found_and_shown() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.sql_on_both(SCHEMA).await;
    pair.sql_on_both(ROWS).await;
    let differences = [
        (r#"UPDATE "Größe"."Ta""ble" SET amount = 1.1 WHERE id = 2"#, "1.10\tinfinity", ROWS),
        (r#"UPDATE "Größe"."Ta""ble" SET "Wert" = '' WHERE id = 2"#, r#""Größe"."Ta""ble": 2 rows"#, ROWS),
        ("INSERT INTO duplicates VALUES (1)", "3 rows on the source, 4 on the target", ROWS),
        ("DELETE FROM parts", "only on the source: 1\tone", ROWS),
        ("DROP TABLE parts_1", "parts_1: target: ERROR", ""),
    ];
    for (change, shown, refill) in differences {
        pair.target.sql(change).await;
        let difference = Comparison::default().compare(&pair.source, &pair.target).await.expect_err(change);
        assert!(difference.contains(shown), "{change}: {difference}");
        if !refill.is_empty() {
            pair.target.sql(r#"TRUNCATE "Größe"."Ta""ble", duplicates, parts"#).await;
            pair.target.sql(refill).await;
        }
    }
}
