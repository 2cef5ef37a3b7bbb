//! What was seen over the last minutes: how fast things move, and the small curves made of it.
//!
//! Pure: time comes in as seconds. What may not enter: anything that asks or draws.

use std::collections::VecDeque;

use relevo_model::SourceLsn;

use crate::status::Status;

/// How long a sample is kept, in seconds: as long as a curve is.
pub const SPAN_SECONDS: f64 = 300.0;
/// Over how many seconds a rate is taken.
const RATE_SECONDS: f64 = 30.0;
/// Within less nothing can be said of a rate, in seconds.
const LEAST_RATE_SECONDS: f64 = 0.5;
/// The heights of a curve's columns, from the lowest to the highest.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[derive(Debug, Clone, Copy)]
struct Sample {
    at_seconds: f64,
    lag_seconds: Option<f64>,
    source_bytes: Option<u64>,
    applied_bytes: Option<u64>,
}

/// The samples, and whom they are of.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    primary: Option<String>,
}

/// A small curve of text, one character a column.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The columns; a blank where nothing is known.
    pub text: String,
    /// What the highest column stands for.
    pub greatest: f64,
}

impl History {
    /// Takes note of what was seen at a time, in seconds since any moment that stays the same.
    pub fn note(&mut self, at_seconds: f64, status: &Status) {
        if self.primary != status.primary {
            // Positions of another source cannot be compared with these.
            self.samples.clear();
            self.primary.clone_from(&status.primary);
        }
        let bytes = |lsn: &Option<String>| {
            lsn.as_ref().and_then(|lsn| lsn.parse::<SourceLsn>().ok()).map(SourceLsn::as_u64)
        };
        self.samples.push_back(Sample {
            at_seconds,
            lag_seconds: status.lag_seconds,
            source_bytes: bytes(&status.source_lsn),
            applied_bytes: bytes(&status.applied_lsn),
        });
        while self.samples.front().is_some_and(|sample| sample.at_seconds < at_seconds - SPAN_SECONDS) {
            self.samples.pop_front();
        }
    }

    /// How fast the source writes WAL, in bytes a second.
    #[must_use]
    pub fn source_rate(&self) -> Option<f64> {
        self.rate(|sample| sample.source_bytes)
    }

    /// How fast it is applied, in bytes of the source's WAL a second.
    #[must_use]
    pub fn applied_rate(&self) -> Option<f64> {
        self.rate(|sample| sample.applied_bytes)
    }

    fn rate(&self, value: impl Fn(&Sample) -> Option<u64>) -> Option<f64> {
        let last_seconds = self.samples.back()?.at_seconds;
        let known = || {
            let recent = self.samples.iter().filter(|s| s.at_seconds >= last_seconds - RATE_SECONDS);
            recent.filter_map(|sample| Some((sample.at_seconds, value(sample)?)))
        };
        let ((from_seconds, from), (to_seconds, to)) = (known().next()?, known().last()?);
        let seconds = to_seconds - from_seconds;
        (seconds >= LEAST_RATE_SECONDS).then(|| difference(from, to) / seconds)
    }

    /// The lag in seconds, up to now.
    #[must_use]
    pub fn lag_curve(&self, now_seconds: f64, width: usize) -> Curve {
        let values = self.samples.iter().filter_map(|s| Some((s.at_seconds, s.lag_seconds?)));
        curve(values, now_seconds, width)
    }

    /// What was applied, in bytes a second, up to now.
    #[must_use]
    pub fn applied_curve(&self, now_seconds: f64, width: usize) -> Curve {
        let known: Vec<(f64, u64)> =
            self.samples.iter().filter_map(|s| Some((s.at_seconds, s.applied_bytes?))).collect();
        let steps = known.windows(2).filter_map(|pair| match pair {
            [(from_seconds, from), (to_seconds, to)] => {
                let seconds = (to_seconds - from_seconds).max(0.001);
                Some((*to_seconds, difference(*from, *to) / seconds))
            }
            _ => None,
        });
        curve(steps, now_seconds, width)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a rate")]
fn difference(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64
}

/// Each column is a stretch of time and the greatest value in it; the last one ends now.
fn curve(values: impl Iterator<Item = (f64, f64)>, now_seconds: f64, width: usize) -> Curve {
    let mut columns: Vec<Option<f64>> = vec![None; width];
    #[expect(clippy::cast_precision_loss, reason = "a number of columns")]
    let column_seconds = SPAN_SECONDS / width.max(1) as f64;
    for (at_seconds, value) in values {
        let age = (now_seconds - at_seconds).max(0.0) / column_seconds;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and small"
        )]
        let back = age as usize;
        if let Some(column) = width.checked_sub(back + 1).and_then(|at| columns.get_mut(at)) {
            *column = Some(column.map_or(value, |before| before.max(value)));
        }
    }
    let greatest = columns.iter().flatten().copied().fold(0.0, f64::max);
    let height = |value: f64| {
        if greatest <= 0.0 {
            return HEIGHTS[0];
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 7")]
        let step = (value / greatest * 7.0).round().clamp(0.0, 7.0) as usize;
        HEIGHTS[step.min(7)]
    };
    Curve { text: columns.into_iter().map(|column| column.map_or(' ', height)).collect(), greatest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::watch::picture::tests::status;

    fn at(lag_seconds: f64, source: u64, applied: u64) -> Status {
        let text = |lsn: u64| Some(SourceLsn::new(lsn).to_string());
        Status {
            lag_seconds: Some(lag_seconds),
            source_lsn: text(source),
            applied_lsn: text(applied),
            ..status()
        }
    }

    #[test]
    fn rates_are_those_of_the_last_half_minute() {
        let mut history = History::default();
        assert_eq!(history.source_rate(), None);
        for second in 0..120_u32 {
            // Ten times as fast in the end.
            let bytes = if second < 60 { u64::from(second) } else { 60 + u64::from(second - 60) * 10 };
            history.note(f64::from(second), &at(0.5, bytes * 2 + 1000, bytes + 1000));
        }
        assert_eq!(history.source_rate(), Some(20.0));
        assert_eq!(history.applied_rate(), Some(10.0));
    }

    #[test]
    fn another_source_begins_anew_and_old_samples_go() {
        let mut history = History::default();
        history.note(0.0, &at(1.0, 1000, 1000));
        history.note(1.0, &Status { primary: Some("b".to_owned()), ..at(1.0, 5, 5) });
        assert_eq!(history.samples.len(), 1);
        for second in 0..1000_u32 {
            let status = Status { primary: Some("b".to_owned()), ..at(1.0, 5, 5) };
            history.note(f64::from(second), &status);
        }
        assert!(history.samples.len() <= 302, "{}", history.samples.len());
    }

    #[test]
    fn a_curve_ends_now_and_is_blank_where_nothing_is_known() {
        let mut history = History::default();
        for (second, lag) in [(240.0, 1.0), (270.0, 8.0), (299.0, 4.0)] {
            history.note(second, &at(lag, 1, 1));
        }
        let curve = history.lag_curve(300.0, 10);
        assert_eq!((curve.text.as_str(), curve.greatest), ("       ▂█▅", 8.0));
        assert_eq!(History::default().lag_curve(1.0, 3).text, "   ");
        history.note(300.0, &at(0.0, 1, 1));
        assert_eq!(history.lag_curve(1e6, 3).text, "   ", "it is long ago");
    }
}
