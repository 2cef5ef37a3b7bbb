//! The commands as scripts use them: exit codes, names and types of JSON documents, options, variables and the
//! file, HTTP, logs. What stands here is a contract (and in README.md, which is held against `--help`).

use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use relevo_tests::install::{newest_client_bin, relevo_binary, repository};
use relevo_tests::ports::Port;
use relevo_tests::process::{children, clean_environment, signal, wait_for_exit};
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{FLOW, Pair, RelevoBuilder, SlotHolder, Version, wait_until, wait_until_some};
use rustix::process::Signal;
use serde_json::Value;

/// Nobody listens there.
const NOWHERE: &str = "postgres://nobody@127.0.0.1:1/nothing";

fn relevo(arguments: &[&str]) -> RelevoBuilder {
    RelevoBuilder::command(arguments)
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "expected {part:?} in: {said}");
    }
}

// ------------------------------------------------------------------------------------- the command line

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

// ----------------------------------------------------------------------------------------------- README

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

// ----------------------------------------------------------------------------------------------- status

/// The fields of the contract that every status document has.
const CONTRACT: [&str; 14] = [
    "name",
    "node",
    "role",
    "epoch",
    "state",
    "source_lsn",
    "received_lsn",
    "applied_lsn",
    "durable_lsn",
    "lag_bytes",
    "lag_seconds",
    "slot",
    "tables",
    "errors",
];

