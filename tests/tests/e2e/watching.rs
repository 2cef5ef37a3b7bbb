//! `relevo status --watch` on a real terminal, and line by line elsewhere.

use std::time::Duration;

use relevo_tests::pgbench::Pgbench;
use relevo_tests::process::{is_running, signal};
use relevo_tests::relevo::PATIENCE;
use relevo_tests::terminal::Terminal;
use relevo_tests::{FLOW, Pair, Version, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// `relevo status --watch` on a terminal of that size.
fn watch(pair: &Pair, size: (u16, u16), variables: &[(&str, &str)]) -> Terminal {
    let (source, target) = (pair.source_url(), pair.target_url());
    let urls = [("RELEVO_SOURCE_URL", &*source), ("RELEVO_TARGET_URL", &*target)];
    let arguments = ["status", "--watch", "--interval", "200ms", "--name", FLOW];
    Terminal::start(size, &arguments, &[&urls, variables].concat())
}

/// Waits until all of this is to be seen.
async fn shows(terminal: &Terminal, parts: &[&str]) -> String {
    wait_until(&format!("{parts:?} on the terminal"), PATIENCE, async || {
        let text = terminal.text();
        parts.iter().all(|part| text.contains(part))
    })
    .await;
    terminal.text()
}

/// It has ended with this code, and the terminal is as it was before.
async fn has_ended(terminal: &Terminal, code: i32) -> String {
    let text = shows(terminal, &["[before]", &format!("[ended {code}]"), "[left as it was]"]).await;
    assert!(!terminal.runs());
    assert!(!text.contains("━━━▶"), "the picture is gone: {text}");
    text
}

#[tokio::test]
async fn the_picture_lives_and_the_terminal_is_given_back_however_it_ends() {
    let pair = Pair::builder(Version::V16, Version::V17)
        .source(|source| source.set("max_slot_wal_keep_size", "1GB"))
        .start()
        .await;
    Pgbench::init(&pair.source, "shop", 1).await;
    pair.source
        .sql(
            "DO $$ BEGIN FOR n IN 1..40 LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY)', n); \
             END LOOP; END $$",
        )
        .await;
    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;
    let load = Pgbench::start(&pair.source, "shop", &["--client=2", "--time=600", "--rate=50"]);

    let terminal = watch(&pair, (100, 24), &[]);
    let streams = ["source ━━━▶ target", "streaming since", "lag", "44 streaming", "public.pgbench_accounts"];
    shows(&terminal, &streams).await;
    // A curve of the load, and what the slot may still keep.
    let picture = shows(&terminal, &["/s of WAL", "5 min, max", "retained,", "left,", "at this rate"]).await;
    println!("{picture}");
    terminal.keys(&["?"]);
    shows(&terminal, &["scroll the tables by a page"]).await;
    terminal.keys(&["?"]);
    shows(&terminal, &["tables 1 to"]).await;
    terminal.keys(&["PageDown"]);
    wait_until("the tables scroll", PATIENCE, async || !terminal.text().contains("tables 1 to")).await;
    terminal.resize(50, 16);
    let narrow = shows(&terminal, &["source ━━━▶ target", "q quit"]).await;
    assert!(!narrow.contains("5 min"), "no room for a curve: {narrow}");
    terminal.resize(10, 3);
    shows(&terminal, &["too small"]).await;
    terminal.resize(120, 40);
    terminal.keys(&["PageUp", "PageUp", "PageUp"]);
    shows(&terminal, &["5 min, max", "tables 1 to", "public.t1 "]).await;
    // What cannot be asked any more stays to be seen, and says how old it is.
    drop(load);
    pair.source.crash();
    let old =
        shows(&terminal, &["What is shown is", "old: no answer", "source", "[connection_refused]"]).await;
    assert!(old.contains("44 streaming"), "{old}");
    pair.source.start().await;
    wait_until("it is news again", PATIENCE, async || !terminal.text().contains("no answer")).await;
    terminal.keys(&["q"]);
    has_ended(&terminal, 0).await;

    for key in ["C-c", "Escape"] {
        let terminal = watch(&pair, (80, 24), &[]);
        shows(&terminal, &["q quit"]).await;
        terminal.keys(&[key]);
        has_ended(&terminal, 0).await;
    }
    for stop in [Signal::TERM, Signal::HUP] {
        let terminal = watch(&pair, (80, 24), &[]);
        shows(&terminal, &["q quit"]).await;
        signal(terminal.pid(), stop);
        has_ended(&terminal, 0).await;
    }
    let terminal = watch(&pair, (100, 24), &[("RELEVO_PANIC_AT_DRAWING", "2")]);
    let text = has_ended(&terminal, 101).await;
    assert!(text.contains("a panic was asked for"), "it can be read: {text}");
    running.terminate();
}

#[tokio::test]
async fn a_terminal_that_is_closed_leaves_nothing_behind() {
    let pair = Pair::start(Version::V15, Version::V15).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;
    let terminal = watch(&pair, (80, 24), &[]);
    shows(&terminal, &["q quit"]).await;
    let pid = terminal.pid();
    drop(terminal);
    wait_until("it has ended", PATIENCE, async || !is_running(pid)).await;
    running.terminate();
}

#[tokio::test]
async fn without_a_terminal_it_says_lines_of_json_or_why_not() {
    let pair = Pair::start(Version::V18, Version::V14).await;
    pair.source.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut running = pair.relevo().start();
    running.wait_until_streaming().await;

    let refused = pair.command("status").arg("--watch").finish().expect_code(2);
    assert!(refused.stderr.contains("not a terminal") && refused.stderr.contains("--json"), "{refused:?}");
    assert!(refused.stderr.contains("code: usage"), "{refused:?}");
    let alone = pair.command("status").args(["--interval", "1s"]).finish().expect_code(2).stderr;
    assert!(alone.contains("--watch"), "{alone}");
    let hasty = pair.command("status").args(["--watch", "--json", "--interval", "1ms"]).finish();
    assert!(hasty.expect_code(2).stderr.contains("100ms"));

    let mut watch = pair.command("status").args(["--watch", "--json", "--interval", "100ms"]).start();
    let lines = |watch: &relevo_tests::Relevo| -> Vec<Value> {
        let said = watch.stdout();
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    wait_until("some lines", PATIENCE, async || lines(&watch).len() >= 3).await;
    for line in lines(&watch) {
        assert!(
            line["at"].is_string() && line["state"] == "streaming" && line["lag_bytes"].is_u64(),
            "{line}"
        );
    }
    // A source that is lost is told, and it goes on.
    pair.source.stop();
    let unreachable = |line: &Value| line["unreachable"][0]["kind"] == "connection_refused";
    wait_until("the loss is told", PATIENCE, async || lines(&watch).last().is_some_and(unreachable)).await;
    pair.target.stop();
    let neither = |line: &Value| line["error"]["kind"] == "connection_refused";
    wait_until("neither answers", PATIENCE, async || lines(&watch).last().is_some_and(neither)).await;
    pair.source.start().await;
    pair.target.start().await;
    wait_until("both are back", PATIENCE, async || {
        lines(&watch)
            .last()
            .is_some_and(|line| line["error"].is_null() && line["unreachable"] == serde_json::json!([]))
    })
    .await;
    watch.send(Signal::TERM);
    assert_eq!(watch.wait_for_exit(Duration::from_secs(10)).code(), Some(0), "{}", watch.stderr());
    running.terminate();
}
