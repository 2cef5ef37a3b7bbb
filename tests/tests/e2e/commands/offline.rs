//! Commands that ask nobody: explanations of errors, completions, manual pages; and that errors carry their kinds.

use std::process::Command;

use relevo_tests::install::{relevo_binary, repository};
use serde_json::Value;

use super::{NOWHERE, assert_says, relevo};

/// Every command of `relevo --help`.
fn commands() -> Vec<String> {
    let help = relevo(&["--help"]).finish().expect_code(0).stdout;
    let (_, list) = help.split_once("Commands:\n").expect("the commands");
    let (list, _) = list.split_once("\n\n").expect("their end");
    let name = |line: &str| {
        let word = line.strip_prefix("  ")?.split(' ').next()?;
        (!word.is_empty() && word != "help").then(|| word.to_owned())
    };
    list.lines().filter_map(name).collect()
}

#[test]
fn an_error_is_explained_by_its_kind() {
    let said = relevo(&["explain", "unique_violation"]).finish().expect_code(0).stdout;
    assert_says(&said, &["unique_violation\n", "What to do\n", "The flow goes on by itself."]);
    let all = relevo(&["explain"]).finish().expect_code(0).stdout;
    let page = std::fs::read_to_string(repository().join("docs/errors.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(all.lines().count(), rows);
    let unknown = relevo(&["explain", "slot_gone"]).finish().expect_code(2).stderr;
    assert_says(&unknown, &["there is no kind of error \"slot_gone\"", "slot_missing", "code: usage"]);
}

#[test]
fn what_fails_says_its_kind_to_people_and_to_machines() {
    let both = ["--source", NOWHERE, "--target", NOWHERE];
    let text = relevo(&["status"]).args(&both).finish().expect_code(1).stderr;
    assert_says(
        &text,
        &["relevo: neither database", "\ncode: connection_refused (relevo explain connection_refused)\n"],
    );
    let last = |said: &str| -> Value { serde_json::from_str(said.lines().last().unwrap()).expect("JSON") };
    for arguments in [vec!["status", "--json"], vec!["status", "--log-format", "json"]] {
        let said = relevo(&arguments).args(&both).finish().expect_code(1);
        let line = last(&said.stderr);
        assert_eq!((&line["kind"], &line["exit_code"]), (&"connection_refused".into(), &1.into()), "{line}");
        assert_eq!(said.stdout, "");
    }
    let usage = relevo(&["status", "--sorce", "x"]).finish().expect_code(2).stderr;
    assert_says(&usage, &["code: usage"]);
    let file = relevo(&["status", "--config", "/nonexistent"]).finish().expect_code(2).stderr;
    assert_says(&file, &["code: configuration"]);
}

/// Runs a script in bash with the program on its path.
fn bash(script: &str) -> String {
    let program = relevo_binary();
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output =
        Command::new("bash").args(["--norc", "-ec", script]).env("PATH", path).output().expect("bash");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_every_command_and_option() {
    let complete = |words: &str, count: usize| {
        bash(&format!(
            "source <(relevo completions bash); complete -p relevo >&2; \
             COMP_WORDS=({words}); COMP_CWORD={count}; COMP_LINE='{words}'; COMP_POINT=${{#COMP_LINE}}; \
             cur=${{COMP_WORDS[COMP_CWORD]:-}}; prev=${{COMP_WORDS[COMP_CWORD-1]}}; \
             _relevo relevo \"$cur\" \"$prev\" || true; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        ))
    };
    let offered = complete("relevo ''", 1);
    let commands = commands();
    assert!(commands.len() >= 18 && commands.contains(&"explain".to_owned()), "{commands:?}");
    for command in &commands {
        assert!(offered.lines().any(|word| word == command), "no {command} in {offered}");
    }
    assert_eq!(complete("relevo swi", 1).trim(), "switchover");
    assert_eq!(complete("relevo status --wat", 2).trim(), "--watch");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = relevo(&["completions", shell]).finish().expect_code(0).stdout;
        for command in &commands {
            assert!(script.contains(command.as_str()), "{shell}: no {command}");
        }
    }
    relevo(&["completions", "tcsh"]).finish().expect_code(2);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man1");
    let listed = relevo(&["man", "--out", out.to_str().unwrap()]).finish().expect_code(0).stdout;
    let mut pages = vec!["relevo".to_owned()];
    pages.extend(commands().into_iter().map(|command| format!("relevo-{command}")));
    assert_eq!(listed.lines().count(), pages.len(), "{listed}");
    for page in pages {
        let text = std::fs::read_to_string(out.join(format!("{page}.1"))).unwrap();
        assert_says(&text, &[".TH", ".SH NAME", ".SH SYNOPSIS", &page.replace('-', "\\-")]);
    }
    let one = relevo(&["man", "switchover"]).finish().expect_code(0).stdout;
    assert_eq!(one, std::fs::read_to_string(out.join("relevo-switchover.1")).unwrap());
    assert_says(&one, &["max\\-pause"]);
    let unknown = relevo(&["man", "nothing"]).finish().expect_code(2).stderr;
    assert_says(&unknown, &["there is no command \"nothing\""]);
}