fn is_lsn(value: &Value) -> bool {
    let Some((high, low)) = value.as_str().and_then(|text| text.split_once('/')) else { return false };
    [high, low]
        .iter()
        .all(|half| (1..=8).contains(&half.len()) && half.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Names and types of a flow that streams.
fn assert_contract(status: &Value) {
    for field in CONTRACT {
        assert!(status.get(field).is_some(), "no {field} in {status}");
    }
    assert_eq!(status["name"], FLOW);
    assert!(status["node"].is_null() && status["role"] == "standby" && status["epoch"] == 0, "{status}");
    for field in ["source_lsn", "received_lsn", "applied_lsn", "durable_lsn"] {
        assert!(is_lsn(&status[field]), "{field} of {status}");
    }
    assert!(status["lag_bytes"].is_u64() && status["lag_seconds"].is_number(), "{status}");
    let slot = &status["slot"];
    assert_eq!(slot["name"], "relevo_e2e");
    assert_eq!(slot["wal_status"], "reserved");
    assert!(slot["retained_bytes"].is_u64(), "{slot}");
    assert!(slot.get("safe_bytes").is_some_and(Value::is_null), "no limit is null: {slot}");
    assert!(status["tables"]["copied"].is_u64() && status["tables"]["total"].is_u64(), "{status}");
    assert!(status["errors"].is_u64(), "{status}");
}

#[tokio::test]
async fn status_tells_the_same_whoever_is_asked_and_whoever_is_down() {
    let pair = Pair::start(Version::V15, Version::V16).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let status = || pair.command("status").arg("--json");
    let unnamed = || {
        relevo(&["status", "--json", "--source", &pair.source_url(), "--target", &pair.target_url()]).finish()
    };
    // Nothing was ever begun.
    assert_says(&status().finish().expect_code(1).stderr, &["no flow e2e", "relevo run"]);
    assert_says(&unnamed().expect_code(1).stderr, &["no flow shop_", "--name"]);
    assert_says(&pair.command("errors").finish().expect_code(1).stderr, &["no flow"]);

    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;
    pair.settle().await;
    let of_process = running
        .wait_for_status("slot and lag are known, and nothing is behind", PATIENCE, |status| {
            let idle = status["lag_bytes"] == 0 && status["lag_seconds"] == 0.0;
            idle && status["slot"].is_object() && status["durable_lsn"] == status["applied_lsn"]
        })
        .await;
    assert_contract(&of_process);
    let of_command = wait_until_some("relevo status says that nothing is behind", PATIENCE, async || {
        let document = status().finish().expect_code(0).json();
        if document["lag_seconds"] == 0.0 && document["lag_bytes"] == 0 {
            Ok(document)
        } else {
            Err(document.to_string())
        }
    })
    .await;
    assert_contract(&of_command);
    assert_eq!(of_command["state"], "streaming");
    assert_eq!(
        (&of_command["running"], &of_command["tables"]["total"]),
        (&Value::Bool(true), &Value::from(1))
    );
    for field in ["source_lsn", "applied_lsn"] {
        assert!(is_lsn(&of_command[field]));
    }
    // A server writes a few bytes of WAL by itself now and then: for a moment they are lag.
    let text = wait_until_some("relevo status says in words that nothing is behind", PATIENCE, async || {
        let text = pair.command("status").finish().expect_code(0).stdout;
        if text.contains("lag         0 s") { Ok(text) } else { Err(text) }
    })
    .await;
    assert_says(
        &text,
        &["flow", "e2e", "state", "streaming", "lag", "0 s", "slot", "relevo_e2e", "1 of 1 copied"],
    );

    running.terminate();
    let stopped = status().finish().expect_code(0).json();
    assert_eq!((&stopped["state"], &stopped["running"]), (&"stopped".into(), &false.into()), "{stopped}");
    // What happens on the source meanwhile is lag.
    pair.source.sql("INSERT INTO t SELECT generate_series(2, 1000)").await;
    let behind = status().finish().expect_code(0).json();
    assert!(
        behind["lag_bytes"].as_u64().unwrap() > 10_000 && behind["lag_seconds"].as_f64().unwrap() > 0.0,
        "{behind}"
    );
    assert_contract(&behind);

    running.restart();
    running.wait_until_streaming().await;
    pair.settle().await;
    running.kill();
    let killed = wait_until_some("the slot is free", PATIENCE, async || {
        let document = status().finish().expect_code(0).json();
        if document["running"] == false { Ok(document) } else { Err(document.to_string()) }
    })
    .await;
    assert_eq!(killed["state"], "stopped", "a killed process could not say so itself: {killed}");

    pair.source.stop();
    let half = status().finish().expect_code(0).json();
    assert_eq!(half["unreachable"][0]["side"], "source", "{half}");
    assert!(half["slot"].is_null() && half["source_lsn"].is_null() && is_lsn(&half["applied_lsn"]), "{half}");
    assert!(half["lag_seconds"].as_f64().unwrap() > 0.0, "unreachable is never caught up: {half}");
    // The target alone knows the flow's name.
    assert_eq!(unnamed().expect_code(0).json()["name"], FLOW);
    assert_says(
        &pair.command("status").finish().expect_code(0).stdout,
        &["UNREACHABLE", "source", "unknown"],
    );
    pair.target.stop();
    let said = status().finish().expect_code(1).stderr;
    assert_says(&said, &["neither database can be reached", "source", "target"]);
    pair.source.start().await;
    let half = status().finish().expect_code(0).json();
    assert_eq!(half["unreachable"][0]["side"], "target", "{half}");
    assert!(half["slot"].is_object() && half["applied_lsn"].is_null(), "{half}");
    assert_eq!(unnamed().expect_code(0).json()["name"], FLOW);
}

// ----------------------------------------------------------------------------------------- the settings

#[tokio::test]
async fn a_flow_runs_by_its_environment_alone_and_the_environment_wins_over_the_file() {
    let pair = Pair::start(Version::V17, Version::V16).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE left_out (id int)").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relevo.toml");
    let (http, other) = (Port::reserve(), Port::reserve());
    let text = format!(
        "name = \"from_file\"\n[source]\nurl = \"{NOWHERE}\"\n[target]\nurl = \"{}\"\n[tables]\nexclude = \
         [\"public.left_*\"]\n[http]\nlisten = \"127.0.0.1:{}\"\n[log]\nfilter = \"error\"\nformat = \"text\"\n",
        pair.target_url(),
        other.number()
    );
    std::fs::write(&file, text).unwrap();
    let mut running = relevo(&["run"])
        .env("RELEVO_CONFIG", &file.display().to_string())
        .env("RELEVO_SOURCE_URL", &pair.source_url())
        .env("RELEVO_NAME", FLOW)
        .env("RELEVO_HTTP_LISTEN", &format!("127.0.0.1:{}", http.number()))
        .env("RELEVO_LOG", "info,relevo_source=debug")
        .env("RELEVO_LOG_FORMAT", "json")
        .start();
    let get = async |path: &str| relevo_tests::endpoint::get(http.number(), path).await;
    wait_until("it streams", PATIENCE, async || {
        get("/readyz").await.is_some_and(|answer| answer.code == 200)
    })
    .await;
    let status: Value = serde_json::from_str(&get("/api/status").await.unwrap().body).unwrap();
    assert_eq!((&status["name"], &status["tables"]["total"]), (&FLOW.into(), &1.into()), "{status}");
    pair.source.sql("INSERT INTO t VALUES (1)").await;
    pair.caught_up().await;
    running.terminate();
    // One JSON object a line, and every one with time, level and words.
    let log = running.stderr();
    assert!(log.lines().count() > 5, "{log}");
    for line in log.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(["timestamp", "level", "message"].iter().all(|name| object[name].is_string()), "{line}");
    }
    assert_eq!(running.stdout(), "", "standard output is left to what a command was asked for");
}

