//! No secret and no row of the databases in anything that Relevo says; and what a wrong call of it is answered with.
//!
//! What may not enter: whether the commands do what they should (see the other modules).

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use relevo_tests::process::children;
use relevo_tests::relevo::Finished;
use relevo_tests::{Cluster, PASSWORD, Pair, Relevo, RelevoBuilder, Version};
use tempfile::TempDir;

/// In the URL of the source, percent-encoded: what makes a password hard to find when it is printed.
const ODD: &str = "s3cr:t/on@e?two&x=y%z\"q'";
/// Of the target.
const PLAIN: &str = "Plain-secret-of-the-target";
/// Passwords that are wrong or of keys.
const OTHER: [&str; 3] = ["wr0ng-secret", "key-secret-of-tls", "other-passfile-secret"];
/// In rows, in every way that rows travel.
const ROW: &str = "row-data-of-people";

/// Every form in which a secret could be printed.
fn forms(secret: &str) -> Vec<String> {
    let debug = format!("{secret:?}");
    vec![
        secret.to_owned(),
        relevo_tests::cluster::percent_encode(secret),
        debug[1..debug.len() - 1].to_owned(),
        serde_json::to_string(&debug).expect("JSON").trim_matches('"').to_owned(),
        secret.replace('\'', "''"),
    ]
}

/// Panics when a secret, or a telling piece of the odd one, is in the text.
#[track_caller]
fn assert_silent(what: &str, text: &str) {
    let secrets = [ODD, PLAIN, PASSWORD].into_iter().chain(OTHER);
    let pieces = ["s3cr".to_owned(), "s3cr%3At".to_owned()];
    for form in secrets.flat_map(forms).chain(pieces) {
        if let Some(line) = text.lines().find(|line| line.contains(&form)) {
            panic!("{what} shows {form:?}: {line}");
        }
    }
}

#[track_caller]
fn silent(finished: &Finished) {
    assert_silent("standard output", &finished.stdout);
    assert_silent("standard error", &finished.stderr);
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
        path.to_string_lossy().into_owned()
    }
}

fn url(node: &Cluster, password: &str) -> String {
    node.url_as("postgres", password, "shop")
}

/// The URL without a password.
fn bare(node: &Cluster) -> String {
    format!("postgres://postgres@127.0.0.1:{}/shop", node.port())
}

async fn secret_pair() -> Pair {
    let pair = Pair::start(Version::V15, Version::V16).await;
    pair.source.sql(&format!("ALTER ROLE postgres PASSWORD '{}'", ODD.replace('\'', "''"))).await;
    pair.target.sql(&format!("ALTER ROLE postgres PASSWORD '{PLAIN}'")).await;
    pair.source
        .sql(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t SELECT n, '{ROW}' FROM generate_series(1, 50) n"
        ))
        .await;
    pair
}

async fn everything_said(relevo: &Relevo) -> String {
    let mut said = relevo.stdout() + &relevo.stderr();
    for path in ["/", "/api/status", "/metrics", "/healthz", "/readyz"] {
        said.push_str(&relevo.get(path).await.expect("an answer").body);
    }
    said
}

