//! The two tasks beside the session's loop: the owner of the target and the owner of its probe.
//!
//! Each is an actor: a handle and a task that owns the connection. Dropping the handle drops the connection,
//! whatever it is doing, which rolls back what was not committed.

use std::time::Duration;

use relevo_model::{Applied, Batch, ChangeTarget, FlushProbe, Progress, TargetLsn};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{FlowError, FlowOptions};

/// Ends its task when dropped.
#[derive(Debug)]
pub(crate) struct Owner(JoinHandle<()>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Owner {
    /// Starts the task.
    pub fn of(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }

    /// Ends the task and waits, until `deadline`, for what it owned to be dropped.
    pub async fn stop(mut self, deadline: Instant) {
        self.0.abort();
        // Late or panicked, it is gone as far as this flow is concerned.
        let _ = timeout_at(deadline, &mut self.0).await;
    }
}

/// What the target is told.
#[derive(Debug)]
enum Told {
    /// To apply a batch.
    Apply(Batch),
    /// That its second session has moved the progress.
    Moved(Progress),
}

/// The handle of the task that owns the target.
#[derive(Debug)]
pub(crate) struct ApplyTask {
    told: mpsc::Sender<Told>,
    results: mpsc::Receiver<Result<Applied, FlowError>>,
    owner: Owner,
}

impl ApplyTask {
    pub fn start<T: ChangeTarget + 'static>(target: T) -> Self {
        // A batch, and what was said just before it.
        let (told, inbox) = mpsc::channel(2);
        let (outbox, results) = mpsc::channel(1);
        Self { told, results, owner: Owner::of(own_target(target, inbox, outbox)) }
    }

    /// Gives the target a batch. Only one may be in hand.
    pub fn hand_over(&self, batch: Batch) -> Result<(), FlowError> {
        self.tell(Told::Apply(batch))
    }

    /// Lets the target know, between two batches, that its second session has moved the progress.
    pub fn moved(&self, progress: Progress) -> Result<(), FlowError> {
        self.tell(Told::Moved(progress))
    }

    fn tell(&self, told: Told) -> Result<(), FlowError> {
        self.told.try_send(told).map_err(|_| FlowError::TaskStopped { task: "apply" })
    }

    /// What became of the batch in hand. Cancel-safe.
    pub async fn result(&mut self) -> Result<Applied, FlowError> {
        self.results.recv().await.unwrap_or(Err(FlowError::TaskStopped { task: "apply" }))
    }

    pub async fn stop(self, deadline: Instant) {
        self.owner.stop(deadline).await;
    }
}

async fn own_target<T: ChangeTarget>(
    mut target: T,
    mut inbox: mpsc::Receiver<Told>,
    outbox: mpsc::Sender<Result<Applied, FlowError>>,
) {
    loop {
        let asked = tokio::select! {
            biased;
            told = inbox.recv() => match told {
                Some(Told::Apply(batch)) => Some(batch),
                Some(Told::Moved(progress)) => {
                    target.moved(progress);
                    continue;
                }
                None => return,
            },
            () = target.wanting() => None,
        };
        let of_its_own = asked.is_none();
        let result = target.apply(asked.unwrap_or_default()).await.map_err(FlowError::end);
        let failed = result.is_err();
        if of_its_own && !failed {
            continue;
        }
        // After an error the target may only be dropped.
        if outbox.send(result).await.is_err() || failed {
            return;
        }
    }
}

/// The handle of the task that asks the target how far it has flushed.
#[derive(Debug)]
pub(crate) struct ProbeTask {
    answers: mpsc::Receiver<Result<TargetLsn, FlowError>>,
    busy: watch::Sender<bool>,
    owner: Owner,
}

impl ProbeTask {
    pub fn start<P: FlushProbe + 'static>(probe: P, options: &FlowOptions) -> Self {
        let (busy, pace) = watch::channel(false);
        let (outbox, answers) = mpsc::channel(1);
        let prober = Prober {
            pace,
            outbox,
            busy_interval: options.probe_busy_interval,
            idle_interval: options.probe_idle_interval,
            patience: options.probe_timeout,
        };
        Self { answers, busy, owner: Owner::of(prober.own_probe(probe)) }
    }

    /// Whether commits wait for a flush: the target is then asked more often, beginning now.
    pub fn set_busy(&self, busy: bool) {
        self.busy.send_if_modified(|was| std::mem::replace(was, busy) != busy);
    }

    /// The next answer. Cancel-safe.
    pub async fn flushed(&mut self) -> Result<TargetLsn, FlowError> {
        self.answers.recv().await.unwrap_or(Err(FlowError::TaskStopped { task: "probe" }))
    }

    pub async fn stop(self, deadline: Instant) {
        self.owner.stop(deadline).await;
    }
}

struct Prober {
    pace: watch::Receiver<bool>,
    outbox: mpsc::Sender<Result<TargetLsn, FlowError>>,
    busy_interval: Duration,
    idle_interval: Duration,
    patience: Duration,
}

impl Prober {
    async fn own_probe<P: FlushProbe>(mut self, mut probe: P) {
        loop {
            let answer = match timeout(self.patience, probe.flushed()).await {
                Ok(answer) => answer.map_err(FlowError::end),
                Err(_) => Err(FlowError::TargetSilent { silent_seconds: self.patience.as_secs() }),
            };
            let failed = answer.is_err();
            if self.outbox.send(answer).await.is_err() || failed || !self.pause().await {
                return;
            }
        }
    }

    /// Waits for the next turn; `false` when the session is gone.
    async fn pause(&mut self) -> bool {
        if *self.pace.borrow_and_update() {
            sleep(self.busy_interval).await;
            return true;
        }
        tokio::select! {
            () = sleep(self.idle_interval) => true,
            changed = self.pace.changed() => changed.is_ok(),
        }
    }
}
