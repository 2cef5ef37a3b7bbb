//! `/metrics`: what is there from the start, what follows the board, and what is absent.

use std::collections::{BTreeMap, BTreeSet};

use relevo_telemetry::{HttpOptions, Role, SlotStatus, names};

use crate::{Fixture, feed, reader};

/// What every sample of the fixture carries besides its own labels.
const IDENTITY: &str = "name=\"shop\",node=\"b\"";

/// Parses the exposition format: the samples, without the labels that all of them have, and the metrics that have HELP and
/// TYPE.
pub fn parse(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut samples, mut types, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty());
            assert!(helped.insert(name.to_owned()), "{name} comes twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "{name} has no HELP");
            types.insert(name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
            assert!(series.contains(IDENTITY), "{series} does not say whose it is");
            let series = series.replace(&format!("{IDENTITY},"), "").replace(&format!("{{{IDENTITY}}}"), "");
            assert!(samples.insert(series.clone(), value).is_none(), "{series} comes twice");
        }
    }
    (samples, types)
}

#[track_caller]
pub fn assert_sample(samples: &BTreeMap<String, f64>, series: &str, expected: f64) {
    let value = samples.get(series).unwrap_or_else(|| panic!("{series} is missing: {samples:#?}"));
    assert!((value - expected).abs() < 1e-9, "{series} is {value}, expected {expected}");
}

#[tokio::test]
async fn metrics_exist_at_zero_from_the_start_and_what_is_unknown_is_absent() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    fixture.board.metrics().declare_errors(&["unique_violation"]);
    let answer = fixture.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let (samples, types) = parse(&answer.body);
    for series in [
        "relevo_transactions_applied_total",
        "relevo_errors_total{kind=\"missing_row\"}",
        "relevo_changes_applied_total{op=\"insert\"}",
        "relevo_changes_applied_total{op=\"update\"}",
        "relevo_changes_applied_total{op=\"delete\"}",
        "relevo_changes_applied_total{op=\"truncate\"}",
        "relevo_reconnects_total{side=\"source\"}",
        "relevo_reconnects_total{side=\"target\"}",
        "relevo_errors_total{kind=\"unique_violation\"}",
        "relevo_copy_rows_total",
        "relevo_copy_bytes_total",
        "relevo_target_missing_rows_total",
        "relevo_changes_reapplied_total",
        "relevo_transactions_ahead_total{result=\"taken_back\"}",
        "relevo_batches_beside_total{result=\"taken_back\"}",
        "relevo_sequences_set_total",
        "relevo_buffer_bytes",
        "relevo_buffer_limit_bytes",
        "relevo_spool_bytes",
        "relevo_spool_limit_bytes",
        "relevo_streamed_bytes",
        "relevo_reading_paused_seconds_total",
        "relevo_commit_to_visible_seconds_count",
        "relevo_batch_transactions_count",
        "relevo_batch_apply_seconds_count",
        "relevo_tables{state=\"pending\"}",
        "relevo_tables{state=\"streaming\"}",
        "relevo_tables_not_added",
        "relevo_last_verified_timestamp_seconds",
        "relevo_role{role=\"primary\"}",
        "relevo_flow_state{state=\"failed\"}",
    ] {
        assert_sample(&samples, series, 0.0);
    }
    assert_sample(&samples, "relevo_role{role=\"standby\"}", 1.0);
    assert_sample(&samples, "relevo_epoch", 7.0);
    assert_sample(&samples, "relevo_build_info{version=\"1.2.3\"}", 1.0);
    assert_sample(&samples, "relevo_flow_state{state=\"preparing\"}", 1.0);
    assert!(samples.contains_key("relevo_replication_lag_seconds"));
    for unknown in [
        "relevo_replication_lag_bytes",
        "relevo_verify_differences",
        "relevo_slot",
        "relevo_position",
        "relevo_errors_waiting",
    ] {
        assert!(!samples.keys().any(|series| series.starts_with(unknown)), "{unknown}");
    }
    assert_eq!(types["relevo_commit_to_visible_seconds"], "histogram");
    assert_eq!(types["relevo_errors_total"], "counter");
    assert_eq!(types["process_cpu_seconds_total"], "counter");
}

