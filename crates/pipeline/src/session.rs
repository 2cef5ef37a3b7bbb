//! One session: from both ends open to the first error or the request to stop.
//!
//! The loop's priorities, highest first:
//! 1. the request to stop;
//! 2. what became of the batch in hand, and of what goes ahead of its commit, so that the target never waits for us;
//! 3. what the target has flushed;
//! 4. the clock (signs of life, bare positions that fall due), and whether the flow is held;
//! 5. the next event of the source, unless memory is full. While the target is busy nobody can do anything with it, so
//!    the source is looked at once in a while, instead of being woken for each event.
//!
//! Whenever the target is idle, what the source has ready goes at once, together; nothing waits for what is not there
//! yet. While the target is busy, transactions pile up. A session never repairs anything: any error ends it, and both ends are opened anew.

mod ahead;
mod beside;
mod ending;

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use relevo_model::{
    Ahead, Applied, Batch, Batcher, ChangeSource, ChangeTarget, Feedback, FlushProbe, SourceEvent, SourceLsn,
    TargetLsn, Timestamp, TransactionHeader,
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::ahead::{AheadOfCommit, Taken, Trusts};
use crate::beside::Beside;
use crate::gate::Gate;
use crate::idle::IdleProgress;
use crate::order::Order;
use crate::worker::{ApplyTask, ProbeTask};
use crate::{
    AppliedBatch, DurabilityQueue, FlowError, FlowEvent, FlowObserver, FlowOptions, FlowState, Opened,
};

/// How often the loop goes round when nothing happens.
pub(crate) const TURN_INTERVAL: Duration = Duration::from_millis(250);

/// After this long without an error a session with nothing to apply counts as sound.
pub(crate) const SOUND_AFTER: Duration = Duration::from_secs(10);

/// How many events that the source has ready are taken in one go.
const EVENTS_PER_TURN: usize = 1024;

/// How often the source is looked at while the target is busy.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// How a session went.
pub(crate) struct Outcome {
    /// `Ok`: it was asked to stop, and did.
    pub end: Result<(), FlowError>,
    /// It brought the target further, or stood for [`SOUND_AFTER`] with nothing to apply.
    pub sound: bool,
    /// Up to here transactions are to be applied one by one: a batch of several could not be applied.
    pub singly_until: SourceLsn,
}

/// The batch that the target is working on.
struct InHand {
    since: Instant,
    position: Option<SourceLsn>,
    bytes: usize,
    commit_times: Vec<Timestamp>,
    way: Way,
}

/// By which way the target gets a batch.
enum Way {
    /// All of it by its first session.
    First,
    /// It is the end of a transaction that went ahead: what will have come in then, and what is known of it.
    Ahead(Order, Arc<TransactionHeader>),
    /// It was applied beside the one before it, and only its commit is on its way.
    Beside(Arc<Batch>),
}

pub(crate) struct Session<'a, S> {
    source: S,
    apply: ApplyTask,
    probe: ProbeTask,
    options: &'a FlowOptions,
    observer: &'a dyn FlowObserver,
    batcher: Batcher,
    order: Order,
    idle: IdleProgress,
    durability: DurabilityQueue,
    in_hand: Option<InHand>,
    gate: Gate,
    ahead: AheadOfCommit<'a>,
    /// What goes beside the batch in hand.
    beside: Beside<'a>,
    /// The next batch, if it was taken already.
    next: Option<Batch>,
    /// The target has a transaction open whose end is to come.
    half_way: bool,
    /// What has been applied of transactions since the last commit on the target.
    uncommitted: AppliedBatch,
    /// What the target had stored at the beginning.
    start: SourceLsn,
    started_at: Instant,
    /// Whatever came before this position is visible on the target.
    reached: SourceLsn,
    reported: Feedback,
    oldest_unapplied: Option<Timestamp>,
    buffer_bytes: usize,
    heard: bool,
    /// Whether the state `Streaming` waits until the session has proved sound.
    on_probation: bool,
    /// See [`Outcome::singly_until`].
    singly_until: SourceLsn,
}

/// Who watches a session and who ends it.
pub(crate) struct Watched<'a> {
    pub observer: &'a dyn FlowObserver,
    pub shutdown: &'a CancellationToken,
    /// The last session failed at something that opening does not prove mended.
    pub on_probation: bool,
    /// See [`Outcome::singly_until`].
    pub singly_until: SourceLsn,
}

