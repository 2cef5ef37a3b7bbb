//! What is measured: versions, workloads, sizes.

use std::time::Duration;

use relevo_tests::Version;
use relevo_tests::bench::{number, words};

use crate::workload::Workload;
use crate::workloads::ALL;

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(1200);

/// The word among the workloads that asks for the latencies.
const LATENCY: &str = "latency";

/// What is measured.
#[derive(Debug)]
pub struct Settings {
    /// The versions, one after the other; both servers have the same.
    pub versions: Vec<Version>,
    /// The workloads.
    pub workloads: Vec<&'static Workload>,
    /// Whether latencies are measured too.
    pub latency: bool,
    /// What all sizes are multiplied with.
    pub scale: f64,
    /// How often each workload is run.
    pub rounds: usize,
    /// More options for `relevo run`.
    pub relevo_options: Vec<String>,
}

impl Settings {
    /// From VERSIONS, WORKLOADS, SCALE, ROUNDS and `RELEVO_OPTIONS`.
    pub fn from_environment() -> Self {
        let mut versions: Vec<Version> = words("VERSIONS").iter().map(|word| version(word)).collect();
        if versions.is_empty() {
            versions = vec![Version::V15, Version::V18];
        }
        let mut wanted = words("WORKLOADS");
        if wanted.is_empty() {
            wanted = ALL.iter().map(|workload| workload.name.to_owned()).collect();
            wanted.push(LATENCY.to_owned());
        }
        let latency = wanted.iter().any(|word| word == LATENCY);
        let workloads = wanted.iter().filter(|word| *word != LATENCY).map(|word| workload(word)).collect();
        Self {
            versions,
            workloads,
            latency,
            scale: number("SCALE", 1.0, 0.001),
            rounds: number("ROUNDS", 2, 1),
            relevo_options: words("RELEVO_OPTIONS"),
        }
    }

    /// The command that measures the same again.
    pub fn command(&self) -> String {
        let versions: Vec<String> = self.versions.iter().map(|version| version.major().to_string()).collect();
        let mut workloads: Vec<&str> = self.workloads.iter().map(|workload| workload.name).collect();
        if self.latency {
            workloads.push(LATENCY);
        }
        format!(
            "make bench VERSIONS=\"{}\" WORKLOADS=\"{}\" SCALE={} ROUNDS={} RELEVO_OPTIONS=\"{}\"",
            versions.join(" "),
            workloads.join(" "),
            self.scale,
            self.rounds,
            self.relevo_options.join(" ")
        )
    }
}

fn version(word: &str) -> Version {
    Version::ALL
        .into_iter()
        .find(|version| version.major().to_string() == word)
        .unwrap_or_else(|| panic!("VERSIONS: {word:?} is none of 14 to 18"))
}

fn workload(word: &str) -> &'static Workload {
    ALL.iter().find(|workload| workload.name == word).unwrap_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|workload| workload.name).chain([LATENCY]).collect();
        panic!("WORKLOADS: {word:?} is none of {}", names.join(", "))
    })
}
