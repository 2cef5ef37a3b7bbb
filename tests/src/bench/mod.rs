//! What the benchmarks have in common: programs that are run to their end, the machine's clocks, files, charts, and the
//! end on a signal.
//!
//! What may not enter: what one of them measures.

pub mod chart;
pub mod files;
pub mod machine;
pub mod tool;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Runs a benchmark. When a signal comes it is dropped, with everything that it started.
pub async fn until_a_signal(benchmark: impl Future<Output = ()>) -> ExitCode {
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler for SIGINT");
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM");
    tokio::select! {
        () = benchmark => ExitCode::SUCCESS,
        _ = interrupt.recv() => ExitCode::from(130),
        _ = terminate.recv() => ExitCode::from(143),
    }
}

/// The words of an environment variable: a list, or what somebody wants to try, such as
/// `--split-tables-larger-than 128MB`.
#[must_use]
pub fn words(variable: &str) -> Vec<String> {
    let text = std::env::var(variable).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// A number from an environment variable; the usual one when it is not set. Panics on what is no number, or is below
/// `least`.
#[must_use]
pub fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(name: &str, usual: T, least: T) -> T {
    let Some(text) = std::env::var(name).ok().filter(|text| !text.is_empty()) else { return usual };
    match text.parse() {
        Ok(number) if number >= least => number,
        _ => panic!("{name} must be a number from {least} on, not {text:?}"),
    }
}
