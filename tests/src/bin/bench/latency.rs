//! How long after its commit on the source a row is visible on the target, while single rows come at a steady rate.
//!
//! The writer notes the instant at which its COMMIT returned, a prober on the target asks for the highest row as often as it
//! can. Both are threads of this process, so that there is one clock. One way after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use relevo_tests::{Database, Version, wait_until};
use tokio::sync::oneshot;
use tokio_postgres::Config;

use crate::settings::{PATIENCE, Settings};
use crate::ways::Way;
use crate::workload::{Load, Unit, Workload};
use crate::world::{DATABASE, NATIVE, NATIVE_SLOT, Prepared, RELEVO, RELEVO_SLOT, Servers};

/// Rows in a second.
const RATES: [u32; 2] = [50, 1000];
/// How long each rate is kept up, at scale 1.
const SECONDS: f64 = 10.0;
/// The pause of the prober between two looks.
const LOOK: Duration = Duration::from_micros(200);

const WORKLOAD: Workload = Workload {
    name: "latency",
    unit: Unit::Transactions,
    count: 1,
    setup: &["CREATE TABLE beat (id int PRIMARY KEY, note text NOT NULL)"],
    load: Load::Statements(&["INSERT INTO beat VALUES (0, 'the first')"]),
    ways: &[],
    bars: (0.0, 0.0),
};
const WRITE: &str = "INSERT INTO beat VALUES ($1, 'a row as others are')";
const NEWEST: &str = "SELECT coalesce(max(id), -1) FROM beat";

/// What was measured for one way at one rate.
#[derive(Debug)]
pub struct Latency {
    /// Of both servers.
    pub version: Version,
    /// The way.
    pub way: Way,
    /// Rows in a second that were wanted.
    pub rate: u32,
    /// Those that were reached.
    pub reached: f64,
    /// Seconds from commit to visible, in order.
    pub seconds: Vec<f64>,
}

impl Latency {
    /// The seconds within which so many of a thousand rows were visible.
    pub fn at(&self, per_mille: usize) -> f64 {
        let last = self.seconds.len() - 1;
        self.seconds[(self.seconds.len() * per_mille / 1000).min(last)]
    }
}

/// Measures both ways.
pub async fn measure(servers: &Servers, settings: &Settings) -> Vec<Latency> {
    static PREPARED: Workload = WORKLOAD;
    let prepared = servers.prepare(&PREPARED, settings).await;
    let mut latencies = Vec::new();
    let mut next = 1;
    for way in [Way::Native, Way::Relevo] {
        let mut relevo = None;
        let (database, slot) = match way {
            Way::Native => (NATIVE, NATIVE_SLOT),
            Way::Relevo | Way::Drain => (RELEVO, RELEVO_SLOT),
        };
        match way {
            Way::Native => switch(&prepared, "ENABLE").await,
            Way::Relevo | Way::Drain => relevo = Some(prepared.relevo()),
        }
        let target = servers.target.connect(database).await;
        for rate in RATES {
            // What was written for the other way comes first.
            wait_until("the target has caught up", PATIENCE, async || {
                target.value::<i32>(NEWEST).await == next - 1
            })
            .await;
            let latency = at_rate(&prepared, way, database, (rate, settings.scale), &mut next).await;
            println!(
                "latency  PostgreSQL {}  {:<6} {:>5}/s ({:.0}/s reached)  p50 {:>7.2} ms  p95 {:>7.2} ms  p99 {:>7.2} ms",
                servers.version.major(),
                way.name(),
                rate,
                latency.reached,
                latency.at(500) * 1e3,
                latency.at(950) * 1e3,
                latency.at(990) * 1e3
            );
            latencies.push(latency);
        }
        match relevo.as_mut() {
            Some(relevo) => relevo.terminate(),
            None => switch(&prepared, "DISABLE").await,
        }
        prepared.until_free(slot).await;
    }
    prepared.remove().await;
    latencies
}

async fn switch(prepared: &Prepared<'_>, to: &str) {
    let session = prepared.servers.target.connect(NATIVE).await;
    session.sql(&format!("ALTER SUBSCRIPTION bench {to}")).await;
}

