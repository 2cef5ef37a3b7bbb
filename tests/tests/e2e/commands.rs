//! The commands as scripts use them: exit codes, names and types of JSON documents, options, variables and the
//! file, HTTP, logs. What stands here is a contract (and in README.md, which is held against `--help`).

mod checking;
mod documents;
mod endpoints;
mod line;
mod logged;
mod offline;
mod readme;
mod settings;
mod terminal;

use relevo_tests::RelevoBuilder;

/// Nobody listens there.
const NOWHERE: &str = "postgres://nobody@127.0.0.1:1/nothing";

fn relevo(arguments: &[&str]) -> RelevoBuilder {
    RelevoBuilder::command(arguments)
}

#[track_caller]
fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "expected {part:?} in: {said}");
    }
}
