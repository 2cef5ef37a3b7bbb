//! What the last quarter of an hour was like: one sample each five seconds, in bounded memory. Pure: time and counts
//! are given.
//!
//! A sample says what was so at its moment, and rates since the sample before it. What is not known is `None`, never 0: a
//! source that does not answer writes an unknown amount of WAL. If nobody looks for a while, the times of the samples say
//! so, and whoever draws them leaves a gap.

use std::collections::VecDeque;

use relevo_model::{SourceLsn, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Role, RunState, SlotStatus};

/// How far apart samples lie, in seconds.
pub(crate) const INTERVAL_SECONDS: f64 = 5.0;
/// Whoever looks each second is a little early or late.
const SLACK_SECONDS: f64 = 0.25;
/// How far back samples reach, in seconds.
pub(crate) const SPAN_SECONDS: f64 = 900.0;
/// A quarter of an hour, both ends included.
const SAMPLES_KEPT: usize = 181;
/// The present rate is that of so many seconds.
const RATE_WINDOW_SECONDS: f64 = 300.0;
/// Before so many seconds a rate of the slot says nothing: it moves on in steps.
const RATE_LEAST_SECONDS: f64 = 30.0;
/// What a slot keeps that keeps up is never quite the same. Growth by less than this share of the WAL that is written is none.
const NO_GROWTH: f64 = 0.05;

/// What is known at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    pub(crate) role: Role,
    pub(crate) epoch: u64,
    pub(crate) state: RunState,
    /// `None` on the primary, which is behind nobody.
    pub(crate) lag_seconds: Option<f64>,
    pub(crate) lag_bytes: Option<u64>,
    /// Since the process started.
    pub(crate) transactions: u64,
    /// Since the process started.
    pub(crate) changes: u64,
    /// Where the source's WAL ends, if it said so a moment ago.
    pub(crate) source_lsn: Option<SourceLsn>,
    /// The slot, if the source said so a moment ago.
    pub(crate) slot: Option<SlotStatus>,
}

/// How things were at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When, in milliseconds since 1970-01-01 UTC, by Relevo's clock.
    pub at_unix_ms: i64,
    /// The role of the node.
    pub role: Role,
    /// The epoch.
    pub epoch: u64,
    /// What the flow did.
    pub state: RunState,
    /// The greatest lag since the sample before, as it was seen each second; `null` on the primary.
    pub lag_seconds: Option<f64>,
    /// WAL of the source that was not applied, in bytes; `null`: not known.
    pub lag_bytes: Option<u64>,
    /// Transactions applied, a second, since the sample before; `null` for the first.
    pub transactions_per_second: Option<f64>,
    /// Rows and truncations applied, a second, since the sample before; `null` for the first.
    pub changes_per_second: Option<f64>,
    /// WAL that the source wrote, a second, since the sample before; `null`: not known.
    pub wal_bytes_per_second: Option<f64>,
    /// WAL that the source keeps for the slot, in bytes; `null`: not known.
    pub retained_bytes: Option<u64>,
    /// WAL that can still be written before the slot is in danger, in bytes; `null`: no limit, or not known.
    pub safe_bytes: Option<u64>,
}

/// How long the slot's WAL will last. Rates are those of the last five minutes, or of as much as is known, half a minute at
/// the least.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SlotBudget {
    /// WAL that the source writes, in bytes a second; `null`: not known.
    pub wal_bytes_per_second: Option<f64>,
    /// How long until the slot is in danger if the budget goes on shrinking as it does, in seconds; `null`: it does not
    /// shrink, there is no limit, or it is not known.
    pub remaining_seconds: Option<f64>,
    /// How long until then if nothing were confirmed from now on, in seconds; `null`: nothing is written, there is no
    /// limit, or it is not known.
    pub remaining_if_stopped_seconds: Option<f64>,
}

/// The document of `/api/history`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistorySnapshot {
    /// When this was said, in milliseconds since 1970-01-01 UTC, by Relevo's clock.
    pub now_unix_ms: i64,
    /// How far apart samples lie, in seconds, as long as somebody looks.
    pub interval_seconds: f64,
    /// How far back they reach at most, in seconds.
    pub span_seconds: f64,
    /// How long the slot's WAL will last.
    pub slot_budget: SlotBudget,
    /// The samples, the oldest first.
    pub samples: Vec<Sample>,
}

/// What the samples of one source have in common with the next.
#[derive(Debug, Clone)]
struct Last {
    at: Timestamp,
    reading: Reading,
}

/// The samples of the last quarter of an hour.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    samples: VecDeque<Sample>,
    last: Option<Last>,
    /// The greatest lag since the last sample.
    greatest_lag_seconds: Option<f64>,
}

