//! Relevo, the link and both servers are killed while two batches at a time are applied. Rows are new in each transaction, so
//! that batches go beside each other all the time, and whoever reads the target must see them in the source's order.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::workload::GaplessWriter;
use relevo_tests::{Pair, Pgbench, Version, soak_factor, wait_until};

use super::everything::{FAULTS, World, gapless_reader};

/// For each of the seeds; `make soak` has more.
const FAULTS_EACH: u32 = 3;
/// A backlog of a few milliseconds is more than one batch.
const OPTIONS: [&str; 2] = ["--batch-bytes", "4KiB"];

async fn two_batches_at_once_survive(source: Version, target: Version, seed: u64) {
    eprintln!("seed {seed}");
    let pair = Pair::builder(source, target).proxied().start().await;
    Pgbench::init(&pair.source, DATABASE, 1).await;
    GaplessWriter::create_table(&pair.source.session().await.unwrap()).await;
    let relevo = pair.relevo().args(OPTIONS).start();
    let load = little_load(&pair);
    let mut world = World { pair, relevo, load, begin_load: little_load, rng: StdRng::seed_from_u64(seed) };
    world.relevo.wait_until_streaming().await;
    let writer = GaplessWriter::start(world.pair.source.config(DATABASE), Duration::from_millis(1));
    let numbers = gapless_reader(&world.pair, true);

    for _ in 0..FAULTS_EACH * soak_factor() {
        until_two_at_once(&world).await;
        let fault = *FAULTS.choose(&mut world.rng).unwrap();
        eprintln!("{fault:?}");
        world.inflict(fault).await;
        world.target_moves(3).await;
    }
    until_two_at_once(&world).await;

    let World { pair, mut relevo, load, .. } = world;
    load.stop().await;
    let last = writer.finish().await;
    pair.caught_up_within(2 * PATIENCE).await;
    pair.assert_equal().await;
    let numbers = numbers.finish().await;
    eprintln!("numbers to {last}; {numbers:?}");
    assert!(numbers.changes > 1, "too little moved to judge: {numbers:?}");
    relevo.terminate();
}

/// All of pgbench's transactions write one row: few, so that they are in the way now and then.
fn little_load(pair: &Pair) -> Pgbench {
    Pgbench::start(&pair.source, DATABASE, &["-n", "-c", "1", "-R", "2", "-T", "3600"])
}

/// Makes a backlog, until some more batches were committed beside another one.
async fn until_two_at_once(world: &World) {
    const COMMITTED: (&str, [(&str, &str); 1]) = ("relevo_batches_beside_total", [("result", "committed")]);
    let relevo = &world.relevo;
    let committed = async || relevo.metrics().await.sum(COMMITTED.0, &COMMITTED.1).unwrap_or_default();
    let before = committed().await;
    wait_until("batches that go beside another one", PATIENCE, async || {
        world.pair.target.freeze();
        world.source_writes(100_000).await;
        world.pair.target.thaw();
        world.target_moves(1).await;
        committed().await > before + 3.0
    })
    .await;
}

macro_rules! for_each_seed {
    ($($name:ident: $source:ident to $target:ident, $seed:literal),* $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            two_batches_at_once_survive(Version::$source, Version::$target, $seed).await;
        }
    )* };
}
for_each_seed!(
    two_batches_at_once_survive_every_kill_seed_1: V14 to V15, 1,
    two_batches_at_once_survive_every_kill_seed_2: V15 to V18, 2,
    two_batches_at_once_survive_every_kill_seed_3: V18 to V16, 3,
);
