//! SIGTERM and SIGINT: exit code 0 within 5 s, whatever is going on; the next start goes on where it was.

use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::{PATIENCE, STOP_LIMIT};
use relevo_tests::{Direction, Pair, Pgbench, Relevo, Version, wait_until};
use rustix::process::Signal;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, filler text)";

/// Sends the signal and expects an end in order.
fn stop(what: &str, relevo: &mut Relevo, signal: Signal) {
    let begun = std::time::Instant::now();
    relevo.send(signal);
    let status = relevo.wait_for_exit(STOP_LIMIT);
    assert_eq!(status.code(), Some(0), "{what}: {status}");
    eprintln!("{what}: stopped after {:?}", begun.elapsed());
}

async fn insert(pair: &Pair, filler: &str) {
    pair.source.sql(&format!("INSERT INTO t SELECT 1 + coalesce(max(id), 0), '{filler}' FROM t")).await;
}

/// Waits until Relevo has received what the source has committed.
async fn until_received(pair: &Pair, relevo: &mut Relevo) {
    let position: i64 = pair.source.value("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").await;
    let wanted = u64::try_from(position).unwrap();
    let received = |status: &serde_json::Value| {
        let (high, low) = status["received_lsn"].as_str()?.split_once('/')?;
        Some((u64::from_str_radix(high, 16).ok()? << 32) + u64::from_str_radix(low, 16).ok()?)
    };
    relevo
        .wait_for_status("received", PATIENCE, |status| received(status).is_some_and(|lsn| lsn >= wanted))
        .await;
}

