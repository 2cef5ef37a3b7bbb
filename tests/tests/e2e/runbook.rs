//! RUNBOOK.md is read by a tired person: every command of its chapters about nodes and about alerts is run here, those of a
//! section in the order in which they stand there, and what it is said to print is held against what it prints. So are the
//! names of all commands and options in RUNBOOK.md and README.md.
//!
//! How the chapter is read: a line `$ …` of a console block is a command, with `# exit code N` behind it when that is not 0;
//! the lines below it are its output, in which white space does not count, `…` stands for anything, and a word with a digit
//! for any word with one.

mod alerts;
mod page;
mod situations;

use std::collections::{BTreeMap, BTreeSet};

use relevo_tests::RelevoBuilder;
use relevo_tests::install::repository;

use page::{Call, calls, chapter, sections};
use situations::TESTED;

#[test]
fn every_section_about_nodes_that_shows_commands_is_tested() {
    let shown: BTreeSet<String> = sections(&chapter())
        .into_iter()
        .filter(|(_, text)| !calls(text).is_empty())
        .map(|(title, _)| title)
        .collect();
    let tested: BTreeSet<String> = TESTED.iter().map(|title| (*title).to_owned()).collect();
    assert_eq!(shown, tested, "a section of RUNBOOK.md, and its test in situations.rs");
}

#[test]
fn every_command_and_option_that_is_shown_exists() {
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = 0;
    for page in ["RUNBOOK.md", "README.md"] {
        let text = std::fs::read_to_string(repository().join(page)).expect(page);
        for Call { words, .. } in calls(&text).into_iter().filter(|call| call.words[0] == "relevo") {
            let command = words[1].clone();
            let help = helps.entry(command.clone()).or_insert_with(|| {
                RelevoBuilder::command(&[&command, "--help"]).finish().expect_code(0).stdout
            });
            for option in words.iter().skip(2).filter(|word| word.starts_with("--")) {
                let known = help.split([' ', ',', '\n', '=', '[']).any(|word| word == option);
                assert!(known, "{page}: {words:?}: there is no {option}:\n{help}");
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} commands were found");
}
