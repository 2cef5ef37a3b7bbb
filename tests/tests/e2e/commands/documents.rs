//! The document of `relevo status`: its names and types, and that it is the same whoever is asked.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{FLOW, Pair, Version, wait_until_some};
use serde_json::Value;

use super::{assert_says, relevo};

/// The fields of the contract that every status document has.
const CONTRACT: [&str; 14] = [
    "name",
    "node",
    "role",
    "epoch",
    "state",
    "source_lsn",
    "received_lsn",
    "applied_lsn",
    "durable_lsn",
    "lag_bytes",
    "lag_seconds",
    "slot",
    "tables",
    "errors",
];

pub(super) fn is_lsn(value: &Value) -> bool {
    let Some((high, low)) = value.as_str().and_then(|text| text.split_once('/')) else { return false };
    [high, low]
        .iter()
        .all(|half| (1..=8).contains(&half.len()) && half.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Names and types of a flow that streams.
fn assert_contract(status: &Value) {
    for field in CONTRACT {
        assert!(status.get(field).is_some(), "no {field} in {status}");
    }
    assert_eq!(status["name"], FLOW);
    assert!(status["node"].is_null() && status["role"] == "standby" && status["epoch"] == 0, "{status}");
    for field in ["source_lsn", "received_lsn", "applied_lsn", "durable_lsn"] {
        assert!(is_lsn(&status[field]), "{field} of {status}");
    }
    assert!(status["lag_bytes"].is_u64() && status["lag_seconds"].is_number(), "{status}");
    let slot = &status["slot"];
    assert_eq!(slot["name"], "relevo_e2e");
    assert_eq!(slot["wal_status"], "reserved");
    assert!(slot["retained_bytes"].is_u64(), "{slot}");
    assert!(slot.get("safe_bytes").is_some_and(Value::is_null), "no limit is null: {slot}");
    assert!(status["tables"]["copied"].is_u64() && status["tables"]["total"].is_u64(), "{status}");
    assert!(status["errors"].is_u64(), "{status}");
}

#[tokio::test]
async fn status_tells_the_same_whoever_is_asked_and_whoever_is_down() {
    let pair = Pair::start(Version::V15, Version::V16).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let status = || pair.command("status").arg("--json");
    let unnamed = || {
        relevo(&["status", "--json", "--source", &pair.source_url(), "--target", &pair.target_url()]).finish()
    };
    // Nothing was ever begun.
    assert_says(&status().finish().expect_code(1).stderr, &["no flow e2e", "relevo run"]);
    assert_says(&unnamed().expect_code(1).stderr, &["no flow shop_", "--name"]);
    assert_says(&pair.command("errors").finish().expect_code(1).stderr, &["no flow"]);

    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;
    pair.settle().await;
    let of_process = running
        .wait_for_status("slot and lag are known, and nothing is behind", PATIENCE, |status| {
            let idle = status["lag_bytes"] == 0 && status["lag_seconds"] == 0.0;
            idle && status["slot"].is_object() && status["durable_lsn"] == status["applied_lsn"]
        })
        .await;
    assert_contract(&of_process);
    let of_command = wait_until_some("relevo status says that nothing is behind", PATIENCE, async || {
        let document = status().finish().expect_code(0).json();
        if document["lag_seconds"] == 0.0 && document["lag_bytes"] == 0 {
            Ok(document)
        } else {
            Err(document.to_string())
        }
    })
    .await;
    assert_contract(&of_command);
    assert_eq!(of_command["state"], "streaming");
    assert_eq!(
        (&of_command["running"], &of_command["tables"]["total"]),
        (&Value::Bool(true), &Value::from(1))
    );
    for field in ["source_lsn", "applied_lsn"] {
        assert!(is_lsn(&of_command[field]));
    }
    // A server writes a few bytes of WAL by itself now and then: for a moment they are lag.
    let text = wait_until_some("relevo status says in words that nothing is behind", PATIENCE, async || {
        let text = pair.command("status").finish().expect_code(0).stdout;
        if text.contains("lag         0 s") { Ok(text) } else { Err(text) }
    })
    .await;
    assert_says(
        &text,
        &["flow", "e2e", "state", "streaming", "lag", "0 s", "slot", "relevo_e2e", "1 of 1 copied"],
    );

    running.terminate();
    let stopped = status().finish().expect_code(0).json();
    assert_eq!((&stopped["state"], &stopped["running"]), (&"stopped".into(), &false.into()), "{stopped}");
    // What happens on the source meanwhile is lag.
    pair.source.sql("INSERT INTO t SELECT generate_series(2, 1000)").await;
    let behind = status().finish().expect_code(0).json();
    assert!(
        behind["lag_bytes"].as_u64().unwrap() > 10_000 && behind["lag_seconds"].as_f64().unwrap() > 0.0,
        "{behind}"
    );
    assert_contract(&behind);

    running.restart();
    running.wait_until_streaming().await;
    pair.settle().await;
    running.kill();
    let killed = wait_until_some("the slot is free", PATIENCE, async || {
        let document = status().finish().expect_code(0).json();
        if document["running"] == false { Ok(document) } else { Err(document.to_string()) }
    })
    .await;
    assert_eq!(killed["state"], "stopped", "a killed process could not say so itself: {killed}");

    pair.source.stop();
    let half = status().finish().expect_code(0).json();
    assert_eq!(half["unreachable"][0]["side"], "source", "{half}");
    assert!(half["slot"].is_null() && half["source_lsn"].is_null() && is_lsn(&half["applied_lsn"]), "{half}");
    assert!(half["lag_seconds"].as_f64().unwrap() > 0.0, "unreachable is never caught up: {half}");
    // The target alone knows the flow's name.
    assert_eq!(unnamed().expect_code(0).json()["name"], FLOW);
    assert_says(
        &pair.command("status").finish().expect_code(0).stdout,
        &["UNREACHABLE", "source", "unknown"],
    );
    pair.target.stop();
    let said = status().finish().expect_code(1).stderr;
    assert_says(&said, &["neither database can be reached", "source", "target"]);
    pair.source.start().await;
    let half = status().finish().expect_code(0).json();
    assert_eq!(half["unreachable"][0]["side"], "target", "{half}");
    assert!(half["slot"].is_object() && half["applied_lsn"].is_null(), "{half}");
    assert_eq!(unnamed().expect_code(0).json()["name"], FLOW);
}
