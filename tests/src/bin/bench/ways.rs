//! The ways to get through a backlog, and one run of one of them.

use std::time::{Duration, Instant};

use relevo_tests::bench::files;
use relevo_tests::bench::machine::{load_average, peak_bytes};
use relevo_tests::process::cpu_seconds;
use relevo_tests::{Database, Relevo, Version};

use crate::drain;
use crate::measure::Cpu;
use crate::settings::PATIENCE;
use crate::workload::Unit;
use crate::world::{NATIVE, NATIVE_SLOT, Prepared, RELEVO, RELEVO_SLOT};

/// How often the target is asked for the last transaction.
const LOOK: Duration = Duration::from_millis(10);
/// How often the source is asked whether the stream has begun.
const LOOK_FOR_START: Duration = Duration::from_millis(2);

/// How often it is asked whether there is any hope.
const ASK: Duration = Duration::from_secs(1);

/// A way to get through a backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `relevo run`.
    Relevo,
    /// A subscription.
    Native,
    /// The slot is read and nothing is done with it.
    Drain,
}

impl Way {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relevo => "relevo",
            Self::Native => "native",
            Self::Drain => "drain",
        }
    }
}

/// A run, measured.
#[derive(Debug)]
pub struct Run {
    /// Of both servers.
    pub version: Version,
    /// The name of the workload.
    pub workload: &'static str,
    /// What was measured.
    pub way: Way,
    /// In which round.
    pub round: usize,
    /// What it is counted in.
    pub unit: Unit,
    /// How many of them.
    pub units: u64,
    /// From switching it on until the slot was in use.
    pub start_seconds: f64,
    /// From then on until the last transaction was visible, or read.
    pub seconds: f64,
    /// Who used the processors in this time.
    pub cpu: Cpu,
    /// The part of the target's that was used by sessions in the database.
    pub backend_seconds: f64,
    /// The most memory that Relevo has had, in bytes.
    pub peak_bytes: Option<u64>,
    /// The load average of the minute before.
    pub load_before: f64,
}

/// What one way has measured.
struct Measured {
    start_seconds: f64,
    seconds: f64,
    cpu: Cpu,
    backend_seconds: f64,
    peak_bytes: Option<u64>,
}

/// Gets through the backlog once, and sees that the target is right.
pub async fn run(way: Way, prepared: &Prepared<'_>, round: usize) -> Run {
    let load_before = load_average();
    let measured = match way {
        Way::Relevo => relevo(prepared, round).await,
        Way::Native => native(prepared).await,
        Way::Drain => drain(prepared).await,
    };
    let Measured { start_seconds, seconds, cpu, backend_seconds, peak_bytes } = measured;
    let workload = prepared.workload;
    Run {
        version: prepared.servers.version,
        workload: workload.name,
        way,
        round,
        unit: workload.unit,
        units: prepared.units,
        start_seconds,
        seconds,
        cpu,
        backend_seconds,
        peak_bytes,
        load_before,
    }
}

async fn relevo(prepared: &Prepared<'_>, round: usize) -> Measured {
    let started = Instant::now();
    let mut relevo = prepared.relevo();
    let pid = relevo.pid();
    let measured =
        through(prepared, RELEVO_SLOT, RELEVO, Some(pid), started, async || works(&mut relevo).await).await;
    relevo.terminate();
    let name = (prepared.servers.version.major(), prepared.workload.name);
    files::write(&format!("relevo-{}-{}-{round}.log", name.0, name.1), &relevo.stderr());
    prepared.until_free(RELEVO_SLOT).await;
    prepared.check(RELEVO).await;
    measured
}

/// Whether there is any hope: a flow that has failed would be tried again for ever.
async fn works(relevo: &mut Relevo) -> Result<(), String> {
    if let Some(status) = relevo.try_exit() {
        return Err(format!("relevo ended: {status}\n{}", relevo.stderr()));
    }
    match relevo.status().await {
        Some(status) if status["state"] == "failed" => Err(format!("the flow has failed: {status}")),
        _ => Ok(()),
    }
}

