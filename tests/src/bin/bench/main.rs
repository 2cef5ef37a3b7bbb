//! `make bench`: how fast a backlog is applied by Relevo and by a native subscription, both from the same WAL into the same
//! server, how fast the slot could be read at all, and how long a commit takes to be visible.
//!
//! It uses what the tests use and ends like they do: whatever happens, also on Ctrl-C, nothing keeps running, and nothing
//! stays but `bench` in the folder that cargo builds in. Its figures judge nothing: no test may depend on them. A target
//! that does not hold what the source holds is an error.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

mod bars;
mod drain;
mod latency;
mod measure;
mod report;
mod settings;
mod ways;
mod workload;
mod workloads;
mod world;

use std::process::ExitCode;

use relevo_tests::bench;
use settings::Settings;
use ways::Way;
use world::Servers;

#[tokio::main]
async fn main() -> ExitCode {
    bench::until_a_signal(benchmark()).await
}

async fn benchmark() {
    let settings = Settings::from_environment();
    let (mut runs, mut latencies, mut circumstances) = (Vec::new(), Vec::new(), Vec::new());
    for version in &settings.versions {
        let servers = Servers::start(*version).await;
        circumstances.push(report::circumstances(&servers).await);
        println!("{}\n", circumstances.last().expect("just pushed"));
        for workload in &settings.workloads {
            println!("{}", report::RUN_HEADER);
            for round in 1..=settings.rounds {
                let prepared = servers.prepare(workload, &settings).await;
                // Another one begins each time: who comes later finds the machine in another state.
                for turn in 0..workload.ways.len() {
                    let way: Way = workload.ways[(turn + round) % workload.ways.len()];
                    let run = ways::run(way, &prepared, round).await;
                    println!("{}", report::line(&run));
                    runs.push(run);
                }
                prepared.remove().await;
            }
        }
        if settings.latency {
            latencies.extend(latency::measure(&servers, &settings).await);
        }
    }
    report::finish(&settings, &circumstances, &runs, &latencies);
}
