//! Links that break between the command and the nodes, at the moments that matter.

use std::collections::BTreeMap;
use std::time::Duration;

use relevo_tests::relevo::{Finished, PATIENCE};
use relevo_tests::{Nodes, Proxy, Relevo, Version, wait_until};
use tokio::task::JoinHandle;

use super::{SCHEMA, writable};

/// Slow enough that the moment between a commit and its answer can be met.
const SLOW: Duration = Duration::from_millis(200);

/// A switchover to b behind its fence, whose command reaches b through a link that has become slow.
struct Under {
    nodes: Nodes,
    relevos: BTreeMap<String, Relevo>,
    proxy: Proxy,
    command: JoinHandle<Finished>,
}

async fn under_way() -> Under {
    let (nodes, relevos) = Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    let proxy = Proxy::start(nodes.node("b").port()).await;
    nodes.reach_through("b", proxy.port());
    let command = nodes.command(&["switchover", "--to", "b", "--max-pause", "80s"]);
    let command = tokio::task::spawn_blocking(move || command.finish_within(PATIENCE));
    wait_until("a is fenced", PATIENCE, async || {
        nodes.node("a").value::<bool>("SELECT fenced FROM relevo.node").await
    })
    .await;
    proxy.delay(SLOW);
    Under { nodes, relevos, proxy, command }
}

/// The COMMIT that moved the role was not answered: the fence of the old primary must stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_was_not_answered_is_not_taken_back() {
    let Under { nodes, mut relevos, proxy, command } = under_way().await;
    wait_until("the role has moved", PATIENCE, async || {
        nodes.node("b").value::<i64>("SELECT epoch FROM relevo.node").await == 2
    })
    .await;
    proxy.refuse().await;
    let failed = command.await.unwrap().expect_code(1);
    assert!(failed.stderr.contains("it was not taken back"), "{}", failed.stderr);
    assert!(writable(&nodes, "b").await && !writable(&nodes, "a").await, "{}", failed.stderr);
    proxy.delay(Duration::ZERO);
    proxy.accept().await;
    nodes.run(&["switchover", "--to", "b"], 0).await;
    nodes.sql("b", "INSERT INTO purchase (who) VALUES ('on b')").await;
    nodes.settle("b", "a").await;
    relevos.values_mut().for_each(Relevo::terminate);
}

/// The link is lost before that: everything is as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_whose_link_is_lost_behind_the_fence_is_taken_back() {
    let Under { nodes, mut relevos, proxy, command } = under_way().await;
    proxy.cut();
    proxy.delay(Duration::ZERO);
    let failed = command.await.unwrap().expect_code(1);
    assert!(!failed.stderr.contains("it was not taken back"), "{}", failed.stderr);
    assert!(writable(&nodes, "a").await && !writable(&nodes, "b").await, "{}", failed.stderr);
    nodes.sql("a", "INSERT INTO purchase (who) VALUES ('on a')").await;
    nodes.settle("a", "b").await;
    let history = nodes.run(&["history", "--json"], 0).await.json();
    assert_eq!(history[0]["state"], "rolled back", "{history}");
    nodes.run(&["switchover", "--to", "b", "--max-pause", "80s"], 0).await;
    nodes.settle("b", "a").await;
    relevos.values_mut().for_each(Relevo::terminate);
}

/// Only the command cannot reach the primary: what still arrives from it shows that it lives.
#[tokio::test]
async fn a_failover_from_a_primary_that_still_commits_is_refused() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V16], SCHEMA).await;
    // Nobody listens there.
    nodes.reach_through("a", 1);
    let application = nodes.node("a").connect("shop").await;
    let writes = tokio::spawn(async move {
        let mut writes = tokio::time::interval(Duration::from_millis(50));
        loop {
            writes.tick().await;
            application.sql("INSERT INTO purchase (who) VALUES ('lives')").await;
        }
    });
    let refused = nodes.run(&["failover", "--to", "b"], 3).await;
    assert!(refused.stderr.contains("a lives"), "{}", refused.stderr);
    writes.abort();
    assert!(writable(&nodes, "a").await && !writable(&nodes, "b").await);
    nodes.settle("a", "b").await;
    relevos.values_mut().for_each(Relevo::terminate);
}
