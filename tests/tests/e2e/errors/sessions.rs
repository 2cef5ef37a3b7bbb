//! What happens to Relevo's sessions on the servers: ended by an administrator, caught in a deadlock.

use std::collections::BTreeSet;

use relevo_tests::pair::Node;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Version, wait_until_some};

use super::{streaming, wait_for_value};

const SESSIONS: &str = "SELECT pid FROM pg_stat_activity \
     WHERE application_name = 'relevo_e2e' AND pid <> pg_backend_pid() ORDER BY 1";

#[tokio::test]
async fn each_session_may_be_terminated_and_the_flow_goes_on() {
    let pair = Pair::start(Version::V15, Version::V14).await;
    let mut relevo = streaming(&pair, "CREATE TABLE t (id serial PRIMARY KEY, note text)").await;
    for node in [&pair.source, &pair.target] {
        let found: BTreeSet<String> = sessions(node).await;
        assert!(found.len() >= 2, "walsender and monitor there, apply and probe here: {found:?}");
        for pid in found {
            pair.source.sql("INSERT INTO t (note) SELECT 'before' FROM generate_series(1, 20)").await;
            node.sql(&format!("SELECT pg_terminate_backend({pid})")).await;
            pair.source.sql("INSERT INTO t (note) VALUES ('after'); UPDATE t SET note = note || '.'").await;
            pair.settle().await;
        }
    }
    // All at once, in the middle of writing.
    for _ in 0..3 {
        for node in [&pair.source, &pair.target] {
            pair.source.sql("INSERT INTO t (note) SELECT 'many' FROM generate_series(1, 500)").await;
            for pid in sessions(node).await {
                node.sql(&format!("SELECT pg_terminate_backend({pid})")).await;
            }
        }
    }
    pair.settle().await;
    relevo.wait_until_streaming().await;
    assert!(relevo.try_exit().is_none());
    for node in [&pair.source, &pair.target] {
        wait_until_some("two sessions on each side again", PATIENCE, async || {
            let found = sessions(node).await;
            if found.len() >= 2 { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
    relevo.terminate();
}

async fn sessions(node: &Node) -> BTreeSet<String> {
    node.column(SESSIONS).await.into_iter().collect()
}

#[tokio::test]
async fn a_deadlock_with_an_application_on_the_target_is_survived() {
    let pair = Pair::start(Version::V16, Version::V15).await;
    let mut relevo =
        streaming(&pair, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0), (2, 0)")
            .await;
    let application = pair.target.connect("shop").await;
    // Who waits first looks first, and finds nothing; so the server's choice falls on Relevo.
    application.sql("SET deadlock_timeout = '60s'; BEGIN; SELECT FROM t WHERE id = 2 FOR UPDATE").await;
    pair.source.sql("BEGIN; UPDATE t SET n = 1 WHERE id = 1; UPDATE t SET n = 1 WHERE id = 2; COMMIT").await;
    let waiting = "SELECT count(*)::text FROM pg_stat_activity \
                   WHERE application_name = 'relevo_e2e' AND wait_event_type = 'Lock'";
    wait_for_value(&pair.target, waiting, "1").await;
    application.sql("SELECT FROM t WHERE id = 1 FOR UPDATE; COMMIT").await;
    pair.settle().await;
    relevo.wait_for_log("deadlock detected").await;
    relevo.wait_until_streaming().await;
    relevo.terminate();
}

#[tokio::test]
async fn logical_messages_of_others_are_read_over() {
    let pair = Pair::start(Version::V18, Version::V15).await;
    let mut relevo = streaming(&pair, "CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.source
        .sql(
            r"BEGIN; INSERT INTO t VALUES (1);
              SELECT pg_logical_emit_message(true, 'relevo', E'\\x00ff00'::bytea);
              SELECT pg_logical_emit_message(true, '', '');
              SELECT pg_logical_emit_message(false, 'relevo', repeat('x', 100000));
              SAVEPOINT s; SELECT pg_logical_emit_message(true, 'other', 'y'); ROLLBACK TO s;
              INSERT INTO t VALUES (2); COMMIT;
              SELECT pg_logical_emit_message(false, 'relevo', E'\\xfffe'::bytea);",
        )
        .await;
    pair.settle().await;
    assert!(!relevo.stderr().contains("\"ERROR\""), "{}", relevo.stderr());
    relevo.terminate();
}
