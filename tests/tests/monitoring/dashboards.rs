//! The dashboards: that Grafana can read them, and that a person can.

use std::collections::BTreeSet;
use std::fs;

use relevo_tests::dashboard::Dashboard;
use relevo_tests::install::repository;
use serde_json::Value;

/// What Grafana 10 and 11 bring along: no plugin has to be installed.
const PANELS: [&str; 5] = ["heatmap", "stat", "state-timeline", "table", "timeseries"];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn both_boards_have_a_fixed_address_and_lead_to_each_other() {
    let boards = Dashboard::all();
    let uids: BTreeSet<&str> = boards.iter().map(|board| text(&board.json, "uid")).collect();
    assert_eq!(uids, BTreeSet::from(["relevo-detail", "relevo-overview"]));
    for Dashboard { file, json } in &boards {
        assert_eq!(file.trim_end_matches(".json"), text(json, "uid"));
        assert!(json["id"].is_null(), "{file}: an id belongs to one Grafana");
        assert_eq!(json["schemaVersion"], 39, "{file}: that of Grafana 10.4 and 11");
        for key in ["title", "description", "refresh"] {
            assert!(!text(json, key).is_empty(), "{file} has no {key}");
        }
        let link = text(&json["links"][0], "url").trim_start_matches("/d/");
        assert!(uids.contains(link) && link != text(json, "uid"), "{file} leads to {link:?}");
        assert!(json.get("__inputs").is_none(), "{file}: it is provisioned, not imported");
    }
}

#[test]
fn every_board_asks_for_data_source_flow_and_node() {
    for board in Dashboard::all() {
        let names: Vec<&str> = board.variables().map(|variable| text(variable, "name")).collect();
        assert_eq!(names, ["datasource", "name", "node"], "{}", board.file);
        for variable in board.variables().skip(1) {
            assert_eq!(variable["allValue"], ".*", "a flow without nodes has no label node");
            assert_eq!(variable["datasource"]["uid"], "${datasource}");
            assert!(text(variable, "definition").starts_with("label_values(relevo_build_info"));
        }
    }
}

#[test]
fn every_panel_can_be_read() {
    for board in Dashboard::all() {
        let mut count = 0;
        for panel in board.panels() {
            let place = format!("{}: {:?}", board.file, panel["title"]);
            assert!(!text(panel, "title").is_empty(), "{place}: a panel without a title");
            assert!(text(panel, "description").len() > 20, "{place} does not say what it shows");
            assert!(PANELS.contains(&text(panel, "type")), "{place}: {}", panel["type"]);
            assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{place} has no unit");
            let steps =
                panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array().expect("thresholds");
            assert!(steps[0]["value"].is_null(), "{place}: the first threshold begins at nothing");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            let targets = panel["targets"].as_array().expect("queries");
            let refs: BTreeSet<&str> = targets.iter().map(|target| text(target, "refId")).collect();
            assert_eq!(refs.len(), targets.len(), "{place}: a letter comes twice");
            for target in targets {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{place}");
            }
            count += 1;
        }
        assert!(count > 10, "{}: only {count} panels", board.file);
    }
}

/// Left, top, right and bottom.
fn area(panel: &Value) -> [u64; 4] {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a position"));
    [x, y, x + w, y + h]
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_cover_each_other() {
    for board in Dashboard::all() {
        let panels = board.json["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
        assert_eq!(ids.len(), panels.len(), "{}: an id comes twice", board.file);
        for (at, panel) in panels.iter().enumerate() {
            let [left, top, right, bottom] = area(panel);
            assert!(right <= 24 && left < right && top < bottom, "{}: {}", board.file, panel["title"]);
            for other in &panels[at + 1..] {
                let [x, y, x_end, y_end] = area(other);
                let apart = right <= x || x_end <= left || bottom <= y || y_end <= top;
                assert!(apart, "{}: {} covers {}", board.file, panel["title"], other["title"]);
            }
        }
    }
}

#[test]
fn what_is_provisioned_is_what_there_is() {
    let read = |file: &str| fs::read_to_string(repository().join("grafana/provisioning").join(file)).unwrap();
    let source = read("datasources/prometheus.yaml");
    for line in ["type: prometheus", "uid: prometheus", "url: http://prometheus:9090", "timeInterval: 5s"] {
        assert!(source.lines().any(|found| found.trim() == line), "{line}: {source}");
    }
    let scraped = fs::read_to_string(repository().join("deploy/prometheus/prometheus.yml")).unwrap();
    assert!(
        scraped.contains("    scrape_interval: 5s\n"),
        "timeInterval is how often the job relevo is scraped"
    );
    let boards = read("dashboards/relevo.yaml");
    assert!(boards.lines().any(|found| found.trim() == "path: /var/lib/grafana/dashboards"), "{boards}");
}
