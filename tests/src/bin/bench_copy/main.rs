//! `make bench-copy`: how long the copy of one database takes with Relevo, with pgcopydb, with a native subscription,
//! and on the target's server alone.
//!
//! It uses what the tests use and ends like they do: whatever happens, also on Ctrl-C, nothing keeps running, and nothing
//! stays but `bench` in the folder that cargo builds in. Its figures judge nothing: no test may depend on them. A copy
//! that is not whole is an error.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

mod floor;
mod measure;
mod report;
mod semaphores;
mod ways;
mod world;

use std::process::ExitCode;

use relevo_tests::bench;
use ways::Way;
use world::{Settings, World};

#[tokio::main]
async fn main() -> ExitCode {
    bench::until_a_signal(benchmark()).await
}

async fn benchmark() {
    let settings = Settings::from_environment();
    println!("Two servers, and a database of scale {} on one of them …", settings.scale);
    let world = World::create(settings).await;
    let ways = Way::available();
    println!("{}\n", report::circumstances(&world));
    println!("{}", report::RUN_HEADER);
    let mut runs = Vec::new();
    for round in 0..world.settings.rounds {
        // Another one begins each time: who comes later finds the machine in another state.
        for turn in 0..ways.len() {
            let way = ways[(turn + round) % ways.len()];
            let run = ways::run(way, &world, round + 1).await;
            println!("{}", report::line(&run));
            runs.push(run);
        }
    }
    println!("\n{}", report::summary(&runs));
    report::write(&world, &runs);
}
