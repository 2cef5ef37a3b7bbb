//! `relevo healthcheck`: what a container asks, beside a `relevo run`.

use relevo_tests::ports::Port;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Relevo, RelevoBuilder, Version, wait_until};

fn healthcheck(port: u16, options: &[&str]) -> RelevoBuilder {
    RelevoBuilder::command(&["healthcheck"])
        .args(options)
        .env("RELEVO_HTTP_LISTEN", &format!("0.0.0.0:{port}"))
}

async fn ask(relevo: &Relevo, options: &[&str], code: i32) -> (String, String) {
    let command = healthcheck(relevo.http_port(), options);
    let done = tokio::task::spawn_blocking(move || command.finish()).await.unwrap().expect_code(code);
    (done.stdout, done.stderr)
}

#[tokio::test]
async fn a_flow_that_streams_is_alive_and_ready() {
    let pair = Pair::start(Version::V15, Version::V16).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    assert_eq!(ask(&relevo, &[], 0).await.0, "alive\n");
    wait_until("/readyz", PATIENCE, async || {
        relevo.get("/readyz").await.is_some_and(|answer| answer.code == 200)
    })
    .await;
    assert_eq!(ask(&relevo, &["--ready"], 0).await.0, "ready\n");
    relevo.terminate();
    let (_, why) = ask(&relevo, &[], 1).await;
    assert!(why.contains("nobody answers at http://127.0.0.1:"), "{why}");
}

/// A container that is restarted because its database is down would only be away when it comes back.
#[tokio::test]
async fn a_flow_whose_target_is_down_is_alive_and_not_ready() {
    let pair = Pair::start(Version::V15, Version::V16).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    pair.target.stop();
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    relevo.wait_for_status("the loss is noticed", PATIENCE, |s| s["state"] != "streaming").await;
    assert_eq!(ask(&relevo, &[], 0).await.0, "alive\n");
    let (_, why) = ask(&relevo, &["--ready"], 1).await;
    assert!(why.contains("not ready: the flow is "), "{why}");
}

#[tokio::test]
async fn who_accepts_and_says_nothing_is_waited_for_no_longer_than_the_timeout() {
    let port = Port::reserve();
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", port.number())).await.unwrap();
    let command = healthcheck(port.number(), &["--timeout", "200ms"]);
    let done = tokio::task::spawn_blocking(move || command.finish()).await.unwrap().expect_code(1);
    assert!(done.stderr.contains("within 0.2 s"), "{}", done.stderr);
    drop(silent);
}