async fn a_whole_life_at_trace_shows_neither_secrets_nor_rows(format: &str) {
    let pair = secret_pair().await;
    let (source, target) = (url(&pair.source, ODD), url(&pair.target, PLAIN));
    let command = |name: &str| {
        RelevoBuilder::command(&[name, "--source", &source, "--target", &target]).args([
            "--name",
            "e2e",
            "--log",
            "trace",
            "--log-format",
            format,
        ])
    };
    let listen = relevo_tests::ports::Port::reserve();
    let run = RelevoBuilder::run(&source, &target).name("e2e");
    // The builder asks for JSON; the text form is asked for with the variable, which the option would win over.
    let run = if format == "json" {
        run.args(["--log", "trace"])
    } else {
        drop(run);
        let listen = format!("127.0.0.1:{}", listen.number());
        command("run").args(["--http-listen", &listen])
    };
    let json = format == "json";
    silent(&command("check").finish().expect_code(0));
    let mut relevo = run.start();
    if json {
        relevo.wait_until_streaming().await;
    } else {
        relevo.wait_for_log("copy is complete").await;
    }
    pair.source
        .sql(&format!(
            "INSERT INTO t VALUES (100, '{ROW}'); UPDATE t SET note = '{ROW} 2' WHERE id < 10;
             INSERT INTO t SELECT n, '{ROW}' FROM generate_series(200, 250) n;
             CREATE TABLE later (id int)"
        ))
        .await;
    pair.settle_except_later().await;
    if json {
        let said = everything_said(&relevo).await;
        assert_silent("the endpoint or the log", &said);
    }
    // Errors on both sides, and what they log.
    pair.target.sql(&format!("INSERT INTO t VALUES (300, '{ROW}')")).await;
    pair.source.sql(&format!("INSERT INTO t VALUES (300, '{ROW}')")).await;
    relevo.wait_for_log("the flow has failed").await;
    pair.target.sql("DELETE FROM t WHERE id = 300").await;
    pair.caught_up().await;
    pair.source.sql("ALTER ROLE postgres PASSWORD 'other-passfile-secret'").await;
    pair.source
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'relevo_e2e'")
        .await;
    relevo.wait_for_log("is not accepted").await;
    silent(&command("check").finish().expect_code(1));
    silent(&command("reset").finish().expect_code(1));
    pair.source.sql(&format!("ALTER ROLE postgres PASSWORD '{}'", ODD.replace('\'', "''"))).await;
    pair.source.sql("DELETE FROM t WHERE id = 300").await;
    pair.caught_up().await;
    for name in ["status", "errors"] {
        silent(&command(name).finish().expect_code(0));
        silent(&command(name).arg("--json").finish().expect_code(0));
    }
    relevo.terminate();
    silent(&command("reset").arg("--dry-run").finish().expect_code(0));

    let said = relevo.stdout() + &relevo.stderr();
    assert_silent("the log", &said);
    let rows: Vec<&str> = said.lines().filter(|line| line.contains(ROW)).collect();
    assert!(rows.is_empty(), "rows are in the log: {rows:#?}");
    for node in [&pair.source, &pair.target] {
        let server = node.log();
        let relevos: Vec<&str> = server.lines().filter(|line| line.contains("relevo")).collect();
        assert!(!relevos.is_empty());
        // The harness' own ALTER ROLE is not logged.
        assert_silent("the server's log", &server);
    }
    let stored = pair
        .target
        .column(
            "SELECT f::text FROM relevo.flow f UNION ALL SELECT e::text FROM relevo.error e
             UNION ALL SELECT p::text FROM relevo.progress p UNION ALL SELECT t::text FROM relevo.table_state t",
        )
        .await;
    assert_silent("schema relevo", &stored.join("\n"));
}

/// Waiting and comparing as the other tests do, but for the table that is no part of the flow.
trait SettleExceptLater {
    async fn settle_except_later(&self);
}

impl SettleExceptLater for Pair {
    async fn settle_except_later(&self) {
        self.caught_up().await;
        let comparison = relevo_tests::Comparison::default().except("public.later");
        comparison.assert_equal(&self.source, &self.target).await;
    }
}

#[tokio::test]
async fn a_whole_life_at_trace_in_json_shows_neither_secrets_nor_rows() {
    a_whole_life_at_trace_shows_neither_secrets_nor_rows("json").await;
}

#[tokio::test]
async fn a_whole_life_at_trace_in_text_shows_neither_secrets_nor_rows() {
    a_whole_life_at_trace_shows_neither_secrets_nor_rows("text").await;
}

/// The most that somebody can ask for in the log, library by library.
#[tokio::test]
async fn rows_stay_out_of_the_log_also_when_a_library_is_asked_to_log_everything() {
    let pair = secret_pair().await;
    let filter = "trace,tokio_postgres=trace,tokio_postgres::query=trace,tokio_postgres::prepare=trace,\
                  tokio_postgres::connection=trace,postgres_protocol=trace";
    let mut relevo = RelevoBuilder::run(&url(&pair.source, ODD), &url(&pair.target, PLAIN))
        .name("e2e")
        .args(["--log", filter])
        .start();
    relevo.wait_until_streaming().await;
    pair.source
        .sql(&format!("INSERT INTO t VALUES (100, '{ROW}'); UPDATE t SET note = '{ROW} 2' WHERE id < 10"))
        .await;
    pair.settle().await;
    relevo.terminate();
    let rows: Vec<String> =
        relevo.stderr().lines().filter(|line| line.contains(ROW)).take(3).map(str::to_owned).collect();
    assert!(rows.is_empty(), "rows are in the log: {rows:#?}");
    assert_silent("the log", &relevo.stderr());
}

