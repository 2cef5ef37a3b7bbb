//! What becomes of links that die and slots that somebody else holds.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, RelevoBuilder, SlotHolder, Version, wait_until, wait_until_some};

use super::assert_says;

#[tokio::test]
async fn a_slot_that_somebody_else_holds_is_waited_for_and_the_holder_is_named() {
    let pair = Pair::start(Version::V15, Version::V17).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    relevo.terminate();

    let mut holder = Some(
        wait_until_some("the slot is free", PATIENCE, async || {
            match pair.source.value::<bool>("SELECT active FROM pg_replication_slots").await {
                true => Err("active".to_owned()),
                false => {
                    Ok(SlotHolder::start(&pair.source, "shop", "somebody else", "relevo_e2e", "relevo_e2e")
                        .await)
                }
            }
        })
        .await,
    );
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    let pid: i32 = pair.source.value("SELECT active_pid FROM pg_replication_slots").await;
    relevo.restart();
    relevo.wait_for_log("the slot is in use by another connection").await;
    let line = relevo.stderr().lines().find(|line| line.contains("in use by another")).unwrap().to_owned();
    assert_says(&line, &[&pid.to_string(), "somebody else", "since 20", "role postgres", "relevo_e2e"]);
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM t").await, 0);
    holder.take();
    pair.settle().await;
    relevo.terminate();
}

#[tokio::test]
async fn after_a_half_open_link_our_own_lost_walsender_is_ended() {
    let pair = Pair::builder(Version::V16, Version::V14).proxied().start().await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    let pid: i32 = pair.source.value("SELECT active_pid FROM pg_replication_slots").await;
    pair.source_proxy().cut_half();
    relevo.wait_for_log("our own lost connection").await;
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    // Long before the source would have given it up by itself, after a wal_sender_timeout of a minute.
    pair.settle().await;
    assert_eq!(
        pair.source.value::<i64>(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")).await,
        0
    );
    relevo.terminate();
}

/// A server that waits for a lock is waited for; one that says nothing any more is not, although its link looks open.
#[tokio::test]
async fn a_side_that_falls_silent_before_the_stream_is_named_and_reached_anew() {
    let pair = Pair::builder(Version::V16, Version::V16).proxied().start().await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let patient = |url: String| format!("{url}?connect_timeout=2");
    for (node, proxy, side) in
        [(&pair.source, pair.source_proxy(), "source"), (&pair.target, pair.target_proxy(), "target")]
    {
        let (source, target) = (patient(pair.source_url()), patient(pair.target_url()));
        let table = if side == "source" { "t" } else { "relevo.version" };
        let holder = node.try_connect("shop").await.unwrap();
        holder.sql(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await;
        let mut relevo = RelevoBuilder::run(&source, &target).name("e2e").start();
        wait_until("the start waits for the lock", PATIENCE, async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            holder.value::<i64>(waiting).await > 0
        })
        .await;
        proxy.stall_both();
        relevo.wait_for_log("no answer within 2 s").await;
        let said = relevo.stderr();
        let line = said.lines().find(|line| line.contains("no answer within 2 s")).unwrap();
        assert!(line.contains(&format!("\"side\":\"{side}\"")), "{line}");
        proxy.resume();
        holder.sql("ROLLBACK").await;
        relevo.wait_until_streaming().await;
        pair.settle().await;
        relevo.terminate();
    }
}

/// With the shortest limit that can be set: the usual one is a minute, as that of `wal_receiver_timeout`.
#[tokio::test]
async fn a_source_that_falls_silent_is_noticed_and_reached_anew() {
    let pair = Pair::builder(Version::V17, Version::V15).proxied().start().await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().args(["--receive-timeout", "5s"]).start();
    relevo.wait_until_streaming().await;
    pair.source_proxy().stall_both();
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    relevo.wait_for_log("silent").await;
    assert_ne!(relevo.status().await.unwrap()["lag_seconds"], 0.0);
    pair.source_proxy().resume();
    pair.settle().await;
    relevo.terminate();
}
