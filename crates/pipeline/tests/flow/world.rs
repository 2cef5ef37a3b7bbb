//! Both ends of a flow in memory, with everything that may go wrong at every await, and the book-keeping that
//! notices when a promise is broken.

mod ends;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use relevo_model::{Fault, FaultClass, Feedback, Side};
use relevo_pipeline::{Flow, FlowError, FlowEvent, FlowObserver, FlowOptions, FlowState};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// What stands in the source's WAL.
#[derive(Debug, Clone)]
pub enum Item {
    /// A transaction, as the sizes of its parts in bytes.
    Transaction(Vec<usize>),
    /// WAL of something else: a keepalive position.
    Keepalive,
    /// A transaction, likewise, whose parts but for the last are yielded ahead: one before each of the items before it. At
    /// least two parts.
    Running(Vec<usize>),
    /// One that is yielded ahead as well, and is rolled back.
    RolledBack(Vec<usize>),
}

impl Item {
    /// The sizes of its parts, if it is a transaction that commits.
    pub fn sizes(&self) -> Option<&[usize]> {
        match self {
            Self::Transaction(sizes) | Self::Running(sizes) => Some(sizes),
            Self::Keepalive | Self::RolledBack(_) => None,
        }
    }

    /// The sizes of the parts that are yielded ahead.
    fn ahead(&self) -> &[usize] {
        match self {
            Self::Running(sizes) => sizes.split_last().map_or(&[], |(_, ahead)| ahead),
            Self::RolledBack(sizes) => sizes,
            Self::Transaction(_) | Self::Keepalive => &[],
        }
    }
}

/// Something that goes wrong, aimed at a named operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The operation reports an error and had no effect.
    Fails(FaultClass),
    /// It had its effect, and reports an error all the same.
    FailsAfterwards(FaultClass),
    /// The target's server crashes: what was not flushed is gone, and so is every connection to it.
    Crash,
    /// It never returns.
    Hangs,
    /// It panics.
    Panics,
}

/// An operation of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Open,
    Next,
    Apply,
    Probe,
    Ahead,
    Beside,
}

#[derive(Debug)]
pub struct FakeError {
    class: FaultClass,
    side: Side,
    kind: &'static str,
}

impl fmt::Display for FakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scripted trouble at the {}", self.side)
    }
}

impl std::error::Error for FakeError {}

impl Fault for FakeError {
    fn class(&self) -> FaultClass {
        self.class
    }
    fn side(&self) -> Side {
        self.side
    }
    fn kind(&self) -> &'static str {
        self.kind
    }
}

/// One commit on the target.
#[derive(Debug, Clone)]
struct Commit {
    transactions: Vec<u64>,
    progress: u64,
    wal: u64,
}

/// What a flow has told its observer, as far as the tests ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    State(FlowState),
    Failed { text: String, retry_in: Option<Duration> },
    Reached(u64),
    Durable(u64),
    HandedOver(u64),
    Oldest(bool),
    Ahead(bool),
    Beside(bool),
}

#[derive(Debug, Default)]
pub struct State {
    items: Vec<Item>,
    log: Vec<Commit>,
    wal: u64,
    flushed: u64,
    generation: u64,
    writers: usize,
    held_bytes: usize,
    /// What was yielded ahead and not yet applied.
    ahead_bytes: usize,
    pub async_commit: bool,
    /// Nothing is flushed while this is set.
    pub never_flush: bool,
    /// How long each apply takes.
    pub apply_takes: Duration,
    /// Whatever ends a transaction in parts fails.
    pub fails_inside: bool,
    /// Whatever holds the transaction that commits here fails.
    pub fails_at: Option<u64>,
    /// One byte for each await, for as long as it lasts: chance, reproducible.
    pub tape: VecDeque<u8>,
    /// Troubles that happen at the next call of their operation.
    pub planned: Vec<(Operation, Trouble)>,
    /// Troubles that happen at every call.
    pub standing: Vec<(Operation, Trouble)>,
    pub confirmed: u64,
    pub reported: Feedback,
    pub opens: usize,
    pub closes: usize,
    pub peak_held_bytes: usize,
    pub yielded: usize,
    pub told: Vec<Told>,
    pub violations: Vec<String>,
    /// The flow is held: the target refuses what lies behind this position.
    pub refused_behind: Option<u64>,
    /// The target has so much work of its own to do.
    pub own_work: usize,
    /// Nothing may go ahead.
    pub stays_behind: bool,
    /// Whatever is applied while a batch goes beside it fails.
    pub deadlocks: bool,
    /// A batch goes beside another one.
    goes_beside: bool,
    /// No batch may go beside another one.
    pub goes_alone: bool,
    /// Somebody waits for what the second session has locked.
    pub somebody_waits: bool,
    /// The source yields nothing but what goes ahead.
    pub next_waits: bool,
}

impl State {
    fn positions(&self) -> Vec<(u64, u64)> {
        let mut lsn = 1000;
        let place = |item: &Item| {
            let commit = lsn;
            lsn += if matches!(item, Item::Keepalive | Item::RolledBack(_)) { 5 } else { 10 };
            (commit, lsn)
        };
        self.items.iter().map(place).collect()
    }

    /// The commit LSNs of the source's transactions.
    pub fn expected(&self) -> Vec<u64> {
        let places = self.positions();
        let items = self.items.iter().zip(places);
        items.filter(|(item, _)| item.sizes().is_some()).map(|(_, (commit, _))| commit).collect()
    }

    pub fn applied(&self) -> Vec<u64> {
        self.log.iter().flat_map(|commit| commit.transactions.iter().copied()).collect()
    }

