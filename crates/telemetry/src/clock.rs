//! A clock that never jumps.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relevo_model::Timestamp;

/// Where "now" comes from.
///
/// The system's wall clock is read once; from then on the monotonic clock counts. A wall clock that is set back
/// would otherwise make everything look as if it had been heard from a moment ago, for as long as the step.
/// How far the source's clock is from this one is measured at each poll, so that it need not be right.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        let (wall, start) = (Timestamp::now(), Instant::now());
        Self::from_fn(move || later(wall, start.elapsed()))
    }

    /// A clock of one's own, for tests.
    #[must_use]
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// `by` after `time`.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by_us = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_postgres_us(time.postgres_us().saturating_add(by_us))
}