#[tokio::test]
async fn a_failure_is_a_json_line_too_and_a_port_in_use_is_named() {
    let pair = Pair::start(Version::V18, Version::V17).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let run = |listen: &str| {
        relevo(&["run", "--log-format", "json", "--http-listen", listen, "--source", &pair.source_url()])
            .args(["--target", &pair.target_url(), "--name", FLOW])
    };
    let said = run(&taken).finish().expect_code(1).stderr;
    for line in said.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(["timestamp", "level", "message"].iter().all(|name| object[name].is_string()), "{line}");
    }
    assert_says(&said, &[&taken, "--http-listen", "exit_code"]);
}

#[tokio::test]
async fn exit_code_3_is_a_refusal_and_reset_is_the_way_out() {
    let pair = Pair::start(Version::V16, Version::V18).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;
    assert_says(
        &pair.command("reset").finish().expect_code(3).stderr,
        &["stop it first", "nothing was changed"],
    );
    running.terminate();
    wait_until("the slot is free", PATIENCE, async || {
        !pair.source.value::<bool>("SELECT active FROM pg_replication_slots").await
    })
    .await;
    pair.source.sql("SELECT pg_drop_replication_slot('relevo_e2e'); INSERT INTO t VALUES (2)").await;
    let refused = pair.relevo().finish().expect_code(3).stderr;
    assert_says(&refused, &["relevo_e2e", "slot"]);
    assert_eq!(pair.command("status").arg("--json").finish().expect_code(0).json()["slot"], Value::Null);
    assert_says(
        &pair.command("reset").arg("--dry-run").finish().expect_code(0).stdout,
        &["would be forgotten"],
    );
    assert_says(&pair.command("reset").finish().expect_code(0).stdout, &["forgotten", "copies them anew"]);
    running.restart();
    running.wait_until_streaming().await;
    pair.settle().await;
    running.terminate();
}

// ------------------------------------------------------------------------------------------------- HTTP

