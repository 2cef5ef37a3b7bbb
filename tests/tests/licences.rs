//! What is built into Relevo may be: the licences and sources of `deny.toml`, held against `cargo metadata`, so that a
//! new dependency is noticed without cargo-deny and without a network.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

fn repository(path: &str) -> String {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The texts in double quotes of a list of `deny.toml`.
fn list(name: &str) -> BTreeSet<String> {
    let text = repository("deny.toml");
    let list = text.split(&format!("\n{name} = [")).nth(1).and_then(|rest| rest.split(']').next());
    let list = list.unwrap_or_else(|| panic!("deny.toml has no list {name}"));
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The platform that this was built for: of others nothing need be on this machine.
fn platform() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// Every package that is built into Relevo or its tests on this platform.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", &platform()])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Whether an SPDX expression leaves a choice that is allowed. A slash is an old way to write OR.
fn may_be_used(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let (verdict, rest) = either(&tokens, allowed);
    assert!(rest.is_empty(), "not an SPDX expression: {expression}");
    verdict
}

/// `all OR all …`, and what follows.
fn either<'t>(tokens: &'t [&'t str], allowed: &BTreeSet<String>) -> (bool, &'t [&'t str]) {
    let (mut verdict, mut rest) = all(tokens, allowed);
    while let Some(("OR", after)) = rest.split_first().map(|(first, after)| (*first, after)) {
        let (other, after) = all(after, allowed);
        (verdict, rest) = (verdict || other, after);
    }
    (verdict, rest)
}

/// `one AND one …`, and what follows.
fn all<'t>(tokens: &'t [&'t str], allowed: &BTreeSet<String>) -> (bool, &'t [&'t str]) {
    let (mut verdict, mut rest) = one(tokens, allowed);
    while let Some(("AND", after)) = rest.split_first().map(|(first, after)| (*first, after)) {
        let (other, after) = one(after, allowed);
        (verdict, rest) = (verdict && other, after);
    }
    (verdict, rest)
}

/// A licence, perhaps with an exception, or an expression in parentheses; and what follows.
fn one<'t>(tokens: &'t [&'t str], allowed: &BTreeSet<String>) -> (bool, &'t [&'t str]) {
    match tokens {
        ["(", inner @ ..] => {
            let (verdict, rest) = either(inner, allowed);
            assert_eq!(rest.first(), Some(&")"), "{tokens:?}");
            (verdict, &rest[1..])
        }
        // Only by its whole name: what an exception allows or not is for a person to read.
        [licence, "WITH", exception, rest @ ..] => {
            (allowed.contains(&format!("{licence} WITH {exception}")), rest)
        }
        [licence, rest @ ..] => (allowed.contains(*licence), rest),
        [] => panic!("an SPDX expression ends too early"),
    }
}

#[test]
fn every_licence_leaves_a_choice_that_is_allowed() {
    let allowed = list("allow");
    assert!(allowed.contains("MIT") && allowed.len() > 2, "{allowed:?}");
    let packages = packages();
    assert!(packages.len() > 100, "only {} packages", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(|licence| may_be_used(licence, &allowed)))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "not allowed by deny.toml: {refused:#?}");
}

#[test]
fn everything_comes_from_the_one_registry() {
    let registries = list("allow-registry");
    for package in packages() {
        let Some(source) = package["source"].as_str() else { continue };
        let known = registries.iter().any(|registry| source == format!("registry+{registry}"));
        assert!(known, "{} comes from {source}", package["name"]);
    }
}

#[test]
fn there_is_one_tls_library() {
    let text = repository("deny.toml");
    let names: BTreeSet<String> =
        packages().iter().map(|package| package["name"].as_str().unwrap().to_owned()).collect();
    let banned = text.split("crate = \"").skip(1).filter_map(|rest| rest.split('"').next());
    for name in banned {
        assert!(!names.contains(name), "{name} is banned by deny.toml");
    }
    assert!(names.contains("openssl"));
}

#[test]
fn licences_are_read_as_they_are_written() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Apache-2.0".to_owned(), "Zlib".to_owned()]);
    for (expression, verdict) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0-only OR MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("(MIT OR GPL-3.0-only) AND Zlib", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", true),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true),
    ] {
        assert_eq!(may_be_used(expression, &allowed), verdict, "{expression}");
    }
}
