//! The scrape configuration and the alerts: promtool is content with them, each alert is tested, and the runbook knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use relevo_tests::install::repository;
use relevo_tests::prometheus::{files, promtool, shipped};

/// The alerts with their lines in the files of rules. Their layout is ours.
fn alerts() -> BTreeMap<String, Vec<String>> {
    let mut alerts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files(&shipped().join("rules"), "yml") {
        let mut current = None;
        for line in fs::read_to_string(file).unwrap().lines() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix("- alert: ") {
                assert!(alerts.insert(name.to_owned(), Vec::new()).is_none(), "{name} comes twice");
                current = Some(name.to_owned());
            } else if line.starts_with("- ") {
                current = None;
            } else if let Some(name) = &current {
                alerts.get_mut(name).unwrap().push(line.to_owned());
            }
        }
    }
    alerts
}

fn value<'a>(lines: &'a [String], key: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
}

#[track_caller]
fn content(arguments: &[&str]) -> String {
    let (is_content, said) = promtool(arguments);
    assert!(is_content, "promtool {arguments:?}:\n{said}");
    said
}

#[test]
fn promtool_is_content_with_configuration_and_rules() {
    let said = content(&["check", "config", "--lint=all", "--lint-fatal", "prometheus.yml"]);
    assert!(said.contains("rules/relevo.yml"), "the rules are not found from the configuration: {said}");
    for file in files(&shipped().join("rules"), "yml") {
        content(&["check", "rules", "--lint=all", "--lint-fatal", file.to_str().unwrap()]);
    }
}

#[test]
fn every_alert_fires_when_it_should_and_is_silent_when_not() {
    let tests = files(&shipped().join("tests"), "yml");
    let mut arguments = vec!["test", "rules"];
    arguments.extend(tests.iter().map(|path| path.to_str().unwrap()));
    content(&arguments);

    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for file in &tests {
        let text = fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            if let Some(name) = pair[0].strip_prefix("alertname: ") {
                match pair[1] {
                    "exp_alerts: []" => silent.insert(name.to_owned()),
                    "exp_alerts:" => fires.insert(name.to_owned()),
                    other => panic!("{}: {name} is followed by {other:?}", file.display()),
                };
            }
        }
    }
    let all: BTreeSet<String> = alerts().into_keys().collect();
    assert_eq!(fires, all, "alerts that a test lets fire");
    assert_eq!(silent, all, "alerts that a test shows silent");
}

#[test]
fn every_alert_says_how_grave_it_is_and_what_to_read() {
    let alerts = alerts();
    assert!(alerts.len() > 20, "{:?}", alerts.keys());
    for (name, lines) in &alerts {
        assert!(matches!(value(lines, "severity"), Some("critical" | "warning")), "{name}: {lines:?}");
        for key in ["expr", "for", "summary", "description", "runbook"] {
            assert!(value(lines, key).is_some_and(|text| !text.is_empty()), "{name} has no {key}: {lines:?}");
        }
        let wanted = format!("RUNBOOK.md#{}", name.to_lowercase());
        assert_eq!(value(lines, "runbook"), Some(wanted.as_str()), "{name}");
    }
}

/// The parts that a tired person looks for in each section.
const PARTS: [&str; 3] = ["**You see**", "**Type**", "**To undo**"];

#[test]
fn the_runbook_has_a_section_for_every_alert_and_for_no_other() {
    let text = fs::read_to_string(repository().join("RUNBOOK.md")).unwrap();
    let (_, chapter) = text.split_once("\n## Alerts\n").expect("a chapter about alerts");
    let chapter = chapter.split("\n## ").next().unwrap();
    let mut sections = BTreeSet::new();
    for section in chapter.split("\n### ").skip(1) {
        let (title, body) = section.split_once('\n').unwrap();
        for part in PARTS {
            assert!(body.contains(part), "the section {title} of RUNBOOK.md has no {part}");
        }
        assert!(sections.insert(title.to_owned()), "{title} comes twice");
    }
    assert_eq!(sections, alerts().into_keys().collect(), "the sections, and the alerts");
    // GitHub makes the anchor of a heading of one word by writing it small.
    let headings: Vec<String> =
        text.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_lowercase).collect();
    for (name, lines) in alerts() {
        let anchor = value(&lines, "runbook").and_then(|page| page.strip_prefix("RUNBOOK.md#")).unwrap();
        assert!(headings.iter().any(|heading| heading == anchor), "{name}: no heading for #{anchor}");
    }
}

#[test]
fn the_runbook_refers_only_to_sections_that_there_are() {
    let text = fs::read_to_string(repository().join("RUNBOOK.md")).unwrap();
    let (_, chapter) = text.split_once("\n## Alerts\n").expect("a chapter about alerts");
    let chapter = chapter.split("\n## ").next().unwrap().replace("**", "").replace('\n', " ");
    let headings: BTreeSet<&str> = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches(['#', ' ']))
        .collect();
    let mut seen = 0;
    for (at, part) in chapter.split('*').enumerate() {
        if at % 2 == 1 {
            assert!(headings.contains(part), "there is no section {part:?}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}