#[tokio::test]
async fn every_place_that_a_password_can_stand_in_works_and_shows_nothing() {
    let pair = secret_pair().await;
    pair.target.sql(&format!("ALTER ROLE postgres PASSWORD '{}'", ODD.replace('\'', "''"))).await;
    let files = Files::new();
    let escaped = ODD.replace('\\', "\\\\").replace(':', "\\:");
    let passfile = files.write("pgpass", &format!("# mine\n127.0.0.1:*:*:postgres:{escaped}\n"));
    let others = files.write("others", "127.0.0.1:*:*:postgres:other-passfile-secret\n");
    let password_file = files.write("password", &format!("{ODD}\n"));
    let (source, target) = (bare(&pair.source), bare(&pair.target));
    let check = |source: &str, target: &str| {
        RelevoBuilder::command(&["check", "--source", source, "--target", target, "--log", "trace"])
    };
    let ok = |relevo: RelevoBuilder| silent(&relevo.finish().expect_code(0));
    let fails = |relevo: RelevoBuilder| silent(&relevo.finish().expect_code(1));
    ok(check(&source, &target).env("PGPASSWORD", ODD));
    fails(check(&source, &target).env("PGPASSWORD", "wr0ng-secret"));
    ok(check(&source, &target).env("PGPASSFILE", &passfile));
    fails(check(&source, &target).env("PGPASSFILE", &others));
    let encoded = |path: &str| relevo_tests::cluster::percent_encode(path);
    let with_passfile = |url: &str| format!("{url}?passfile={}", encoded(&passfile));
    ok(check(&with_passfile(&source), &with_passfile(&target)));
    let pairs = |port: u16| {
        let quoted = ODD.replace('\\', "\\\\").replace('\'', "\\'");
        format!("host=127.0.0.1 port={port} user=postgres dbname=shop password='{quoted}'")
    };
    ok(check(&pairs(pair.source.port()), &pairs(pair.target.port())));
    let config = |password_file: &str| {
        files.write(
            "relevo.toml",
            &format!(
                "[source]\nurl = \"{source}\"\npassword_file = \"{password_file}\"\n\
                 [target]\nurl = \"{target}\"\npassword_file = \"{password_file}\"\n[log]\nfilter = \"trace\"\n"
            ),
        )
    };
    let by_file = config(&password_file);
    ok(RelevoBuilder::command(&["check", "--config", &by_file]));
    let wrong = config(&files.write("wrong", "wr0ng-secret"));
    fails(RelevoBuilder::command(&["check", "--config", &wrong]));
    let in_file = files.write(
        "url.toml",
        &format!(
            "[source]\nurl = '{}'\n[target]\nurl = '{}'\n",
            url(&pair.source, ODD),
            url(&pair.target, ODD)
        ),
    );
    ok(RelevoBuilder::command(&["check", "--config", &in_file, "--log", "trace"]));
    let key = files.write("client.key", "no key at all, key-secret-of-tls\n");
    let tls = format!(
        "{source}?sslmode=require&sslpassword=key-secret-of-tls&sslkey={0}&sslcert={0}",
        encoded(&key)
    );
    fails(check(&tls, &target).env("PGPASSWORD", ODD));
}

/// The command lines and environments of processes are for everybody (`ps`) and for the same user to read.
#[tokio::test]
async fn pg_dump_is_called_without_a_secret_on_its_command_line() {
    let pair = secret_pair().await;
    let files = Files::new();
    let seen = files.write("seen", "");
    let real = relevo_tests::install::newest_client_bin().join("pg_dump");
    // Says how it was called, then does it.
    let script = files.write(
        "pg_dump",
        &format!(
            "#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/cmdline >> '{seen}'\nexec '{}' \"$@\"\n",
            real.display()
        ),
    );
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("permissions");
    let mut relevo = RelevoBuilder::run(&url(&pair.source, ODD), &url(&pair.target, PLAIN))
        .name("e2e")
        .args(["--pg-dump", &script, "--log", "trace"])
        .start();
    let own = command_line(relevo.pid()).expect("its own command line");
    // Whoever else was started meanwhile is seen here.
    while relevo.status().await.is_none_or(|status| status["state"] != "streaming") {
        for child in children(relevo.pid()) {
            let line = command_line(child).unwrap_or_default();
            // Between fork and exec a child still has its parent's, which holds what the user typed.
            if line != own {
                assert_silent("a child's command line", &line.replace('\0', "\n"));
            }
        }
        assert!(relevo.try_exit().is_none(), "{}", relevo.stderr());
        tokio::task::yield_now().await;
    }
    let called = fs::read_to_string(&seen).expect("what was seen");
    assert!(called.contains("--schema-only"), "{called}");
    assert_silent("pg_dump's command line", &called);
    pair.settle().await;
    relevo.terminate();
    assert_silent("the log", &relevo.stderr());
}

