//! Relevo, the link and both servers are killed while large transactions run, are read back from the spool and are
//! applied, small ones between them. Ten seeds decide what happens when.

use std::path::Path;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use relevo_tests::large::LargeWriter;
use relevo_tests::pair::DATABASE;
use relevo_tests::relevo::PATIENCE;
use relevo_tests::workload::GaplessWriter;
use relevo_tests::{Pair, Pgbench, Version, soak_factor, wait_until};

use super::everything::{FAULTS, World, begin_load, gapless_reader};

const TABLES: [&str; 2] = ["large_a", "large_b"];
/// Two for each of ten seeds; `make soak` has more.
const FAULTS_EACH: u32 = 2;
/// Of this, an eighth is for running transactions: one round of a writer needs more.
const OPTIONS: [&str; 4] = ["--memory", "16MiB", "--batch-bytes", "512KiB"];

fn files_below(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

async fn large_transactions_survive(source: Version, target: Version, seed: u64) {
    eprintln!("seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("spool");
    let pair = Pair::builder(source, target)
        .source(|source| source.set("logical_decoding_work_mem", "64kB"))
        .proxied()
        .start()
        .await;
    Pgbench::init(&pair.source, DATABASE, 1).await;
    let session = pair.source.session().await.unwrap();
    GaplessWriter::create_table(&session).await;
    for table in TABLES {
        LargeWriter::create_table(&session, table).await;
    }
    let relevo = pair.relevo().args(["--spool", spool.to_str().unwrap()]).args(OPTIONS).start();
    let load = begin_load(&pair);
    let mut rng = StdRng::seed_from_u64(seed);
    let writers = TABLES
        .map(|table| LargeWriter::start(pair.source.config(DATABASE), table, StdRng::from_rng(&mut rng)));
    let mut world = World { pair, relevo, load, begin_load, rng };
    world.relevo.wait_until_streaming().await;
    let small = GaplessWriter::start(world.pair.source.config(DATABASE), Duration::from_millis(20));
    let numbers = gapless_reader(&world.pair, true);
    let readers = TABLES.map(|table| LargeWriter::checker(world.pair.target.config(DATABASE), table));

    for _ in 0..FAULTS_EACH * soak_factor() {
        wait_until("something in the spool", PATIENCE, async || files_below(&spool) > 0).await;
        let fault = *FAULTS.choose(&mut world.rng).unwrap();
        eprintln!("{fault:?}");
        world.inflict(fault).await;
        world.target_moves(3).await;
    }

    for reader in &readers {
        reader.moves(1).await;
    }
    let World { pair, mut relevo, load, .. } = world;
    let mut rounds = 0;
    for writer in writers {
        rounds += writer.finish().await;
    }
    load.stop().await;
    let last = small.finish().await;
    pair.caught_up_within(2 * PATIENCE).await;
    pair.assert_equal().await;
    let numbers = numbers.finish().await;
    eprintln!("{rounds} rounds; numbers to {last}; {numbers:?}");
    for reader in readers {
        let checked = reader.finish().await;
        assert!(checked.changes > 1, "too little moved to judge: {checked:?}");
    }
    wait_until("an empty spool", PATIENCE, async || files_below(directory.path()) == 0).await;
    relevo.terminate();
}

macro_rules! for_each_seed {
    ($($name:ident: $source:ident to $target:ident, $seed:literal),* $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            large_transactions_survive(Version::$source, Version::$target, $seed).await;
        }
    )* };
}
for_each_seed!(
    large_transactions_survive_every_kill_seed_1: V14 to V15, 1,
    large_transactions_survive_every_kill_seed_2: V15 to V18, 2,
    large_transactions_survive_every_kill_seed_3: V16 to V16, 3,
    large_transactions_survive_every_kill_seed_4: V17 to V14, 4,
    large_transactions_survive_every_kill_seed_5: V18 to V18, 5,
    large_transactions_survive_every_kill_seed_6: V15 to V15, 6,
    large_transactions_survive_every_kill_seed_7: V18 to V17, 7,
    large_transactions_survive_every_kill_seed_8: V14 to V18, 8,
    large_transactions_survive_every_kill_seed_9: V16 to V17, 9,
    large_transactions_survive_every_kill_seed_10: V17 to V16, 10,
);
