//! How far behind the target is. Pure: "now" comes in as a parameter.
//!
//! # Seconds
//! The target is known to be *current as of* a time `T` when everything that the source committed before `T` is
//! visible on it. `T` is the latest of
//! - the time of a poll of the source's WAL position that the target has reached since;
//! - the commit time of the last transaction that became visible;
//! - the commit time of the oldest transaction that was received and is not visible yet (what came before it is).
//!
//! Commit times are by the source's clock; they are corrected by the difference that the polls show, and never
//! taken to lie after the moment at which they were heard of. A fact stays true, so `T` only grows.
//!
//! `lag_seconds = now − min(T, last contact of the target)`, except that it is 0 while the target is *caught up*:
//! the last poll is no older than 3 s, the target has reached it, nothing received waits, and the target was
//! heard from within 3 s. While nothing is known at all, the start of the program stands for `T`.
//!
//! It follows that the lag grows second by second while either side is unreachable — no poll comes, or `T` stays
//! behind the frozen contact — and falls back once both answer; it is never negative, and no value of it that
//! looks healthy can outlive the contact it rests on by more than 3 s.
//!
//! # Bytes
//! `source WAL position − position of the stage`. While the source is unreachable the last known value stays;
//! the seconds say that it is old.

use std::collections::VecDeque;

use relevo_model::{Side, SourceLsn, Timestamp};

use crate::clock::later;

/// How fresh a contact has to be to prove that all is well.
pub(crate) const FRESH: std::time::Duration = std::time::Duration::from_secs(3);

/// Differences of the clocks below this are the poll's own error and are ignored.
const CLOCK_TOLERANCE_US: i64 = 250_000;

/// How many polls that the target has not reached are remembered.
const POLLS_KEPT: usize = 64;

/// The distance of each stage from the source's WAL position, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LagBytes {
    /// Of what has been received.
    pub received: u64,
    /// Of what is visible on the target.
    pub applied: u64,
    /// Of what is stored and flushed there; `None` while that is not known.
    pub durable: Option<u64>,
}

/// The facts that the lag is computed from.
#[derive(Debug, Clone)]
pub struct Lag {
    began: Timestamp,
    current_as_of: Option<Timestamp>,
    /// Polls that the target has not reached yet, oldest first.
    unreached_polls: VecDeque<(SourceLsn, Timestamp)>,
    last_poll: Option<(SourceLsn, Timestamp)>,
    source_contact: Option<Timestamp>,
    target_contact: Option<Timestamp>,
    /// The source's clock less ours, in microseconds.
    clock_offset_us: i64,
    oldest_unapplied: Option<Timestamp>,
    received: Option<SourceLsn>,
    applied: Option<SourceLsn>,
    durable: Option<SourceLsn>,
    /// The position that was stored with the last transaction applied, or at the beginning.
    last_commit: Option<SourceLsn>,
}