/// After an end in order nothing needs to come again: what is stored on the target is confirmed.
async fn assert_everything_is_confirmed(pair: &Pair) {
    let confirmed: String =
        pair.source.value("SELECT confirmed_flush_lsn::text FROM pg_replication_slots").await;
    let applied: String = pair.target.value("SELECT applied_lsn::text FROM relevo.progress").await;
    assert_eq!(confirmed, applied, "confirmed and applied after an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_prepares_and_copies() {
    let pair = Pair::builder(Version::V14, Version::V15).proxied().start().await;
    pair.source.sql(TABLE).await;
    pair.source.sql("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 50000) n").await;

    pair.source_proxy().refuse().await;
    let mut relevo = pair.relevo().start();
    relevo.wait_for_status("an attempt has failed", PATIENCE, |status| status["errors"] != 0).await;
    assert_eq!(relevo.status().await.unwrap()["state"], "preparing");
    stop("the source is down", &mut relevo, Signal::TERM);

    pair.source_proxy().accept().await;
    pair.source_proxy().stall_both();
    relevo.restart();
    relevo.wait_for_state("preparing").await;
    stop("the source does not answer", &mut relevo, Signal::INT);
    pair.source_proxy().resume();

    for (signal, rows) in [(Signal::INT, 1.0), (Signal::TERM, 20_000.0)] {
        pair.target_proxy().throttle(Some(4 << 20));
        relevo.restart();
        let copied = async || relevo.metrics().await.value("relevo_copy_rows_total");
        wait_until("rows of the copy", PATIENCE, async || copied().await > rows).await;
        assert_eq!(relevo.status().await.unwrap()["state"], "copying");
        stop("in the copy", &mut relevo, signal);
        let slots: i64 = pair.source.value("SELECT count(*) FROM pg_replication_slots").await;
        assert_eq!(
            slots, 1,
            "the flow's own slot stays, so that the copy can go on; that of a snapshot does not"
        );
    }
    pair.target_proxy().throttle(Some(1 << 20));
    relevo.restart();
    wait_until("rows of the copy", PATIENCE, async || {
        relevo.metrics().await.value("relevo_copy_rows_total") > 1.0
    })
    .await;
    pair.target_proxy().stall_both();
    stop("in a copy whose target hangs", &mut relevo, Signal::TERM);
    pair.target_proxy().resume();
    pair.target_proxy().throttle(None);

    relevo.restart();
    relevo.wait_until_streaming().await;
    insert(&pair, "after all that").await;
    pair.settle().await;
    relevo.terminate();
    assert_everything_is_confirmed(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_and_inside_a_large_transaction() {
    let pair = Pair::builder(Version::V15, Version::V18).proxied().start().await;
    Pgbench::init(&pair.source, DATABASE, 1).await;
    pair.source.sql(TABLE).await;
    let mut relevo = pair.relevo().args(["--batch-bytes", "1MiB"]).start();
    relevo.wait_until_streaming().await;
    let load = Pgbench::start(&pair.source, DATABASE, &["-n", "-c", "2", "-R", "300", "-T", "3600"]);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        let applied = async || relevo.metrics().await.value("relevo_transactions_applied_total");
        wait_until("load arrives", PATIENCE, async || applied().await > 50.0).await;
        stop("under load", &mut relevo, signal);
        assert_everything_is_confirmed(&pair).await;
        let status = pair.command("status").arg("--json").finish().expect_code(0).json();
        assert_eq!((&status["state"], &status["running"]), (&"stopped".into(), &false.into()), "{status}");
        relevo.restart();
        relevo.wait_until_streaming().await;
    }
    load.stop().await;
    pair.settle().await;

    let link = pair.target_proxy();
    link.throttle(Some(4 << 20));
    pair.source.sql("INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 100000) n").await;
    let before = link.passed_bytes(Direction::ToServer);
    wait_until("the middle of the large transaction", PATIENCE, async || {
        link.passed_bytes(Direction::ToServer) > before + (3 << 20)
    })
    .await;
    stop("inside a large transaction", &mut relevo, Signal::TERM);
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, 0);
    assert_everything_is_confirmed(&pair).await;
    link.throttle(None);
    relevo.restart();
    pair.settle().await;
    relevo.terminate();
    assert_everything_is_confirmed(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_either_end_hangs_or_is_away() {
    let pair = Pair::builder(Version::V18, Version::V18).proxied().start().await;
    pair.source.sql(TABLE).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;

    pair.target_proxy().stall_both();
    insert(&pair, "the link to the target hangs").await;
    until_received(&pair, &mut relevo).await;
    stop("the link to the target hangs", &mut relevo, Signal::TERM);
    pair.target_proxy().resume();
    relevo.restart();
    pair.settle().await;

    let locker = pair.target.connect(DATABASE).await;
    locker.sql("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
    insert(&pair, "the table is locked").await;
    until_received(&pair, &mut relevo).await;
    stop("the table is locked", &mut relevo, Signal::INT);
    // Nobody may have to wait for a session of a Relevo that is gone.
    relevo.restart();
    relevo.wait_until_streaming().await;
    locker.sql("COMMIT").await;
    pair.settle().await;

    pair.source_proxy().stall_both();
    insert(&pair, "the link to the source hangs").await;
    stop("the link to the source hangs", &mut relevo, Signal::TERM);
    pair.source_proxy().resume();
    relevo.restart();
    pair.settle().await;

    for (what, signal) in [("the source is away", Signal::INT), ("the target is away", Signal::TERM)] {
        let link = if what.contains("source") { pair.source_proxy() } else { pair.target_proxy() };
        link.refuse().await;
        insert(&pair, what).await;
        relevo.wait_for_status(what, PATIENCE, |status| status["errors"].as_u64() >= Some(3)).await;
        assert_eq!(relevo.status().await.unwrap()["state"], "preparing");
        stop(what, &mut relevo, signal);
        link.accept().await;
        relevo.restart();
        pair.settle().await;
    }
    relevo.terminate();
    assert_everything_is_confirmed(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_waits_for_somebody_to_mend_the_data() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql(TABLE).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.target.sql("INSERT INTO t VALUES (1, 'in the way')").await;
    insert(&pair, "number 1").await;
    for signal in [Signal::TERM, Signal::INT] {
        let status = relevo.wait_for_state("failed").await;
        assert!(status["state_detail"].as_str().unwrap().contains("t_pkey"), "{status}");
        let healthy = relevo.get("/healthz").await.unwrap().code;
        let ready = relevo.get("/readyz").await.unwrap().code;
        assert_eq!((healthy, ready), (200, 503), "a flow that has failed is alive and not ready");
        stop("the flow has failed", &mut relevo, signal);
        relevo.restart();
    }
    pair.target.sql("DELETE FROM t").await;
    relevo.wait_until_streaming().await;
    pair.settle().await;
    relevo.terminate();
    assert_everything_is_confirmed(&pair).await;
}
