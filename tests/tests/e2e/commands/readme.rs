//! README.md held against `--help`, and its settings and its example against what is taken.

use std::collections::BTreeSet;

use relevo_tests::install::repository;
use serde_json::Value;

use super::{assert_says, relevo};

/// A row of README's table of settings.
#[derive(Debug)]
struct Setting {
    option: String,
    variable: String,
    keys: Vec<String>,
    default: String,
}

fn readme() -> String {
    std::fs::read_to_string(repository().join("README.md")).expect("README.md")
}

fn readme_settings() -> Vec<Setting> {
    // A '|' inside a cell is written as '\|'.
    let readme = readme().replace("\\|", "/");
    let rows =
        readme.lines().skip_while(|line| !line.starts_with("| option | variable | file | default |")).skip(2);
    let code = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [option, variable, keys, default] = cells[..] else { panic!("four cells: {line}") };
            let option = code(option).remove(0);
            Setting {
                option: option.split([' ', '[']).next().unwrap().to_owned(),
                variable: code(variable).remove(0),
                keys: code(keys),
                default: default.trim_matches('`').to_owned(),
            }
        })
        .collect()
}

#[test]
fn readme_and_help_name_the_same_settings_variables_and_defaults() {
    let settings = readme_settings();
    let help = relevo(&["run", "--help"]).finish().expect_code(0).stdout;
    let mut blocks: Vec<String> = Vec::new();
    for line in help.lines() {
        if line.trim_start().starts_with("--") || line.trim_start().starts_with("-h,") {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push_str(line.trim());
            block.push(' ');
        }
    }
    let option_of = |block: &str| {
        block.split([' ', ',', '=', '[']).find(|word| word.starts_with("--")).map(str::to_owned)
    };
    let in_help: BTreeSet<String> =
        blocks.iter().filter_map(|block| option_of(block)).filter(|option| option != "--help").collect();
    let in_readme: BTreeSet<String> = settings.iter().map(|setting| setting.option.clone()).collect();
    assert_eq!(in_help, in_readme);
    for setting in &settings {
        let block = blocks.iter().find(|block| option_of(block).as_ref() == Some(&setting.option)).unwrap();
        assert_says(block, &[&format!("[env: {}", setting.variable)]);
        if !setting.default.is_empty() && setting.default != "required" {
            assert_says(&block.to_lowercase(), &[&format!("default: {}", setting.default.to_lowercase())]);
        }
    }
    let commands = readme();
    let rows = commands.lines().filter_map(|line| line.strip_prefix("| `relevo "));
    for row in rows {
        let call: Vec<&str> = row.split('`').next().unwrap().split(' ').collect();
        let help = relevo(&[call[0], "--help"]).finish().expect_code(0).stdout;
        for option in &call[1..] {
            assert_says(&help, &[option.trim_matches(['[', ']'])]);
        }
    }
}

/// A value of the kind that the key wants.
fn value_of(key: &str) -> &'static str {
    match key {
        "source.url" | "target.url" => "\"postgres://nobody@127.0.0.1:1/nothing\"",
        "source.password_file" | "target.password_file" => "\"/nonexistent/password\"",
        "name" => "\"shop\"",
        "tables.include" | "tables.exclude" => "[\"public.a*\"]",
        "tables.via_partition_root" => "true",
        "schema.mode" => "\"existing\"",
        "schema.pg_dump" => "\"/usr/bin/pg_dump\"",
        "copy.jobs" => "3",
        "apply.batch_bytes" => "\"4MiB\"",
        "apply.memory" => "\"64MiB\"",
        "apply.spool" => "\"/var/lib/relevo\"",
        "apply.spool_limit" => "\"20GiB\"",
        "apply.synchronous_commit" => "\"on\"",
        "heartbeat.interval" => "\"5s\"",
        "replication.receive_timeout" => "\"30s\"",
        "http.listen" => "\"127.0.0.1:1234\"",
        "http.tls_cert" | "http.tls_key" | "http.tls_client_ca" | "http.token_file" => {
            "\"/nonexistent/file\""
        }
        "log.filter" => "\"warn\"",
        "log.format" => "\"json\"",
        other => panic!("README names the key {other}: say here what it takes"),
    }
}

#[test]
fn every_key_and_the_example_of_readme_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relevo.toml");
    let run = |text: &str| {
        std::fs::write(&file, text).unwrap();
        relevo(&["status", "--config", &file.display().to_string()]).finish()
    };
    let keys: Vec<String> = readme_settings().into_iter().flat_map(|setting| setting.keys).collect();
    assert!(keys.len() > 14, "{keys:?}");
    let all: Vec<String> = keys.iter().map(|key| format!("{key} = {}", value_of(key))).collect();
    // It is read (exit code 2 is for what cannot be), and its password files are looked for.
    let said = run(&all.join("\n")).expect_code(1).stderr;
    assert_says(&said, &["/nonexistent/password"]);
    // One JSON object a line, as log.format says.
    said.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).expect("JSON")));
    for key in &keys {
        let others: Vec<String> = keys
            .iter()
            .filter(|other| *other != key)
            .map(|key| format!("{key} = {}", value_of(key)))
            .collect();
        let said =
            run(&format!("{}\n{key} = {{ no = \"such type\" }}", others.join("\n"))).expect_code(2).stderr;
        assert_says(&said, &["relevo.toml, line"]);
    }

    let readme = readme();
    let example =
        readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let example = example.replace("db-a:5432", "127.0.0.1:1").replace("db-b:5432", "127.0.0.1:1");
    assert_says(&run(&example).expect_code(1).stderr, &["/run/secrets/db-a", "127.0.0.1:1"]);
}
