//! The lag against a small world in which the truth is known: two servers, clocks that disagree, outages of either
//! side, crashes of the target.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;
use relevo_model::{Side, SourceLsn, Timestamp};
use relevo_telemetry::Lag;

const TICK_US: i64 = 100_000;
const TICKS_PER_SECOND: i64 = 10;
/// Differences of the clocks below this are not corrected.
const TOLERANCE_SECONDS: f64 = 0.26;

/// What holds for some seconds.
#[derive(Debug, Clone)]
struct Phase {
    seconds: i64,
    source_up: bool,
    target_up: bool,
    /// How many ticks lie between two commits on the source; none at 0.
    commit_every_ticks: i64,
    /// How many transactions the target applies in a tick.
    applied_per_tick: usize,
    /// The target crashes at the beginning and loses this many transactions.
    lost: usize,
}

fn phase() -> impl Strategy<Value = Phase> {
    let busy = (0..20_i64, 0..3_usize);
    (
        1..15_i64,
        prop::bool::weighted(0.75),
        prop::bool::weighted(0.75),
        busy,
        prop_oneof![4 => Just(0_usize), 1 => 1..5_usize],
    )
        .prop_map(|(seconds, source_up, target_up, (commit_every_ticks, applied_per_tick), lost)| {
            Phase { seconds, source_up, target_up, commit_every_ticks, applied_per_tick, lost }
        })
}

struct Simulation {
    lag: Lag,
    tick: i64,
    skew_us: i64,
    wal: u64,
    /// Commits that the target has: position and tick; and those that it has not, split by whether received.
    applied: Vec<(u64, i64)>,
    received: VecDeque<(u64, i64)>,
    unreceived: VecDeque<(u64, i64)>,
    source_up_since: Option<i64>,
    target_up_since: Option<i64>,
    target_heard: i64,
    source_polled: i64,
    streaming: bool,
    /// The target has crashed and nobody has looked at it since.
    loss_unknown: bool,
    reported: f64,
}

impl Simulation {
    fn new(skew_us: i64) -> Self {
        let lag = Lag::new(Self::time(0));
        Self {
            lag,
            tick: 0,
            skew_us,
            wal: 1000,
            applied: Vec::new(),
            received: VecDeque::new(),
            unreceived: VecDeque::new(),
            source_up_since: None,
            target_up_since: None,
            target_heard: 0,
            source_polled: 0,
            streaming: false,
            loss_unknown: false,
            reported: 0.0,
        }
    }

    fn time(tick: i64) -> Timestamp {
        Timestamp::from_postgres_us(800_000_000_000_000 + tick * TICK_US)
    }

    fn source_time(&self, tick: i64) -> Timestamp {
        Timestamp::from_postgres_us(Self::time(tick).postgres_us() + self.skew_us)
    }

    fn seconds(&self, since_tick: i64) -> f64 {
        Self::time(self.tick).seconds_since(Self::time(since_tick))
    }

    /// How long the oldest commit that the target lacks has been lacking.
    fn truth(&self) -> f64 {
        let oldest = self.received.front().or(self.unreceived.front());
        oldest.map_or(0.0, |(_, tick)| self.seconds(*tick))
    }

    fn lose(&mut self, count: usize) {
        let lost = self.applied.split_off(self.applied.len().saturating_sub(count));
        let (received, unreceived) =
            (std::mem::take(&mut self.received), std::mem::take(&mut self.unreceived));
        self.unreceived = lost.into_iter().chain(received).chain(unreceived).collect();
        self.streaming = false;
    }

    /// Opens a session when both ends are there, ends it when one is not.
    fn connect(&mut self, phase: &Phase) {
        let up = phase.source_up && phase.target_up;
        if self.streaming && !up {
            self.lose(0);
        }
        if !self.streaming && up {
            let last = self.applied.last();
            let commit_time = last.map(|(_, tick)| self.source_time(*tick));
            let stored = SourceLsn::new(last.map_or(1000, |(position, _)| *position));
            self.lag.opened(stored, commit_time, Self::time(self.tick));
            self.target_heard = self.tick;
            self.streaming = true;
            self.loss_unknown = false;
        }
    }