#[tokio::test]
async fn every_endpoint_answers_and_readyz_fails_while_rows_are_copied() {
    // A limit, so that there is something to tell of what is left of it.
    let limited = Pair::builder(Version::V14, Version::V14)
        .source(|source| source.set("max_slot_wal_keep_size", "1GB"));
    let pair = limited.start().await;
    let table = "CREATE TABLE t (id int PRIMARY KEY)";
    pair.sql_on_both(table).await;
    pair.source.sql("INSERT INTO t SELECT generate_series(1, 100)").await;
    // A lock that the rows have to wait for, and nothing before them.
    let lock = pair.target.connect("shop").await;
    lock.sql("BEGIN; LOCK TABLE t IN SHARE MODE").await;
    let mut running = pair.relevo().args(["--schema", "existing"]).start();
    running.wait_for_state("copying").await;
    let ready = running.get("/readyz").await.unwrap();
    assert_eq!(ready.code, 503, "{ready:?}");
    assert_says(&ready.body, &["copying"]);
    assert_eq!(running.get("/healthz").await.unwrap().code, 200);
    lock.sql("COMMIT").await;
    running.wait_until_streaming().await;
    wait_until("/readyz", PATIENCE, async || {
        running.get("/readyz").await.is_some_and(|answer| answer.code == 200)
    })
    .await;

    let page = running.get("/").await.unwrap();
    assert_eq!(page.code, 200);
    assert_says(&page.headers.to_lowercase(), &["content-type: text/html", "content-security-policy"]);
    assert_says(&page.body, &["page.js", "page.css"]);
    for (path, kind) in
        [("/page.js", "javascript"), ("/page.css", "css"), ("/api/status", "application/json")]
    {
        let answer = running.get(path).await.unwrap();
        assert_eq!(answer.code, 200, "{path}");
        assert_says(&answer.headers.to_lowercase(), &[kind, "cache-control: no-store"]);
    }
    let nothing = running.get("/nothing").await.unwrap();
    assert_eq!(nothing.code, 404);
    assert_says(&nothing.body, &["/metrics", "/api/status"]);

    pair.source.sql("INSERT INTO t VALUES (1000); UPDATE t SET id = 1001 WHERE id = 1000; DELETE FROM t WHERE id = 1001").await;
    pair.settle().await;
    // Nothing is told of a stage before it is known: the target flushes a little after its commit.
    let durable =
        async || running.metrics().await.sum("relevo_replication_lag_bytes", &[("stage", "durable")]);
    wait_until("the durable position", PATIENCE, async || durable().await.is_some()).await;
    let metrics = running.metrics().await;
    for name in [
        "relevo_replication_lag_seconds",
        "relevo_replication_lag_bytes",
        "relevo_commit_to_visible_seconds",
        "relevo_transactions_applied_total",
        "relevo_changes_applied_total",
        "relevo_batch_transactions",
        "relevo_batch_apply_seconds",
        "relevo_buffer_bytes",
        "relevo_slot_retained_wal_bytes",
        "relevo_slot_safe_wal_bytes",
        "relevo_reconnects_total",
        "relevo_copy_rows_total",
        "relevo_tables",
        "relevo_role",
        "relevo_epoch",
        "relevo_build_info",
    ] {
        assert!(metrics.has_help(name), "no # HELP {name}");
    }
    for operation in ["insert", "update", "delete"] {
        let count = metrics.sum("relevo_changes_applied_total", &[("op", operation)]);
        assert!(count.is_some_and(|count| count >= 1.0), "{operation}: {count:?}");
    }
    for stage in ["received", "applied", "durable"] {
        assert!(metrics.sum("relevo_replication_lag_bytes", &[("stage", stage)]).is_some(), "{stage}");
    }
    assert_eq!(metrics.sum("relevo_tables", &[("state", "streaming")]), Some(1.0));
    assert!((metrics.value("relevo_copy_rows_total") - 100.0).abs() < 0.5);
    running.terminate();
}

// ---------------------------------------------------------------------------------------------- errors

#[tokio::test]
async fn errors_lists_what_did_not_stop_the_flow() {
    let pair = Pair::start(Version::V15, Version::V14).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1), (2), (3)").await;
    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;
    let errors = || pair.command("errors").arg("--json");
    assert_eq!(errors().finish().expect_code(0).json(), Value::Array(Vec::new()));
    assert_says(&pair.command("errors").finish().expect_code(0).stdout, &["0 errors of flow e2e"]);
    pair.target.sql("DELETE FROM t WHERE id < 3").await;
    pair.source.sql("UPDATE t SET n = 7 WHERE id = 1").await;
    pair.source.sql("DELETE FROM t WHERE id = 2").await;
    pair.caught_up().await;
    let listed = errors().finish().expect_code(0).json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    for error in listed {
        assert!(error["id"].is_i64() && error["kind"].is_string() && error["at"].is_string(), "{error}");
        assert!(error["table"] == "public.t" && is_lsn(&error["commit_lsn"]), "{error}");
    }
    // The newest first, with the key that was looked for.
    assert_says(listed[0]["message"].as_str().unwrap(), &["id", "2"]);
    assert_says(listed[1]["message"].as_str().unwrap(), &["id", "1"]);
    let one = errors().args(["--limit", "1"]).finish().expect_code(0).json();
    assert_eq!(one.as_array().unwrap().as_slice(), &listed[..1]);
    let text = pair.command("errors").finish().expect_code(0).stdout;
    assert_says(&text, &["public.t", "2 errors of flow e2e"]);
    assert_eq!(pair.command("status").arg("--json").finish().expect_code(0).json()["errors"], 2);
    let metrics = running.metrics().await;
    assert!(metrics.has_help("relevo_target_missing_rows_total"));
    assert_eq!(metrics.sum("relevo_target_missing_rows_total", &[]), Some(2.0));
    // Cleared once they were shown; what is shown is not cut by that, and other flows keep theirs.
    pair.target
        .sql(
            "INSERT INTO relevo.flow (name, state) VALUES ('other', 'stopped'); \
             INSERT INTO relevo.error (flow, kind, message) VALUES ('other', 'x', 'of another flow')",
        )
        .await;
    let cleared = pair.command("errors").args(["--clear", "--limit", "1"]).finish().expect_code(0).stdout;
    assert_says(&cleared, &["public.t", "1 errors of flow e2e shown", "2 errors of flow e2e removed"]);
    assert_eq!(errors().arg("--clear").finish().expect_code(0).json(), Value::Array(Vec::new()));
    assert_eq!(pair.target.value::<i64>("SELECT count(*) FROM relevo.error").await, 1);
    running.terminate();
}

