//! What a copy holds on the source: no snapshot longer than rows are missing, no temporary slot longer than it takes to
//! open its snapshot.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Version, wait_until, wait_until_some};

use super::{PARTS, hold_indexes, slow_giant, state_of, until_parts, until_state};

/// Sessions of Relevo on the source that keep old rows from being removed.
const HOLDERS: &str = "
SELECT pid || ' ' || state || ' xmin ' || coalesce(backend_xmin::text, 'none') || ': ' || query FROM pg_stat_activity
 WHERE application_name LIKE 'relevo%' AND pid <> pg_backend_pid() AND backend_type = 'client backend'
   AND (backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%') AND datname = 'shop'";

const TEMPORARY_SLOTS: &str = "SELECT slot_name FROM pg_replication_slots WHERE temporary";

async fn until_nothing_is_held(pair: &Pair) {
    wait_until_some("no snapshot is held on the source", PATIENCE, async || {
        let holders = pair.source.column(HOLDERS).await;
        if holders.is_empty() { Ok(()) } else { Err(format!("{holders:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_snapshot_is_held_while_indexes_are_built() {
    let (pair, mut relevo) = slow_giant(Version::V16, Version::V14, &PARTS).await;
    let holder = hold_indexes(&pair, "giant").await;
    assert!(!pair.source.column(HOLDERS).await.is_empty(), "the rows are read under a snapshot");
    pair.target_proxy().throttle(None);
    until_state(&pair, "giant", "copied").await;
    until_nothing_is_held(&pair).await;
    assert_eq!(state_of(&pair, "giant").await, "copied");
    drop(holder);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

/// A second attempt makes its snapshot with a temporary slot, which would keep the WAL of the whole copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_temporary_slot_outlives_the_making_of_its_snapshot() {
    let (pair, mut relevo) = slow_giant(Version::V18, Version::V16, &PARTS).await;
    until_parts(&pair, "giant", 1).await;
    relevo.restart();
    relevo.wait_for_log("a temporary slot for the tables").await;
    wait_until("the second attempt empties the giant", PATIENCE, async || {
        pair.target.column("SELECT first_block FROM relevo.table_range").await.is_empty()
    })
    .await;
    let holder = hold_indexes(&pair, "giant").await;
    wait_until("the temporary slot is gone", PATIENCE, async || {
        pair.source.column(TEMPORARY_SLOTS).await.is_empty()
    })
    .await;
    assert_eq!(state_of(&pair, "giant").await, "copying", "the giant was too fast for this test");
    pair.target_proxy().throttle(None);
    until_state(&pair, "giant", "copied").await;
    until_nothing_is_held(&pair).await;
    drop(holder);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    assert_eq!(pair.source.value::<i64>("SELECT count(*) FROM pg_replication_slots").await, 1);
    relevo.terminate();
}
