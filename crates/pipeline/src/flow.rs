//! The supervisor: opens both ends, runs a session, and does what the retry table says when it ends.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use relevo_model::{ChangeSource, ChangeTarget, Fault, FlushProbe, HELD, SourceLsn};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::ahead::{AheadSessions, Trusts};
use crate::retry::{Backoff, Repeats, retry_rule};
use crate::session::{self, Outcome, TURN_INTERVAL, Watched};
use crate::{FlowError, FlowEvent, FlowObserver, FlowOptions, FlowState};

/// How soon both ends are opened again when the target has refused a batch because the flow is held.
const HELD_PAUSE: Duration = Duration::from_millis(20);

/// Both ends of a flow, open.
#[derive(Debug)]
pub struct Opened<S, T, P> {
    /// Where changes come from. It begins at the position that the target has stored.
    pub source: S,
    /// Where they go.
    pub target: T,
    /// A second connection to the *same* target server. It must not reconnect by itself: a server that crashed
    /// and came back would then vouch for commits that it lost.
    pub probe: P,
    /// Opens the target's second session, on that same server, for transactions that the source yields ahead of their commit;
    /// `None`: none is applied ahead.
    pub ahead: Option<AheadSessions>,
}

/// Opens both ends. The target comes first: its lock keeps every other writer of the flow out, and its progress
/// says where the source has to begin.
pub trait Sessions: Send {
    /// The source's type.
    type Source: ChangeSource;
    /// The target's type.
    type Target: ChangeTarget + 'static;
    /// The probe's type.
    type Probe: FlushProbe + 'static;
    /// What can go wrong.
    type Error: Fault;

    /// Opens both ends. Dropping the future gives up and leaves nothing behind.
    fn open(&mut self) -> impl Future<Output = Result<OpenedBy<Self>, Self::Error>> + Send;
}

/// What a [`Sessions`] opens.
pub type OpenedBy<S> = Opened<<S as Sessions>::Source, <S as Sessions>::Target, <S as Sessions>::Probe>;

/// A flow from one source to one target.
#[derive(Debug)]
pub struct Flow;

impl Flow {
    /// Keeps the flow running until `shutdown` is cancelled.
    ///
    /// After an error both ends are opened again, with the pauses of the retry table. Shutting down takes no
    /// longer than the three graces of `options` together.
    ///
    /// # Errors
    /// Only what must not be retried ([`relevo_model::FaultClass::Refused`]).
    pub async fn run<S: Sessions>(
        mut sessions: S,
        options: FlowOptions,
        observer: &dyn FlowObserver,
        shutdown: CancellationToken,
    ) -> Result<(), FlowError> {
        let mut supervisor = Supervisor::new(observer);
        let mut trusts = Trusts::default();
        let mut singly_until = SourceLsn::ZERO;
        loop {
            supervisor.opening();
            let opened = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                opened = with_turns(sessions.open(), observer) => opened,
            };
            let (outcome, opened) = match opened {
                Ok(opened) => {
                    let on_probation = supervisor.on_probation;
                    let watched = Watched { observer, shutdown: &shutdown, on_probation, singly_until };
                    let outcome = session::run(opened, &options, watched, &mut trusts).await;
                    (outcome, true)
                }
                Err(error) => {
                    (Outcome { end: Err(FlowError::end(error)), sound: false, singly_until }, false)
                }
            };
            singly_until = outcome.singly_until;
            let Err(error) = outcome.end else { break };
            let Some(pause) = supervisor.failed(&error, outcome.sound, opened) else { return Err(error) };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = with_turns(sleep(pause), observer) => {}
            }
            if error.kind() != HELD {
                observer.event(FlowEvent::Reconnect { side: error.side() });
            }
        }
        observer.event(FlowEvent::State(FlowState::Stopped));
        Ok(())
    }
}

/// Awaits `future` while the observer keeps seeing that the loop is alive.
async fn with_turns<F: Future>(future: F, observer: &dyn FlowObserver) -> F::Output {
    let mut future = pin!(future);
    let mut turns = interval(TURN_INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            output = &mut future => return output,
            _ = turns.tick() => observer.event(FlowEvent::Turn),
        }
    }
}

/// What is remembered from one session to the next.
struct Supervisor<'a> {
    observer: &'a dyn FlowObserver,
    backoff: Backoff,
    repeats: Repeats,
    /// The flow was reported as failed and no session has proved it mended. Opening proves nothing when it was
    /// a session that failed.
    blocked: bool,
    on_probation: bool,
    /// The last session ended because the flow is held.
    held: bool,
}

impl<'a> Supervisor<'a> {
    fn new(observer: &'a dyn FlowObserver) -> Self {
        Self {
            observer,
            backoff: Backoff::new(),
            repeats: Repeats::new(),
            blocked: false,
            on_probation: false,
            held: false,
        }
    }

    /// A failed flow stays failed while it is tried again; else its state would flicker at each attempt.
    fn opening(&self) {
        if !self.blocked && !self.held && self.backoff.attempts() == 0 {
            self.observer.event(FlowEvent::State(FlowState::Opening));
        }
    }

    /// Reports and logs the error. The pause before the next attempt, or `None` when there shall be none.
    fn failed(&mut self, failure: &FlowError, sound: bool, opened: bool) -> Option<Duration> {
        if sound {
            self.backoff.reset();
            self.repeats.reset();
        }
        self.held = failure.kind() == HELD;
        if self.held {
            // Somebody has asked for it: nothing is wrong, and nothing is to be mended.
            info!("both ends are opened again: {}", failure.text());
            return Some(HELD_PAUSE);
        }
        let (class, text) = (failure.class(), failure.text());
        let rule = retry_rule(class);
        let pause = rule.map(|rule| self.backoff.pause(&rule));
        let state = rule.map_or(FlowState::Failed, |rule| rule.state);
        // A connection that is lost while somebody has yet to mend the data does not make it any better.
        let mended = sound || (opened && !self.on_probation);
        let still_blocked = self.blocked && !mended;
        self.blocked = state == FlowState::Failed || still_blocked;
        self.on_probation = (state == FlowState::Failed && opened) || (still_blocked && self.on_probation);
        self.observer.event(FlowEvent::Failed {
            class,
            side: failure.side(),
            kind: failure.kind(),
            text: &text,
            attempts: self.backoff.attempts(),
            retry_in: pause,
        });
        let reported = if self.blocked { FlowState::Failed } else { state };
        self.observer.event(FlowEvent::State(reported));
        self.log(failure, &text, pause);
        pause
    }

    fn log(&mut self, failure: &FlowError, text: &str, pause: Option<Duration>) {
        let side = failure.side();
        let kind = failure.kind();
        let Some(pause) = pause else {
            error!(%side, kind, "the flow is refused: {text}");
            return;
        };
        let Some(count) = self.repeats.note(failure, text, Instant::now()) else { return };
        let again =
            if count > 1 { format!(" ({count} times since the last such line)") } else { String::new() };
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        if self.blocked {
            error!(%side, kind, pause_ms, "the flow has failed and goes on by itself once this is mended: {text}{again}");
        } else {
            warn!(%side, kind, pause_ms, "both ends are opened again: {text}{again}");
        }
    }
}
