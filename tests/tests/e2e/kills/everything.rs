//! Relevo, the link and both servers are killed again and again, in an order that a seed decides, while pgbench and a
//! writer of numbers load the source and readers judge every snapshot of the target.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use relevo_tests::pair::{DATABASE, Node};
use relevo_tests::relevo::PATIENCE;
use relevo_tests::workload::{Checked, Checker, GaplessWriter};
use relevo_tests::{
    ConfirmedWatch, Direction, Pair, Pgbench, Proxy, Relevo, Seed, Version, soak_factor, wait_until,
};

/// One end of the flow with the link to it.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Source,
    Target,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    KillRelevo,
    /// SIGKILL while what was sent to the target has not been read there.
    KillRelevoBeforeAFrozenTarget,
    Cut(End),
    /// The link breaks after some more bytes: in the middle of whatever is on its way.
    CutInside(End),
    Stall(End),
    Refuse(End),
    /// SIGKILL of every process of the server.
    Crash(End),
    Restart(End),
}

pub(super) const FAULTS: [Fault; 15] = [
    Fault::KillRelevo,
    Fault::KillRelevo,
    Fault::KillRelevoBeforeAFrozenTarget,
    Fault::Cut(End::Source),
    Fault::Cut(End::Target),
    Fault::CutInside(End::Source),
    Fault::CutInside(End::Target),
    Fault::Stall(End::Source),
    Fault::Stall(End::Target),
    Fault::Refuse(End::Source),
    Fault::Refuse(End::Target),
    Fault::Crash(End::Source),
    Fault::Crash(End::Target),
    Fault::Restart(End::Source),
    Fault::Restart(End::Target),
];

/// As [`Checker::gapless`]; but a server that crashed may have forgotten commits that it had not flushed.
const NUMBERS: &str = "
SELECT count(*), coalesce(min(n), 1), coalesce(max(n), 0),
       coalesce((SELECT last_of_transaction FROM gapless ORDER BY n DESC LIMIT 1), 0),
       pg_postmaster_start_time()::text
  FROM gapless";

const APPLIED: &str = "SELECT applied_lsn::text FROM relevo.progress";

pub(super) struct World {
    pub pair: Pair,
    pub relevo: Relevo,
    pub load: Pgbench,
    /// Begins the load again once the source is back.
    pub begin_load: fn(&Pair) -> Pgbench,
    pub rng: StdRng,
}

impl World {
    fn node(&self, end: End) -> &Node {
        match end {
            End::Source => &self.pair.source,
            End::Target => &self.pair.target,
        }
    }

    fn link(&self, end: End) -> &Proxy {
        match end {
            End::Source => self.pair.source_proxy(),
            End::Target => self.pair.target_proxy(),
        }
    }

    fn direction(&mut self) -> Direction {
        if self.rng.random() { Direction::ToServer } else { Direction::ToClient }
    }

    pub(super) async fn source_writes(&self, bytes: u64) {
        let query = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
        let before: i64 = self.pair.source.value(query).await;
        let far = before + i64::try_from(bytes).unwrap();
        wait_until("the source writes", PATIENCE, async || self.pair.source.value::<i64>(query).await > far)
            .await;
    }

    /// Waits until the target has moved so many times: the next fault meets a stream at full flow.
    pub(super) async fn target_moves(&self, times: u32) {
        for _ in 0..times {
            let applied: String = self.pair.target.value(APPLIED).await;
            wait_until("the target moves", PATIENCE, async || {
                self.pair.target.value::<String>(APPLIED).await != applied
            })
            .await;
        }
    }

    pub(super) async fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::KillRelevo => self.relevo.restart(),
            Fault::KillRelevoBeforeAFrozenTarget => {
                self.pair.target.freeze();
                self.source_writes(20_000).await;
                self.relevo.kill();
                if self.rng.random() {
                    self.relevo.restart();
                    self.pair.target.thaw();
                } else {
                    self.pair.target.thaw();
                    self.relevo.restart();
                }
            }
            Fault::Cut(end) => self.link(end).cut(),
            Fault::CutInside(end) => {
                let direction = self.direction();
                let bytes = 1 << self.rng.random_range(0..16);
                let before = self.link(end).passed_bytes(direction);
                self.link(end).cut_after(direction, bytes);
                wait_until("bytes until the cut", PATIENCE, async || {
                    self.link(end).passed_bytes(direction) >= before + bytes
                })
                .await;
            }
            Fault::Stall(end) => {
                let direction = self.direction();
                self.link(end).stall(direction);
                self.source_writes(50_000).await;
                if self.rng.random() {
                    self.link(end).cut();
                }
                self.link(end).resume();
            }
            Fault::Refuse(end) => {
                self.link(end).refuse().await;
                self.relevo
                    .wait_for_status("not streaming", PATIENCE, |status| status["state"] != "streaming")
                    .await;
                self.link(end).accept().await;
            }
            Fault::Crash(end) => {
                self.node(end).crash();
                self.node(end).start().await;
            }
            Fault::Restart(end) => self.node(end).restart().await,
        }
        if matches!(fault, Fault::Crash(End::Source) | Fault::Restart(End::Source)) {
            // pgbench gives up when its server goes.
            self.load = (self.begin_load)(&self.pair);
        }
    }
}