#[tokio::test]
async fn the_newest_errors_are_kept_and_older_ones_go() {
    let pair = Pair::start(Version::V14, Version::V18).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;
    running.terminate();
    pair.target
        .sql(
            "INSERT INTO relevo.error (flow, kind, message) \
             SELECT 'e2e', 'missing_row', n::text FROM generate_series(1, 25003) n",
        )
        .await;
    running.restart();
    let count = "SELECT count(*) FROM relevo.error";
    wait_until("only the newest 10000 errors are left", PATIENCE, async || {
        pair.target.value::<i64>(count).await == 10_000
    })
    .await;
    let oldest: i32 = pair.target.value("SELECT min(message::int) FROM relevo.error").await;
    assert_eq!(oldest, 15_004);
    running.terminate();
}

// --------------------------------------------------------------------------------------------- progress

/// Runs `relevo run` on a terminal of its own until it streams; what the terminal showed.
async fn on_a_terminal(pair: &Pair) -> String {
    let http = Port::reserve();
    let line = [
        relevo_binary().display().to_string(),
        "run --name e2e --source".to_owned(),
        pair.source_url(),
        "--target".to_owned(),
        pair.target_url(),
        format!("--http-listen 127.0.0.1:{}", http.number()),
    ];
    let mut command = Command::new("script");
    clean_environment(&mut command);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", newest_client_bin().display())).env("TERM", "xterm-256color");
    command.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut script = command.spawn().expect("the script program");
    let mut output = script.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut shown = Vec::new();
        let _ = output.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    });
    wait_until("it streams", PATIENCE, async || {
        relevo_tests::endpoint::get(http.number(), "/readyz").await.is_some_and(|answer| answer.code == 200)
    })
    .await;
    // script runs a shell, which may run relevo or become it.
    let below: Vec<u32> =
        children(script.id()).into_iter().flat_map(|pid| [children(pid), vec![pid]].concat()).collect();
    below.iter().for_each(|pid| signal(*pid, Signal::TERM));
    let status = wait_for_exit(&mut script, Duration::from_secs(10)).expect("it ends");
    let shown = reader.join().unwrap();
    assert!(status.success() || status.code() == Some(143), "{status}: {shown}");
    shown
}

