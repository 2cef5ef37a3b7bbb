//! Kills at the instants where a replicator loses or repeats a change: a COMMIT is on its way, a large transaction is half
//! sent, a commit is visible but not flushed.

use std::time::Duration;

use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::workload::Checker;
use relevo_tests::{ConfirmedWatch, Direction, Pair, Version, soak_factor, wait_until};

/// No primary key: a change that is applied twice is a row more.
const HISTORY: &str = "CREATE TABLE history (n int, note text)";
const APPLIED: &str = "SELECT (applied_lsn - '0/0')::bigint FROM relevo.progress";

/// Large enough to tell its transaction from everything else that goes to the target.
const LAST_WORDS_CHARS: u64 = 5000;

/// Waits until Relevo has no more to say to the frozen target before it gets an answer; whether the last words are among
/// what it has said since `sent`. They are not when it waited for the answer to something else already.
async fn last_words_are_on_their_way(pair: &Pair, sent: u64) -> bool {
    let (mut before, mut looks_without_change) = (sent, 0);
    loop {
        let now = pair.target_proxy().passed_bytes(Direction::ToServer);
        looks_without_change = if now == before { looks_without_change + 1 } else { 0 };
        before = now;
        let on_their_way = now > sent + LAST_WORDS_CHARS;
        if looks_without_change >= if on_their_way { 15 } else { 100 } {
            return on_their_way;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a killed Relevo has sent to the target is read there after its death: BEGIN, the row, COMMIT.
async fn a_commit_that_outlives_its_sender(source: Version, target: Version, restart_before_the_thaw: bool) {
    let pair = Pair::builder(source, target).proxied().start().await;
    pair.source.sql(HISTORY).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    let confirmed = ConfirmedWatch::start(&pair);
    let rounds = 3 * i32::try_from(soak_factor()).unwrap();
    let (mut n, mut met) = (0, 0);
    while met < rounds {
        n += 1;
        // Statements are prepared with the first change to a table; then a small transaction goes in one piece.
        pair.source.sql(&format!("INSERT INTO history VALUES ({n}, 'warm')")).await;
        pair.caught_up().await;
        pair.target.freeze();
        let sent = pair.target_proxy().passed_bytes(Direction::ToServer);
        pair.source.sql(&format!("INSERT INTO history VALUES ({n}, repeat('x', {LAST_WORDS_CHARS}))")).await;
        if !last_words_are_on_their_way(&pair, sent).await {
            pair.target.thaw();
            pair.settle().await;
            continue;
        }
        met += 1;
        if !restart_before_the_thaw {
            // Else the server may notice at its first answer that nobody listens any more, and give up.
            pair.target_proxy().stall(Direction::ToClient);
        }
        relevo.kill();
        if restart_before_the_thaw {
            relevo.restart();
            pair.target.thaw();
        } else {
            pair.target.thaw();
            let last_words = format!("SELECT count(*) FROM history WHERE n = {n} AND note <> 'warm'");
            wait_until("the commit of the dead", PATIENCE, async || {
                pair.target.value::<i64>(&last_words).await > 0
            })
            .await;
            pair.target_proxy().resume();
            relevo.restart();
        }
        pair.settle().await;
    }
    confirmed.finish().await;
    relevo.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_outlives_its_sender_counts_once() {
    a_commit_that_outlives_its_sender(Version::V14, Version::V15, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_its_sender_s_successor_meets_counts_once() {
    a_commit_that_outlives_its_sender(Version::V18, Version::V18, true).await;
}

const LARGE_ROWS: i64 = 120_000;

/// Relevo, then the target, die in the middle of a transaction of many parts; nobody ever sees a part of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_is_seen_whole_or_not_at_all_when_relevo_or_the_target_dies_in_it() {
    let pair = Pair::builder(Version::V15, Version::V18).proxied().start().await;
    pair.source.sql("CREATE TABLE large (id int PRIMARY KEY, filler text)").await;
    let mut relevo = pair.relevo().args(["--batch-bytes", "1MiB"]).start();
    relevo.wait_until_streaming().await;
    let confirmed = ConfirmedWatch::start(&pair);
    let whole = Checker::start(pair.target.config(DATABASE), "SELECT count(*) FROM large", |row| {
        let count: i64 = row.get(0);
        let text = format!("{count} of {LARGE_ROWS} rows");
        if count == 0 || count == LARGE_ROWS { Ok(text) } else { Err(text) }
    });
    let link = pair.target_proxy();
    let under_way = async || {
        let before = link.passed_bytes(Direction::ToServer);
        wait_until("the middle of the large transaction", PATIENCE, async || {
            link.passed_bytes(Direction::ToServer) > before + (4 << 20)
        })
        .await;
    };
    // Slow enough that the middle is long.
    link.throttle(Some(8 << 20));
    pair.source
        .sql(&format!("INSERT INTO large SELECT n, repeat('x', 100) FROM generate_series(1, {LARGE_ROWS}) n"))
        .await;
    under_way().await;
    relevo.restart();
    under_way().await;
    pair.target.crash();
    pair.target.start().await;
    under_way().await;
    link.cut();
    link.throttle(None);
    pair.settle().await;

    // The same for a transaction that changes what is there.
    link.throttle(Some(8 << 20));
    pair.source.sql("UPDATE large SET filler = filler || id").await;
    under_way().await;
    relevo.restart();
    link.throttle(None);
    pair.settle().await;
    whole.finish().await;
    confirmed.finish().await;
    relevo.terminate();
}

/// The target returns from COMMIT before the commit is on disk, and crashes: its memory of it is gone. The source must
/// still have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_of_the_target_takes_back_comes_again() {
    let pair = Pair::builder(Version::V15, Version::V15)
        // The longest that there is: what is committed stays in memory.
        .target(|target| target.set("wal_writer_delay", "10s").set("autovacuum", "off"))
        .start()
        .await;
    pair.source.sql(HISTORY).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    let confirmed = ConfirmedWatch::start(&pair);
    let mut taken_back = 0;
    let rounds = 5 * i32::try_from(soak_factor()).unwrap();
    for n in 1..=rounds {
        pair.source
            .sql(&format!("INSERT INTO history SELECT {n}, 'row ' || m FROM generate_series(1, 5) m"))
            .await;
        wait_until("the rows are visible", PATIENCE, async || {
            pair.target.value::<i64>(&format!("SELECT count(*) FROM history WHERE n = {n}")).await == 5
        })
        .await;
        let before: i64 = pair.target.value(APPLIED).await;
        pair.target.crash();
        // Without Relevo nobody brings back what was lost before it can be seen to be lost.
        relevo.kill();
        pair.target.start().await;
        taken_back += i32::from(pair.target.value::<i64>(APPLIED).await < before);
        relevo.restart();
        pair.settle().await;
    }
    assert!(taken_back > 0, "no crash took anything back: the test shows nothing");
    confirmed.finish().await;
    relevo.terminate();
}

/// The same, with a Relevo that lives through the crash and has applied more than the target remembers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relevo_that_remembers_more_than_the_crashed_target_sends_it_again() {
    let pair = Pair::builder(Version::V18, Version::V18)
        .target(|target| target.set("wal_writer_delay", "10s").set("autovacuum", "off"))
        .start()
        .await;
    pair.source.sql(HISTORY).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    let confirmed = ConfirmedWatch::start(&pair);
    for n in 1..=3 * i32::try_from(soak_factor()).unwrap() {
        pair.source.sql(&format!("INSERT INTO history VALUES ({n}, 'once')")).await;
        wait_until("the row is visible", PATIENCE, async || {
            pair.target.value::<i64>(&format!("SELECT count(*) FROM history WHERE n = {n}")).await == 1
        })
        .await;
        pair.target.crash();
        pair.target.start().await;
        pair.settle().await;
    }
    assert!(relevo.try_exit().is_none(), "relevo lives through crashes of the target");
    confirmed.finish().await;
    relevo.terminate();
}
