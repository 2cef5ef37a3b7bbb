//! Two batches at once: the second by the target's second session, as a flow does it, and whatever rows they write.

use std::pin::pin;
use std::time::Duration;

use relevo_model::{AheadTarget, Batch, Change, ChangeTarget, Progress};
use relevo_target::{PgAheadTarget, PgTarget};
use tokio::task::JoinError;
use tokio::time::sleep;

use super::Side;
use crate::fixture;

/// How long the first session may be at its batch before it is looked whether it waits for the second.
const LOOK_AFTER: Duration = Duration::from_millis(30);
/// How much later one of the two begins, so that each finds the other's rows locked at times.
const HEAD_START: Duration = Duration::from_millis(2);

/// The second session, and what has become of the batches that it was given.
#[derive(Default)]
pub struct Second {
    session: Option<PgAheadTarget>,
    given: usize,
    committed: usize,
    waited_for: usize,
}

impl Second {
    /// A run in which nothing went well beside anything, or nothing was in the way, has shown nothing.
    pub fn assert_used(&self) {
        let Self { given, committed, waited_for, .. } = self;
        println!(
            "of {given} batches {committed} were committed beside another, and {waited_for} were in its way"
        );
        assert!(*committed * 10 > *given, "{committed} of {given}");
        assert!(*committed < *given);
    }
}

/// Whether it empties a table, after which that is another one to a session that has not done it.
fn empties(batch: &Batch) -> bool {
    let mut changes = batch.parts.iter().flat_map(|part| &part.changes);
    changes.any(|change| matches!(change, Change::Truncate { .. }))
}

/// The session, if what it was given goes beside the other. Else it is dropped, and what it has done with it.
fn going(prepared: Result<(PgAheadTarget, bool), JoinError>) -> Option<PgAheadTarget> {
    let (session, goes) = prepared.unwrap();
    goes.then_some(session)
}

impl Side {
    /// Applies all batches, two at once wherever two are whole. How many rows were missing, or at which it failed, and why.
    pub(super) async fn apply_two_at_once(&mut self, batches: &[Batch]) -> Result<u64, (usize, String)> {
        let (mut missing, mut at) = (0, 0);
        while let Some(first) = batches.get(at) {
            let goes = |batch: &&Batch| !batch.continues() && !batch.unfinished() && !empties(batch);
            let second = batches.get(at + 1).filter(goes).filter(|_| goes(&first));
            if let Some(second) = self.two_at_once.as_mut().filter(|_| empties(first)) {
                second.session = None;
            }
            let prepared = match second {
                Some(second) => {
                    let (applied, prepared) = self.beside(first, second, at % 4 < 2).await;
                    missing += match applied {
                        Ok(missing) => missing,
                        // One of the two had to end, and it was this one; the flow tries it again.
                        Err(error) if error.contains("deadlock detected") => {
                            drop(prepared);
                            self.reopen().await;
                            self.alone(first, at).await?;
                            at += 1;
                            continue;
                        }
                        Err(error) => return Err(self.failed(at, error).await),
                    };
                    prepared
                }
                None => {
                    missing += self.alone(first, at).await?;
                    None
                }
            };
            at += 1;
            if let (Some(session), Some(second)) = (prepared, second)
                && self.commit(session, second).await
            {
                at += 1;
            }
        }
        // Where the next case begins, whatever was opened again in between.
        self.fixture.position = self.fixture.target.progress().applied.as_u64();
        Ok(missing)
    }

    async fn failed(&mut self, at: usize, error: String) -> (usize, String) {
        self.reopen().await;
        (at, error)
    }

    async fn alone(&mut self, batch: &Batch, at: usize) -> Result<u64, (usize, String)> {
        match self.fixture.target.apply(batch.clone()).await {
            Ok(applied) => Ok(applied.missing_rows),
            Err(error) => Err(self.failed(at, error.to_string()).await),
        }
    }

    async fn session(&mut self) -> PgAheadTarget {
        let info = self.fixture.info().await;
        let kept = self.two_at_once.as_mut().and_then(|second| second.session.take());
        match kept {
            Some(session) => session,
            None => PgAheadTarget::open(&info, fixture::options()).await.unwrap(),
        }
    }

    /// Applies the first, and the second beside it. The session that holds the second, if it went well.
    async fn beside(
        &mut self,
        first: &Batch,
        second: &Batch,
        first_begins: bool,
    ) -> (Result<u64, String>, Option<PgAheadTarget>) {
        let mut session = self.session().await;
        let (first, second) = (first.clone(), second.clone());
        let mut preparing = tokio::spawn(async move {
            sleep(if first_begins { HEAD_START } else { Duration::ZERO }).await;
            let goes = session.prepare(&second).await;
            (session, goes.unwrap_or(false))
        });
        let target: &mut PgTarget = &mut self.fixture.target;
        let mut applying = pin!(async {
            sleep(if first_begins { Duration::ZERO } else { HEAD_START }).await;
            target.apply(first).await
        });
        let (mut prepared, mut ended, mut waited_for) = (None, false, false);
        let applied = loop {
            tokio::select! {
                applied = &mut applying => break applied,
                done = &mut preparing, if !ended => (prepared, ended) = (going(done), true),
                () = sleep(LOOK_AFTER) => {
                    if let Some(mut session) = prepared.take() {
                        match session.look().await {
                            Ok(()) => prepared = Some(session),
                            Err(_) => waited_for = true,
                        }
                    }
                }
            }
        };
        if !ended {
            prepared = going(preparing.await);
        }
        if let Some(counts) = &mut self.two_at_once {
            counts.given += 1;
            counts.waited_for += usize::from(waited_for);
        }
        let applied = applied.map(|applied| applied.missing_rows).map_err(|error| error.to_string());
        (applied, prepared)
    }

    /// Commits what was prepared, and says whether it is there. It may be refused: by a constraint that is checked then.
    async fn commit(&mut self, mut session: PgAheadTarget, batch: &Batch) -> bool {
        let stored = self.fixture.target.progress().applied;
        let Ok(applied) = session.commit_prepared(batch, stored).await else {
            drop(session);
            self.reopen().await;
            return false;
        };
        let progress = Progress { applied: applied.position.unwrap(), commit_lsn: None, commit_time: None };
        self.fixture.target.moved(progress);
        if let Some(counts) = &mut self.two_at_once {
            counts.committed += 1;
            counts.session = Some(session);
        }
        true
    }
}
