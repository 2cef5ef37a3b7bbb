//! What is printed and written: the circumstances, a line for each run, the comparison, JSON and a chart.

use std::fmt::Write as _;

use relevo_tests::bench::machine::processors;
use relevo_tests::bench::{chart, files, words};
use serde_json::{Value, json};

use crate::ways::{Run, Way, pgcopydb_version};
use crate::world::{VERSION, World};

/// How much longer than the floor Relevo may take.
const FLOOR_BAR: f64 = 1.25;

/// The header over [`line()`]s.
pub const RUN_HEADER: &str =
    "round  way        seconds   processor seconds: tool  source  target  others   load before";

/// What the figures depend on.
pub fn circumstances(world: &World) -> String {
    let settings = &world.settings;
    format!(
        "PostgreSQL {} on both sides, pgcopydb {}, {} processors; {} MB in {} tables, {} jobs, {} rounds.\n\
         Settings of both servers: {}.\n\
         fsync = off: no run waits for a disk, and each finds the source in the system's cache.",
        VERSION.full(),
        pgcopydb_version().unwrap_or_else(|| "not installed".to_owned()),
        processors(),
        world.bytes / 1_000_000,
        world.tables.len(),
        settings.jobs,
        settings.rounds,
        world.server_settings,
    )
}

/// One run.
pub fn line(run: &Run) -> String {
    let cpu = run.cpu;
    format!(
        "{:>5}  {:<10} {:>7.2} {:>25.2} {:>7.2} {:>7.2} {:>7.2} {:>13.2}",
        run.round,
        run.way.name(),
        run.seconds,
        cpu.tool,
        cpu.source,
        cpu.target,
        cpu.others,
        run.load_before
    )
}

/// The runs of one way.
struct Figures {
    way: Way,
    seconds: Vec<f64>,
}

impl Figures {
    fn of(runs: &[Run]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for way in [Way::Relevo, Way::Pgcopydb, Way::Native, Way::Floor] {
            let mut seconds: Vec<f64> =
                runs.iter().filter(|run| run.way == way).map(|run| run.seconds).collect();
            seconds.sort_by(f64::total_cmp);
            if !seconds.is_empty() {
                all.push(Self { way, seconds });
            }
        }
        all
    }

    fn least(&self) -> f64 {
        self.seconds[0]
    }

    fn median(&self) -> f64 {
        let (half, odd) = (self.seconds.len() / 2, self.seconds.len() % 2 == 1);
        if odd { self.seconds[half] } else { f64::midpoint(self.seconds[half - 1], self.seconds[half]) }
    }
}

/// One comparison: with whom, by the least and by the median, the bar, and whether it holds.
struct Ratio {
    with: Way,
    least: f64,
    median: f64,
    bar: f64,
}

impl Ratio {
    fn all(figures: &[Figures]) -> Vec<Self> {
        let Some((relevo, others)) = figures.split_first() else { return Vec::new() };
        let ratio = |other: &Figures| Self {
            with: other.way,
            least: relevo.least() / other.least(),
            median: relevo.median() / other.median(),
            bar: if other.way == Way::Floor { FLOOR_BAR } else { 1.0 },
        };
        others.iter().map(ratio).collect()
    }

    /// By the least: others on the machine only ever add to it.
    fn holds(&self) -> bool {
        self.least <= self.bar
    }
}

/// The comparison.
pub fn summary(runs: &[Run]) -> String {
    let figures = Figures::of(runs);
    let mut text = "way          least  median   relevo/way by least  by median   bar\n".to_owned();
    let ratios = Ratio::all(&figures);
    for one in &figures {
        write!(text, "{:<10} {:>7.2} {:>7.2}", one.way.name(), one.least(), one.median()).expect("a String");
        if let Some(ratio) = ratios.iter().find(|ratio| ratio.with == one.way) {
            let verdict = if ratio.holds() { "holds" } else { "DOES NOT HOLD" };
            write!(text, " {:>21.2} {:>10.2}   {:.2} {verdict}", ratio.least, ratio.median, ratio.bar)
                .expect("a String");
        }
        text.push('\n');
    }
    text
}

/// Writes JSON and chart, and says where.
pub fn write(world: &World, runs: &[Run]) {
    let figures = Figures::of(runs);
    let ratios: Vec<Value> = Ratio::all(&figures)
        .iter()
        .map(|ratio| {
            json!({ "with": ratio.with.name(), "least": ratio.least, "median": ratio.median, "bar": ratio.bar,
                    "holds": ratio.holds() })
        })
        .collect();
    let each = |run: &Run| {
        json!({ "round": run.round, "way": run.way.name(), "seconds": run.seconds, "load_before": run.load_before,
                "cpu_seconds": { "tool": run.cpu.tool, "source": run.cpu.source, "target": run.cpu.target,
                                 "others": run.cpu.others } })
    };
    let settings = &world.settings;
    let result = json!({
        "command": format!("make bench-copy SCALE={} ROUNDS={} JOBS={}", settings.scale, settings.rounds, settings.jobs),
        "more_options": { "relevo": words("RELEVO_OPTIONS"), "pgcopydb": words("PGCOPYDB_OPTIONS") },
        "postgresql": VERSION.full(),
        "pgcopydb": pgcopydb_version(),
        "processors": processors(),
        "database_bytes": world.bytes,
        "server_settings": world.server_settings,
        "runs": runs.iter().map(each).collect::<Vec<_>>(),
        "ratios": ratios,
    });
    files::write("copy.json", &format!("{result:#}\n"));
    let bar = |figures: &Figures| chart::Bar {
        name: figures.way.name().to_owned(),
        length: figures.least(),
        strong: figures.way == Way::Relevo,
        marks: figures.seconds.clone(),
        note: format!("{:.1} s", figures.least()),
    };
    let bars: Vec<chart::Bar> = figures.iter().map(bar).collect();
    let title = format!(
        "Copy of {} MB, PostgreSQL {} (bar: quickest run; dots: all runs)",
        world.bytes / 1_000_000,
        VERSION.full()
    );
    files::write("copy.svg", &chart::draw(&title, &bars, None));
    println!("Written: copy.json, copy.svg and Relevo's logs in {}", files::folder().display());
}
