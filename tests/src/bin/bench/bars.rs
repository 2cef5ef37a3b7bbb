//! What follows from the runs: for each workload the quickest of each way, their ratios, and the bars that they are held
//! against.
//!
//! Pure: it neither runs nor prints anything. It is the quickest runs that decide, since whoever else uses the machine only
//! ever makes a run longer.

use relevo_tests::Version;

use crate::latency::Latency;
use crate::settings::Settings;
use crate::ways::{Run, Way};
use crate::workload::Unit;

/// How many times as fast as native in the geometric mean over all workloads.
const MEAN: f64 = 2.0;
/// How much of the drain limit, where the target's own work leaves room.
const LIMIT: f64 = 0.9;
/// A target whose sessions work for more of the time than this leaves none.
const TARGET_BUSY: f64 = 0.8;
/// Nor does a machine of which others take more than this.
const OTHERS_BUSY: f64 = 0.25;
/// Relevo's processor time against the walsender's.
const TOOL: f64 = 1.0 / 3.0;
/// How many times native's latency.
const LATENCY: f64 = 1.5;
/// How much memory beside the bound, in bytes.
const MEMORY_BYTES: u64 = 64 << 20;
/// The bound when no option says otherwise.
const USUAL_MEMORY_BYTES: u64 = 256 << 20;

/// One workload on one version.
#[derive(Debug)]
pub struct Row<'r> {
    /// The version.
    pub version: Version,
    /// The workload's name.
    pub workload: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// The quickest run of each way, if there is one.
    pub native: Option<&'r Run>,
    /// Relevo's.
    pub relevo: &'r Run,
    /// That of the reader.
    pub drain: Option<&'r Run>,
    /// The same by the median of all rounds: native's seconds to Relevo's.
    pub median_ratio: Option<f64>,
}

impl Row<'_> {
    /// How many times as fast as native.
    pub fn to_native(&self) -> Option<f64> {
        self.native.map(|native| native.seconds / self.relevo.seconds)
    }

    /// How much of the drain limit.
    pub fn to_limit(&self) -> Option<f64> {
        self.drain.map(|drain| drain.seconds / self.relevo.seconds)
    }

    /// Relevo's processor time to that of the walsender for the same stream.
    pub fn tool_to_walsender(&self) -> f64 {
        self.relevo.cpu.tool / self.relevo.cpu.walsender.max(0.01)
    }

    /// The part of the time that the target's sessions have worked.
    pub fn target_busy(&self) -> f64 {
        self.relevo.backend_seconds / self.relevo.seconds
    }

    /// The part of the machine's processors that others used meanwhile.
    pub fn others_busy(&self, processors: f64) -> f64 {
        self.relevo.cpu.others / self.relevo.seconds / processors
    }
}

/// A bar, and how far it is.
#[derive(Debug)]
pub struct Bar {
    /// The version.
    pub version: Version,
    /// What it is about.
    pub what: String,
    /// What was measured.
    pub value: f64,
    /// What it must be.
    pub bar: f64,
    /// Whether the value may not be less (otherwise it may not be more).
    pub at_least: bool,
    /// Why it does not count here, if it does not.
    pub excuse: Option<&'static str>,
}

impl Bar {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        if self.at_least { self.value >= self.bar } else { self.value <= self.bar }
    }
}

/// The rows, in the order of the runs.
pub fn rows<'r>(settings: &Settings, runs: &'r [Run]) -> Vec<Row<'r>> {
    let mut rows = Vec::new();
    for version in &settings.versions {
        for workload in &settings.workloads {
            let of = |way: Way| -> Vec<&'r Run> {
                let wanted =
                    |run: &&Run| run.version == *version && run.workload == workload.name && run.way == way;
                let mut runs: Vec<&Run> = runs.iter().filter(wanted).collect();
                runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
                runs
            };
            let (native, relevo, drain) = (of(Way::Native), of(Way::Relevo), of(Way::Drain));
            let Some(quickest) = relevo.first() else { continue };
            rows.push(Row {
                version: *version,
                workload: workload.name,
                unit: workload.unit,
                native: native.first().copied(),
                relevo: quickest,
                drain: drain.first().copied(),
                median_ratio: median(&native).map(|native| native / median(&relevo).unwrap_or(f64::NAN)),
            });
        }
    }
    rows
}