    /// One tenth of a second. Whether something became visible.
    fn step(&mut self, phase: &Phase) -> bool {
        self.tick += 1;
        let now = Self::time(self.tick);
        self.source_up_since = phase.source_up.then(|| self.source_up_since.unwrap_or(self.tick));
        self.target_up_since = phase.target_up.then(|| self.target_up_since.unwrap_or(self.tick));
        self.connect(phase);
        if phase.commit_every_ticks > 0 && self.tick % phase.commit_every_ticks == 0 {
            self.wal += 100;
            self.unreceived.push_back((self.wal, self.tick));
        }
        if self.tick % 7 == 0 {
            self.wal += 8;
        }
        if self.tick % TICKS_PER_SECOND == 0 {
            if phase.source_up {
                self.lag.polled(SourceLsn::new(self.wal), Some(self.source_time(self.tick)), now);
                self.source_polled = self.tick;
            }
            if phase.target_up {
                self.lag.contact(Side::Target, now);
                self.target_heard = self.tick;
            }
        }
        self.streaming && self.stream(phase, now)
    }

    fn stream(&mut self, phase: &Phase, now: Timestamp) -> bool {
        self.received.append(&mut self.unreceived);
        self.lag.received(SourceLsn::new(self.wal));
        let count = phase.applied_per_tick.min(self.received.len());
        let batch: Vec<_> = self.received.drain(..count).collect();
        if let Some((position, tick)) = batch.last().copied() {
            self.lag.applied(SourceLsn::new(position), Some(self.source_time(tick)), now);
            self.target_heard = self.tick;
        }
        self.applied.extend(batch);
        let oldest = self.received.front().map(|(_, tick)| self.source_time(*tick));
        self.lag.oldest_unapplied(oldest, now);
        if self.received.is_empty() {
            self.lag.reached(SourceLsn::new(self.wal));
        }
        count > 0
    }

    fn check(&mut self, phase: &Phase, something_new: bool) -> Result<(), TestCaseError> {
        let reported = self.lag.seconds(Self::time(self.tick));
        let truth = self.truth();
        let at = format!("at {} s: {reported} reported, {truth} true", self.seconds(0));
        prop_assert!(reported >= 0.0 && reported.is_finite(), "{}", at);
        // Never better than the truth, once the truth is older than a fresh poll can be.
        let known = !self.loss_unknown && truth > 3.0 + TOLERANCE_SECONDS;
        prop_assert!(!known || reported >= truth - TOLERANCE_SECONDS, "{}", at);

        let silent = self.seconds(self.source_polled).max(self.seconds(self.target_heard));
        let outage = !phase.source_up || !phase.target_up;
        if outage && silent > 3.0 {
            prop_assert!(reported >= silent - 1e-6, "{}, silent for {}", at, silent);
            if !something_new && self.reported > 3.0 {
                let grown = reported - self.reported;
                prop_assert!((grown - 0.1).abs() < 1e-6 || !phase.source_up, "{}, grown by {}", at, grown);
                prop_assert!(grown > 0.0, "{}, grown by {}", at, grown);
            }
        }
        let settled = |since: Option<i64>| since.is_some_and(|since| self.seconds(since) > 2.0);
        if self.streaming && settled(self.source_up_since) && settled(self.target_up_since) {
            // Nor much worse: a poll and a sign of life may each be a second old.
            prop_assert!(reported <= truth + 1.1 + TOLERANCE_SECONDS, "{}", at);
        }
        self.reported = reported;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_lag_tells_the_truth(
        skew_seconds in prop_oneof![Just(0_i64), -4000..4000_i64],
        phases in vec(phase(), 1..12),
    ) {
        let mut world = Simulation::new(skew_seconds * 1_000_000);
        // The first poll tells how the clocks differ.
        let first = Phase { seconds: 1, source_up: true, target_up: true, commit_every_ticks: 0, applied_per_tick: 1, lost: 0 };
        for phase in std::iter::once(first).chain(phases) {
            if phase.lost > 0 {
                world.lose(phase.lost);
                world.loss_unknown = true;
            }
            for _ in 0..phase.seconds * TICKS_PER_SECOND {
                let something_new = world.step(&phase);
                if world.source_polled > 0 {
                    world.check(&phase, something_new)?;
                }
            }
        }
    }
}

fn at(seconds: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "test values are small")]
    let us = (seconds * 1e6) as i64;
    Timestamp::from_postgres_us(us)
}

fn lsn(bytes: u64) -> SourceLsn {
    SourceLsn::new(bytes)
}

fn caught_up_at(seconds: f64) -> Lag {
    let mut lag = Lag::new(at(0.0));
    lag.opened(lsn(100), Some(at(0.0)), at(seconds));
    lag.polled(lsn(100), Some(at(seconds)), at(seconds));
    lag.contact(Side::Target, at(seconds));
    lag
}

