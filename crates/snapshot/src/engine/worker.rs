//! A worker: its two sessions, and what happens when one of them is lost.

use std::sync::Arc;
use std::time::Duration;

use relevo_connect::SqlSession;
use relevo_model::{Fault, FaultClass, Side};

use super::work::{Outcome, Task};
use super::{Engine, Table};
use crate::{CopyEvent, SnapshotError, sql};

/// The first pause after a session was lost; each further one in a row is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often to look whether the server has noticed that a session is gone.
const END_PAUSE: Duration = Duration::from_millis(20);

/// Does one task after the other over its own sessions, which are opened when they are first needed.
pub(super) struct Worker<'w, 'e> {
    pub(super) engine: &'w Engine<'e>,
    source: Option<Arc<SqlSession>>,
    target: Option<Arc<SqlSession>>,
    /// The backend of a target session that was lost: it may still be at work.
    lost: Option<i32>,
}

impl<'w, 'e> Worker<'w, 'e> {
    pub(super) fn new(engine: &'w Engine<'e>) -> Self {
        Self { engine, source: None, target: None, lost: None }
    }

    /// Does the task, as often as it takes. Returns an error when nothing is won by trying again under this snapshot.
    pub(super) async fn finish(&mut self, table: &Table<'_>, task: &Task) -> Result<Outcome, SnapshotError> {
        let mut pause = FIRST_PAUSE;
        let mut repeated = false;
        loop {
            let error = match self.attempt(table, task, repeated).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) if is_repeated(&error) => error,
                Err(error) => return Err(error),
            };
            // Both: there is no repair of a session in the middle of something.
            self.lost = self.target.take().map(|target| target.backend_pid()).or(self.lost);
            self.source = None;
            self.engine.observer.event(CopyEvent::Repeated {
                table: &table.job.table,
                side: error.side(),
                kind: error.kind(),
                message: &error.to_string(),
            });
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            repeated = true;
        }
    }

    async fn attempt(
        &mut self,
        table: &Table<'_>,
        task: &Task,
        repeated: bool,
    ) -> Result<Outcome, SnapshotError> {
        match task {
            Task::Rows => self.rows(table, repeated).await,
            Task::Part(range) => self.part(table, *range).await,
            Task::Complete(ranges) => self.complete(table, ranges).await,
            Task::Statement(number) => self.statement(table, *number).await,
            Task::Ready => self.ready(table).await,
        }
    }

    /// The session on the target.
    pub(super) async fn target(&mut self) -> Result<&Arc<SqlSession>, SnapshotError> {
        open_target(self.engine, &mut self.target, &mut self.lost).await
    }

    /// Both sessions: source and target.
    pub(super) async fn both(&mut self) -> Result<(&Arc<SqlSession>, &Arc<SqlSession>), SnapshotError> {
        let target = open_target(self.engine, &mut self.target, &mut self.lost);
        tokio::try_join!(open_source(self.engine, &mut self.source), target)
    }

    pub(super) async fn close(self) {
        for session in [self.source, self.target].into_iter().flatten() {
            if let Ok(session) = Arc::try_unwrap(session) {
                session.close().await;
            }
        }
    }
}

async fn open_source<'s>(
    engine: &Engine<'_>,
    source: &'s mut Option<Arc<SqlSession>>,
) -> Result<&'s Arc<SqlSession>, SnapshotError> {
    if source.is_none() {
        *source = Some(Arc::new(engine.sessions.source(engine.encoding).await?));
    }
    source.as_ref().ok_or(SnapshotError::Stopped)
}

/// `lost`: the backend that has to end first.
async fn open_target<'s>(
    engine: &Engine<'_>,
    target: &'s mut Option<Arc<SqlSession>>,
    lost: &mut Option<i32>,
) -> Result<&'s Arc<SqlSession>, SnapshotError> {
    if target.is_none() {
        let session = engine.sessions.worker(engine.attempt).await?;
        if let Some(backend) = *lost {
            end_backend(&session, &engine.sessions.options.flow.slot(), backend).await?;
            *lost = None;
        }
        *target = Some(Arc::new(session));
    }
    target.as_ref().ok_or(SnapshotError::Stopped)
}

/// Whether the same may work in a moment. The server's verdict on a row or a statement stands until somebody mends it;
/// and without the snapshot the copy has to begin again.
fn is_repeated(error: &SnapshotError) -> bool {
    let ends_the_attempt = matches!(
        error,
        SnapshotError::SnapshotGone { .. }
            | SnapshotError::TableChanged { .. }
            | SnapshotError::Superseded { .. }
            | SnapshotError::Stopped
    );
    !ends_the_attempt && error.class() == FaultClass::Transient
}

/// Waits until the backend of a session that was lost has ended: it may still write, and would add its rows to those of
/// the repetition. It is told to end; left alone, it would notice only when it next looks at its client.
async fn end_backend(target: &SqlSession, name: &str, backend: i32) -> Result<(), SnapshotError> {
    let error = || SnapshotError::sql(Side::Target, "ending what a lost session was doing");
    while !target.query(sql::END_BACKEND, &[&backend, &name]).await.map_err(error())?.is_empty() {
        tokio::time::sleep(END_PAUSE).await;
    }
    Ok(())
}
