//! What a copy says of how far it is: in lines for machines, by HTTP, in metrics, and in `relevo status` of anybody.

use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Pair, Version, wait_until, wait_until_some};
use serde_json::Value;

const TABLES: &str = "
CREATE TABLE small (id int PRIMARY KEY, filler text);
INSERT INTO small SELECT n, repeat('s', 100) FROM generate_series(1, 1000) n;
CREATE TABLE large (id int PRIMARY KEY, filler text);
INSERT INTO large SELECT n, repeat('x', 200) FROM generate_series(1, 60000) n;
ANALYZE";

/// The lines of standard output, each an object.
fn lines(text: &str) -> Vec<Value> {
    // The last one may be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let read = |line: &str| -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
    };
    whole.lines().map(read).collect()
}

fn of_kind<'l>(lines: &'l [Value], event: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_says_how_far_it_is_everywhere() {
    let pair = Pair::builder(Version::V16, Version::V15).proxied().start().await;
    pair.source.sql(TABLES).await;
    pair.target_proxy().throttle(Some(2 << 20));
    let mut relevo = pair.relevo().args(["--json", "--copy-jobs", "2"]).start();
    // By HTTP.
    let is_known = |status: &Value| {
        status["copy"]["bytes_per_second"].as_u64() > Some(0)
            && status["copy"]["remaining_seconds"].as_u64() > Some(0)
    };
    let status = relevo.wait_for_status("rate and time left", PATIENCE, is_known).await;
    let copy = &status["copy"];
    assert!(copy["bytes"].as_u64() > Some(0) && copy["rows"].as_u64() > Some(0), "{copy}");
    assert!(copy["total_bytes_estimate"].as_u64() > copy["bytes"].as_u64(), "{copy}");
    // In metrics.
    let metrics = relevo.metrics().await;
    assert!(metrics.value("relevo_copy_bytes_total") > 0.0 && metrics.value("relevo_copy_rows_total") > 0.0);
    assert!(metrics.value("relevo_copy_total_bytes") > 10e6);
    // From outside, by what is noted on the target.
    let outside = wait_until_some("the copy in relevo status", PATIENCE, async || {
        let status = pair.command("status").arg("--json").finish().expect_code(0).json();
        let large = status["copy"]["tables"].as_array().and_then(|tables| {
            tables
                .iter()
                .find(|table| table["name"] == "public.large" && table["rows"].as_u64() > Some(0))
                .cloned()
        });
        match large {
            Some(large) if is_known(&status) && large["state"] == "copying" => Ok(status),
            _ => Err(status["copy"].to_string()),
        }
    })
    .await;
    assert_eq!(outside["copy"]["phase"], "rows");
    let text = pair.command("status").finish().expect_code(0).stdout;
    assert!(text.contains("copy        ") && text.contains("public.large: "), "{text}");
    // By lines, of which one comes each second: before the rest of the rows is there in no time.
    wait_until("a line with rate and time left", PATIENCE, async || {
        of_kind(&lines(&relevo.stdout()), "progress").iter().any(|line| is_under_way(line))
    })
    .await;
    pair.target_proxy().throttle(None);
    relevo.wait_until_streaming().await;
    wait_until("the end is said", PATIENCE, async || {
        !of_kind(&lines(&relevo.stdout()), "copy_completed").is_empty()
    })
    .await;
    let status = pair.command("status").arg("--json").finish().expect_code(0).json();
    assert_eq!(status["copy"], Value::Null, "it is complete");
    relevo.terminate();
    the_lines_tell_the_story(&lines(&relevo.stdout()));
}

/// A line of progress that says how fast the copy goes and how long it will take.
fn is_under_way(line: &Value) -> bool {
    line["remaining_seconds"].as_u64() > Some(0) && line["bytes_per_second"].is_u64()
}

fn the_lines_tell_the_story(said: &[Value]) {
    assert!(said.iter().all(|line| line["event"].is_string() && line["at"].is_string()));
    let states: Vec<&str> = of_kind(said, "state").iter().filter_map(|line| line["state"].as_str()).collect();
    assert!(states.contains(&"copying"), "{states:?}");
    assert_eq!(states[states.len() - 2..], ["streaming", "stopped"]);
    for event in ["table_copying", "table_copied", "table_ready", "table_streaming"] {
        let tables: Vec<&Value> = of_kind(said, event).iter().map(|line| &line["table"]).collect();
        assert!(
            tables.contains(&&"public.large".into()) && tables.contains(&&"public.small".into()),
            "{event}"
        );
    }
    let large =
        of_kind(said, "table_copied").into_iter().find(|line| line["table"] == "public.large").unwrap();
    assert!(large["rows"] == 60_000 && large["bytes"].as_u64() > Some(60_000 * 200), "{large}");
    let progress = of_kind(said, "progress");
    let bytes: Vec<u64> = progress.iter().map(|line| line["bytes"].as_u64().unwrap()).collect();
    assert!(bytes.len() >= 2 && bytes.is_sorted(), "{bytes:?}");
    let under_way = progress.iter().find(|line| is_under_way(line)).expect("a line with rate and time left");
    assert_eq!((&under_way["phase"], &under_way["tables_total"]), (&"rows".into(), &2.into()));
    assert_eq!(under_way["tables"][0]["table"], "public.large");
    let phases: Vec<&str> = of_kind(said, "phase").iter().filter_map(|line| line["phase"].as_str()).collect();
    assert!(phases.starts_with(&["schema", "rows"]), "{phases:?}");
}

/// Whoever asked for the lines is gone: the flow goes on.
#[tokio::test]
async fn nobody_has_to_read_the_lines() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let mut relevo = pair.relevo().arg("--json").start();
    relevo.wait_until_streaming().await;
    pair.source.sql("INSERT INTO t VALUES (2)").await;
    pair.settle().await;
    relevo.terminate();
    assert!(!lines(&relevo.stdout()).is_empty());
    let mut quiet = pair.relevo().start();
    quiet.wait_until_streaming().await;
    quiet.terminate();
    assert_eq!(quiet.stdout(), "", "without --json nothing is said there");
}