impl Lag {
    /// Nothing is known yet, since `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            began: now,
            current_as_of: None,
            unreached_polls: VecDeque::new(),
            last_poll: None,
            source_contact: None,
            target_contact: None,
            clock_offset_us: 0,
            oldest_unapplied: None,
            received: None,
            applied: None,
            durable: None,
            last_commit: None,
        }
    }

    /// A session begins at this stored progress; what was received before and not applied is forgotten.
    ///
    /// When it lies before the last transaction that was applied, a crash of the target has taken that back. When
    /// it only lies before a position without changes, nothing is lost: such positions are stored now and then.
    pub fn opened(&mut self, stored: SourceLsn, commit_time: Option<Timestamp>, now: Timestamp) {
        if self.last_commit.is_some_and(|before| stored < before) {
            self.last_commit = Some(stored);
            self.current_as_of = None;
            self.applied = None;
            self.unreached_polls.clear();
            self.unreached_polls.extend(self.last_poll);
        }
        self.last_commit = self.last_commit.or(Some(stored));
        self.oldest_unapplied = None;
        self.applied = self.applied.max(Some(stored));
        self.received = self.applied;
        self.contact(Side::Target, now);
        if let Some(time) = commit_time {
            self.known_current(self.heard_at(time, now));
        }
        self.pass_polls();
    }

    /// The source was asked where its WAL ends; with its clock, if it said so too.
    pub fn polled(&mut self, position: SourceLsn, source_clock: Option<Timestamp>, now: Timestamp) {
        if let Some(clock) = source_clock {
            let offset_us = clock.postgres_us().saturating_sub(now.postgres_us());
            let matters = offset_us.unsigned_abs() > CLOCK_TOLERANCE_US.unsigned_abs();
            self.clock_offset_us = if matters { offset_us } else { 0 };
        }
        self.contact(Side::Source, now);
        self.last_poll = Some((position, now));
        if self.unreached_polls.len() == POLLS_KEPT {
            // Forgetting every other one keeps the span and halves the resolution.
            let mut keep = false;
            self.unreached_polls.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.unreached_polls.push_back((position, now));
        self.pass_polls();
    }

    /// This side was heard from.
    pub fn contact(&mut self, side: Side, now: Timestamp) {
        match side {
            Side::Source => self.source_contact = Some(now),
            Side::Target => self.target_contact = Some(now),
        }
    }

    /// Everything before this position has been received.
    pub fn received(&mut self, position: SourceLsn) {
        self.received = self.received.max(Some(position));
    }

    /// Everything that the source sent before this position is visible on the target.
    pub fn reached(&mut self, position: SourceLsn) {
        self.received(position);
        self.applied = self.applied.max(Some(position));
        self.pass_polls();
    }

    /// A commit on the target has stored this position; the source committed its last transaction at this time,
    /// by its clock. `None`: only the position moved.
    pub fn applied(&mut self, position: SourceLsn, commit_time: Option<Timestamp>, now: Timestamp) {
        self.contact(Side::Target, now);
        if let Some(time) = commit_time {
            self.last_commit = self.last_commit.max(Some(position));
            self.known_current(self.heard_at(time, now));
        }
        self.reached(position);
    }

    /// When the source committed the oldest transaction that is received and not visible, by its clock.
    pub fn oldest_unapplied(&mut self, commit_time: Option<Timestamp>, now: Timestamp) {
        self.oldest_unapplied = commit_time.map(|time| self.heard_at(time, now));
        if let Some(time) = self.oldest_unapplied {
            self.known_current(time);
        }
    }

    /// Stored and flushed on the target.
    pub fn durable(&mut self, position: SourceLsn) {
        self.durable = self.durable.max(Some(position));
    }

    /// Whether the target has all that the source had at a fresh poll, and both are alive.
    #[must_use]
    pub fn caught_up(&self, now: Timestamp) -> bool {
        let fresh = |time: Timestamp| now <= later(time, FRESH);
        let reached = self.last_poll.is_some_and(|(position, polled_at)| {
            fresh(polled_at) && self.applied.is_some_and(|applied| applied >= position)
        });
        reached && self.oldest_unapplied.is_none() && self.target_contact.is_some_and(fresh)
    }

    /// The lag in seconds.
    #[must_use]
    pub fn seconds(&self, now: Timestamp) -> f64 {
        if self.caught_up(now) {
            return 0.0;
        }
        let current_as_of = self.current_as_of.unwrap_or(self.began);
        let heard = self.target_contact.unwrap_or(self.began);
        now.seconds_since(current_as_of.min(heard))
    }

    /// The lag in bytes of each stage, once both ends have been seen.
    #[must_use]
    pub fn bytes(&self) -> Option<LagBytes> {
        let (source, _) = self.last_poll?;
        Some(LagBytes {
            received: source.bytes_since(self.received?),
            applied: source.bytes_since(self.applied?),
            durable: self.durable.map(|durable| source.bytes_since(durable)),
        })
    }

    /// How long the side has been silent, in seconds; since the program's start when it was never heard from.
    #[must_use]
    pub fn silent_seconds(&self, side: Side, now: Timestamp) -> f64 {
        let contact = match side {
            Side::Source => self.source_contact,
            Side::Target => self.target_contact,
        };
        now.seconds_since(contact.unwrap_or(self.began))
    }

    /// Whether the side was ever heard from.
    #[must_use]
    pub fn was_heard(&self, side: Side) -> bool {
        match side {
            Side::Source => self.source_contact.is_some(),
            Side::Target => self.target_contact.is_some(),
        }
    }

    /// The source's WAL position at the last poll.
    #[must_use]
    pub fn source_lsn(&self) -> Option<SourceLsn> {
        self.last_poll.map(|(position, _)| position)
    }

    /// How long ago the source was last asked where its WAL ends, in seconds; `None`: never.
    #[must_use]
    pub fn poll_age_seconds(&self, now: Timestamp) -> Option<f64> {
        self.last_poll.map(|(_, polled_at)| now.seconds_since(polled_at))
    }

    /// Everything before it has been received.
    #[must_use]
    pub fn received_lsn(&self) -> Option<SourceLsn> {
        self.received
    }

    /// Everything before it is visible on the target.
    #[must_use]
    pub fn applied_lsn(&self) -> Option<SourceLsn> {
        self.applied
    }

    /// Everything before it is stored and flushed on the target.
    #[must_use]
    pub fn durable_lsn(&self) -> Option<SourceLsn> {
        self.durable
    }

    /// How long a commit took to become visible, in seconds, when that happened `now`.
    #[must_use]
    pub fn visible_after_seconds(&self, commit_time: Timestamp, now: Timestamp) -> f64 {
        now.seconds_since(self.by_our_clock(commit_time))
    }

    fn by_our_clock(&self, source_time: Timestamp) -> Timestamp {
        Timestamp::from_postgres_us(source_time.postgres_us().saturating_sub(self.clock_offset_us))
    }

    /// A commit time by our clock; a source whose clock runs ahead does not commit in the future.
    fn heard_at(&self, source_time: Timestamp, now: Timestamp) -> Timestamp {
        self.by_our_clock(source_time).min(now)
    }

    fn known_current(&mut self, time: Timestamp) {
        self.current_as_of = self.current_as_of.max(Some(time));
    }

    fn pass_polls(&mut self) {
        while let Some((position, polled_at)) = self.unreached_polls.front().copied()
            && self.applied.is_some_and(|applied| applied >= position)
        {
            self.known_current(polled_at);
            self.unreached_polls.pop_front();
        }
    }
}
