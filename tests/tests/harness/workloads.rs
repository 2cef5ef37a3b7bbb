//! The checkers judge: what is right passes, what is wrong is seen.

use std::time::Duration;

use relevo_tests::workload::{Checker, GaplessWriter};
use relevo_tests::{Cluster, Pgbench, Version, wait_until};

/// Waits until the writer has come 50 numbers further.
async fn progress(cluster: &Cluster) {
    let session = cluster.connect("postgres").await;
    let last = async || session.value::<i64>("SELECT coalesce(max(n), 0) FROM gapless").await;
    let before = last().await;
    wait_until("50 more numbers", Duration::from_secs(30), async || last().await >= before + 50).await;
}

#[tokio::test]
async fn pgbench_keeps_its_sums_equal_and_a_wrong_sum_is_seen() {
    let cluster = Cluster::create(Version::V15).await;
    Pgbench::init(&cluster, "postgres", 1).await;
    let checker = Checker::pgbench(cluster.config("postgres"));
    let run = Pgbench::start(&cluster, "postgres", &["-c", "2", "-t", "200", "-n"]).finish().await;
    assert!(run.success, "{}", run.output);
    assert_eq!(run.transactions, 400);
    let checked = checker.finish().await;
    assert!(checked.changes > 1, "{checked:?}");

    cluster
        .connect("postgres")
        .await
        .sql("UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1")
        .await;
    let blind = tokio::spawn(Checker::pgbench(cluster.config("postgres")).finish()).await;
    assert!(blind.is_err(), "a wrong sum was not seen");
}

#[tokio::test]
async fn the_writer_leaves_no_gap_though_the_server_is_killed_and_a_gap_is_seen() {
    let cluster = Cluster::create(Version::V15).await;
    GaplessWriter::create_table(&cluster.connect("postgres").await).await;
    let writer = GaplessWriter::start(cluster.config("postgres"), Duration::from_millis(1));
    let checker = Checker::gapless(cluster.config("postgres"));
    for _ in 0..2 {
        progress(&cluster).await;
        cluster.crash();
        cluster.start().await;
    }
    progress(&cluster).await;
    let last = writer.finish().await;
    let checked = checker.finish().await;
    assert!(last > 0 && checked.reconnects > 0, "{last} {checked:?}");

    cluster.connect("postgres").await.sql("DELETE FROM gapless WHERE n = 1").await;
    let blind = tokio::spawn(Checker::gapless(cluster.config("postgres")).finish()).await;
    assert!(blind.is_err(), "a gap was not seen");
}
