//! The four operations that a flow sees of the world.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use relevo_model::{
    Applied, Batch, ChangeSource, ChangeTarget, FaultClass, Feedback, FlushProbe, HELD, Progress, Side,
    SourceEvent, SourceLsn, TargetLsn, Timestamp, TransactionHeader, TransactionPart, Xid,
};
use relevo_pipeline::{Opened, Sessions};
use tokio::time::sleep;

use super::{Commit, FakeError, Item, Operation, State, Trouble, World};

/// How often the target looks whether it has work of its own.
const OWN_WORK_PAUSE: Duration = Duration::from_millis(5);

fn error(side: Side, class: FaultClass) -> FakeError {
    FakeError { class, side, kind: "scripted" }
}

impl World {
    /// Lets chance do its work at one operation. `Ok(true)`: the operation shall have its effect and then fail.
    async fn ordeal(&self, operation: Operation, side: Side) -> Result<Option<FaultClass>, FakeError> {
        let (delay, trouble) = self.change(|state| state.chance(operation));
        if !delay.is_zero() {
            sleep(delay).await;
        }
        match trouble {
            None => Ok(None),
            Some(Trouble::Fails(class)) => Err(error(side, class)),
            Some(Trouble::FailsAfterwards(class)) => Ok(Some(class)),
            Some(Trouble::Crash) => {
                self.change(State::crash);
                Err(error(side, FaultClass::Transient))
            }
            Some(Trouble::Hangs) => pending().await,
            Some(Trouble::Panics) => panic!("a scripted panic"),
        }
    }
}

impl Sessions for World {
    type Source = FakeSource;
    type Target = FakeTarget;
    type Probe = FakeProbe;
    type Error = FakeError;

    async fn open(&mut self) -> Result<Opened<FakeSource, FakeTarget, FakeProbe>, FakeError> {
        if let Some(class) = self.ordeal(Operation::Open, Side::Target).await? {
            return Err(error(Side::Source, class));
        }
        let opened = self.change(|state| {
            state.opens += 1;
            state.held_bytes = 0;
            state.writers += 1;
            if state.writers > 1 {
                state.violations.push("two sessions write at once".to_owned());
            }
            let applied = state.progress();
            if state.confirmed > applied {
                state.violations.push(format!("{} was confirmed, {applied} is stored", state.confirmed));
            }
            let progress = Progress { applied: SourceLsn::new(applied), commit_lsn: None, commit_time: None };
            let generation = state.generation;
            let source = FakeSource { world: self.clone(), start: applied, next: (0, 0) };
            let target = FakeTarget { world: self.clone(), progress, generation, open: Vec::new() };
            let probe = FakeProbe { world: self.clone(), generation };
            Opened { source, target, probe }
        });
        Ok(opened)
    }
}

pub struct FakeSource {
    world: World,
    start: u64,
    /// Item and part.
    next: (usize, usize),
}

impl FakeSource {
    /// The next event that the source has, without taking it.
    fn peek(&mut self) -> Option<(SourceEvent, (usize, usize))> {
        let state = self.world.state();
        let places = state.positions();
        loop {
            let (index, part) = self.next;
            let item = state.items.get(index)?;
            let (commit, end) = places[index];
            match item {
                Item::Keepalive if end > self.start => {
                    return Some((SourceEvent::Keepalive(SourceLsn::new(end)), (index + 1, 0)));
                }
                Item::Transaction(sizes) if commit >= self.start => {
                    let last = part + 1 == sizes.len();
                    let event = SourceEvent::Part(TransactionPart {
                        header: Arc::new(TransactionHeader {
                            xid: Xid(7),
                            commit_lsn: SourceLsn::new(commit),
                            commit_time: Timestamp::from_postgres_us(commit.cast_signed()),
                            origin: None,
                        }),
                        first: part == 0,
                        changes: Vec::new(),
                        end: last.then(|| SourceLsn::new(end)),
                        size_bytes: sizes[part],
                    });
                    return Some((event, if last { (index + 1, 0) } else { (index, part + 1) }));
                }
                _ => self.next = (index + 1, 0),
            }
        }
    }
}

impl ChangeSource for FakeSource {
    type Error = FakeError;

    async fn next(&mut self) -> Result<SourceEvent, FakeError> {
        if let Some(class) = self.world.ordeal(Operation::Next, Side::Source).await? {
            return Err(error(Side::Source, class));
        }
        let mut changed = self.world.changed.subscribe();
        let (event, next) = loop {
            changed.borrow_and_update();
            if let Some(found) = self.peek() {
                break found;
            }
            changed.changed().await.unwrap();
        };
        // No await from here on: a dropped future has taken nothing.
        self.next = next;
        self.world.change(|state| {
            if let SourceEvent::Part(part) = &event {
                state.held_bytes += part.size_bytes;
                state.peak_held_bytes = state.peak_held_bytes.max(state.held_bytes);
                state.yielded += 1;
            }
        });
        Ok(event)
    }