fn median(sorted: &[&Run]) -> Option<f64> {
    let (half, odd) = (sorted.len() / 2, sorted.len() % 2 == 1);
    let middle = sorted.get(half)?.seconds;
    Some(if odd { middle } else { f64::midpoint(sorted[half - 1].seconds, middle) })
}

/// The geometric mean of how many times as fast as native the workloads of a version are.
pub fn mean(rows: &[Row<'_>], version: Version) -> Option<f64> {
    let of_version = rows.iter().filter(|row| row.version == version);
    let logarithms: Vec<f64> = of_version.filter_map(Row::to_native).map(f64::ln).collect();
    let count = f64::from(u32::try_from(logarithms.len()).ok().filter(|count| *count > 0)?);
    Some((logarithms.iter().sum::<f64>() / count).exp())
}

/// All bars.
pub fn bars(settings: &Settings, rows: &[Row<'_>], latencies: &[Latency], processors: f64) -> Vec<Bar> {
    let mut bars = Vec::new();
    for version in settings.versions.iter().copied() {
        let bar = |what: String, value: f64, bar: f64, at_least: bool| Bar {
            version,
            what,
            value,
            bar,
            at_least,
            excuse: None,
        };
        let of_version: Vec<&Row<'_>> = rows.iter().filter(|row| row.version == version).collect();
        for row in &of_version {
            let workload = settings.workloads.iter().find(|workload| workload.name == row.workload);
            let wanted = workload.map_or(1.0, |workload| workload.bar(version));
            if let Some(ratio) = row.to_native() {
                bars.push(bar(format!("{}: times native", row.workload), ratio, wanted, true));
            }
        }
        if let Some(mean) = mean(rows, version) {
            bars.push(bar("geometric mean: times native".to_owned(), mean, MEAN, true));
        }
        for row in &of_version {
            let Some(ratio) = row.to_limit() else { continue };
            let mut limit = bar(format!("{}: of the drain limit", row.workload), ratio, LIMIT, true);
            if row.target_busy() > TARGET_BUSY {
                limit.excuse = Some("the target's own work leaves no room");
            } else if row.others_busy(processors) > OTHERS_BUSY {
                limit.excuse = Some("others used the machine");
            }
            bars.push(limit);
        }
        for row in &of_version {
            let what = format!("{}: relevo's CPU to the walsender's", row.workload);
            bars.push(bar(what, row.tool_to_walsender(), TOOL, false));
        }
        let most = of_version.iter().filter_map(|row| row.relevo.peak_bytes).max();
        if let Some(most) = most {
            let bound = memory_bytes(&settings.relevo_options) + MEMORY_BYTES;
            bars.push(bar("peak memory, MiB".to_owned(), mebibytes(most), mebibytes(bound), false));
        }
        bars.extend(latency_bars(version, latencies));
    }
    bars
}

fn latency_bars(version: Version, latencies: &[Latency]) -> Vec<Bar> {
    let of = |way: Way| latencies.iter().filter(move |one| one.version == version && one.way == way);
    let mut bars = Vec::new();
    for relevo in of(Way::Relevo) {
        let Some(native) = of(Way::Native).find(|native| native.rate == relevo.rate) else { continue };
        for (name, per_mille) in [("p50", 500), ("p99", 990)] {
            bars.push(Bar {
                version,
                what: format!("latency {name} at {}/s: times native", relevo.rate),
                value: relevo.at(per_mille) / native.at(per_mille).max(1e-6),
                bar: LATENCY,
                at_least: false,
                excuse: None,
            });
        }
    }
    bars
}

/// The bound of memory that the options for `relevo run` give.
fn memory_bytes(options: &[String]) -> u64 {
    let text = options.iter().enumerate().find_map(|(index, option)| match option.strip_prefix("--memory") {
        Some("") => options.get(index + 1).map(String::as_str),
        Some(value) => value.strip_prefix('='),
        None => None,
    });
    let Some(text) = text else { return USUAL_MEMORY_BYTES };
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => panic!("RELEVO_OPTIONS: write --memory in KiB, MiB or GiB, not {text:?}"),
    };
    digits.parse::<u64>().unwrap_or_else(|_| panic!("RELEVO_OPTIONS: --memory {text:?}")) * unit
}

/// For tables.
#[expect(clippy::cast_precision_loss, reason = "a size for people")]
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