fn assert_seconds(lag: &Lag, now: f64, expected: f64) {
    let seconds = lag.seconds(at(now));
    assert!((seconds - expected).abs() < 1e-6, "at {now}: {seconds}, expected {expected}");
}

#[test]
fn an_idle_pair_has_no_lag_however_old_its_last_commit_is() {
    let mut lag = caught_up_at(5000.0);
    assert_seconds(&lag, 5000.0, 0.0);
    assert_seconds(&lag, 5003.0, 0.0);
    lag.polled(lsn(100), None, at(5004.0));
    lag.contact(Side::Target, at(5004.0));
    assert_seconds(&lag, 5005.0, 0.0);
}

#[test]
fn a_silent_source_lets_the_lag_grow_from_the_last_poll() {
    let mut lag = caught_up_at(100.0);
    lag.contact(Side::Target, at(160.0));
    assert_seconds(&lag, 103.5, 3.5);
    assert_seconds(&lag, 160.0, 60.0);
    lag.polled(lsn(100), None, at(161.0));
    assert_seconds(&lag, 161.0, 0.0);
}

#[test]
fn a_silent_target_lets_the_lag_grow_although_the_source_is_idle() {
    let mut lag = caught_up_at(100.0);
    for second in 101..=160 {
        lag.polled(lsn(100), None, at(f64::from(second)));
    }
    assert_seconds(&lag, 160.0, 60.0);
    lag.contact(Side::Target, at(160.0));
    assert_seconds(&lag, 160.0, 0.0);
}

#[test]
fn a_commit_after_a_quiet_hour_does_not_look_like_an_hour_of_lag() {
    let mut lag = caught_up_at(3600.0);
    lag.oldest_unapplied(Some(at(3600.5)), at(3600.6));
    lag.contact(Side::Target, at(3600.6));
    assert_seconds(&lag, 3600.75, 0.25);
}

#[test]
fn a_source_clock_that_runs_ahead_hides_no_backlog() {
    let mut lag = Lag::new(at(0.0));
    lag.opened(lsn(100), None, at(0.0));
    // Ten minutes ahead; what becomes visible now was committed two minutes ago.
    lag.polled(lsn(9000), Some(at(1600.0)), at(1000.0));
    lag.applied(lsn(200), Some(at(1480.0)), at(1000.0));
    assert_seconds(&lag, 1000.0, 120.0);
}

#[test]
fn a_target_that_lost_commits_in_a_crash_is_not_current_any_more() {
    let mut lag = Lag::new(at(0.0));
    lag.opened(lsn(100), Some(at(10.0)), at(20.0));
    lag.applied(lsn(200), Some(at(50.0)), at(50.0));
    lag.polled(lsn(200), None, at(100.0));
    assert_seconds(&lag, 100.0, 50.0);
    lag.contact(Side::Target, at(100.0));
    assert_seconds(&lag, 100.0, 0.0);

    lag.opened(lsn(100), Some(at(10.0)), at(101.0));
    assert_seconds(&lag, 101.0, 91.0);
    lag.applied(lsn(200), Some(at(50.0)), at(101.5));
    assert_seconds(&lag, 101.5, 0.0);
}

#[test]
fn a_bare_position_that_was_not_stored_is_no_loss() {
    let mut lag = caught_up_at(5000.0);
    lag.reached(lsn(170));
    lag.polled(lsn(170), None, at(5001.0));
    lag.opened(lsn(100), Some(at(0.0)), at(5001.0));
    assert_seconds(&lag, 5001.0, 0.0);
    assert_eq!(lag.applied_lsn(), Some(lsn(170)));
}

#[test]
fn bytes_are_those_between_the_stages_and_the_source() {
    let mut lag = Lag::new(at(0.0));
    assert_eq!(lag.bytes(), None);
    lag.opened(lsn(100), None, at(0.0));
    assert_eq!(lag.bytes(), None);
    lag.polled(lsn(1000), None, at(0.0));
    lag.received(lsn(600));
    let bytes = lag.bytes().unwrap();
    assert_eq!((bytes.received, bytes.applied, bytes.durable), (400, 900, None));
    lag.durable(lsn(100));
    lag.received(lsn(2000));
    let bytes = lag.bytes().unwrap();
    assert_eq!((bytes.received, bytes.durable), (0, Some(900)), "a poll may be older than what came since");
}
