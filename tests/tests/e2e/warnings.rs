//! What a start warns of: each thing once, whatever number of its steps find it.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Version, wait_until};

/// The warnings of one start, each with what it is about.
fn warnings(log: &str) -> Vec<String> {
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let about = |line: &serde_json::Value| {
        let fields = ["message", "check", "subject", "table"];
        fields.map(|field| line[field].as_str().unwrap_or_default().to_owned()).join(" | ")
    };
    lines.filter(|line| line["level"] == "WARN").map(|line| about(&line)).collect()
}

fn assert_each_once(warnings: &[String]) {
    for warning in warnings {
        let count = warnings.iter().filter(|other| *other == warning).count();
        assert_eq!(count, 1, "{warning} in:\n{}", warnings.join("\n"));
    }
}

#[tokio::test]
async fn each_warning_is_said_once_a_start() {
    let pair = Pair::start(Version::V15, Version::V16).await;
    pair.source
        .sql(
            "CREATE TABLE keyless (id int); CREATE TABLE nothing (id int PRIMARY KEY);
             ALTER TABLE nothing REPLICA IDENTITY NOTHING;
             CREATE TABLE parts (id int) PARTITION BY RANGE (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (10);
             CREATE SEQUENCE s",
        )
        .await;
    let mut relevo = pair.relevo().args(["--exclude", "public.no_such_*"]).start();
    relevo.wait_until_streaming().await;
    pair.source.sql("CREATE TABLE later (id int PRIMARY KEY)").await;
    relevo.wait_for_log("came after the copy").await;
    relevo.terminate();
    let first = warnings(&relevo.stderr());
    assert!(first.iter().any(|warning| warning.contains("public.keyless")), "{first:#?}");
    assert_each_once(&first);
    let mark = relevo.stderr().len();
    relevo.restart();
    relevo.wait_until_streaming().await;
    wait_until("the later table is named again after the restart", PATIENCE, async || {
        relevo.stderr()[mark..].contains("came after the copy")
    })
    .await;
    relevo.terminate();
    let second = warnings(&relevo.stderr()[mark..]);
    assert_eq!(second.iter().filter(|warning| warning.contains("public.later")).count(), 1, "{second:#?}");
    assert_each_once(&second);
}
