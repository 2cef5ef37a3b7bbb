//! YAML as JSON: what the files hold, with anchors and merge keys (`<<`) resolved.

use serde::Deserialize as _;
use serde_json::{Map, Value};

/// The documents of a file; empty ones are left out. Panics on what is not YAML.
pub fn documents(text: &str) -> Vec<Value> {
    serde_norway::Deserializer::from_str(text)
        .map(|document| merged(Value::deserialize(document).expect("YAML")))
        .filter(|document| !document.is_null())
        .collect()
}

/// What a mapping says itself counts more than what it merges.
fn merged(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(merged).collect(),
        Value::Object(mut own) => {
            let mut all = match own.remove("<<").map(merged) {
                Some(Value::Object(base)) => base,
                Some(other) => panic!("<< merges a mapping, not {other}"),
                None => Map::new(),
            };
            all.extend(own.into_iter().map(|(key, value)| (key, merged(value))));
            Value::Object(all)
        }
        other => other,
    }
}

#[test]
fn a_merge_key_is_what_is_not_said_otherwise() {
    let text = "base: &base {a: 1, b: {c: 2}}\nmade:\n  <<: *base\n  a: 3\n---\n# nothing\n---\nlast: [010, \"no\", no]\n";
    let documents = documents(text);
    assert_eq!(documents[0]["made"], serde_json::json!({ "a": 3, "b": { "c": 2 } }));
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[1]["last"][1], "no");
}