/// Read at once: a process that turns into another program between two reads would show a piece of either.
fn command_line(pid: u32) -> std::io::Result<String> {
    let mut line = vec![0; 64 << 10];
    let length = fs::File::open(format!("/proc/{pid}/cmdline"))?.read(&mut line)?;
    line.truncate(length);
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// What nobody connects to: no server is needed.
fn finish(arguments: &[&str]) -> Finished {
    RelevoBuilder::command(arguments).finish_within(Duration::from_secs(10))
}

#[track_caller]
fn is_usage_error(finished: &Finished, says: &[&str]) {
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert_eq!(finished.stdout, "", "standard output is for what was asked for");
    for part in says {
        assert!(finished.stderr.contains(part), "nothing of {part:?} in: {}", finished.stderr);
    }
    silent(finished);
}

const HERE: [&str; 4] = ["--source", "postgres://a@127.0.0.1/x", "--target", "postgres://a@127.0.0.1/y"];

fn with(command: &str, arguments: &[&str]) -> Finished {
    finish(&[&[command][..], &HERE, arguments].concat())
}

#[test]
fn a_wrong_call_ends_with_exit_code_2_and_says_what_is_wrong_on_standard_error() {
    is_usage_error(&finish(&[]), &["Usage"]);
    is_usage_error(&finish(&["dance"]), &["dance"]);
    is_usage_error(&finish(&["run", "--danse"]), &["--danse"]);
    is_usage_error(&finish(&["run"]), &["source", "--source", "RELEVO_SOURCE_URL", "[source]"]);
    is_usage_error(
        &finish(&["run", "--source", "postgres://a@127.0.0.1/x"]),
        &["target", "RELEVO_TARGET_URL"],
    );
    for (arguments, says) in [
        (&["--batch-bytes", "many"][..], &["--batch-bytes"][..]),
        (&["--batch-bytes", "0"], &["batch_bytes", "more than 0"]),
        (&["--batch-bytes", "1GiB"], &["batch_bytes", "at most half of memory"]),
        (&["--memory", "1MiB"], &["memory", "at least 16"]),
        (&["--memory=-5"], &["--memory"]),
        (&["--heartbeat-interval", "1"], &["--heartbeat-interval"]),
        (&["--heartbeat-interval", "10ms"], &["heartbeat", "at least 1s"]),
        (&["--http-listen", "everywhere"], &["--http-listen"]),
        (&["--schema", "maybe"], &["--schema", "auto", "existing"]),
        (&["--synchronous-commit", "often"], &["--synchronous-commit", "off"]),
        (&["--name", "Not A Name"], &["--name", "lower-case"]),
        (&["--include", "a.b.c.d"], &["a.b.c.d"]),
        (&["--log", "loud=very"], &["log filter", "loud=very"]),
        (&["--log-format", "xml"], &["--log-format", "json"]),
    ] {
        is_usage_error(&with("run", arguments), says);
    }
    is_usage_error(&with("errors", &["--limit", "0"]), &["--limit"]);
    is_usage_error(&with("status", &["--batch-bytes", "5"]), &["--batch-bytes"]);
}

#[test]
fn a_wrong_configuration_file_ends_with_exit_code_2_and_names_file_line_and_key() {
    let files = Files::new();
    is_usage_error(&finish(&["check", "--config", "/nowhere/relevo.toml"]), &["/nowhere/relevo.toml"]);
    let url = format!("postgres://u:{PLAIN}@h/x");
    for (text, says) in [
        ("not toml at all".to_owned(), &["line 1"][..]),
        (format!("[source]\nurl = \"{url}\"\nulr = \"{url}\"\n"), &["line 3", "ulr"]),
        (format!("[source]\nurl = \"{url}\n"), &["line 2"]),
        (format!("source = \"{url}\"\n"), &["line 1"]),
        (format!("name = \"{url}\"\n"), &["line 1"]),
        (format!("[tables]\ninclude = \"{url}\"\n"), &["line 2"]),
        (format!("\"{url}\" = 1\n"), &["line 1"]),
        (format!("[source]\nurl = \"{url}\"\n[apply]\nmemory = \"{url}\"\n"), &["line 4"]),
        (format!("[http]\nlisten = \"{url}\"\n"), &["line 2"]),
        (format!("[schema]\nmode = \"{url}\"\n"), &["line 2"]),
        (format!("[source]\nurl = \"{url}\"\npassword = \"{PLAIN}\"\n"), &["line 3", "password"]),
        ("[apply]\nmemory = \"64 elephants\"\n".to_owned(), &["line 2"]),
    ] {
        let file = files.write("relevo.toml", &text);
        is_usage_error(&finish(&["run", "--config", &file]), &[&[file.as_str()], says].concat());
    }
}

#[test]
fn what_is_wrong_with_a_url_is_said_without_the_password_in_it() {
    let odd = ["s3cr@t", "s3cr/t", "s3cr:t", "s3cr?t", "s3cr%t", "s3cr t", "s3cr#t", "s3cr[t", "s3cr%zz"];
    for password in odd {
        for url in [
            format!("postgres://u:{password}@127.0.0.1:nope/db"),
            format!("postgres://u:{password}@127.0.0.1:99999/db"),
            format!("postgres://u:{password}@127.0.0.1/db?sslmode=maybe"),
            format!("postgres://u:{password}@127.0.0.1/db?nonsense=1"),
            format!("postgre://u:{password}@127.0.0.1/db"),
            format!("u:{password}@127.0.0.1/db"),
            format!("host=127.0.0.1 password={password} port=nope"),
            format!("host=127.0.0.1 password='{password} port=5"),
            format!("host=127.0.0.1 pasword={password} port=nope"),
            format!("postgres://127.0.0.1/db?password={password}&port=nope"),
            format!("postgres://127.0.0.1/db?sslpassword={password}&sslmode=nope"),
        ] {
            let by_option = finish(&["check", "--source", &url, "--target", HERE[3]]);
            is_usage_error(&by_option, &["source"]);
            let by_variable = RelevoBuilder::command(&["check", "--source", HERE[1]])
                .env("RELEVO_TARGET_URL", &url)
                .env("RELEVO_LOG", "trace")
                .finish();
            is_usage_error(&by_variable, &["target"]);
        }
    }
}

#[test]
fn a_url_in_the_wrong_place_is_not_shown() {
    let url = format!("postgres://u:{PLAIN}@127.0.0.1/db");
    let joined = format!("--sorce={url}");
    let pairs = format!("host=h password={PLAIN} dbname=x");
    for arguments in [
        &["run", &url][..],
        &["run", &url, &url],
        &["run", "--sorce", &url],
        &["run", &joined],
        &["run", &pairs],
        &[&url],
        &["run", "--name", &url],
        &["run", "--log-format", &url],
        &["run", "--http-listen", &url],
        &["run", "--batch-bytes", &url],
        &["run", "--source", &url, "--source", &url],
        &["status", "--schema", &url],
    ] {
        is_usage_error(&finish(arguments), &["error"]);
    }
    is_usage_error(&with("run", &["--log", &format!("{url}=loud")]), &["log filter"]);
    is_usage_error(&with("run", &["--include", &format!("{url}.x.y.z")]), &["pattern"]);
    for name in ["RELEVO_NAME", "RELEVO_LOG_FORMAT", "RELEVO_HTTP_LISTEN", "RELEVO_MEMORY", "RELEVO_SCHEMA"] {
        is_usage_error(&RelevoBuilder::command(&["run"]).env(name, &url).finish(), &[]);
    }
    is_usage_error(&RelevoBuilder::command(&["run"]).env("RELEVO_CONFIG", &url).finish(), &[]);
}

#[test]
fn the_help_does_not_show_what_the_environment_holds() {
    let url = format!("postgres://u:{PLAIN}@127.0.0.1/db");
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["run", "--help"],
        &["run", "-h"],
        &["check", "--help"],
        &["help", "status"],
    ] {
        let mut relevo = RelevoBuilder::command(arguments);
        for name in ["RELEVO_SOURCE_URL", "RELEVO_TARGET_URL", "PGPASSWORD", "DATABASE_URL"] {
            relevo = relevo.env(name, &url);
        }
        let finished = relevo.finish().expect_code(0);
        assert!(finished.stdout.contains("Usage") && finished.stderr.is_empty(), "{finished:?}");
        silent(&finished);
    }
}
