//! `make demo`: two nodes, load, a SIGKILL in the middle, a comparison of every table; then a switchover under load, writes
//! on the new primary, and the comparison again.
//!
//! It uses what the tests use and ends like they do: whatever happens, also on Ctrl-C, nothing keeps running. The
//! exit code is 0 only if both databases are equal each time, and no acknowledged transaction is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a demonstration fails by panicking")]

mod load;
mod screen;
mod switchover;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use relevo_tests::pair::DATABASE;
use relevo_tests::{Comparison, Nodes, Pgbench, Relevo, Version};
use screen::Screen;
use tokio::signal::unix::{SignalKind, signal};

const AWKWARD_SCHEMA: &str = include_str!("../../../sql/awkward_schema.sql");
const AWKWARD_CHANGES: &str = include_str!("../../../sql/awkward_changes.sql");

/// pgbench's scale: 100,000 accounts each.
const SCALE: u32 = 3;
/// How long the load goes on, in seconds, and how many transactions a second it makes: what two slow cores can do
/// beside two servers and a debug build.
const LOAD_S: u64 = 16;
const LOAD_RATE: u64 = 800;
/// When Relevo is killed, and for how long it stays away.
const KILL_AFTER: Duration = Duration::from_secs(5);
const AWAY: Duration = Duration::from_secs(3);
/// How long the copy may take.
const COPY_LIMIT: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> ExitCode {
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler for SIGINT");
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM");
    let screen = Screen::new();
    // When a signal comes, the demonstration is dropped with everything that it started.
    tokio::select! {
        good = demonstrate(&screen) => if good { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        _ = interrupt.recv() => stopped(&screen, 130),
        _ = terminate.recv() => stopped(&screen, 143),
    }
}

fn stopped(screen: &Screen, code: u8) -> ExitCode {
    screen.say("Stopped; servers and Relevo are ended and removed.");
    ExitCode::from(code)
}

/// Which node has the role, and which follows.
#[derive(Clone, Copy)]
struct Roles {
    primary: &'static str,
    standby: &'static str,
}

const BEFORE: Roles = Roles { primary: "a", standby: "b" };
const AFTER: Roles = Roles { primary: "b", standby: "a" };

async fn demonstrate(screen: &Screen) -> bool {
    let started = Instant::now();
    let nodes = start_servers(screen).await;
    let mut relevos = copy(screen, &nodes).await;
    follow_under_load(screen, &nodes, relevos.get_mut("b").expect("the Relevo beside b")).await;
    let mut good = compare(screen, &nodes, BEFORE).await;
    good &= switchover::under_load(screen, &nodes, &relevos).await;
    good &= compare(screen, &nodes, AFTER).await;

    screen.section("Stop");
    let stopping = Instant::now();
    relevos.values_mut().for_each(Relevo::terminate);
    screen.say(&format!("SIGTERM to both: exit code 0 after {} ms.", stopping.elapsed().as_millis()));
    let verdict = match good {
        true => "The standby is an exact copy, in either direction, and nothing was lost.",
        false => "SOMETHING DIFFERS OR IS LOST: see above.",
    };
    screen.say(&format!("\n{verdict} ({:.0} s)", started.elapsed().as_secs_f64()));
    good
}

async fn start_servers(screen: &Screen) -> Nodes {
    screen.section("Two servers");
    let nodes = Nodes::start(&[Version::V14, Version::V15]).await;
    let master = nodes.node("a");
    for name in ["a", "b"] {
        let node = nodes.node(name);
        screen.say(&format!("node {name}: PostgreSQL {} on port {}", node.version().full(), node.port()));
    }
    screen
        .say("a is the master. It gets pgbench's tables and the awkward schema: every built-in type, quoted");
    screen.say(
        "and non-ASCII names, partitions, inheritance, all replica identities, triggers, generated columns …",
    );
    master.sql(AWKWARD_SCHEMA).await;
    Pgbench::init(master, DATABASE, SCALE).await;
    let size: String = master.value("SELECT pg_size_pretty(pg_database_size(current_database()))").await;
    let tables: i64 =
        master.value("SELECT count(*) FROM pg_stat_user_tables WHERE schemaname NOT LIKE 'pg_temp%'").await;
    screen.say(&format!("It has {tables} tables, {size}; the database of b is empty."));
    nodes
}

async fn copy(screen: &Screen, nodes: &Nodes) -> BTreeMap<&'static str, Relevo> {
    screen.section("relevo init --primary a, then beside each node: relevo run --node NAME");
    nodes.run(&["init", "--primary", "a"], 0).await;
    let started = Instant::now();
    let mut relevos = BTreeMap::from([("a", nodes.relevo("a")), ("b", nodes.relevo("b"))]);
    let relevo = relevos.get_mut("b").expect("the Relevo beside b");
    let deadline = started + COPY_LIMIT;
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
    let streaming = started.elapsed().as_secs_f64();
    nodes.guarded("b").await;
    screen.say(&format!(
        "Schema and rows are copied; streaming after {streaming:.1} s. Nobody else can write to b."
    ));
    relevos
}