async fn native(prepared: &Prepared<'_>) -> Measured {
    let session = prepared.servers.target.connect(NATIVE).await;
    let started = Instant::now();
    session.sql("ALTER SUBSCRIPTION bench ENABLE").await;
    let works = async || {
        // The view is new in 15.
        let errors = "SELECT coalesce(sum(apply_error_count), 0)::bigint FROM pg_stat_subscription_stats";
        match session.try_value::<i64>(errors).await {
            Ok(count) if count > 0 => Err("the subscription cannot apply: see the target's log".to_owned()),
            _ => Ok(()),
        }
    };
    let measured = through(prepared, NATIVE_SLOT, NATIVE, None, started, works).await;
    session.sql("ALTER SUBSCRIPTION bench DISABLE").await;
    prepared.until_free(NATIVE_SLOT).await;
    prepared.check(NATIVE).await;
    measured
}

/// Waits for the stream's beginning and for its end. `works` is asked whether there is any hope.
async fn through(
    prepared: &Prepared<'_>,
    slot: &str,
    database: &str,
    tool: Option<u32>,
    started: Instant,
    mut works: impl AsyncFnMut() -> Result<(), String>,
) -> Measured {
    let what = format!("{} by {database}", prepared.workload.name);
    let target = prepared.servers.target.connect(database).await;
    let walsender = walsender(prepared, slot, started, &mut works).await;
    let (began, before) = (Instant::now(), Cpu::now(prepared.servers, tool, walsender));
    let mut asked = began;
    while !target.value::<bool>("SELECT count(*) > 0 FROM bench_marker").await {
        if asked.elapsed() > ASK {
            asked = Instant::now();
            works().await.unwrap_or_else(|why| panic!("{what}: {why}"));
        }
        assert!(began.elapsed() < PATIENCE, "{what}: the last transaction did not come within {PATIENCE:?}");
        tokio::time::sleep(LOOK).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = Cpu::now(prepared.servers, tool, walsender).since(before);
    let backend_seconds = backends(&target).await;
    let same = prepared.source.rows(&active(slot)).await == [[Some(walsender.to_string())]];
    assert!(same, "{what}: the stream was interrupted, so that its time says nothing");
    let start_seconds = (began - started).as_secs_f64();
    Measured { start_seconds, seconds, cpu, backend_seconds, peak_bytes: tool.and_then(peak_bytes) }
}

fn active(slot: &str) -> String {
    format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'")
}

/// The process that streams from the slot.
async fn walsender(
    prepared: &Prepared<'_>,
    slot: &str,
    started: Instant,
    works: &mut impl AsyncFnMut() -> Result<(), String>,
) -> u32 {
    let mut asked = started;
    loop {
        let pid: Option<i32> = prepared.source.value(&active(slot)).await;
        if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
            return pid;
        }
        if asked.elapsed() > ASK {
            asked = Instant::now();
            works().await.unwrap_or_else(|why| panic!("{slot}: {why}"));
        }
        assert!(started.elapsed() < Duration::from_secs(60), "nobody streams from {slot} after a minute");
        tokio::time::sleep(LOOK_FOR_START).await;
    }
}

/// Processor seconds of the sessions and workers in this one's database, but for this one.
async fn backends(session: &Database) -> f64 {
    let pids = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'relevo-tests'";
    let pids = session.column(pids).await;
    pids.iter().filter_map(|pid| pid.parse().ok()).map(|pid| cpu_seconds(pid).0).sum()
}

async fn drain(prepared: &Prepared<'_>) -> Measured {
    let started = Instant::now();
    let stream = drain::Stream::start(prepared).await;
    let (began, before) = (Instant::now(), Cpu::now(prepared.servers, None, stream.walsender));
    let walsender = stream.walsender;
    let stream = stream.drain(prepared.before).await;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = Cpu::now(prepared.servers, None, walsender).since(before);
    drop(stream);
    let start_seconds = (began - started).as_secs_f64();
    Measured { start_seconds, seconds, cpu, backend_seconds: 0.0, peak_bytes: None }
}
