//! The ways to copy a database that are compared, and one run of one of them.

use std::path::Path;
use std::time::{Duration, Instant};

use relevo_tests::bench::machine::load_average;
use relevo_tests::bench::{files, tool, words};
use relevo_tests::{PASSWORD, RelevoBuilder, wait_until};

use crate::measure::Cpu;
use crate::world::{DATABASE, World, client_folder};
use crate::{floor, semaphores};

/// How long one copy may take.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A way to copy a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `relevo run` until its state is `streaming`.
    Relevo,
    /// `pgcopydb clone`.
    Pgcopydb,
    /// Schema by pg_dump, then CREATE SUBSCRIPTION until every table is ready.
    Native,
    /// COPY from files, and the indexes.
    Floor,
}

/// A run, measured.
#[derive(Debug)]
pub struct Run {
    /// What was measured.
    pub way: Way,
    /// In which round.
    pub round: usize,
    /// How long it took.
    pub seconds: f64,
    /// Who used the processors meanwhile.
    pub cpu: Cpu,
    /// The load average of the minute before.
    pub load_before: f64,
}

impl Way {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relevo => "relevo",
            Self::Pgcopydb => "pgcopydb",
            Self::Native => "native",
            Self::Floor => "floor",
        }
    }

    /// All that this machine can do.
    pub fn available() -> Vec<Self> {
        let mut ways = vec![Self::Relevo, Self::Pgcopydb, Self::Native, Self::Floor];
        if pgcopydb_version().is_none() {
            println!("pgcopydb is not installed (Debian's package pgcopydb): its column is left out.");
            ways.retain(|way| *way != Self::Pgcopydb);
        }
        ways
    }
}

/// What `pgcopydb --version` says.
pub fn pgcopydb_version() -> Option<String> {
    let output = tool::command(Path::new("pgcopydb")).arg("--version").output().ok()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(|line| line.split_once("pgcopydb version "))
        .map(|(_, version)| version.trim().to_owned())
}

/// Copies the database once, into an empty one, and sees that it is whole.
pub async fn run(way: Way, world: &World, round: usize) -> Run {
    world.begin_run().await;
    if way == Way::Floor {
        world.copy_schema(&["--section=pre-data"]).await;
    }
    let load_before = load_average();
    let before = Cpu::now(world, None);
    let started = Instant::now();
    let (seconds, cpu) = match way {
        Way::Relevo => relevo(world, round, before, started).await,
        Way::Pgcopydb | Way::Native | Way::Floor => {
            match way {
                Way::Pgcopydb => pgcopydb(world).await,
                Way::Native => native(world).await,
                Way::Floor | Way::Relevo => floor::run(world).await,
            }
            (started.elapsed().as_secs_f64(), Cpu::now(world, None).since(before))
        }
    };
    world.check_target(way.name()).await;
    if way == Way::Native {
        world.target.connect(DATABASE).await.sql("DROP SUBSCRIPTION bench").await;
    }
    world.clean_source().await;
    world.drop_target().await;
    Run { way, round, seconds, cpu, load_before }
}

async fn relevo(world: &World, round: usize, before: Cpu, started: Instant) -> (f64, Cpu) {
    let jobs = world.settings.jobs.to_string();
    let urls = (world.source.url(DATABASE), world.target.url(DATABASE));
    // In a folder that ends with the server. An option still wins.
    let spool = world.target.socket_folder().join("spool");
    let run = RelevoBuilder::run(&urls.0, &urls.1).name("bench").args(["--copy-jobs", &jobs]);
    let run = run.env("RELEVO_SPOOL", &spool.to_string_lossy());
    let mut relevo = run.args(&words("RELEVO_OPTIONS")).start();
    relevo.wait_for_status("state streaming", PATIENCE, |status| status["state"] == "streaming").await;
    let result = (started.elapsed().as_secs_f64(), Cpu::now(world, Some(relevo.pid())).since(before));
    relevo.terminate();
    files::write(&format!("relevo-{round}.log"), &relevo.stderr());
    result
}

async fn pgcopydb(world: &World) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let jobs = world.settings.jobs.to_string();
    let mut pgcopydb = tool::command(Path::new("pgcopydb"));
    let path = std::env::var("PATH").unwrap_or_default();
    pgcopydb.env("PATH", format!("{}:{path}", client_folder().display()));
    pgcopydb.args(["clone", "--table-jobs", &jobs, "--index-jobs", &jobs, "--dir"]);
    pgcopydb.arg(folder.path().join("work"));
    pgcopydb.args(["--source", &world.source.url(DATABASE), "--target", &world.target.url(DATABASE)]);
    pgcopydb.args(words("PGCOPYDB_OPTIONS"));
    let before = semaphores::present();
    tool::run(pgcopydb).await;
    semaphores::remove_since(&before);
}

async fn native(world: &World) {
    world.copy_schema(&[]).await;
    world.source.connect(DATABASE).await.sql("CREATE PUBLICATION bench FOR ALL TABLES").await;
    let session = world.target.connect(DATABASE).await;
    let source = format!(
        "host=127.0.0.1 port={} user=postgres password={PASSWORD} dbname={DATABASE}",
        world.source.port()
    );
    session
        .sql(&format!(
            "CREATE SUBSCRIPTION bench CONNECTION '{source}' PUBLICATION bench WITH (copy_data = true)"
        ))
        .await;
    let ready = format!(
        "SELECT count(*) FILTER (WHERE srsubstate = 'r') = {} FROM pg_subscription_rel",
        world.tables.len()
    );
    wait_until("every table ready", PATIENCE, async || session.value::<bool>(&ready).await).await;
}
