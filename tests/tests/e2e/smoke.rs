//! The main job at its plainest, over several pairs of versions.

use relevo_tests::{Pair, Version};

const SCHEMA: &str = "
CREATE TABLE customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, note text);
CREATE TABLE purchase (
    customer_id int NOT NULL REFERENCES customer, number int NOT NULL, amount numeric(12,2),
    at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (customer_id, number));
CREATE TABLE logbook (at timestamptz DEFAULT now(), message text);
CREATE SCHEMA \"Other Schema\";
CREATE TABLE \"Other Schema\".\"Mixed\" (\"Key\" text PRIMARY KEY, value jsonb);
";
const ROWS_BEFORE: &str = "
INSERT INTO customer (name, note) SELECT 'customer ' || n, repeat('note ', n % 700) FROM generate_series(1, 1000) n;
INSERT INTO purchase SELECT id, number, id * number / 7.0 FROM customer, generate_series(1, 5) number;
INSERT INTO logbook (message) SELECT 'line ' || n FROM generate_series(1, 100) n;
INSERT INTO \"Other Schema\".\"Mixed\" SELECT 'k' || n, jsonb_build_object('n', n) FROM generate_series(1, 50) n;
";
/// Inserts, updates of plain columns and of keys, deletes, an unchanged large value, and a transaction that is
/// rolled back.
const CHANGES: &str = "
INSERT INTO customer (name) SELECT 'later ' || n FROM generate_series(1, 200) n;
BEGIN;
UPDATE customer SET name = name || '!' WHERE id % 10 = 0;
UPDATE purchase SET number = number + 100 WHERE customer_id % 7 = 0;
DELETE FROM purchase WHERE customer_id % 11 = 0;
INSERT INTO logbook (message) VALUES ('one transaction');
COMMIT;
BEGIN;
DELETE FROM purchase;
ROLLBACK;
UPDATE \"Other Schema\".\"Mixed\" SET value = NULL WHERE \"Key\" LIKE '%3';
";
const CHANGES_WHILE_STOPPED: &str = "
INSERT INTO logbook (message) VALUES ('nobody listens');
DELETE FROM \"Other Schema\".\"Mixed\" WHERE \"Key\" = 'k1';
UPDATE customer SET note = 'changed while stopped' WHERE id <= 20;
";

async fn an_empty_target_becomes_a_copy_and_follows(source: Version, target: Version) {
    let pair = Pair::start(source, target).await;
    pair.source.sql(SCHEMA).await;
    pair.source.sql(ROWS_BEFORE).await;

    let mut relevo = pair.relevo().start();
    let status = relevo.wait_until_streaming().await;
    assert_eq!(status["tables"]["copied"], status["tables"]["total"], "{status}");
    pair.settle().await;

    pair.source.sql(CHANGES).await;
    pair.settle().await;
    relevo.terminate();

    pair.source.sql(CHANGES_WHILE_STOPPED).await;
    relevo.restart();
    pair.settle().await;
    pair.source.sql("INSERT INTO customer (name) VALUES ('after the restart')").await;
    pair.settle().await;
    relevo.terminate();
}

macro_rules! for_each_pair {
    ($($name:ident: $source:ident to $target:ident),* $(,)?) => { $(
        mod $name {
            use relevo_tests::Version;

            #[tokio::test]
            async fn an_empty_target_becomes_a_copy_and_follows() {
                super::an_empty_target_becomes_a_copy_and_follows(Version::$source, Version::$target).await;
            }
        }
    )* };
}
for_each_pair!(
    from_14_to_15: V14 to V15,
    from_15_to_15: V15 to V15,
    from_15_to_18: V15 to V18,
    from_18_to_18: V18 to V18,
);
