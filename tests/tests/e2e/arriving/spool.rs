//! What tables miss while they are copied: kept on disk, so that the slot moves on; bounded; whole after a kill; and
//! made up for by another copy when it is lost.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Relevo, Version, wait_until, wait_until_some};
use tempfile::TempDir;

use super::{
    PARTS, confirmed, files_below, hold_indexes, recorded, slow_giant, state_of, until_slot_passes,
    until_state,
};

/// A slow copy whose spool is in a directory of the test's own.
async fn spooling(source: Version, target: Version, more: &[&str]) -> (Pair, Relevo, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let options: Vec<&str> =
        ["--spool", path.to_str().unwrap()].into_iter().chain(PARTS).chain(more.iter().copied()).collect();
    let (pair, relevo) = slow_giant(source, target, &options).await;
    (pair, relevo, directory)
}

/// Every kind of change to the giant and the others, as transactions of both; a few each time.
async fn change_everything(pair: &Pair, round: u32) {
    pair.source
        .sql(&format!(
            "BEGIN; UPDATE giant SET n = n + 1 WHERE id % 400 = {round}; DELETE FROM giant WHERE id = 1000 + {round};
             UPDATE small SET note = 'round {round}' WHERE id = {round}; COMMIT;
             BEGIN; INSERT INTO giant SELECT 1000 * (100 + {round}) + n, n, md5(n::text) FROM generate_series(1, 50) n;
             UPDATE giant SET id = -id WHERE id = 2000 + {round}; COMMIT;
             INSERT INTO other VALUES (1000 + {round}, 'new')"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_moves_on_while_a_table_is_copied() {
    let (pair, mut relevo, spool) = spooling(Version::V14, Version::V16, &[]).await;
    super::until_parts(&pair, "giant", 1).await;
    for round in 1..=20 {
        change_everything(&pair, round).await;
    }
    until_slot_passes(&pair).await;
    let copying = state_of(&pair, "giant").await;
    assert_eq!(copying, "copying", "the giant was too fast for this test");
    wait_until("the spool is shown", PATIENCE, async || {
        relevo.metrics().await.value("relevo_spool_bytes") > 0.0
    })
    .await;
    assert!(!files_below(spool.path()).is_empty(), "nothing in --spool");
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    wait_until("an empty spool", PATIENCE, async || files_below(spool.path()).is_empty()).await;
    wait_until("no bytes shown", PATIENCE, async || {
        relevo.metrics().await.value("relevo_spool_bytes") == 0.0
    })
    .await;
    relevo.terminate();
}

/// Bytes that do not compress, so that they fill the spool as they fill the table.
async fn write_noise(pair: &Pair, from: u32) {
    pair.source
        .sql(&format!(
            "INSERT INTO giant SELECT {from} + n, 0,
                    (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 20 + 0 * n))
               FROM generate_series(1, 1000) n"
        ))
        .await;
}

/// A full spool, with changes that did not fit in any more.
async fn fill(pair: &Pair, relevo: &mut Relevo) {
    super::until_parts(pair, "giant", 1).await;
    for part in 0..6 {
        write_noise(pair, 1_000_000 + part * 1000).await;
    }
    let full = "the spool is full while tables are being copied";
    let said = |status: &serde_json::Value| {
        status["state"] == "failed" && status["state_detail"].as_str().is_some_and(|said| said.contains(full))
    };
    relevo.wait_for_status("a full spool", PATIENCE, said).await;
    pair.source.sql("UPDATE small SET note = 'after' WHERE id = 3").await;
}

async fn assert_slot_stands(pair: &Pair, relevo: &Relevo) {
    let attempts = async || relevo.metrics().await.sum("relevo_errors_total", &[("kind", "spool_full")]);
    // An attempt may have taken more in one go than there was room for: the next one still keeps, and confirms, what fits.
    // From then on every attempt ends at the same place.
    let mut stands = String::new();
    for at in [None, Some(())] {
        let before = attempts().await.unwrap_or(0.0);
        wait_until("two more attempts", PATIENCE, async || attempts().await.unwrap_or(0.0) >= before + 2.0)
            .await;
        let now = confirmed(pair).await;
        if at.is_some() {
            assert_eq!(now, stands, "the slot moved although nothing could be kept");
        }
        stands = now;
    }
    assert_eq!(state_of(pair, "giant").await, "copying", "the giant was too fast for this test");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_makes_the_source_wait_until_the_table_has_arrived() {
    let (pair, mut relevo, _spool) = spooling(Version::V17, Version::V17, &["--spool-limit", "1MiB"]).await;
    fill(&pair, &mut relevo).await;
    assert_slot_stands(&pair, &relevo).await;
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    let log = relevo.stderr();
    let copied = |line: &&str| line.contains("copy: table done") && line.contains("public.giant");
    assert_eq!(log.lines().filter(copied).count(), 1, "the giant is not copied again");
    relevo.terminate();
}

/// The rows of the second attempt are of a position that the stream cannot reach before there is room; what the spool
/// holds of the table is then of no more use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_does_not_keep_a_table_of_a_second_attempt_from_arriving() {
    let (pair, mut relevo, _spool) = spooling(Version::V15, Version::V14, &["--spool-limit", "1MiB"]).await;
    fill(&pair, &mut relevo).await;
    relevo.restart();
    relevo.wait_for_log("a temporary slot for the tables").await;
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
}

/// Stops at a point where the giant has all its rows and missed some changes since. Returns the LSNs of giant and small.
async fn copied_and_not_joined(pair: &Pair) -> (relevo_tests::Database, String, String) {
    let holder = hold_indexes(pair, "giant").await;
    pair.target_proxy().throttle(None);
    let giant = until_state(pair, "giant", "copied").await;
    let small = until_state(pair, "small", "streaming").await;
    until_state(pair, "other", "streaming").await;
    for round in 1..=10 {
        change_everything(pair, round).await;
    }
    until_slot_passes(pair).await;
    (holder, giant, small)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_wait_for_a_lost_spool_are_copied_again_and_the_others_are_not() {
    let (pair, mut relevo, spool) = spooling(Version::V16, Version::V18, &[]).await;
    let (holder, giant, small) = copied_and_not_joined(&pair).await;
    relevo.terminate();
    drop(holder);
    std::fs::remove_dir_all(spool.path().join("spool")).unwrap();
    change_everything(&pair, 11).await;
    relevo.restart();
    relevo.wait_for_log("was kept in another spool; they are copied again").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    assert_ne!(recorded(&pair, "giant").await.unwrap().1, giant, "what giant has missed cannot be known");
    assert_eq!(recorded(&pair, "small").await.unwrap().1, small, "small followed the stream");
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_table_is_not_copied_again_after_a_kill() {
    let (pair, mut relevo, spool) = spooling(Version::V18, Version::V15, &[]).await;
    let (holder, giant, small) = copied_and_not_joined(&pair).await;
    relevo.kill();
    assert!(!files_below(spool.path()).is_empty(), "nothing is kept");
    change_everything(&pair, 11).await;
    relevo.restart();
    // The stream goes on before the giant does.
    wait_until_some("a change of another table", PATIENCE, async || {
        let note: String = pair.target.value("SELECT note FROM small WHERE id = 11").await;
        if note == "round 11" { Ok(()) } else { Err(note) }
    })
    .await;
    assert_eq!(recorded(&pair, "giant").await, Some(("copied".to_owned(), giant.clone())));
    drop(holder);
    relevo.wait_until_streaming().await;
    pair.settle().await;
    assert_eq!(recorded(&pair, "giant").await.unwrap().1, giant, "giant was copied again");
    assert_eq!(recorded(&pair, "small").await.unwrap().1, small, "small was copied again");
    relevo.terminate();
}
