//! How fast rows are copied, and how long the rest will take. Pure: time and counts are given.

use std::collections::VecDeque;

use relevo_model::Timestamp;

use crate::{TableProgress, TableState};

/// The rate is that of so many seconds.
const WINDOW_SECONDS: f64 = 30.0;
/// How far apart what is remembered lies, in seconds.
const SAMPLE_SECONDS: f64 = 0.5;
/// Before so many seconds a rate says nothing.
const LEAST_SECONDS: f64 = 1.0;

/// How much was sent, and when.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    sent_bytes: u64,
    /// Moments with what had been sent by then, the oldest first.
    samples: VecDeque<(Timestamp, u64)>,
}

impl Pace {
    /// Rows begin to flow: what was before does not count.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.samples = VecDeque::from([(now, self.sent_bytes)]);
    }

    /// No rows flow any more.
    pub(crate) fn end(&mut self) {
        self.samples.clear();
    }

    /// So much more was sent.
    pub(crate) fn sent(&mut self, bytes: u64, now: Timestamp) {
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        match self.samples.back() {
            None => return,
            Some((last, _)) if now.seconds_since(*last) < SAMPLE_SECONDS => return,
            Some(_) => self.samples.push_back((now, self.sent_bytes)),
        }
        // The last one before the window stays: the window begins somewhere behind it.
        while self.samples.get(1).is_some_and(|(at, _)| now.seconds_since(*at) >= WINDOW_SECONDS) {
            self.samples.pop_front();
        }
    }

    /// Bytes in a second; `None` while it is too early to say, or no rows flow.
    pub(crate) fn bytes_per_second(&self, now: Timestamp) -> Option<u64> {
        let in_window = |(at, _): &&(Timestamp, u64)| now.seconds_since(*at) <= WINDOW_SECONDS;
        let (since, sent) = self.samples.iter().find(in_window).or_else(|| self.samples.back())?;
        let seconds = now.seconds_since(*since);
        (seconds >= LEAST_SECONDS).then(|| whole(float(self.sent_bytes - sent) / seconds))
    }
}

/// How long it takes at this rate until every table has its rows, in seconds. Tables are measured as they lie on the
/// source, rows as COPY writes them; how the two compare is seen from the tables that are done. `None`: not known.
pub(crate) fn remaining_seconds<'t>(
    tables: impl Iterator<Item = &'t TableProgress> + Clone,
    bytes_per_second: Option<u64>,
) -> Option<u64> {
    let is_done = |table: &&TableProgress| table.state >= TableState::Copied;
    let (mut sent, mut measured) = (0.0, 0.0);
    for table in tables.clone().filter(is_done).filter(|table| table.bytes > 0) {
        if let Some(total) = table.total_bytes_estimate {
            sent += float(table.bytes);
            measured += float(total);
        }
    }
    let text_a_byte = if measured > 0.0 { (sent / measured).clamp(0.05, 20.0) } else { 1.0 };
    let mut left = 0.0;
    let mut all_done = true;
    for table in tables.filter(|table| !is_done(table)) {
        left += (float(table.total_bytes_estimate?) * text_a_byte - float(table.bytes)).max(0.0);
        all_done = false;
    }
    if all_done {
        return Some(0);
    }
    bytes_per_second.filter(|rate| *rate > 0).map(|rate| whole((left / float(rate)).ceil()))
}

#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and it saturates")]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_unix_us(whole(seconds * 1e6).cast_signed())
    }

    #[test]
    fn the_rate_is_that_of_the_last_half_minute() {
        let mut pace = Pace::default();
        assert_eq!(pace.bytes_per_second(at(0.0)), None);
        // Nobody has said that rows flow.
        pace.sent(5, at(0.0));
        assert_eq!(pace.bytes_per_second(at(9.0)), None);
        pace.begin(at(10.0));
        for step in 1..=20 {
            pace.sent(50, at(10.0 + f64::from(step) / 2.0));
        }
        assert_eq!(pace.bytes_per_second(at(20.0)), Some(100));
        // It stands still: the rate falls, to nothing in the end.
        assert_eq!(pace.bytes_per_second(at(30.0)), Some(50));
        assert_eq!(pace.bytes_per_second(at(100.0)), Some(0));
        // Ten times as fast from now on.
        for step in 1..=80 {
            pace.sent(500, at(100.0 + f64::from(step) / 2.0));
        }
        assert_eq!(pace.bytes_per_second(at(140.0)), Some(1000));
        assert!(pace.samples.len() < 70, "{}", pace.samples.len());
        pace.end();
        assert_eq!(pace.bytes_per_second(at(140.0)), None);
    }

    #[test]
    fn too_early_is_not_known() {
        let mut pace = Pace::default();
        pace.begin(at(1.0));
        pace.sent(1000, at(1.9));
        assert_eq!(pace.bytes_per_second(at(1.9)), None);
        assert_eq!(pace.bytes_per_second(at(2.0)), Some(1000));
    }

    fn table(state: TableState, bytes: u64, total: Option<u64>) -> TableProgress {
        TableProgress { name: "t".to_owned(), state, rows: 0, bytes, total_bytes_estimate: total }
    }

    #[test]
    fn what_is_left_is_judged_by_the_tables_that_are_done() {
        let left = |tables: &[TableProgress], rate| remaining_seconds(tables.iter(), rate);
        let begun = [table(TableState::Copying, 400, Some(1000)), table(TableState::Pending, 0, Some(500))];
        assert_eq!(left(&begun, Some(100)), Some(11));
        assert_eq!(left(&begun, None), None);
        assert_eq!(left(&begun, Some(0)), None);
        // The text of a table was half of what it occupies.
        let mut more = begun.to_vec();
        more.push(table(TableState::Streaming, 100, Some(200)));
        assert_eq!(left(&more, Some(100)), Some((500 - 400 + 250) / 100 + 1));
        // More text than was expected is no time less than none.
        assert_eq!(left(&[table(TableState::Copying, 400, Some(10))], Some(1)), Some(0));
        assert_eq!(left(&[table(TableState::Pending, 0, None)], Some(1)), None);
        assert_eq!(left(&[table(TableState::Copied, 7, None)], None), Some(0));
    }
}