pub(super) fn begin_load(pair: &Pair) -> Pgbench {
    Pgbench::start(&pair.source, DATABASE, &["-n", "-c", "2", "-R", "200", "-T", "3600"])
}

pub(super) fn gapless_reader(pair: &Pair, may_forget: bool) -> Checker {
    let (mut longest, mut life) = (0, String::new());
    Checker::start(pair.target.config(DATABASE), NUMBERS, move |row| {
        let [count, min, max, last]: [i64; 4] = [0, 1, 2, 3].map(|column| row.get(column));
        let started: String = row.get(4);
        if may_forget && started != life {
            (longest, life) = (0, started);
        }
        let text =
            format!("count {count}, from {min} to {max}, last transaction to {last}, before {longest}");
        if count != max || min != 1 || last != max || max < longest {
            return Err(text);
        }
        longest = max;
        Ok(format!("1 to {max}"))
    })
}

async fn readers_see_only_states_of_the_source(source: Version, target: Version, synchronous_commit: &str) {
    let seed = Seed::any();
    eprintln!("seed {}", seed.value());
    let pair = Pair::builder(source, target).proxied().start().await;
    Pgbench::init(&pair.source, DATABASE, 1).await;
    GaplessWriter::create_table(&pair.source.session().await.unwrap()).await;
    let relevo = pair.relevo().args(["--synchronous-commit", synchronous_commit]).start();
    let load = begin_load(&pair);
    let mut world = World { pair, relevo, load, begin_load, rng: seed.rng() };
    world.relevo.wait_until_streaming().await;
    let writer = GaplessWriter::start(world.pair.source.config(DATABASE), Duration::from_millis(5));
    let sums = Checker::pgbench(world.pair.target.config(DATABASE));
    let numbers = gapless_reader(&world.pair, synchronous_commit == "off");
    let confirmed = ConfirmedWatch::start(&world.pair);

    for round in 0..soak_factor() {
        let mut faults = FAULTS;
        faults.shuffle(&mut world.rng);
        for fault in faults {
            eprintln!("round {round}: {fault:?}");
            world.inflict(fault).await;
            // Else the next one comes while this one is not mended yet.
            if world.rng.random_bool(0.6) {
                world.pair.caught_up().await;
                world.target_moves(7).await;
            }
        }
    }

    world.pair.caught_up().await;
    let World { pair, mut relevo, load, .. } = world;
    load.stop().await;
    let last = writer.finish().await;
    pair.settle().await;
    let (sums, numbers): (Checked, Checked) = (sums.finish().await, numbers.finish().await);
    let confirmed = confirmed.finish().await;
    eprintln!("numbers to {last}; {sums:?}; {numbers:?}; {confirmed:?}");
    assert!(sums.changes > 5 && numbers.changes > 5, "too little moved to judge: {sums:?} {numbers:?}");
    assert!(confirmed.moves > 5, "the slot hardly moved: {confirmed:?}");
    relevo.terminate();
}

macro_rules! for_each_pair {
    ($($name:ident: $source:ident to $target:ident, synchronous_commit $setting:literal),* $(,)?) => { $(
        mod $name {
            use relevo_tests::Version;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn readers_see_only_states_of_the_source_while_everything_is_killed() {
                super::readers_see_only_states_of_the_source(Version::$source, Version::$target, $setting).await;
            }
        }
    )* };
}
for_each_pair!(
    from_14_to_15: V14 to V15, synchronous_commit "off",
    from_15_to_18: V15 to V18, synchronous_commit "off",
    from_18_to_18: V18 to V18, synchronous_commit "on",
);
