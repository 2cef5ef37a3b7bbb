//! What `relevo run` shows on a terminal, and elsewhere.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use relevo_tests::install::{newest_client_bin, relevo_binary};
use relevo_tests::ports::Port;
use relevo_tests::process::{children, clean_environment, signal, wait_for_exit};
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{FLOW, Pair, Version, wait_until};
use rustix::process::Signal;

use super::{assert_says, relevo};

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
