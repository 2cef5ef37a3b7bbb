//! Which crate may depend on which: the arrows of ARCHITECTURE.md, held against `cargo metadata`. And that every kind of
//! error is listed and explained (`kinds`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "architecture/kinds.rs"]
mod kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each crate with the crates of this workspace that it may know. A crate that is not listed may not exist.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("pgoutput", &["model"]),
    ("connect", &["model"]),
    ("state", &["model", "connect"]),
    ("catalog", &["model", "connect", "state"]),
    ("source", &["model", "connect", "state", "catalog", "pgoutput"]),
    // Its tests start real servers with the harness, which knows no crate of the product.
    ("target", &["model", "connect", "state", "catalog", "tests"]),
    ("snapshot", &["model", "connect", "state", "catalog"]),
    ("verify", &["model", "connect", "state", "catalog", "source", "snapshot"]),
    ("pipeline", &["model"]),
    ("telemetry", &["model"]),
    ("spool", &[]),
    ("running", &["model", "pgoutput", "spool"]),
    ("arrivals", &["model", "pgoutput", "spool"]),
    (
        "handover",
        &["model", "connect", "state", "catalog", "source", "snapshot", "verify", "spool", "running"],
    ),
    (
        "cli",
        &[
            "model",
            "connect",
            "state",
            "catalog",
            "pgoutput",
            "source",
            "target",
            "snapshot",
            "verify",
            "pipeline",
            "telemetry",
            "spool",
            "running",
            "arrivals",
            "handover",
        ],
    ),
    // The judge shares nothing with what it judges.
    ("tests", &[]),
];

/// Crates from outside that a crate must do without, for what it may never know.
const NEVER: &[(&str, &[&str])] = &[
    ("model", &["tokio", "tokio-postgres", "postgres-protocol", "axum"]),
    ("pgoutput", &["tokio", "tokio-postgres", "postgres-protocol"]),
    ("pipeline", &["tokio-postgres", "postgres-protocol", "axum"]),
    ("telemetry", &["tokio-postgres", "postgres-protocol"]),
    ("spool", &["tokio", "tokio-postgres", "postgres-protocol"]),
    ("running", &["tokio", "tokio-postgres", "postgres-protocol"]),
    ("arrivals", &["tokio-postgres", "postgres-protocol"]),
    ("target", &["postgres-protocol"]),
    ("snapshot", &["postgres-protocol"]),
    ("verify", &["postgres-protocol"]),
    ("handover", &["postgres-protocol"]),
];

/// What each package of the workspace depends on, by name without the prefix `relevo-`, tests included.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let needs = package["dependencies"].as_array().unwrap().iter().map(name).collect();
            (name(package).trim_start_matches("relevo-").to_owned(), needs)
        })
        .collect()
}

#[test]
fn dependencies_between_crates_point_only_where_they_may() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let found = dependencies();
    assert!(found.len() > 5, "{found:?}");
    for (package, needs) in &found {
        let allowed = allowed.get(package.as_str()).unwrap_or_else(|| {
            panic!("crate {package} is new: say in tests/tests/architecture.rs what it may depend on")
        });
        for need in needs.iter().filter_map(|need| need.strip_prefix("relevo-")) {
            assert!(allowed.contains(&need), "crate {package} may not depend on {need}, only on {allowed:?}");
        }
    }
}

#[test]
fn crates_do_without_what_they_must_not_know() {
    let found = dependencies();
    for (package, never) in NEVER {
        let Some(needs) = found.get(*package) else { continue };
        for outside in *never {
            assert!(!needs.contains(*outside), "crate {package} must not know {outside}");
        }
    }
}
