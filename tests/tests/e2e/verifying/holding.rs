//! A repair holds the flow as long as it lives, and not much longer.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Version, wait_until, wait_until_some};

use super::{streaming, verify};

const HOLD_ENDS: &str = "SELECT coalesce(extract(epoch FROM hold_until)::float8, 0) FROM relevo.progress";

/// Somebody on the target keeps the repair waiting. While it lives the hold is renewed; when it is killed, the flow goes on by
/// itself within half a minute, whoever still waits in its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_keeps_its_hold_as_long_as_it_lives_and_half_a_minute_longer() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t SELECT n, 'x' FROM generate_series(1, 100) n";
    let (pair, mut relevo) = streaming(Version::V15, Version::V16, setup).await;
    pair.target.sql("UPDATE t SET note = 'another' WHERE id = 7").await;
    let blocker = pair.target.connect("shop").await;
    blocker.sql("BEGIN; SELECT FROM t WHERE id = 7 FOR UPDATE").await;

    let mut repair = pair.command("repair").start();
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE '%_repair' AND wait_event_type = 'Lock')";
    wait_until("the repair waits", PATIENCE, async || pair.target.value::<bool>(waits).await).await;
    let first: f64 = pair.target.value(HOLD_ENDS).await;
    pair.source.sql("INSERT INTO t VALUES (101, 'behind the hold')").await;
    // Twice, so that it is not by chance.
    for more in [1.0, 8.0] {
        wait_until("the hold is renewed", PATIENCE, async || {
            pair.target.value::<f64>(HOLD_ENDS).await > first + more
        })
        .await;
    }
    repair.kill();
    let ends: f64 = pair.target.value(HOLD_ENDS).await;
    let now: f64 = pair.target.value("SELECT extract(epoch FROM clock_timestamp())::float8").await;
    assert!(ends <= now + 30.0, "held for {} s more", ends - now);
    // Although the row is still locked, and the killed repair's session still waits for it.
    pair.caught_up().await;
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, 101);
    blocker.sql("COMMIT").await;
    wait_until_some("the killed repair's session is gone", PATIENCE, async || {
        match pair.target.value::<bool>(waits).await {
            false => Ok(()),
            true => Err("it waits"),
        }
        .map_err(str::to_owned)
    })
    .await;
    assert_eq!(verify(&pair).expect_code(3).json()["differences"], 1, "nothing of it was kept");
    super::repair(&pair).expect_code(0);
    pair.settle().await;
    // What a reset forgets are other rows from then on.
    relevo.terminate();
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM relevo.verification").await, 1);
    pair.command("reset").finish().expect_code(0);
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM relevo.verification").await, 0);
}