    fn report(&mut self, feedback: Feedback) {
        self.world.change(|state| state.check_feedback(feedback));
    }

    async fn close(self) -> Result<(), FakeError> {
        self.world.change(|state| state.closes += 1);
        Ok(())
    }
}

pub struct FakeTarget {
    world: World,
    progress: Progress,
    generation: u64,
    /// What was applied of a transaction that is not finished.
    open: Vec<TransactionPart>,
}

impl Drop for FakeTarget {
    fn drop(&mut self) {
        self.world.change(|state| state.writers -= 1);
    }
}

impl FakeTarget {
    fn commit(&mut self, batch: &Batch, position: SourceLsn, state: &mut State) {
        state.wal += 10;
        if !state.async_commit {
            state.flushed = state.wal;
        }
        let mut transactions = Vec::new();
        let mut sizes = Vec::new();
        let places = state.positions();
        for part in self.open.drain(..).chain(batch.parts.iter().cloned()) {
            sizes.push(part.size_bytes);
            if part.end.is_some() {
                let commit = part.header.commit_lsn.as_u64();
                let index = places.iter().position(|(start, _)| *start == commit);
                let whole = index.map(|index| state.items[index].clone());
                let got = std::mem::take(&mut sizes);
                if !matches!(&whole, Some(Item::Transaction(expected)) if *expected == got) {
                    state.violations.push(format!("{commit} committed as {got:?} instead of {whole:?}"));
                }
                transactions.push(commit);
            }
        }
        if !sizes.is_empty() {
            state.violations.push("half a transaction committed".to_owned());
        }
        if position.as_u64() < state.progress() {
            state.violations.push(format!("progress went back to {position}"));
        }
        state.log.push(Commit { transactions, progress: position.as_u64(), wal: state.wal });
        let applied = state.applied();
        if !state.expected().starts_with(&applied) {
            state.violations.push(format!("the target has {applied:?}"));
        }
    }
}

impl ChangeTarget for FakeTarget {
    type Error = FakeError;

    fn progress(&self) -> &Progress {
        &self.progress
    }

    async fn apply(&mut self, batch: Batch) -> Result<Applied, FakeError> {
        let takes = self.world.state().apply_takes;
        if !takes.is_zero() {
            sleep(takes).await;
        }
        if self.world.state().fails_inside && !self.open.is_empty() && batch.position.is_some() {
            return Err(error(Side::Target, FaultClass::Blocked));
        }
        let fails_afterwards = self.world.ordeal(Operation::Apply, Side::Target).await?;
        if batch == Batch::default() {
            self.world.change(|state| {
                if !self.open.is_empty() {
                    state.violations.push("work of the target's own inside a transaction".to_owned());
                }
                state.own_work = state.own_work.saturating_sub(1);
            });
            return Ok(Applied { position: None, durable_at: None, missing_rows: 0, reapplied_changes: 0 });
        }
        let world = self.world.clone();
        let durable_at = world.change(|state| {
            if state.generation != self.generation {
                return Err(error(Side::Target, FaultClass::Transient));
            }
            let Some(position) = batch.position else { return Ok(None) };
            if state.refused_behind.is_some_and(|at| position.as_u64() > at) {
                return Err(FakeError { kind: HELD, ..error(Side::Target, FaultClass::Transient) });
            }
            self.commit(&batch, position, state);
            Ok(state.async_commit.then(|| TargetLsn::new(state.wal)))
        })?;
        if batch.position.is_none() {
            self.open.extend(batch.parts.iter().cloned());
        }
        // The commit has happened; its answer takes its time, and may never come.
        if self.world.ordeal(Operation::Apply, Side::Target).await?.is_some() || fails_afterwards.is_some() {
            return Err(error(Side::Target, fails_afterwards.unwrap_or(FaultClass::Transient)));
        }
        self.world.change(|state| state.held_bytes = state.held_bytes.saturating_sub(batch.size_bytes));
        Ok(Applied { position: batch.position, durable_at, missing_rows: 0, reapplied_changes: 0 })
    }

    async fn wanting(&mut self) {
        while !self.open.is_empty() || self.world.state().own_work == 0 {
            sleep(OWN_WORK_PAUSE).await;
        }
    }
}

pub struct FakeProbe {
    world: World,
    generation: u64,
}

impl FlushProbe for FakeProbe {
    type Error = FakeError;

    async fn flushed(&mut self) -> Result<TargetLsn, FakeError> {
        let lost = self.world.ordeal(Operation::Probe, Side::Target).await?;
        self.world.change(|state| {
            if lost.is_some() || state.generation != self.generation {
                return Err(error(Side::Target, FaultClass::Transient));
            }
            // The walwriter gets round to it now and then.
            let idle = state.tape.front().is_none_or(|byte| byte % 3 != 0);
            if idle && !state.never_flush {
                state.flushed = state.wal;
            }
            Ok(TargetLsn::new(state.flushed))
        })
    }
}
