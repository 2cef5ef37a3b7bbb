//! `make demo`: a master, a standby, load, a SIGKILL in the middle, and a comparison of every table.
//!
//! It uses what the tests use and ends like they do: whatever happens, also on Ctrl-C, nothing keeps running. The
//! exit code is 0 only if both databases are equal in the end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a demonstration fails by panicking")]

mod screen;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use relevo_tests::{Comparison, Pair, Pgbench, Relevo, Version};
use screen::Screen;
use tokio::signal::unix::{SignalKind, signal};

const AWKWARD_SCHEMA: &str = include_str!("../../../sql/awkward_schema.sql");
const AWKWARD_CHANGES: &str = include_str!("../../../sql/awkward_changes.sql");

/// pgbench's scale: 100,000 accounts each.
const SCALE: u32 = 3;
/// How long the load goes on, in seconds, and how many transactions a second it makes: what two slow cores can do
/// beside two servers and a debug build.
const LOAD_S: u64 = 24;
const LOAD_RATE: u64 = 800;
/// When Relevo is killed, and for how long it stays away.
const KILL_AFTER: Duration = Duration::from_secs(8);
const AWAY: Duration = Duration::from_secs(4);
/// How long the standby may take to catch up in the end.
const CATCH_UP: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> ExitCode {
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler for SIGINT");
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM");
    let screen = Screen::new();
    // When a signal comes, the demonstration is dropped with everything that it started.
    tokio::select! {
        equal = demonstrate(&screen) => if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        _ = interrupt.recv() => stopped(&screen, 130),
        _ = terminate.recv() => stopped(&screen, 143),
    }
}

fn stopped(screen: &Screen, code: u8) -> ExitCode {
    screen.say("Stopped; servers and Relevo are ended and removed.");
    ExitCode::from(code)
}

async fn demonstrate(screen: &Screen) -> bool {
    let started = Instant::now();
    let pair = start_servers(screen).await;
    let mut relevo = copy(screen, &pair).await;
    follow_under_load(screen, &pair, &mut relevo).await;
    let equal = compare(screen, &pair).await;

    screen.section("Stop");
    let stopping = Instant::now();
    relevo.terminate();
    screen.say(&format!("SIGTERM: exit code 0 after {} ms.", stopping.elapsed().as_millis()));
    let verdict = if equal { "The standby is an exact copy." } else { "THE STANDBY DIFFERS." };
    screen.say(&format!("\n{verdict} ({:.0} s)", started.elapsed().as_secs_f64()));
    equal
}

async fn start_servers(screen: &Screen) -> Pair {
    screen.section("Two servers");
    let pair = Pair::start(Version::V14, Version::V15).await;
    for (role, node) in [("master ", &pair.source), ("standby", &pair.target)] {
        screen.say(&format!("{role}  PostgreSQL {} on port {}", node.version().full(), node.port()));
    }
    screen.say("The master gets pgbench's tables and the awkward schema: every built-in type, quoted and");
    screen.say(
        "non-ASCII names, partitions, inheritance, all replica identities, triggers, generated columns …",
    );
    pair.source.sql(AWKWARD_SCHEMA).await;
    Pgbench::init(&pair.source, relevo_tests::pair::DATABASE, SCALE).await;
    let size: String = pair.source.value("SELECT pg_size_pretty(pg_database_size(current_database()))").await;
    let tables: i64 = pair
        .source
        .value("SELECT count(*) FROM pg_stat_user_tables WHERE schemaname NOT LIKE 'pg_temp%'")
        .await;
    screen.say(&format!("It has {tables} tables, {size}; the standby's database is empty."));
    pair
}

async fn copy(screen: &Screen, pair: &Pair) -> Relevo {
    screen.section("relevo run --source postgres://…/shop --target postgres://…/shop");
    let started = Instant::now();
    let mut relevo = pair.relevo().start();
    let deadline = started + CATCH_UP;
    loop {
        let status = relevo.status().await.unwrap_or_default();
        let state = status["state"].as_str().unwrap_or("starting");
        let tables = &status["tables"];
        let count = |name: &str| tables[name].as_u64().unwrap_or_default();
        screen.live(&format!("{state:<10} {} of {} tables copied", count("copied"), count("total")));
        if state == "streaming" {
            break;
        }
        if let Some(exit) = relevo.try_exit() {
            panic!("relevo ended: {exit}");
        }
        assert!(Instant::now() < deadline, "the copy takes too long: {status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    screen.say(&format!(
        "Schema and rows are copied; streaming after {:.1} s.",
        started.elapsed().as_secs_f64()
    ));
    relevo
}

async fn follow_under_load(screen: &Screen, pair: &Pair, relevo: &mut Relevo) {
    screen.section(&format!("Load: {LOAD_RATE} transactions a second for {LOAD_S} s"));
    let (seconds, rate) = (LOAD_S.to_string(), LOAD_RATE.to_string());
    let options = ["-n", "-c", "4", "-j", "2", "-T", &seconds, "-R", &rate];
    let mut load =
        tokio::spawn(Pgbench::start(&pair.source, relevo_tests::pair::DATABASE, &options).finish());
    watch_for(screen, pair, relevo, KILL_AFTER).await;

    relevo.kill();
    screen.say("SIGKILL to Relevo. The master goes on, and all awkward tables change meanwhile:");
    pair.source.sql(AWKWARD_CHANGES).await;
    watch_for(screen, pair, relevo, AWAY).await;

    relevo.restart();
    screen.say("Relevo is started again:");
    while !load.is_finished() {
        watch_for(screen, pair, relevo, Duration::from_secs(1)).await;
    }
    let run = (&mut load).await.expect("pgbench's task");
    assert!(run.success, "pgbench: {}", run.output);
    screen.say(&format!("The load is over: {} transactions.", run.transactions));
    let catching_up = Instant::now();
    pair.caught_up_within(CATCH_UP).await;
    watch_for(screen, pair, relevo, Duration::from_millis(300)).await;
    screen.say(&format!("Caught up {:.1} s later.", catching_up.elapsed().as_secs_f64()));
}

/// Shows for a while how far the standby is behind.
async fn watch_for(screen: &Screen, pair: &Pair, relevo: &Relevo, duration: Duration) {
    let deadline = Instant::now() + duration;
    while Instant::now() < deadline {
        let written: i64 = pair.source.value("SELECT count(*) FROM pgbench_history").await;
        let arrived: i64 = pair.target.value("SELECT count(*) FROM pgbench_history").await;
        let lag = match relevo.status().await {
            Some(status) => format!(
                "{:<10} lag {:>7.3} s {:>10} bytes",
                status["state"].as_str().unwrap_or("?"),
                status["lag_seconds"].as_f64().unwrap_or(f64::NAN),
                status["lag_bytes"].as_u64().map_or("unknown".to_owned(), |bytes| bytes.to_string())
            ),
            None => format!("{:<10} no answer", "down"),
        };
        screen.live(&format!(
            "{lag:<42} transactions: {written:>6} on the master, {arrived:>6} on the standby"
        ));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn compare(screen: &Screen, pair: &Pair) -> bool {
    screen.section("Every table, row by row");
    match Comparison::default().compare(&pair.source, &pair.target).await {
        Ok(equal) => {
            screen.say(&format!("{} tables with {} rows are equal, byte by byte.", equal.tables, equal.rows));
            true
        }
        Err(difference) => {
            screen.say(&difference);
            false
        }
    }
}
