//! The four operations that a flow sees of the world.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use relevo_model::{
    Ahead, AheadTarget, Applied, Batch, ChangeSource, ChangeTarget, FaultClass, Feedback, FlushProbe, HELD,
    Progress, Side, SourceEvent, SourceLsn, TargetLsn, Timestamp, TransactionHeader, TransactionPart, Xid,
};
use relevo_pipeline::{AheadSessions, Opened, Sessions};
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
            (state.held_bytes, state.ahead_bytes) = (0, 0);
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
            let source = FakeSource {
                world: self.clone(),
                start: applied,
                next: (0, 0),
                ahead: None,
                settled: HashSet::new(),
                unsettled: false,
            };
            let target = FakeTarget { world: self.clone(), progress, generation, open: Vec::new() };
            let probe = FakeProbe { world: self.clone(), generation };
            let (opens, allows) = (self.clone(), self.clone());
            let open = move || {
                let world = opens.clone();
                async move { Ok::<_, FakeError>(FakeAhead { world, generation, parts: Vec::new() }) }
            };
            let ahead = AheadSessions::new(open, move || !allows.state().stays_behind);
            Opened { source, target, probe, ahead: Some(ahead) }
        });
        Ok(opened)
    }
}

pub struct FakeSource {
    world: World,
    start: u64,
    /// Item and part.
    next: (usize, usize),
    /// The item that goes ahead, and how many of its parts have been yielded.
    ahead: Option<(usize, usize)>,
    /// The items of which nothing goes ahead any more.
    settled: HashSet<usize>,
    /// The end of the one that goes ahead was yielded.
    unsettled: bool,
}

/// What a source has next, and what follows when it is taken.
struct Next {
    event: SourceEvent,
    next: (usize, usize),
    ahead: Option<(usize, usize)>,
    unsettled: bool,
}

fn xid(index: usize) -> Xid {
    Xid(u32::try_from(index).unwrap())
}

/// A part of an item; without a place it still runs.
fn part(index: usize, sizes: &[usize], number: usize, place: Option<(u64, u64)>) -> TransactionPart {
    let (commit, end) = place.unwrap_or_default();
    TransactionPart {
        header: Arc::new(TransactionHeader {
            xid: xid(index),
            commit_lsn: SourceLsn::new(commit),
            commit_time: Timestamp::from_postgres_us(commit.cast_signed()),
            origin: None,
        }),
        first: number == 0,
        changes: Vec::new(),
        end: (place.is_some() && number + 1 == sizes.len()).then(|| SourceLsn::new(end)),
        size_bytes: sizes[number],
    }
}

impl FakeSource {
    /// The item that goes ahead or would be the next to, how many of its parts have been yielded, and before which item the
    /// next comes.
    fn goes_ahead(&self, state: &State, places: &[(u64, u64)]) -> Option<(usize, usize, usize)> {
        let from = self.next.0;
        let of_items = state.items.iter().enumerate().skip(from);
        let index = of_items.filter(|(index, item)| {
            !item.ahead().is_empty() && places[*index].0 >= self.start && !self.settled.contains(index)
        });
        let index = self.ahead.map(|(index, _)| index).or_else(|| index.map(|(index, _)| index).next())?;
        let yielded = self.ahead.map_or(0, |(_, yielded)| yielded);
        Some((index, yielded, (index + 1 + yielded).saturating_sub(state.items[index].ahead().len())))
    }

