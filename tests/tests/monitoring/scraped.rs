//! A real Prometheus, as it is shipped, watches a real cluster: it takes the configuration and the rules, answers every query
//! of every panel of the dashboards, and notices a Relevo that is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use relevo_tests::dashboard::{Dashboard, Query, filled};
use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Database, Nodes, Prometheus, Version, wait_until_some};
use serde_json::Value;

const SCHEMA: &str = "
CREATE TABLE setting (name text PRIMARY KEY, value text);
CREATE TABLE purchase (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text);
INSERT INTO setting SELECT 'setting ' || n, repeat('v', n) FROM generate_series(1, 50) n;
INSERT INTO purchase (who) SELECT 'customer ' || n FROM generate_series(1, 1000) n;
";

/// The window of rates that Grafana takes for the shortest range: four scrapes.
const RATE_INTERVAL: &str = "20s";

/// Writes on the primary, again and again, until it is told to stop.
async fn write(session: Database, stop: Arc<AtomicBool>) {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        session.sql(&format!("INSERT INTO setting VALUES ('live {n}', 'v')")).await;
        session.sql(&format!("UPDATE setting SET value = 'w' WHERE name = 'live {n}'")).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Waits until each query has data; says which have none.
async fn all_answer(prometheus: &Prometheus, queries: &[Query], values: &BTreeMap<&str, &str>) {
    assert!(queries.len() > 50, "only {} queries", queries.len());
    wait_until_some(&format!("data for every panel with {values:?}"), PATIENCE, async || {
        let mut silent = Vec::new();
        for Query { place, expression } in queries {
            let query = filled(expression, values);
            match prometheus.query(&query).await {
                Ok(samples) if samples.iter().any(|(_, value)| !value.is_nan()) => {}
                other => silent.push(format!("{place}: {other:?}\n    {query}")),
            }
        }
        if silent.is_empty() { Ok(()) } else { Err(silent.join("\n")) }
    })
    .await;
}

/// The rules as Prometheus has loaded them, once each of them was evaluated without an error.
async fn rules(prometheus: &Prometheus) -> Vec<Value> {
    wait_until_some("every rule is evaluated", PATIENCE, async || {
        let data = prometheus.api("/api/v1/rules").await?;
        let groups = data["groups"].as_array().ok_or("no groups")?;
        let rules: Vec<Value> =
            groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect();
        match rules.iter().find(|rule| rule["health"] != "ok") {
            Some(rule) => Err(rule.to_string()),
            None if rules.len() < 20 => Err(format!("only {} rules", rules.len())),
            None => Ok(rules),
        }
    })
    .await
}

/// The values of a `label_values(series, label)` of a template variable.
async fn values_of(prometheus: &Prometheus, definition: &str, values: &BTreeMap<&str, &str>) -> Vec<String> {
    let inside = definition.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (series, label) = inside.and_then(|inside| inside.rsplit_once(", ")).expect("label_values");
    let samples = prometheus.query(&filled(series, values)).await.unwrap();
    let mut found: Vec<String> =
        samples.iter().map(|(labels, _)| labels[label].as_str().unwrap_or_default().to_owned()).collect();
    found.sort();
    found.dedup();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_takes_what_is_shipped_and_answers_every_panel() {
    let (nodes, mut relevos) = Nodes::up(&[Version::V15, Version::V15], SCHEMA).await;
    // Whoever has no limit sees so in the panels about it.
    let primary = nodes.node("a");
    primary.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '2GB'").await;
    primary.sql("SELECT pg_reload_conf()").await;
    nodes.run(&["verify"], 0).await;
    let address = |node: &str| format!("127.0.0.1:{}", relevos[node].http_port());
    let targets = [("relevo-a:9187", address("a")), ("relevo-b:9187", address("b"))];
    let prometheus = Prometheus::start(&targets).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(primary.connect(DATABASE).await, Arc::clone(&stop)));

    let boards = Dashboard::all();
    let queries: Vec<Query> = boards.iter().flat_map(Dashboard::queries).collect();
    let all = BTreeMap::from([("name", ".*"), ("node", ".*"), ("__rate_interval", RATE_INTERVAL)]);
    all_answer(&prometheus, &queries, &all).await;
    let one = BTreeMap::from([("name", "shop"), ("node", "b"), ("__rate_interval", RATE_INTERVAL)]);
    all_answer(&prometheus, &queries, &one).await;
    for board in &boards {
        let definitions = board.variables().filter_map(|variable| variable["definition"].as_str());
        let expected = [["shop"].as_slice(), &["a", "b"]];
        for (definition, expected) in definitions.zip(expected) {
            assert_eq!(values_of(&prometheus, definition, &all).await, expected, "{definition}");
        }
        for annotation in board.json["annotations"]["list"].as_array().unwrap() {
            if let Some(expression) = annotation["expr"].as_str() {
                prometheus.query(&filled(expression, &all)).await.unwrap();
            }
        }
    }

    for rule in rules(&prometheus).await {
        assert_eq!(rule.get("lastError"), None, "{rule}");
        if rule["type"] == "alerting" {
            assert_ne!(rule["state"], "firing", "all is well: {rule}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();

    relevos.get_mut("b").unwrap().kill();
    wait_until_some("the Relevo that is gone is noticed", PATIENCE, async || {
        let data = prometheus.api("/api/v1/alerts").await?;
        let alerts = data["alerts"].as_array().ok_or("no alerts")?;
        let down = |alert: &&Value| alert["labels"]["alertname"] == "RelevoDown";
        match alerts.iter().find(down) {
            Some(alert) if alert["labels"]["instance"] == targets[1].1.as_str() => Ok(()),
            _ => Err(data.to_string()),
        }
    })
    .await;
    relevos.get_mut("a").unwrap().terminate();
}