/// Runs one session.
pub(crate) async fn run<S, T, P>(
    opened: Opened<S, T, P>,
    options: &FlowOptions,
    Watched { observer, shutdown, on_probation, singly_until }: Watched<'_>,
    trusts: &mut Trusts,
) -> Outcome
where
    S: ChangeSource,
    T: ChangeTarget + 'static,
    P: FlushProbe + 'static,
{
    let Opened { source, target, probe, ahead } = opened;
    let progress = target.progress().clone();
    observer.event(FlowEvent::Opened { progress: &progress });
    let (start, now) = (progress.applied, Instant::now());
    let mut session = Session {
        source,
        apply: ApplyTask::start(target),
        probe: ProbeTask::start(probe, options),
        options,
        observer,
        batcher: Batcher::new(options.batch_bytes),
        order: Order::new(start),
        idle: IdleProgress::new(options.idle, start, now),
        durability: DurabilityQueue::new(),
        in_hand: None,
        gate: Gate::new(options.hold.clone()),
        ahead: AheadOfCommit::new(ahead, &mut trusts.ahead),
        beside: Beside::new(&mut trusts.beside),
        next: None,
        half_way: false,
        uncommitted: AppliedBatch::default(),
        start,
        started_at: now,
        reached: start,
        reported: Feedback::default(),
        oldest_unapplied: None,
        buffer_bytes: 0,
        heard: false,
        on_probation,
        singly_until,
    };
    if !on_probation {
        session.announce();
    }
    let end = session.stream(shutdown).await;
    let asked = Instant::now();
    if end.is_ok() {
        session.finish(asked).await
    } else {
        let (sound, singly_until) = (session.sound(), session.singly_after(&end));
        session.dismantle(asked).await;
        Outcome { end, sound, singly_until }
    }
}