    /// The next event that the source has, without taking it.
    fn peek(&mut self) -> Option<Next> {
        let state = self.world.state();
        let places = state.positions();
        if self.unsettled {
            return None;
        }
        loop {
            let ahead = self.goes_ahead(&state, &places);
            let (index, number) = self.next;
            let usual = |event, next| Next { event, next, ahead: self.ahead, unsettled: false };
            if let Some((running, yielded, before)) = ahead
                && number == 0
                && before <= index
                && let Some(sizes) =
                    state.items.get(running).map(Item::ahead).filter(|sizes| yielded < sizes.len())
            {
                let event = SourceEvent::Ahead(Ahead::Part(part(running, sizes, yielded, None)));
                return Some(Next { ahead: Some((running, yielded + 1)), ..usual(event, self.next) });
            }
            let item = state.items.get(index).filter(|_| !state.next_waits)?;
            let (commit, end) = places[index];
            let going = self.ahead.is_some_and(|(running, _)| running == index);
            match item {
                Item::RolledBack(_) if going => {
                    let event = SourceEvent::Ahead(Ahead::Abort(xid(index)));
                    return Some(Next { ahead: None, ..usual(event, self.next) });
                }
                Item::Keepalive | Item::RolledBack(_) if end > self.start => {
                    return Some(usual(SourceEvent::Keepalive(SourceLsn::new(end)), (index + 1, 0)));
                }
                Item::Running(sizes) if going => {
                    let last = part(index, sizes, sizes.len() - 1, Some((commit, end)));
                    let event = SourceEvent::Ahead(Ahead::Commit(last));
                    return Some(Next { unsettled: true, ..usual(event, self.next) });
                }
                Item::Transaction(sizes) | Item::Running(sizes) if commit >= self.start => {
                    let event = SourceEvent::Part(part(index, sizes, number, Some((commit, end))));
                    let last = number + 1 == sizes.len();
                    return Some(usual(event, if last { (index + 1, 0) } else { (index, number + 1) }));
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
        let Next { event, next, ahead, unsettled } = loop {
            changed.borrow_and_update();
            if let Some(found) = self.peek() {
                break found;
            }
            changed.changed().await.unwrap();
        };
        // No await from here on: a dropped future has taken nothing.
        (self.next, self.ahead, self.unsettled) = (next, ahead, unsettled);
        if let SourceEvent::Ahead(Ahead::Abort(_)) = &event {
            self.settled.insert(self.next.0);
        }
        self.world.change(|state| {
            match &event {
                SourceEvent::Part(part) => {
                    state.held_bytes += part.size_bytes;
                    state.yielded += 1;
                }
                SourceEvent::Ahead(Ahead::Part(part) | Ahead::Commit(part)) => {
                    state.ahead_bytes += part.size_bytes
                }
                SourceEvent::Ahead(Ahead::Abort(_)) => state.ahead_bytes = 0,
                SourceEvent::Keepalive(_) => {}
            }
            state.peak_held_bytes = state.peak_held_bytes.max(state.held_bytes + state.ahead_bytes);
        });
        Ok(event)
    }

    fn settle_ahead(&mut self, xid: Xid, committed: bool) {
        let index = usize::try_from(xid.0).unwrap();
        let at_its_end = self.unsettled && self.ahead.is_some_and(|(running, _)| running == index);
        if committed && !at_its_end {
            self.world
                .change(|state| state.violations.push(format!("{index} was settled before its commit")));
        }
        self.settled.insert(index);
        if self.ahead.take_if(|(running, _)| *running == index).is_some() {
            self.unsettled = false;
            self.world.change(|state| state.ahead_bytes = 0);
        }
        if committed {
            self.next = (index + 1, 0);
        }
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

fn commit(parts: impl Iterator<Item = TransactionPart>, position: SourceLsn, state: &mut State) {
    state.wal += 10;
    if !state.async_commit {
        state.flushed = state.wal;
    }
    let mut transactions = Vec::new();
    let mut sizes = Vec::new();
    let places = state.positions();
    for part in parts {
        sizes.push(part.size_bytes);
        if part.end.is_some() {
            let commit = part.header.commit_lsn.as_u64();
            let index = places.iter().position(|(start, _)| *start == commit);
            let whole = index.map(|index| state.items[index].clone());
            let got = std::mem::take(&mut sizes);
            if whole.as_ref().and_then(Item::sizes) != Some(&got) {
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

impl ChangeTarget for FakeTarget {
    type Error = FakeError;

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn moved(&mut self, progress: Progress) {
        self.progress = progress;
    }

    async fn apply(&mut self, batch: Batch) -> Result<Applied, FakeError> {
        let takes = self.world.state().apply_takes;
        if !takes.is_zero() {
            sleep(takes).await;
        }
        if self.world.state().fails_inside && !self.open.is_empty() && batch.position.is_some() {
            return Err(error(Side::Target, FaultClass::Blocked));
        }
        let fails_at = self.world.state().fails_at;
        if batch.parts.iter().any(|part| Some(part.header.commit_lsn.as_u64()) == fails_at) {
            return Err(error(Side::Target, FaultClass::Blocked));
        }
        if self.world.change(|state| state.deadlocks && state.goes_beside) {
            return Err(error(Side::Target, FaultClass::Transient));
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
            let open = self.open.drain(..);
            commit(open.chain(batch.parts.iter().cloned()), position, state);
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

impl Drop for FakeAhead {
    fn drop(&mut self) {
        self.world.change(|state| state.goes_beside = false);
    }
}

/// The target's second session.
pub struct FakeAhead {
    world: World,
    generation: u64,
    parts: Vec<TransactionPart>,
}

impl FakeAhead {
    /// What a part rests on: the transactions before the item that it was yielded before, as far as they were yielded.
    fn check_ground(&self, part: &TransactionPart, state: &mut State) {
        let index = usize::try_from(part.header.xid.0).unwrap();
        let number = self.parts.len();
        let before = (index + 1 + number).saturating_sub(state.items[index].ahead().len()).min(index);
        let places = state.positions();
        let applied = state.applied();
        let ground = state.items[..before].iter().zip(&places).filter(|(item, _)| item.sizes().is_some());
        let missing: Vec<u64> =
            ground.map(|(_, (commit, _))| *commit).filter(|at| !applied.contains(at)).collect();
        if !missing.is_empty() {
            state.violations.push(format!("part {number} of {index} was applied before {missing:?}"));
        }
    }
}

impl AheadTarget for FakeAhead {
    type Error = FakeError;

    async fn apply(&mut self, part: TransactionPart) -> Result<(), FakeError> {
        if let Some(class) = self.world.ordeal(Operation::Ahead, Side::Target).await? {
            return Err(error(Side::Target, class));
        }
        let takes = self.world.state().apply_takes;
        sleep(takes).await;
        let world = self.world.clone();
        world.change(|state| {
            if state.generation != self.generation {
                return Err(error(Side::Target, FaultClass::Transient));
            }
            self.check_ground(&part, state);
            state.ahead_bytes = state.ahead_bytes.saturating_sub(part.size_bytes);
            Ok(())
        })?;
        self.parts.push(part);
        Ok(())
    }

    async fn commit(&mut self, last: TransactionPart, applied: SourceLsn) -> Result<Applied, FakeError> {
        let fails_afterwards = self.world.ordeal(Operation::Ahead, Side::Target).await?;
        let world = self.world.clone();
        let position = last.end.unwrap();
        let durable_at = world.change(|state| {
            if state.generation != self.generation || state.progress() != applied.as_u64() {
                return Err(error(Side::Target, FaultClass::Transient));
            }
            if state.refused_behind.is_some_and(|at| position.as_u64() > at) {
                return Err(FakeError { kind: HELD, ..error(Side::Target, FaultClass::Transient) });
            }
            if let Some(part) = self.parts.last_mut() {
                (part.end, part.header) = (last.end, Arc::clone(&last.header));
            }
            commit(self.parts.drain(..), position, state);
            Ok(state.async_commit.then(|| TargetLsn::new(state.wal)))
        })?;
        if self.world.ordeal(Operation::Ahead, Side::Target).await?.is_some() || fails_afterwards.is_some() {
            return Err(error(Side::Target, fails_afterwards.unwrap_or(FaultClass::Transient)));
        }
        Ok(Applied { position: Some(position), durable_at, missing_rows: 0, reapplied_changes: 0 })
    }

    async fn prepare(&mut self, batch: &Batch) -> Result<bool, FakeError> {
        self.world.change(|state| state.goes_beside = true);
        if let Some(class) = self.world.ordeal(Operation::Beside, Side::Target).await? {
            return Err(error(Side::Target, class));
        }
        let takes = self.world.state().apply_takes;
        sleep(takes).await;
        let world = self.world.clone();
        let alone = world.change(|state| {
            if state.generation != self.generation {
                return Err(error(Side::Target, FaultClass::Transient));
            }
            if !self.parts.is_empty() || batch.continues() || batch.unfinished() || batch.position.is_none() {
                state.violations.push("something else than whole transactions goes beside".to_owned());
            }
            Ok(state.goes_alone)
        })?;
        self.parts.clone_from(&batch.parts);
        Ok(!alone)
    }

    async fn look(&mut self) -> Result<(), FakeError> {
        self.world.ordeal(Operation::Beside, Side::Target).await?;
        match self.world.state().somebody_waits {
            true => Err(error(Side::Target, FaultClass::Transient)),
            false => Ok(()),
        }
    }

    async fn commit_prepared(&mut self, batch: &Batch, applied: SourceLsn) -> Result<Applied, FakeError> {
        let fails_afterwards = self.world.ordeal(Operation::Beside, Side::Target).await?;
        let world = self.world.clone();
        let position = batch.position.unwrap();
        let durable_at = world.change(|state| {
            if state.generation != self.generation || state.progress() != applied.as_u64() {
                return Err(error(Side::Target, FaultClass::Transient));
            }
            if state.refused_behind.is_some_and(|at| position.as_u64() > at) {
                return Err(FakeError { kind: HELD, ..error(Side::Target, FaultClass::Transient) });
            }
            if self.parts != batch.parts {
                state.violations.push("another batch is committed than was prepared".to_owned());
            }
            commit(self.parts.drain(..), position, state);
            state.held_bytes = state.held_bytes.saturating_sub(batch.size_bytes);
            Ok(state.async_commit.then(|| TargetLsn::new(state.wal)))
        })?;
        if self.world.ordeal(Operation::Beside, Side::Target).await?.is_some() || fails_afterwards.is_some() {
            return Err(error(Side::Target, fails_afterwards.unwrap_or(FaultClass::Transient)));
        }
        Ok(Applied { position: Some(position), durable_at, missing_rows: 0, reapplied_changes: 0 })
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