/// In milliseconds since 1970-01-01 UTC.
pub(crate) const fn unix_ms(time: Timestamp) -> i64 {
    time.unix_us().div_euclid(1000)
}

impl History {
    /// This is so now. Call it more often than samples are taken, so that none of them misses a short lag.
    pub(crate) fn look(&mut self, now: Timestamp, reading: &Reading) {
        let (before, seen) = (self.greatest_lag_seconds, reading.lag_seconds);
        self.greatest_lag_seconds = match (before, seen) {
            (Some(before), Some(seen)) => Some(before.max(seen)),
            (before, seen) => seen.or(before),
        };
        let due = INTERVAL_SECONDS - SLACK_SECONDS;
        if self.last.as_ref().is_some_and(|last| now.seconds_since(last.at) < due) {
            return;
        }
        let sample = self.sample(now, reading);
        self.samples.push_back(sample);
        while self.samples.len() > SAMPLES_KEPT {
            self.samples.pop_front();
        }
        self.greatest_lag_seconds = None;
        self.last = Some(Last { at: now, reading: reading.clone() });
    }

    fn sample(&self, now: Timestamp, reading: &Reading) -> Sample {
        let last = self.last.as_ref();
        let rate = |count: fn(&Reading) -> u64| {
            let last = last?;
            let since = count(reading).checked_sub(count(&last.reading))?;
            Some(float(since) / now.seconds_since(last.at))
        };
        let written = || {
            let last = last.filter(|last| last.reading.epoch == reading.epoch)?;
            let (from, to) = (last.reading.source_lsn?, reading.source_lsn?);
            // Another source, or one that was restored.
            let bytes = to.as_u64().checked_sub(from.as_u64())?;
            Some(float(bytes) / now.seconds_since(last.at))
        };
        Sample {
            at_unix_ms: unix_ms(now),
            role: reading.role,
            epoch: reading.epoch,
            state: reading.state,
            // Nobody is ahead of the primary, whatever it was a moment ago.
            lag_seconds: reading.lag_seconds.and(self.greatest_lag_seconds),
            lag_bytes: reading.lag_bytes,
            transactions_per_second: rate(|reading| reading.transactions),
            changes_per_second: rate(|reading| reading.changes),
            wal_bytes_per_second: written(),
            retained_bytes: reading.slot.as_ref().and_then(|slot| slot.retained_bytes),
            safe_bytes: reading.slot.as_ref().and_then(|slot| slot.safe_bytes),
        }
    }

    /// All that is known, as of now.
    pub(crate) fn snapshot(&self, now: Timestamp) -> HistorySnapshot {
        let age_seconds = |sample: &Sample| float(unix_ms(now).abs_diff(sample.at_unix_ms)) / 1000.0;
        let is_recent = |sample: &&Sample| age_seconds(sample) <= SPAN_SECONDS;
        HistorySnapshot {
            now_unix_ms: unix_ms(now),
            interval_seconds: INTERVAL_SECONDS,
            span_seconds: SPAN_SECONDS,
            slot_budget: self.budget(now),
            samples: self.samples.iter().filter(is_recent).cloned().collect(),
        }
    }

    /// How long the slot lasts by what it was like lately, under the same source and without an interruption.
    fn budget(&self, now: Timestamp) -> SlotBudget {
        let Some(last) = self.samples.back() else { return SlotBudget::default() };
        let age_seconds = |sample: &Sample| float(unix_ms(now).abs_diff(sample.at_unix_ms)) / 1000.0;
        if age_seconds(last) > 3.0 * INTERVAL_SECONDS {
            // Nobody has looked for a while: the present rate is not known.
            return SlotBudget::default();
        }
        let counts = |sample: &&Sample| {
            sample.epoch == last.epoch
                && sample.retained_bytes.is_some()
                && age_seconds(sample) <= RATE_WINDOW_SECONDS
        };
        let recent = || self.samples.iter().rev().take_while(counts);
        let Some(first) = recent().last() else { return SlotBudget::default() };
        let seconds = float(last.at_unix_ms.abs_diff(first.at_unix_ms)) / 1000.0;
        if seconds < RATE_LEAST_SECONDS {
            return SlotBudget::default();
        }
        let known: Vec<f64> = recent()
            .filter(|sample| sample.at_unix_ms > first.at_unix_ms)
            .filter_map(|sample| sample.wal_bytes_per_second)
            .collect();
        let wal = (!known.is_empty()).then(|| known.iter().sum::<f64>() / float(known.len() as u64));
        let growing = growth(recent(), first.at_unix_ms.midpoint(last.at_unix_ms))
            .filter(|rate| *rate > NO_GROWTH * wal.unwrap_or(0.0));
        let lasts = |rate: Option<f64>| {
            let (safe, rate) = last.safe_bytes.zip(rate.filter(|rate| *rate > 0.0))?;
            Some(float(safe) / rate)
        };
        SlotBudget {
            wal_bytes_per_second: wal,
            remaining_seconds: lasts(growing),
            remaining_if_stopped_seconds: lasts(wal),
        }
    }
}