#[tokio::test]
async fn metrics_follow_the_board() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    feed(&fixture);
    let (samples, _) = parse(&fixture.get("/metrics").await.body);
    for (series, expected) in [
        ("relevo_replication_lag_seconds", 2.0),
        ("relevo_replication_lag_bytes{stage=\"received\"}", 1000.0),
        ("relevo_replication_lag_bytes{stage=\"applied\"}", 2000.0),
        ("relevo_replication_lag_bytes{stage=\"durable\"}", 3000.0),
        ("relevo_position_bytes{stage=\"source\"}", 5000.0),
        ("relevo_transactions_applied_total", 2.0),
        ("relevo_changes_applied_total{op=\"insert\"}", 5.0),
        ("relevo_changes_applied_total{op=\"delete\"}", 1.0),
        ("relevo_commit_to_visible_seconds_count", 2.0),
        ("relevo_commit_to_visible_seconds_sum", 4.0),
        ("relevo_commit_to_visible_seconds_bucket{le=\"1\"}", 0.0),
        ("relevo_commit_to_visible_seconds_bucket{le=\"2.5\"}", 2.0),
        ("relevo_batch_transactions_sum", 2.0),
        ("relevo_batch_apply_seconds_sum", 0.02),
        ("relevo_target_missing_rows_total", 1.0),
        ("relevo_changes_reapplied_total", 16.0),
        ("relevo_transactions_ahead_total{result=\"committed\"}", 1.0),
        ("relevo_transactions_ahead_total{result=\"taken_back\"}", 0.0),
        ("relevo_batches_beside_total{result=\"committed\"}", 1.0),
        ("relevo_batches_beside_total{result=\"taken_back\"}", 1.0),
        ("relevo_buffer_bytes", 4096.0),
        ("relevo_errors_waiting", 3.0),
        ("relevo_armed_slot_retained_bytes{standby=\"c\"}", 512.0),
        ("relevo_standby_slot_active{standby=\"c\"}", 1.0),
        ("relevo_standby_slot_active{standby=\"d\"}", 0.0),
        ("relevo_standby_slot_retained_wal_bytes{standby=\"d\"}", 77.0),
        ("relevo_standby_slot_safe_wal_bytes{standby=\"c\"}", 4096.0),
        ("relevo_standby_slot_wal_status{standby=\"c\",status=\"extended\"}", 1.0),
        ("relevo_standby_slot_wal_status{standby=\"d\",status=\"lost\"}", 0.0),
        ("relevo_slot_wal_status{status=\"reserved\"}", 1.0),
        ("relevo_slot_wal_status{status=\"lost\"}", 0.0),
        ("relevo_last_verified_timestamp_seconds", 1_500_000_000.25),
        ("relevo_verify_differences", 7.0),
        ("relevo_reconnects_total{side=\"target\"}", 1.0),
        ("relevo_errors_total{kind=\"disk_full\"}", 1.0),
        ("relevo_copy_rows_total", 10.0),
        ("relevo_copy_bytes_total", 1000.0),
        ("relevo_slot_retained_wal_bytes", 123.0),
        ("relevo_tables{state=\"streaming\"}", 1.0),
        ("relevo_last_contact_seconds{side=\"source\"}", 0.0),
        ("relevo_flow_state{state=\"streaming\"}", 1.0),
    ] {
        assert_sample(&samples, series, expected);
    }
    assert!(!samples.contains_key("relevo_slot_safe_wal_bytes"), "there is no limit");
    assert!(!samples.contains_key("relevo_standby_slot_safe_wal_bytes{standby=\"d\"}"), "there is no limit");

    fixture.board.set_slot(None);
    fixture.board.set_armed(&BTreeMap::from([("d".to_owned(), 0)]));
    fixture.board.set_standby_slots(&BTreeMap::from([("d".to_owned(), reader(true, None))]));
    fixture.wait(60);
    let (samples, _) = parse(&fixture.get("/metrics").await.body);
    assert_sample(&samples, "relevo_replication_lag_seconds", 62.0);
    assert_sample(&samples, "relevo_replication_lag_bytes{stage=\"applied\"}", 2000.0);
    assert!(!samples.contains_key("relevo_slot_retained_wal_bytes"), "it cannot be known any more");
    assert!(!samples.contains_key("relevo_armed_slot_retained_bytes{standby=\"c\"}"), "it was dropped");
    assert_sample(&samples, "relevo_standby_slot_active{standby=\"d\"}", 1.0);
    assert!(!samples.keys().any(|series| series.contains("standby=\"c\"")), "so was this");
}

#[tokio::test]
async fn every_sample_says_whose_it_is() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let begins_with = async |identity: &str| {
        let body = fixture.get("/metrics").await.body;
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        samples.filter(|line| !line.contains(&format!("{{{identity}"))).map(str::to_owned).collect::<Vec<_>>()
    };
    // A derived name is known a moment after the start.
    fixture.board.set_name("");
    assert_eq!(begins_with("name=\"\",node=\"b\"").await, [""; 0]);
    fixture.board.set_name("shop_b");
    assert_eq!(begins_with("name=\"shop_b\",node=\"b\"").await, [""; 0]);
    // The flows into the nodes of a cluster have different names, and belong together.
    fixture.board.set_cluster("shop");
    assert_eq!(begins_with("name=\"shop\",node=\"b\"").await, [""; 0]);
}

#[tokio::test]
async fn what_was_written_down_of_another_flow_is_forgotten_when_the_role_moves() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    feed(&fixture);
    fixture.board.set_role(Role::Primary, 8);
    let (samples, _) = parse(&fixture.get("/metrics").await.body);
    for unknown in ["relevo_errors_waiting", "relevo_slot_wal_status{status=\"reserved\"}"] {
        assert!(!samples.contains_key(unknown), "{unknown}");
    }
}

#[tokio::test]
async fn every_metric_is_declared_in_one_place_and_only_there() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    feed(&fixture);
    fixture.board.set_slot(Some(SlotStatus {
        name: "relevo_shop".to_owned(),
        wal_status: Some("extended".to_owned()),
        retained_bytes: Some(1),
        safe_bytes: Some(1),
    }));
    fixture.board.set_copy_phase(Some("rows"));
    let (_, types) = parse(&fixture.get("/metrics").await.body);
    let mut declared: Vec<&str> = names::ALL.iter().map(|metric| metric.name).collect();
    declared.sort_unstable();
    let seen: Vec<&str> = types.keys().map(String::as_str).collect();
    assert_eq!(seen, declared);
    for metric in names::ALL {
        let unit = ["second", "byte"].iter().find(|unit| metric.name.contains(*unit));
        assert!(unit.is_none_or(|unit| metric.help.contains(unit)), "{} does not say its unit", metric.name);
    }
}