#[tokio::test]
async fn a_copy_shows_a_bar_on_a_terminal_and_plain_lines_elsewhere() {
    let pair = Pair::start(Version::V16, Version::V15).await;
    pair.source
        .sql("CREATE TABLE large AS SELECT n AS id, repeat('x', 500) AS filler FROM generate_series(1, 20000) n;
              ALTER TABLE large ADD PRIMARY KEY (id)")
        .await;
    let shown = on_a_terminal(&pair).await;
    // A bar between brackets, drawn over and over, and log lines in between.
    assert!(shown.contains('\u{1b}'), "nothing was drawn: {shown}");
    assert!(shown.contains("rows [") && shown.contains("left, public.large"), "no bar: {shown}");
    assert_says(&shown, &["copy: table done"]);

    let reset = pair.command("reset").finish().expect_code(0).stdout;
    assert_says(&reset, &["1 tables"]);
    // The harness asks for JSON; plain text is what people get without a terminal.
    let both = ["--source", &pair.source_url(), "--target", &pair.target_url()];
    let running = relevo(&["run", "--http-listen", "127.0.0.1:0"]).args(&both).name(FLOW);
    let mut running = running.start();
    running.wait_for_log("copy: all rows have arrived").await;
    running.terminate();
    let log = running.stderr();
    assert!(!log.contains('\u{1b}') && !log.contains('\r'), "plain lines only: {log}");
    assert_says(&log, &["copy: rows begin", "copy: table done", "public.large"]);
}

// ------------------------------------------------------------------------------------------------ check

/// The findings of `relevo check --json`.
fn findings(pair: &Pair, code: i32) -> Vec<Value> {
    let document = pair.command("check").arg("--json").finish().expect_code(code).json();
    let findings = document["findings"].as_array().unwrap().clone();
    for finding in &findings {
        assert!(finding["check"].is_string() && finding["message"].is_string(), "{finding}");
        let severity = finding["severity"].as_str().unwrap();
        assert!(["ok", "notice", "warning", "error"].contains(&severity), "{finding}");
        assert!([Value::Null, "source".into(), "target".into()].contains(&finding["side"]), "{finding}");
    }
    let order = ["ok", "notice", "warning", "error"];
    let rank = |value: &Value| order.iter().position(|name| value == name).unwrap();
    let worst = findings.iter().map(|finding| rank(&finding["severity"])).max().unwrap();
    assert_eq!(rank(&document["verdict"]), worst, "{document}");
    findings
}

/// The finding of that check, with that severity.
#[track_caller]
fn found<'f>(findings: &'f [Value], check: &str, severity: &str) -> &'f Value {
    findings
        .iter()
        .find(|finding| finding["check"] == check && finding["severity"] == severity)
        .unwrap_or_else(|| {
            let of_check: Vec<&Value> = findings.iter().filter(|finding| finding["check"] == check).collect();
            panic!("no {severity} of {check}: {of_check:?}")
        })
}

#[tokio::test]
async fn check_passes_a_healthy_pair_and_reaches_every_severity() {
    let pair = Pair::builder(Version::V15, Version::V17)
        .source(|source| source.set("max_slot_wal_keep_size", "1GB"))
        .target(|target| target.set("fsync", "on"))
        .start()
        .await;
    pair.source
        .sql("CREATE TABLE t (id int PRIMARY KEY, made timestamptz DEFAULT now(), note text); CREATE SEQUENCE s")
        .await;
    let healthy = findings(&pair, 0);
    for check in [
        "wal_level",
        "replication_slots",
        "wal_senders",
        "output_plugin",
        "clock",
        "replica_identity",
        "version",
    ] {
        found(&healthy, check, "ok");
    }
    let text = pair.command("check").finish().expect_code(0).stdout;
    assert_says(&text, &["wal_level", "0 errors", " ok, "]);

    pair.source
        .sql(
            "CREATE TABLE keyless (id int); CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY);
             CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM t;
             SELECT lo_create(0); CREATE ROLE owner_here; CREATE TABLE owned (id int PRIMARY KEY);
             ALTER TABLE owned OWNER TO owner_here",
        )
        .await;
    let place = pair.source.socket_folder().join("space");
    std::fs::create_dir(&place).unwrap();
    relevo_tests::process::give_to_server_user(&place);
    pair.source.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", place.display())).await;
    pair.source.sql("CREATE TABLE spaced (id int PRIMARY KEY) TABLESPACE fast").await;
    let noted = findings(&pair, 0);
    found(&noted, "unlogged_tables", "notice");
    found(&noted, "materialized_views", "notice");
    assert_says(found(&noted, "large_objects", "warning")["message"].as_str().unwrap(), &["1 large object"]);
    assert_says(
        found(&noted, "large_objects", "warning")["remedy"].as_str().unwrap(),
        &["bytea", "lo_import"],
    );
    assert_says(
        found(&noted, "roles", "warning")["remedy"].as_str().unwrap(),
        &["CREATE ROLE \"owner_here\""],
    );
    assert_says(
        found(&noted, "tablespaces", "warning")["remedy"].as_str().unwrap(),
        &["CREATE TABLESPACE \"fast\""],
    );
    let identity = found(&noted, "replica_identity", "warning");
    assert_eq!(identity["subject"], "public.keyless");
    // The remedy is SQL that works.
    pair.source.sql(identity["remedy"].as_str().unwrap()).await;
    let mended = findings(&pair, 0);
    assert!(
        !mended
            .iter()
            .any(|finding| finding["check"] == "replica_identity" && finding["severity"] == "warning")
    );

    // A table that exists must fit.
    pair.target.sql("CREATE TABLE t (id int PRIMARY KEY, made int); CREATE TABLE keyless (id int)").await;
    let faulty = findings(&pair, 1);
    assert_eq!(found(&faulty, "missing_table", "error")["subject"], "public.owned");
    assert_eq!(found(&faulty, "missing_column", "error")["subject"], "public.t.note");
    let other_type = found(&faulty, "column_type", "warning");
    assert_eq!(other_type["subject"], "public.t.made");
    pair.target.sql("ALTER TABLE t ALTER made DROP DEFAULT, ALTER made TYPE timestamptz USING now()").await;
    assert!(
        !findings(&pair, 1)
            .iter()
            .any(|finding| finding["check"] == "column_type" && finding["severity"] != "ok")
    );
    let text = pair.command("check").finish().expect_code(1);
    assert_says(&text.stdout, &["error", "public.t", "→"]);
    assert_says(&text.stderr, &["must be mended first"]);
}

