//! The command line: help, versions, wrong options and variables, and that no secret is said of them.

use super::{NOWHERE, assert_says, relevo};

#[test]
fn help_and_version_are_there_for_every_command() {
    let help = relevo(&["--help"]).finish().expect_code(0).stdout;
    assert_says(
        &help,
        &[
            "run",
            "status",
            "check",
            "tables",
            "errors",
            "wait",
            "verify",
            "repair",
            "reset",
            "Exit codes: 0 done; 1 failed; 2 usage",
        ],
    );
    for command in ["run", "status", "check", "tables", "errors", "wait", "verify", "repair", "reset"] {
        let help = relevo(&[command, "--help"]).finish().expect_code(0).stdout;
        assert_says(
            &help,
            &["--source", "RELEVO_SOURCE_URL", "--target", "--config", "--name", "--log-format"],
        );
        let json =
            ["run", "status", "check", "tables", "errors", "wait", "verify", "repair"].contains(&command);
        assert_eq!(help.contains("--json"), json, "every command that tells something has --json: {command}");
    }
    let version = relevo(&["--version"]).finish().expect_code(0).stdout;
    assert_eq!(version.trim(), format!("relevo {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_says_what_is_expected() {
    for (arguments, parts) in [
        (vec![], vec!["Usage"]),
        (vec!["compare"], vec!["unrecognized subcommand", "compare"]),
        (vec!["run", "--sorce", "x"], vec!["--sorce", "--source"]),
        (vec!["status"], vec!["--source", "RELEVO_SOURCE_URL", "[source] url"]),
        (vec!["status", "--source", NOWHERE], vec!["--target", "RELEVO_TARGET_URL"]),
        (vec!["status", "--source", "mysql://h/d", "--target", NOWHERE], vec!["source", "postgres://"]),
        (vec!["status", "--source", "postgres://h?sslmod=x", "--target", NOWHERE], vec!["sslmode"]),
        (vec!["run", "--memory", "1MiB", "--source", NOWHERE, "--target", NOWHERE], vec!["16 MiB"]),
        (vec!["run", "--name", "Not A Name"], vec!["--name", "lower-case"]),
        (vec!["run", "--http-listen", "here"], vec!["--http-listen", "ADDRESS:PORT"]),
        (
            vec!["status", "--log", "a=b=c", "--source", NOWHERE, "--target", NOWHERE],
            vec!["log filter", "relevo_source=debug"],
        ),
        (vec!["errors", "--limit", "0"], vec!["--limit"]),
    ] {
        let said = relevo(&arguments).finish().expect_code(2).stderr;
        assert_says(&said, &parts);
    }
}

#[test]
fn a_node_without_a_file_that_names_it_is_refused_and_no_secret_is_said() {
    let both = ["--source", NOWHERE, "--target", NOWHERE];
    let named = relevo(&["run", "--node", "a"]).args(&both).finish().expect_code(2).stderr;
    let variable = relevo(&["status"]).args(&both).env("RELEVO_NODE", "a").finish().expect_code(2).stderr;
    for said in [named, variable] {
        assert_says(&said, &["--node a", "RELEVO_NODE", "--config FILE"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relevo.toml");
    let ended = |text: &str, command: &[&str]| {
        std::fs::write(&file, text).unwrap();
        relevo(command).args(["--config", &file.display().to_string()]).finish()
    };
    let nodes = "name = \"shop\"\n[node.a]\nurl = \"postgres://relevo:never-print-me@127.0.0.1:1/shop\"\n";
    let silent = ended(nodes, &["status"]).expect_code(1).stderr;
    assert_says(&silent, &["relevo init --primary", "a: "]);
    let unnamed = ended(nodes, &["run"]).expect_code(2).stderr;
    assert_says(&unnamed, &["--node a"]);
    let stranger = ended(nodes, &["run", "--node", "z"]).expect_code(2).stderr;
    assert_says(&stranger, &["names no node \"z\"", "it names a"]);
    for said in [silent, unnamed, stranger] {
        assert!(!said.contains("never-print-me"), "{said}");
    }
    let config = |text: &str| ended(text, &["status"]).expect_code(2).stderr;
    let unknown = config("[apply]\nmemory = \"256MiB\"\nspol = \"/var/lib/relevo\"\n");
    assert_says(&unknown, &["line 3", "spol", "expected one of", "batch_bytes"]);
}

#[test]
fn every_variable_is_read_and_a_bad_value_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no-such-file");
    let missing = missing.display().to_string();
    for (variable, value, part) in [
        ("RELEVO_CONFIG", missing.as_str(), "no-such-file"),
        ("RELEVO_SOURCE_URL", "mysql://h/d", "source"),
        ("RELEVO_TARGET_URL", "mysql://h/d", "target"),
        ("RELEVO_NAME", "?!", "--name"),
        ("RELEVO_NODE", "b", "--node b"),
        ("RELEVO_INCLUDE", "a.b.c.d", "a.b.c.d"),
        ("RELEVO_EXCLUDE", "a.b.c.d", "a.b.c.d"),
        ("RELEVO_VIA_PARTITION_ROOT", "perhaps", "--via-partition-root"),
        ("RELEVO_SCHEMA", "perhaps", "--schema"),
        ("RELEVO_BATCH_BYTES", "many", "--batch-bytes"),
        ("RELEVO_MEMORY", "much", "--memory"),
        ("RELEVO_SYNCHRONOUS_COMMIT", "perhaps", "--synchronous-commit"),
        ("RELEVO_HEARTBEAT_INTERVAL", "often", "--heartbeat-interval"),
        ("RELEVO_RECEIVE_TIMEOUT", "late", "--receive-timeout"),
        ("RELEVO_HTTP_LISTEN", "here", "--http-listen"),
        ("RELEVO_LOG", "a=b=c", "log filter"),
        ("RELEVO_LOG_FORMAT", "pretty", "--log-format"),
    ] {
        println!("{variable}");
        let command = relevo(&["run"]).env("RELEVO_SOURCE_URL", NOWHERE).env("RELEVO_TARGET_URL", NOWHERE);
        let said = command.env(variable, value).finish().expect_code(2).stderr;
        assert_says(&said, &[part]);
    }
}
