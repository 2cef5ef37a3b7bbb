//! Points in time as the replication protocol carries them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const UNIX_TO_POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Microseconds since 2000-01-01 00:00:00 UTC, PostgreSQL's `TimestampTz`
/// (manual, *Streaming Replication Protocol*: "microseconds since midnight on 2000-01-01").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since 2000-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn from_postgres_us(us: i64) -> Self {
        Self(us)
    }

    /// From microseconds since 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn from_unix_us(us: i64) -> Self {
        Self(us.saturating_sub(UNIX_TO_POSTGRES_EPOCH_US))
    }

    /// Microseconds since 2000-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn postgres_us(self) -> i64 {
        self.0
    }

    /// Microseconds since 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn unix_us(self) -> i64 {
        self.0.saturating_add(UNIX_TO_POSTGRES_EPOCH_US)
    }

    /// This machine's clock. The source's clock may differ from it; `relevo check` shows by how much.
    #[must_use]
    pub fn now() -> Self {
        let us = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => Self::from_unix_us(us(after)),
            Err(before) => Self::from_unix_us(-us(before.duration())),
        }
    }

    /// Seconds from `earlier` to `self`; 0 when the clocks disagree and `earlier` is later.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a lag needs no more than 52 bits of microseconds")]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0).max(0) as f64 / 1e6
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::from_unix_us(i64::try_from(after.as_micros()).unwrap_or(i64::MAX)),
            Err(before) => {
                Self::from_unix_us(-i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX))
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let us = time.unix_us();
        let distance = Duration::from_micros(us.unsigned_abs());
        if us >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_epochs_are_thirty_years_apart() {
        assert_eq!(Timestamp::from_postgres_us(0).unix_us(), 946_684_800_000_000);
        assert_eq!(Timestamp::from_unix_us(0).postgres_us(), -946_684_800_000_000);
    }

    #[test]
    fn system_time_round_trips_on_both_sides_of_1970() {
        for us in [-1_500_000, 0, 1, 946_684_800_000_001] {
            let time = Timestamp::from_unix_us(us);
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }
    }

    #[test]
    fn a_clock_that_runs_behind_gives_zero_not_a_negative_lag() {
        let (early, late) = (Timestamp::from_postgres_us(0), Timestamp::from_postgres_us(2_500_000));
        assert!((late.seconds_since(early) - 2.5).abs() < f64::EPSILON);
        assert!(early.seconds_since(late).abs() < f64::EPSILON);
    }
}