async fn follow_under_load(screen: &Screen, nodes: &Nodes, relevo: &mut Relevo) {
    screen.section(&format!("Load: {LOAD_RATE} transactions a second for {LOAD_S} s"));
    let (seconds, rate) = (LOAD_S.to_string(), LOAD_RATE.to_string());
    let options = ["-n", "-c", "4", "-j", "2", "-T", &seconds, "-R", &rate];
    let mut load = tokio::spawn(Pgbench::start(nodes.node("a"), DATABASE, &options).finish());
    watch_for(screen, nodes, BEFORE, relevo, KILL_AFTER).await;

    relevo.kill();
    screen
        .say("SIGKILL to the Relevo beside b. The master goes on, and all awkward tables change meanwhile:");
    nodes.node("a").sql(AWKWARD_CHANGES).await;
    watch_for(screen, nodes, BEFORE, relevo, AWAY).await;

    relevo.restart();
    screen.say("Relevo is started again:");
    while !load.is_finished() {
        watch_for(screen, nodes, BEFORE, relevo, Duration::from_secs(1)).await;
    }
    let run = (&mut load).await.expect("pgbench's task");
    assert!(run.success, "pgbench: {}", run.output);
    screen.say(&format!("The load is over: {} transactions.", run.transactions));
    let catching_up = Instant::now();
    nodes.caught_up("a", "b").await;
    watch_for(screen, nodes, BEFORE, relevo, Duration::from_millis(300)).await;
    screen.say(&format!("Caught up {:.1} s later.", catching_up.elapsed().as_secs_f64()));
}

/// Shows for a while how far the standby is behind. `relevo`: the one beside the standby.
async fn watch_for(screen: &Screen, nodes: &Nodes, roles: Roles, relevo: &Relevo, duration: Duration) {
    let deadline = Instant::now() + duration;
    let Roles { primary, standby } = roles;
    while Instant::now() < deadline {
        let written: i64 = nodes.node(primary).value("SELECT count(*) FROM pgbench_history").await;
        let arrived: i64 = nodes.node(standby).value("SELECT count(*) FROM pgbench_history").await;
        let lag = match relevo.status().await {
            Some(status) => format!(
                "{:<10} lag {:>7.3} s {:>10} bytes",
                status["state"].as_str().unwrap_or("?"),
                status["lag_seconds"].as_f64().unwrap_or(f64::NAN),
                status["lag_bytes"].as_u64().map_or("unknown".to_owned(), |bytes| bytes.to_string())
            ),
            None => format!("{:<10} no answer", "down"),
        };
        screen.live(&format!("{lag:<42} transactions: {written:>6} on {primary}, {arrived:>6} on {standby}"));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn compare(screen: &Screen, nodes: &Nodes, Roles { primary, standby }: Roles) -> bool {
    screen.section(&format!("Every table of {primary} and {standby}, row by row"));
    match Comparison::default().compare(nodes.node(primary), nodes.node(standby)).await {
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