/// By how much what the slot keeps grows, in bytes a second: from the least before `middle_unix_ms` to the least since. The
/// server moves slots on in steps, and counts what may still be written in whole segments of 16 MiB; so neither the first and
/// the last sample nor the budget itself say whether a slot falls behind.
fn growth<'s>(samples: impl Iterator<Item = &'s Sample>, middle_unix_ms: i64) -> Option<f64> {
    let (mut before, mut since): (Option<&Sample>, Option<&Sample>) = (None, None);
    for sample in samples {
        let least = if sample.at_unix_ms < middle_unix_ms { &mut before } else { &mut since };
        if least.is_none_or(|least| sample.retained_bytes <= least.retained_bytes) {
            *least = Some(sample);
        }
    }
    let (before, since) = before.zip(since)?;
    let bytes = float(since.retained_bytes?) - float(before.retained_bytes?);
    Some(bytes * 1000.0 / float(since.at_unix_ms.abs_diff(before.at_unix_ms)))
}

#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[expect(clippy::cast_possible_truncation, reason = "times of a test")]
    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_unix_us((1e6 + seconds * 1e6).round() as i64)
    }

    fn reading() -> Reading {
        Reading {
            role: Role::Standby,
            epoch: 1,
            state: RunState::Streaming,
            lag_seconds: Some(0.0),
            lag_bytes: Some(0),
            transactions: 0,
            changes: 0,
            source_lsn: Some(SourceLsn::new(1000)),
            slot: None,
        }
    }

    fn slot(retained_bytes: u64, safe_bytes: Option<u64>) -> Option<SlotStatus> {
        Some(SlotStatus {
            name: "relevo_shop".to_owned(),
            wal_status: Some("reserved".to_owned()),
            retained_bytes: Some(retained_bytes),
            safe_bytes,
        })
    }

    #[track_caller]
    fn is(value: Option<f64>, expected: f64) {
        assert!(value.is_some_and(|value| (value - expected).abs() < 1e-6), "{value:?}, expected {expected}");
    }

    #[test]
    fn a_sample_each_five_seconds_with_rates_since_the_one_before_and_the_greatest_lag() {
        let mut history = History::default();
        for second in 0..=10_u32 {
            let lag_seconds = Some(if second == 7 { 3.5 } else { 0.0 });
            let (transactions, changes) = (u64::from(second) * 2, u64::from(second) * 30);
            let source_lsn = Some(SourceLsn::new(1000 + u64::from(second) * 100));
            let now = Reading { lag_seconds, transactions, changes, source_lsn, ..reading() };
            // A timer is a little early or late.
            history.look(at(f64::from(second) + if second % 2 == 0 { 0.1 } else { -0.1 }), &now);
        }
        let samples = history.snapshot(at(11.0)).samples;
        assert_eq!(samples.iter().map(|sample| sample.at_unix_ms).collect::<Vec<_>>(), [1100, 5900, 11_100]);
        assert_eq!((samples[0].transactions_per_second, samples[0].wal_bytes_per_second), (None, None));
        is(samples[1].transactions_per_second, 10.0 / 4.8);
        is(samples[1].changes_per_second, 150.0 / 4.8);
        is(samples[2].wal_bytes_per_second, 500.0 / 5.2);
        is(samples[1].lag_seconds, 0.0);
        is(samples[2].lag_seconds, 3.5);
    }

    #[test]
    fn no_more_is_kept_than_a_quarter_of_an_hour_however_long_it_runs() {
        let mut history = History::default();
        for second in 0..10_000_u32 {
            history.look(at(f64::from(second)), &reading());
            assert!(history.samples.len() <= SAMPLES_KEPT);
        }
        let full = history.snapshot(at(9_999.0));
        assert_eq!(full.samples.len(), 180);
        assert!(full.samples[0].at_unix_ms >= full.now_unix_ms - 900_000);
        // Nobody looked for ten minutes, and for an hour: what is older than the span is not shown.
        assert_eq!(history.snapshot(at(10_599.0)).samples.len(), 60);
        assert!(history.snapshot(at(13_600.0)).samples.is_empty());
    }

    #[test]
    fn a_gap_is_a_gap_and_the_rate_behind_it_is_that_of_the_whole_time() {
        let mut history = History::default();
        history.look(at(0.0), &reading());
        history.look(at(100.0), &Reading { transactions: 50, ..reading() });
        let samples = history.snapshot(at(100.0)).samples;
        assert_eq!(samples.len(), 2);
        is(samples[1].transactions_per_second, 0.5);
    }

    #[test]
    fn what_is_not_known_is_not_nought() {
        let mut history = History::default();
        history.look(at(0.0), &reading());
        history.look(at(5.0), &Reading { source_lsn: None, ..reading() });
        history.look(at(10.0), &Reading { source_lsn: Some(SourceLsn::new(5000)), ..reading() });
        // The role has moved: another source, whose positions have nothing to do with the ones before.
        history.look(at(15.0), &Reading { epoch: 2, source_lsn: Some(SourceLsn::new(9000)), ..reading() });
        history.look(at(20.0), &Reading { epoch: 2, source_lsn: Some(SourceLsn::new(10)), ..reading() });
        let primary = Reading { role: Role::Primary, lag_seconds: None, epoch: 3, ..reading() };
        history.look(at(25.0), &primary);
        let samples = history.snapshot(at(25.0)).samples;
        for sample in &samples {
            assert_eq!(sample.wal_bytes_per_second, None, "{sample:?}");
            assert_eq!((sample.retained_bytes, sample.safe_bytes), (None, None));
        }
        assert_eq!(samples[5].lag_seconds, None);
    }

    #[test]
    fn the_slot_lasts_as_long_as_its_budget_shrinks_and_wal_is_written() {
        let mut history = History::default();
        let budget_at = |history: &mut History, second: u32, (kept, safe): (u64, Option<u64>)| {
            let source_lsn = Some(SourceLsn::new(u64::from(second) * 2 * MIB));
            history.look(at(f64::from(second)), &Reading { source_lsn, slot: slot(kept, safe), ..reading() });
            history.snapshot(at(f64::from(second))).slot_budget
        };
        // 1 MiB/s goes, 2 MiB/s are written.
        for second in (0..30).step_by(5) {
            let slot = (u64::from(second) * MIB, Some((1000 - u64::from(second)) * MIB));
            assert_eq!(budget_at(&mut history, second, slot), SlotBudget::default(), "too early");
        }
        let budget = budget_at(&mut history, 30, (30 * MIB, Some(970 * MIB)));
        is(budget.wal_bytes_per_second, float(2 * MIB));
        is(budget.remaining_seconds, 970.0);
        is(budget.remaining_if_stopped_seconds, 485.0);
        // The slot has moved on.
        let budget = budget_at(&mut history, 35, (0, Some(1000 * MIB)));
        assert_eq!(budget.remaining_seconds, None);
        is(budget.remaining_if_stopped_seconds, 500.0);
        // There is no limit.
        let budget = budget_at(&mut history, 40, (0, None));
        assert_eq!((budget.remaining_seconds, budget.remaining_if_stopped_seconds), (None, None));
        is(budget.wal_bytes_per_second, float(2 * MIB));
        // Nobody has looked since.
        assert_eq!(history.snapshot(at(60.0)).slot_budget, SlotBudget::default());
    }

    /// The server counts what may still be written from the beginning of the segment that the slot needs.
    #[test]
    fn a_slot_that_keeps_up_is_in_no_danger_although_its_budget_shrinks_within_a_segment() {
        let mut history = History::default();
        for second in (0..400_u64).step_by(5) {
            // 36 KiB/s: a segment lasts for more than the five minutes. The slot moves on every 15 s.
            let source_lsn = Some(SourceLsn::new(second * 36 * 1024));
            let slot = slot(second % 15 * 36 * 1024, Some(2048 * MIB - second * 36 * 1024));
            history.look(at(float(second)), &Reading { source_lsn, slot, ..reading() });
            let budget = history.snapshot(at(float(second))).slot_budget;
            assert_eq!(budget.remaining_seconds, None, "after {second} s");
        }
    }

    #[test]
    fn the_present_rate_is_that_of_one_source_and_of_the_last_minutes() {
        let mut history = History::default();
        for second in (0..1200_u64).step_by(5) {
            // Long ago it went fast; later, slowly.
            let safe =
                if second < 600 { 9000 * MIB - second * MIB } else { 8400 * MIB - (second - 600) * 1024 };
            let now = Reading { slot: slot(9000 * MIB - safe, Some(safe)), ..reading() };
            history.look(at(float(second)), &now);
        }
        let safe = float(8400 * MIB - 595 * 1024);
        is(history.snapshot(at(1195.0)).slot_budget.remaining_seconds, safe / 1024.0);
        let moved = Reading { epoch: 2, slot: slot(1, Some(5)), ..reading() };
        history.look(at(1200.0), &moved);
        assert_eq!(history.snapshot(at(1200.0)).slot_budget, SlotBudget::default());
    }
}
