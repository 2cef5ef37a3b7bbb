//! The one retry table, and how often the same error is worth a line in the log.
//!
//! Every retry of a flow is decided here; no other place in the program retries a replication session.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use relevo_model::{Fault, FaultClass, Side};
use tokio::time::Instant;

use crate::{FlowError, FlowState};

/// What is done about one class of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRule {
    /// The first pause. Each further one is twice as long.
    pub initial: Duration,
    /// The longest pause.
    pub cap: Duration,
    /// The state that is reported meanwhile.
    pub state: FlowState,
}

/// The table. `None`: not retried; the flow ends with the error.
#[must_use]
pub const fn retry_rule(class: FaultClass) -> Option<RetryRule> {
    match class {
        FaultClass::Transient => Some(RetryRule {
            initial: Duration::from_millis(100),
            cap: Duration::from_secs(10),
            state: FlowState::Retrying,
        }),
        // Somebody mends it: look often enough that they see the flow go on while they are still there.
        FaultClass::Blocked => Some(RetryRule {
            initial: Duration::from_millis(500),
            cap: Duration::from_secs(5),
            state: FlowState::Failed,
        }),
        FaultClass::Refused => None,
    }
}

/// Counts the attempts in a row and says how long to wait.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// No attempt has failed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many attempts have failed in a row.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Something worked: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The pause before the next attempt, with jitter: between half and the whole of the exponential pause, so
    /// that flows which lost the same server do not all come back at the same instant.
    pub fn pause(&mut self, rule: &RetryRule) -> Duration {
        let random = RandomState::new().build_hasher().finish();
        self.pause_with(rule, random)
    }

    fn pause_with(&mut self, rule: &RetryRule, random: u64) -> Duration {
        let doublings = self.attempts.min(16);
        self.attempts = self.attempts.saturating_add(1);
        let full = rule.initial.saturating_mul(1 << doublings).min(rule.cap);
        let half = full / 2;
        let span_us = u64::try_from((full - half).as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_micros(random % span_us)
    }
}

/// Keeps an error that returns at every attempt from filling the log.
#[derive(Debug, Default)]
pub struct Repeats {
    last: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    side: Side,
    kind: &'static str,
    text: String,
    logged_at: Instant,
    silent: u64,
}

impl Repeats {
    /// How often the same error is logged at most.
    pub const INTERVAL: Duration = Duration::from_secs(60);

    /// No error was seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Something worked: the next error is a new one, whatever it says.
    pub fn reset(&mut self) {
        self.last = None;
    }

    /// An error came. `Some(n)`: log it, and say that it came `n` times since it was last logged.
    pub fn note(&mut self, error: &FlowError, text: &str, now: Instant) -> Option<u64> {
        let (side, kind) = (error.side(), error.kind());
        if let Some(seen) = &mut self.last
            && (seen.side, seen.kind, seen.text.as_str()) == (side, kind, text)
        {
            seen.silent += 1;
            if now.saturating_duration_since(seen.logged_at) < Self::INTERVAL {
                return None;
            }
            seen.logged_at = now;
            return Some(std::mem::take(&mut seen.silent));
        }
        self.last = Some(Seen { side, kind, text: text.to_owned(), logged_at: now, silent: 0 });
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(class: FaultClass, random: u64, count: usize) -> Vec<u128> {
        let rule = retry_rule(class).unwrap();
        let mut backoff = Backoff::new();
        (0..count).map(|_| backoff.pause_with(&rule, random).as_millis()).collect()
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_start_anew_after_a_success() {
        let shortest = pauses(FaultClass::Transient, 0, 9);
        assert_eq!(shortest, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pauses(FaultClass::Blocked, 0, 6), [250, 500, 1000, 2000, 2500, 2500]);

        let rule = retry_rule(FaultClass::Transient).unwrap();
        let mut backoff = Backoff::new();
        for _ in 0..100 {
            let pause = backoff.pause(&rule);
            assert!(pause <= rule.cap);
        }
        assert!(backoff.pause(&rule) >= rule.cap / 2);
        backoff.reset();
        assert!(backoff.pause(&rule) <= rule.initial);
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        for random in [0, 1, 49_999, 50_000, 50_001, u64::MAX] {
            let first = pauses(FaultClass::Transient, random, 1)[0];
            assert!((50..=100).contains(&first), "{random}: {first}");
        }
    }

    #[test]
    fn what_is_unsafe_is_never_retried() {
        assert_eq!(retry_rule(FaultClass::Refused), None);
    }

    #[test]
    fn the_same_error_is_logged_once_and_then_every_minute_with_a_count() {
        let error = FlowError::TargetSilent { silent_seconds: 60 };
        let start = Instant::now();
        let mut repeats = Repeats::new();
        let logged: Vec<(u64, u64)> = (0..=130)
            .filter_map(|second| {
                let now = start + Duration::from_secs(second);
                repeats.note(&error, "the same", now).map(|count| (second, count))
            })
            .collect();
        assert_eq!(logged, [(0, 1), (60, 60), (120, 60)]);
        let now = start + Duration::from_secs(131);
        assert_eq!(repeats.note(&error, "another", now), Some(1));
        repeats.reset();
        assert_eq!(repeats.note(&error, "another", now), Some(1));
    }
}
