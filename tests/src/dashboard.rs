//! The Grafana dashboards that the repository ships, as far as Grafana is not needed to read them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::install::repository;
use crate::prometheus::files;

/// A dashboard.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// Its file's name.
    pub file: String,
    /// All of it.
    pub json: Value,
}

/// A query, and what shows it.
#[derive(Debug, Clone)]
pub struct Query {
    /// Dashboard and panel.
    pub place: String,
    /// The expression, with variables in it.
    pub expression: String,
}

impl Dashboard {
    /// Every one.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).expect("a dashboard");
            let json =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Self { file: path.file_name().expect("a name").to_string_lossy().into_owned(), json }
        };
        files(&repository().join("grafana/dashboards"), "json").iter().map(read).collect()
    }

    /// The panels, without the rows that they stand under.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        let panels = self.json["panels"].as_array().expect("panels");
        panels.iter().filter(|panel| panel["type"] != "row")
    }

    /// The template variables.
    pub fn variables(&self) -> impl Iterator<Item = &Value> {
        self.json["templating"]["list"].as_array().expect("variables").iter()
    }

    /// The queries of every panel.
    #[must_use]
    pub fn queries(&self) -> Vec<Query> {
        let of = |panel: &Value| -> Vec<Query> {
            let title = panel["title"].as_str().expect("a title");
            let targets =
                panel["targets"].as_array().unwrap_or_else(|| panic!("{title} has no queries")).iter();
            targets
                .map(|target| Query {
                    place: format!("{}: {title} {}", self.file, target["refId"]),
                    expression: target["expr"].as_str().expect("an expression").to_owned(),
                })
                .collect()
        };
        self.panels().flat_map(of).collect()
    }
}

/// The expression with values in place of its variables; panics when one is left over.
#[must_use]
pub fn filled(expression: &str, values: &BTreeMap<&str, &str>) -> String {
    // A longer name first, because it may begin with a shorter one.
    let mut names: Vec<&&str> = values.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let mut text = expression.to_owned();
    for name in names {
        text =
            text.replace(&format!("${{{name}}}"), values[*name]).replace(&format!("${name}"), values[*name]);
    }
    assert!(!text.contains('$'), "a variable of {expression:?} has no value: {text:?}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_in_both_spellings() {
        let values = BTreeMap::from([("node", "b"), ("node_port", "9"), ("__rate_interval", "20s")]);
        let text = filled("rate(a{n=\"$node\", m=\"${node}\", p=\"$node_port\"}[$__rate_interval])", &values);
        assert_eq!(text, "rate(a{n=\"b\", m=\"b\", p=\"9\"}[20s])");
    }
}
