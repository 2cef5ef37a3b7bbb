//! Settings from the environment and the file; exit codes 1 and 3 of a flow, and the way out.

use relevo_tests::ports::Port;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{FLOW, Pair, Version, wait_until};
use serde_json::Value;

use super::{NOWHERE, assert_says, relevo};

#[tokio::test]
async fn a_flow_runs_by_its_environment_alone_and_the_environment_wins_over_the_file() {
    let pair = Pair::start(Version::V17, Version::V16).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE left_out (id int)").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relevo.toml");
    let (http, other) = (Port::reserve(), Port::reserve());
    let text = format!(
        "name = \"from_file\"\n[source]\nurl = \"{NOWHERE}\"\n[target]\nurl = \"{}\"\n[tables]\nexclude = \
         [\"public.left_*\"]\n[http]\nlisten = \"127.0.0.1:{}\"\n[log]\nfilter = \"error\"\nformat = \"text\"\n",
        pair.target_url(),
        other.number()
    );
    std::fs::write(&file, text).unwrap();
    let mut running = relevo(&["run"])
        .env("RELEVO_CONFIG", &file.display().to_string())
        .env("RELEVO_SOURCE_URL", &pair.source_url())
        .env("RELEVO_NAME", FLOW)
        .env("RELEVO_HTTP_LISTEN", &format!("127.0.0.1:{}", http.number()))
        .env("RELEVO_LOG", "info,relevo_source=debug")
        .env("RELEVO_LOG_FORMAT", "json")
        .start();
    let get = async |path: &str| relevo_tests::endpoint::get(http.number(), path).await;
    wait_until("it streams", PATIENCE, async || {
        get("/readyz").await.is_some_and(|answer| answer.code == 200)
    })
    .await;
    let status: Value = serde_json::from_str(&get("/api/status").await.unwrap().body).unwrap();
    assert_eq!((&status["name"], &status["tables"]["total"]), (&FLOW.into(), &1.into()), "{status}");
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    pair.caught_up().await;
    running.terminate();
    // One JSON object a line, and every one with time, level and words.
    let log = running.stderr();
    assert!(log.lines().count() > 5, "{log}");
    for line in log.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(["timestamp", "level", "message"].iter().all(|name| object[name].is_string()), "{line}");
    }
    assert_eq!(running.stdout(), "", "standard output is left to what a command was asked for");
}

#[tokio::test]
async fn a_failure_is_a_json_line_too_and_a_port_in_use_is_named() {
    let pair = Pair::start(Version::V18, Version::V17).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let run = |listen: &str| {
        relevo(&["run", "--log-format", "json", "--http-listen", listen, "--source", &pair.source_url()])
            .args(["--target", &pair.target_url(), "--name", FLOW])
    };
    let said = run(&taken).finish().expect_code(1).stderr;
    for line in said.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(["timestamp", "level", "message"].iter().all(|name| object[name].is_string()), "{line}");
    }
    assert_says(&said, &[&taken, "--http-listen", "exit_code"]);
}

#[tokio::test]
async fn exit_code_3_is_a_refusal_and_reset_is_the_way_out() {
    let pair = Pair::start(Version::V16, Version::V18).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;
    assert_says(
        &pair.command("reset").finish().expect_code(3).stderr,
        &["stop it first", "nothing was changed"],
    );
    running.terminate();
    wait_until("the slot is free", PATIENCE, async || {
        !pair.source.value::<bool>("SELECT active FROM pg_replication_slots").await
    })
    .await;
    pair.source.sql("SELECT pg_drop_replication_slot('relevo_e2e'); INSERT INTO t VALUES (2)").await;
    let refused = pair.relevo().finish().expect_code(3).stderr;
    assert_says(&refused, &["relevo_e2e", "slot"]);
    assert_eq!(pair.command("status").arg("--json").finish().expect_code(0).json()["slot"], Value::Null);
    assert_says(
        &pair.command("reset").arg("--dry-run").finish().expect_code(0).stdout,
        &["would be forgotten"],
    );
    assert_says(&pair.command("reset").finish().expect_code(0).stdout, &["forgotten", "copies them anew"]);
    running.restart();
    running.wait_until_streaming().await;
    pair.settle().await;
    running.terminate();
}