/// Ends the threads when the benchmark is given up.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn at_rate(
    prepared: &Prepared<'_>,
    way: Way,
    database: &str,
    (rate, scale): (u32, f64),
    next: &mut i32,
) -> Latency {
    #[expect(clippy::cast_possible_truncation, reason = "a few thousand rows")]
    let count = (f64::from(rate) * SECONDS * scale).round().max(20.0) as i32;
    let ids = *next..*next + count;
    *next = ids.end;
    let stop = Stop(Arc::default());
    let (source, target) =
        (prepared.servers.source.config(DATABASE), prepared.servers.target.config(database));
    let last = ids.end - 1;
    let written =
        aside(&stop, source, move |runtime, session, stopped| write(runtime, session, stopped, ids, rate));
    let seen = aside(&stop, target, move |runtime, session, stopped| probe(runtime, session, stopped, last));
    let both = async { tokio::join!(written, seen) };
    let both = tokio::time::timeout(PATIENCE, both).await;
    let (written, seen) = both.unwrap_or_else(|_| panic!("latency: {database} has not seen row {last}"));
    let mut seconds = Vec::with_capacity(written.len());
    let mut looks = seen.iter().peekable();
    for (id, committed) in &written {
        while looks.peek().is_some_and(|(newest, _)| newest < id) {
            looks.next();
        }
        let (_, visible) = looks.peek().expect("the last row was seen");
        // It may be visible before the writer's COMMIT has returned.
        seconds.push(visible.saturating_duration_since(*committed).as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let took =
        written.last().zip(written.first()).map_or(0.0, |(last, first)| (last.1 - first.1).as_secs_f64());
    let reached = f64::from(count - 1) / took.max(1e-9);
    Latency { version: prepared.servers.version, way, rate, reached, seconds }
}

/// Writes the rows, each when its time has come; yields when each was committed.
fn write(
    runtime: &tokio::runtime::Runtime,
    session: &Database,
    stopped: &AtomicBool,
    ids: std::ops::Range<i32>,
    rate: u32,
) -> Vec<(i32, Instant)> {
    let statement = runtime.block_on(session.prepare(WRITE)).expect("the statement");
    let start = Instant::now();
    let mut written = Vec::with_capacity(ids.len());
    for (number, id) in (0_u32..).zip(ids) {
        if stopped.load(Ordering::Relaxed) {
            break;
        }
        let due = start + Duration::from_secs(1) * number / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        runtime.block_on(session.execute(&statement, &[&id])).expect("the row is written");
        written.push((id, Instant::now()));
    }
    written
}

/// Looks for the newest row until it is the last one; yields each newest row with the instant before which it was there.
fn probe(
    runtime: &tokio::runtime::Runtime,
    session: &Database,
    stopped: &AtomicBool,
    last: i32,
) -> Vec<(i32, Instant)> {
    let statement = runtime.block_on(session.prepare(NEWEST)).expect("the statement");
    let mut seen: Vec<(i32, Instant)> = Vec::new();
    while !stopped.load(Ordering::Relaxed) && seen.last().is_none_or(|(newest, _)| *newest < last) {
        let row = runtime.block_on(session.query_one(&statement, &[])).expect("the newest row");
        let (newest, now) = (row.get(0), Instant::now());
        if seen.last().is_none_or(|(before, _)| *before < newest) {
            seen.push((newest, now));
        }
        thread::sleep(LOOK);
    }
    seen
}

/// Does something in a session on a thread of its own, whose pauses are exact. Nobody waits for that thread when the
/// benchmark is given up.
async fn aside<T: Send + 'static>(
    stop: &Stop,
    config: Config,
    work: impl FnOnce(&tokio::runtime::Runtime, &Database, &AtomicBool) -> T + Send + 'static,
) -> T {
    let (sender, receiver) = oneshot::channel();
    let stopped = Arc::clone(&stop.0);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let session = runtime.block_on(Database::connect(&config)).expect("a session");
        drop(sender.send(work(&runtime, &session, &stopped)));
    });
    receiver.await.expect("the thread answers")
}