#[tokio::test]
async fn check_finds_what_the_server_lacks() {
    let pair = Pair::builder(Version::V18, Version::V14)
        .source(|source| source.set("max_replication_slots", "2").set("max_wal_senders", "1"))
        .start()
        .await;
    pair.source
        .sql("CREATE TABLE t (id int PRIMARY KEY); CREATE EXTENSION hstore; CREATE EXTENSION btree_gist")
        .await;
    pair.source.sql("CREATE PUBLICATION p FOR TABLE t").await;
    pair.source.sql("SELECT pg_create_logical_replication_slot('held', 'pgoutput')").await;
    let holder = SlotHolder::start(&pair.source, "shop", "somebody", "held", "p").await;
    found(&findings(&pair, 1), "wal_senders", "error");
    drop(holder);
    // A transaction that writes keeps a slot from being created; it is named, however young it is.
    let writer = pair.source.connect("shop").await;
    writer.sql("BEGIN; INSERT INTO t VALUES (1)").await;
    let slow = findings(&pair, 0);
    found(&slow, "output_plugin", "warning");
    let long = found(&slow, "long_transactions", "warning");
    assert_says(&long.to_string(), &["relevo-tests", "pg_terminate_backend"]);
    writer.sql("ROLLBACK").await;
    pair.source.sql("SELECT pg_create_logical_replication_slot('second', 'pgoutput')").await;
    let full = findings(&pair, 1);
    assert_says(
        found(&full, "replication_slots", "error")["remedy"].as_str().unwrap(),
        &["max_replication_slots"],
    );
    assert!(
        full.iter().any(|finding| finding["check"] == "extensions" && finding["subject"] == "hstore"),
        "{full:?}"
    );

    let low = Pair::builder(Version::V16, Version::V18)
        .source(|source| source.set("wal_level", "replica"))
        .start()
        .await;
    low.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let found_low = findings(&low, 1);
    assert_says(
        found(&found_low, "wal_level", "error")["remedy"].as_str().unwrap(),
        &["wal_level = 'logical'", "restart"],
    );
    low.source.sql("ALTER SYSTEM SET wal_level = 'logical'").await;
    low.source.restart().await;
    found(&findings(&low, 0), "wal_level", "ok");

    let nobody = relevo(&["check", "--json", "--source", NOWHERE, "--target", &low.target_url()])
        .finish()
        .expect_code(1)
        .json();
    let of: Vec<Value> = nobody["findings"].as_array().unwrap().clone();
    assert_eq!(found(&of, "connect", "error")["side"], "source");
    assert_eq!(found(&of, "connect", "ok")["side"], "target");
}