    pub fn batches(&self) -> Vec<usize> {
        self.log.iter().map(|commit| commit.transactions.len()).filter(|count| *count > 0).collect()
    }

    /// Where the transactions commit, in the source's order.
    pub fn commit_lsns(&self) -> Vec<u64> {
        let places = self.positions();
        let all = self.items.iter().zip(&places).filter(|(item, _)| item.sizes().is_some());
        all.map(|(_, (commit, _))| *commit).collect()
    }

    pub fn commits(&self) -> usize {
        self.log.len()
    }

    pub fn progress(&self) -> u64 {
        self.log.last().map_or(1000, |commit| commit.progress)
    }

    fn flushed_progress(&self) -> u64 {
        self.log
            .iter()
            .take_while(|commit| commit.wal <= self.flushed)
            .last()
            .map_or(1000, |commit| commit.progress)
    }

    pub fn end(&self) -> u64 {
        self.positions().last().map_or(1000, |(_, end)| *end)
    }

    pub fn add(&mut self, items: impl IntoIterator<Item = Item>) {
        self.items.extend(items);
    }

    fn crash(&mut self) {
        let flushed = self.flushed;
        self.log.retain(|commit| commit.wal <= flushed);
        self.wal = flushed;
        self.generation += 1;
    }

    /// The next trouble of an operation, and how long it takes until it comes.
    fn chance(&mut self, operation: Operation) -> (Duration, Option<Trouble>) {
        if let Some((_, trouble)) = self.standing.iter().find(|(at, _)| *at == operation) {
            return (Duration::ZERO, Some(*trouble));
        }
        if let Some(index) = self.planned.iter().position(|(at, _)| *at == operation) {
            return (Duration::ZERO, Some(self.planned.remove(index).1));
        }
        let Some(byte) = self.tape.pop_front() else { return (Duration::ZERO, None) };
        let delay = [0, 0, 0, 1, 7, 40][usize::from(byte) % 6];
        let class = if byte % 2 == 0 { FaultClass::Transient } else { FaultClass::Blocked };
        let trouble = match byte {
            0..8 => Some(Trouble::Fails(class)),
            8..16 => Some(Trouble::FailsAfterwards(class)),
            16..20 => Some(Trouble::Crash),
            _ => None,
        };
        (Duration::from_millis(delay), trouble)
    }

    fn check_feedback(&mut self, feedback: Feedback) {
        let durable = feedback.durable.as_u64();
        if durable != 0 && durable > self.flushed_progress() {
            let stored = self.flushed_progress();
            self.violations.push(format!("confirmed {durable} while {stored} is stored and flushed"));
        }
        if feedback.durable > feedback.applied || feedback.applied > feedback.received {
            self.violations.push(format!("positions out of order: {feedback:?}"));
        }
        let applied = self.applied();
        let places = self.positions();
        for (item, (commit, end)) in self.items.iter().zip(places) {
            let claimed = end <= feedback.applied.as_u64() && item.sizes().is_some();
            // A crash may have taken it back since; the session that claims it is about to end.
            if claimed && !applied.contains(&commit) && self.generation == 0 {
                self.violations.push(format!("{commit} is said to be applied"));
            }
        }
        self.confirmed = self.confirmed.max(durable);
        self.reported = feedback;
    }
}

/// Both ends, and who watches.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl World {
    pub fn new(items: Vec<Item>) -> Self {
        let state = State { items, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), changed: watch::Sender::new(()) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes something and lets everybody who waits look again.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state());
        self.changed.send_replace(());
        result
    }

    /// Waits until the condition holds; gives up after an hour of the (paused) clock.
    pub async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if condition(&self.state()) {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        if timeout(Duration::from_secs(3600), wait).await.is_err() {
            panic!("{what} did not happen: {:#?}", self.state());
        }
    }

    pub async fn until_all_is_applied(&self) {
        self.until("applying everything", |state| state.applied() == state.expected()).await;
    }

    pub fn start(&self, options: FlowOptions) -> Running {
        let shutdown = CancellationToken::new();
        let (world, observer, token) = (self.clone(), self.clone(), shutdown.clone());
        let task = tokio::spawn(async move { Flow::run(world, options, &observer, token).await });
        Running { shutdown, task }
    }

    pub fn assert_sound(&self) {
        let state = self.state();
        assert!(state.violations.is_empty(), "{:#?}", state.violations);
    }
}

/// A flow that runs.
pub struct Running {
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), FlowError>>,
}

impl Running {
    /// Asks it to stop; how long that took.
    pub async fn stop(self) -> Duration {
        let asked = Instant::now();
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        asked.elapsed()
    }
}

impl FlowObserver for World {
    fn event(&self, event: FlowEvent<'_>) {
        let told = match event {
            FlowEvent::State(state) => Told::State(state),
            FlowEvent::Failed { text, retry_in, .. } => Told::Failed { text: text.to_owned(), retry_in },
            FlowEvent::Reached { position } => Told::Reached(position.as_u64()),
            FlowEvent::Durable { position } => Told::Durable(position.as_u64()),
            FlowEvent::HandedOver { transactions, .. } => Told::HandedOver(transactions),
            FlowEvent::Ahead { committed } => Told::Ahead(committed),
            FlowEvent::Beside { committed } => Told::Beside(committed),
            FlowEvent::OldestUnapplied(oldest) => Told::Oldest(oldest.is_some()),
            _ => return,
        };
        self.change(|state| state.told.push(told));
    }
}

/// Runs a future on a clock that jumps whenever everything waits.
pub fn on_a_paused_clock<F: Future>(future: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}
