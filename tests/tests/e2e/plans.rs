//! The target finds rows by their key however its tables have grown since a statement was planned.

use relevo_tests::{Pair, Version};

/// The statement was planned when the table was almost empty. With a sequential scan for each of its rows, a
/// transaction that fills a table and then updates it would take hours.
#[tokio::test]
async fn updates_in_the_transaction_that_filled_the_table_use_the_index() {
    let pair = Pair::start(Version::V14, Version::V15).await;
    pair.source
        .sql("CREATE TABLE grows (id int PRIMARY KEY, v text); INSERT INTO grows VALUES (0, 'first')")
        .await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    // The server settles on a plan after five executions (manual, PREPARE).
    for _ in 0..8 {
        pair.source.sql("UPDATE grows SET v = v || '+'").await;
        pair.caught_up().await;
    }
    pair.source
        .sql(
            "BEGIN; INSERT INTO grows SELECT n, 'x' FROM generate_series(1, 5000) AS n; \
             UPDATE grows SET v = v || '+'; DELETE FROM grows WHERE id % 2 = 0; COMMIT",
        )
        .await;
    pair.settle().await;
    relevo.terminate();
    let scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'grows'";
    let scans: i64 = pair.target.value(scans).await;
    assert!(scans < 100, "{scans} sequential scans for 7500 changes by key");
}