impl<S: ChangeSource> Session<'_, S> {
    /// Streams until something fails or `shutdown` is asked for.
    async fn stream(&mut self, shutdown: &CancellationToken) -> Result<(), FlowError> {
        let cancelled = shutdown.cancelled();
        tokio::pin!(cancelled);
        let mut turns = interval(TURN_INTERVAL);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.store_start()?;
        loop {
            self.hand_over()?;
            self.go_ahead()?;
            self.go_beside();
            self.publish();
            let (room, busy) = (self.has_room(), self.in_hand.is_some());
            tokio::select! {
                biased;
                () = &mut cancelled => return Ok(()),
                // Also with nothing in hand: work of the target's own can fail.
                result = self.apply.result() => {
                    self.applied(result?)?;
                    // A whole batch gains nothing by what is there besides.
                    if self.batcher.waiting_bytes() >= self.options.batch_bytes {
                        self.hand_over()?;
                    }
                    self.take_in_what_is_there().await?;
                }
                result = self.ahead.result() => self.went_ahead(result)?,
                result = self.beside.result() => self.went_beside(result)?,
                flushed = self.probe.flushed() => self.flushed(flushed?),
                _ = turns.tick() => self.turn(),
                () = self.gate.changed() => {}
                _ = looks.tick(), if room && busy => self.take_in_what_is_there().await?,
                event = self.source.next(), if room && !busy => {
                    self.take_in(event.map_err(FlowError::end)?)?;
                    self.take_in_what_is_there().await?;
                }
            }
            // A source that always has something ready must not keep the other tasks of this thread waiting.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Has the progress stored once more before anything else.
    ///
    /// A session before this one may have committed it without waiting for the flush. Once this write is
    /// durable, so is everything before it; until then nothing is confirmed. It also shows at once whether the
    /// target can be written.
    fn store_start(&mut self) -> Result<(), FlowError> {
        if self.start == SourceLsn::ZERO {
            return Ok(());
        }
        self.give(Batch { position: Some(self.start), ..Batch::default() })
    }

    /// Takes what the source has ready without a full turn for each event, and without a batch for each: an idle target
    /// that got the first alone would be busy with it while the others, which are there, wait.
    async fn take_in_what_is_there(&mut self) -> Result<(), FlowError> {
        for _ in 0..EVENTS_PER_TURN {
            if !self.has_room() {
                break;
            }
            let event = tokio::select! {
                biased;
                event = self.source.next() => event,
                () = ready(()) => break,
            };
            self.take_in(event.map_err(FlowError::end)?)?;
        }
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        // What is beside another batch is counted there, also while it is committed.
        let in_hand = self.in_hand.as_ref().filter(|batch| !matches!(batch.way, Way::Beside(_)));
        let in_hand = in_hand.map_or(0, |batch| batch.bytes);
        let next = self.next.as_ref().map_or(0, |batch| batch.size_bytes);
        self.batcher.waiting_bytes() + next + in_hand + self.ahead.held_bytes() + self.beside.held_bytes()
    }

    fn has_room(&self) -> bool {
        let held = self.held_bytes();
        held == 0 || held < self.options.memory_bytes
    }

    fn take_in(&mut self, event: SourceEvent) -> Result<(), FlowError> {
        self.heard = true;
        match event {
            SourceEvent::Part(part) => {
                self.order.part(&part)?;
                self.idle.release();
                if part.end.is_some() {
                    self.ahead.came_in();
                }
                self.batcher.push(part);
            }
            SourceEvent::Keepalive(position) => {
                if self.order.keepalive(position) {
                    self.batcher.keepalive(position);
                }
            }
            // One session cannot do both, and nothing is lost: the transaction comes again behind its commit.
            SourceEvent::Ahead(Ahead::Part(part)) if part.first && self.beside.holds() => {
                self.source.settle_ahead(part.header.xid, false);
            }
            SourceEvent::Ahead(ahead) => {
                if matches!(&ahead, Ahead::Part(part) if part.first) {
                    self.beside.close();
                }
                if let Taken::Refused(xid) = self.ahead.take_in(ahead, Instant::now()) {
                    self.source.settle_ahead(xid, false);
                }
            }
        }
        Ok(())
    }

    /// Gives the target the next batch, if it is idle and there is one.
    fn hand_over(&mut self) -> Result<(), FlowError> {
        if self.in_hand.is_some() || self.beside.holds() {
            return Ok(());
        }
        let now = Instant::now();
        let limit = self.gate.limit();
        let next = match self.next.take() {
            Some(next) => Some(next),
            None if self.reached < self.singly_until => self.batcher.take_one_until(limit),
            None => self.batcher.take_until(limit),
        };
        match next {
            Some(batch) if !batch.parts.is_empty() => return self.give_two(batch),
            Some(bare) => {
                if let Some(position) = bare.position {
                    self.idle.hold(position, now);
                }
            }
            None => {}
        }
        if let Some(at) = limit.filter(|at| self.order.has_passed(*at)) {
            return self.stand_at(at);
        }
        if limit.is_none() && self.gate.goes_on() && !self.on_probation {
            self.announce();
        }
        if self.order.inside() {
            return Ok(());
        }
        // Nothing waits, nothing is in hand, nothing is half-way.
        self.reached = self.reached.max(self.order.reached());
        match self.idle.due(now) {
            Some(position) => self.give(Batch { position: Some(position), ..Batch::default() }),
            None => Ok(()),
        }
    }

    /// The flow is held here, and everything that commits before has come in and was handed over. The position is stored
    /// at once, since somebody waits for it.
    fn stand_at(&mut self, at: SourceLsn) -> Result<(), FlowError> {
        // Begun before the hold was known: the target will refuse it at its end.
        if self.half_way {
            return Ok(());
        }
        self.reached = self.reached.max(at);
        if self.idle.stored() < at {
            return self.give(Batch { position: Some(at), ..Batch::default() });
        }
        if !self.on_probation && self.gate.stands(at) {
            info!(position = %at, "held");
            self.observer.event(FlowEvent::State(FlowState::Held(at)));
        }
        Ok(())
    }

    fn give(&mut self, batch: Batch) -> Result<(), FlowError> {
        let commit_times = self.count(&batch);
        self.half_way = batch.unfinished();
        self.in_hand = Some(InHand {
            since: Instant::now(),
            position: batch.position,
            bytes: batch.size_bytes,
            commit_times,
            way: Way::First,
        });
        self.apply.hand_over(batch)
    }

    /// Counts what is in a batch, and says when its transactions committed.
    fn count(&mut self, batch: &Batch) -> Vec<Timestamp> {
        let mut commit_times = Vec::with_capacity(batch.parts.len());
        let truncates = self.uncommitted.changes.truncates;
        for part in &batch.parts {
            part.changes.iter().for_each(|change| self.uncommitted.changes.count(change));
            if part.end.is_some() {
                commit_times.push(part.header.commit_time);
            }
        }
        if self.uncommitted.changes.truncates > truncates {
            // What it knows of those tables is outdated then.
            self.beside.close();
        }
        if let Some(part) = batch.parts.first() {
            self.observe_oldest(Some(part.header.commit_time));
            self.observer.event(FlowEvent::HandedOver {
                transactions: commit_times.len() as u64,
                bytes: batch.size_bytes as u64,
            });
        }
        commit_times
    }

    /// The batch in hand was applied; unless it ends inside a transaction, it is committed.
    fn applied(&mut self, applied: Applied) -> Result<(), FlowError> {
        let Some(batch) = self.in_hand.take() else { return Ok(()) };
        self.ahead.applied(batch.commit_times.len() as u64);
        if applied.position != batch.position {
            return Err(FlowError::WrongPosition { handed: batch.position, stored: applied.position });
        }
        self.uncommitted.took += batch.since.elapsed();
        self.uncommitted.bytes += batch.bytes as u64;
        self.uncommitted.missing_rows += applied.missing_rows;
        self.uncommitted.reapplied_changes += applied.reapplied_changes;
        self.uncommitted.commit_times.extend(batch.commit_times);
        let Some(position) = applied.position else { return Ok(()) };

        let done = AppliedBatch { position, ..std::mem::take(&mut self.uncommitted) };
        self.committed(&done, applied.durable_at);
        Ok(())
    }

    /// The target has committed.
    fn committed(&mut self, done: &AppliedBatch, durable_at: Option<TargetLsn>) {
        let position = done.position;
        self.idle.written(position, Instant::now());
        self.durability.applied(position, durable_at);
        self.probe.set_busy(self.durability.pending());
        self.reached = self.reached.max(position);
        self.observer.event(FlowEvent::Applied(done));
        if self.on_probation && self.sound() {
            self.announce();
        }
    }

    fn flushed(&mut self, flushed: TargetLsn) {
        self.durability.flushed(flushed);
        self.probe.set_busy(self.durability.pending());
        self.observer.event(FlowEvent::TargetAlive);
    }

    fn turn(&mut self) {
        self.observer.event(FlowEvent::Turn);
        self.beside.rest(Instant::now());
        if self.on_probation && self.sound() {
            self.announce();
        }
    }

    fn announce(&mut self) {
        self.on_probation = false;
        info!(position = %self.reached, "streaming");
        self.observer.event(FlowEvent::State(FlowState::Streaming));
    }

    /// Whether the session has shown that it works: it brought the target further, or has stood for a while with
    /// nothing left to do. A batch that takes long and then fails proves nothing by taking long.
    fn sound(&self) -> bool {
        let at_rest = self.in_hand.is_none() && !self.order.inside();
        self.idle.stored() > self.start || (at_rest && self.started_at.elapsed() >= SOUND_AFTER)
    }

    fn observe_oldest(&mut self, oldest: Option<Timestamp>) {
        if oldest != self.oldest_unapplied {
            self.oldest_unapplied = oldest;
            self.observer.event(FlowEvent::OldestUnapplied(oldest));
        }
    }

    /// Tells the observer and the source what has changed since the last turn.
    fn publish(&mut self) {
        let received = self.order.reached();
        if std::mem::take(&mut self.heard) {
            self.observer.event(FlowEvent::Received { position: received });
        }
        let held = self.in_hand.is_some() || self.next.is_some() || self.beside.holds();
        if !held && !self.order.inside() && self.ahead.committed().is_none() {
            self.observe_oldest(None);
        }
        let buffer_bytes = self.held_bytes();
        if buffer_bytes != self.buffer_bytes {
            self.buffer_bytes = buffer_bytes;
            self.observer.event(FlowEvent::Buffer { bytes: buffer_bytes as u64 });
        }
        let feedback = Feedback { received, applied: self.reached, durable: self.durability.durable() };
        if feedback == self.reported {
            return;
        }
        self.source.report(feedback);
        if feedback.applied != self.reported.applied {
            self.observer.event(FlowEvent::Reached { position: feedback.applied });
        }
        if feedback.durable != self.reported.durable {
            self.observer.event(FlowEvent::Durable { position: feedback.durable });
        }
        self.reported = feedback;
    }
}
