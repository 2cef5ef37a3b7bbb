//! What lies in `deploy/`: that every file fits the others and the program. Nothing is started here but programs that
//! look at files; the image itself is tried by `make test-container`, and what compose.yaml makes by the end-to-end tests.
//!
//! A tool that is not on this machine is not silently done without: the test prints what was not checked.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod compose;
mod image;
mod kubernetes;
mod systemd;
mod yaml;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use relevo_tests::install::repository;
use relevo_tests::{RelevoBuilder, process::clean_environment};

/// A file below `deploy/`.
fn deploy(path: impl AsRef<Path>) -> PathBuf {
    repository().join("deploy").join(path)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The version that is built.
fn version() -> String {
    let manifest: toml::Value = toml::from_str(&read(repository().join("Cargo.toml"))).unwrap();
    manifest["workspace"]["package"]["version"].as_str().unwrap().to_owned()
}

/// Runs a tool to its end; `None`, with a word about it, when it is not on this machine.
fn tool(program: &str, arguments: &[&str], not_checked: &str) -> Option<Output> {
    let mut command = Command::new(program);
    clean_environment(&mut command);
    match command.args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("NOT CHECKED: {not_checked}: {program}: {error}");
            None
        }
    }
}

/// Panics unless the program accepts the command line and the configuration file in it, which is another than where it
/// runs. Nothing is begun: `run` is given an address that is not this machine's, and `init` databases that are not there.
fn accepts(arguments: &[String], config: &Path) {
    let config = config.to_string_lossy();
    let words =
        arguments.iter().map(|word| if word.ends_with("relevo.toml") { &*config } else { word.as_str() });
    let mut command = RelevoBuilder::command(&words.collect::<Vec<_>>());
    let said = match arguments[0].as_str() {
        "run" => {
            // From a block that is kept for documents (RFC 5737).
            command = command.args(["--http-listen", "203.0.113.1:9187"]);
            "203.0.113.1:9187"
        }
        "init" => "node a",
        "healthcheck" => {
            command = command.args(["--http-listen", "127.0.0.1:1"]);
            "nobody answers at http://127.0.0.1:1/healthz"
        }
        other => panic!("how is it seen that the program accepts {other}?"),
    };
    let done = command.finish().expect_code(1);
    assert!(done.stderr.contains(said), "{arguments:?}: {}", done.stderr);
}

/// The hosts and password files of the nodes in a configuration file.
fn nodes(config: &Path) -> Vec<(String, String, String)> {
    let file: toml::Value = toml::from_str(&read(config)).unwrap();
    let nodes = file["node"].as_table().unwrap();
    nodes
        .iter()
        .map(|(name, node)| {
            let url = node["url"].as_str().unwrap();
            let host = url.split_once('@').unwrap().1.split_once('/').unwrap().0;
            (name.clone(), host.to_owned(), node["password_file"].as_str().unwrap().to_owned())
        })
        .collect()
}
