//! The statements that wait until all rows are there, because they are about several tables or their order counts: each
//! in a transaction of its own together with the note that it is done, so that an interrupted run goes on where it was.

use relevo_connect::{SqlSession, describe};
use relevo_model::FlowName;
use relevo_state::{self as state, PendingStatement};
use tokio_postgres::error::SqlState;

use crate::script::{ForeignKey, foreign_key, not_valid, summary};
use crate::session::{begin, check_attempt, commit, roll_back};
use crate::{CopyEvent, CopyObserver, Phase, SnapshotError, sql};

/// Creates all that is left, in the order of the dump.
pub(crate) async fn create_the_rest(
    flow: &FlowName,
    target: &SqlSession,
    attempt: i32,
    observer: &dyn CopyObserver,
) -> Result<(), SnapshotError> {
    let pending = state::pending_statements(&**target, flow).await.map_err(SnapshotError::state)?;
    let phase = Phase::Indexes;
    observer.event(CopyEvent::PhaseStarted { phase, steps: pending.len(), estimated_bytes: 0 });
    let rest = Rest { flow, target, attempt, observer };
    for statement in &pending {
        match foreign_key(&statement.statement) {
            Some(key) => rest.foreign_key(statement, &key).await?,
            None => rest.run(statement, &statement.statement, true).await?,
        }
        observer.event(CopyEvent::StepFinished { phase });
    }
    Ok(())
}

struct Rest<'r> {
    flow: &'r FlowName,
    target: &'r SqlSession,
    attempt: i32,
    observer: &'r dyn CopyObserver,
}

impl Rest<'_> {
    /// Runs a text for a stored statement. `last`: with it the statement is done.
    async fn run(&self, pending: &PendingStatement, text: &str, last: bool) -> Result<(), SnapshotError> {
        begin(self.target).await?;
        if let Err(source) = self.target.batch_execute(text).await {
            // The session goes on after a foreign key that does not hold.
            roll_back(self.target).await?;
            return Err(SnapshotError::Statement { statement: summary(text), source });
        }
        if last {
            self.done(pending).await?;
        }
        check_attempt(self.target, self.flow, self.attempt).await?;
        commit(self.target).await
    }

    async fn done(&self, pending: &PendingStatement) -> Result<(), SnapshotError> {
        let done = state::finish_statement(&**self.target, self.flow, pending.ordinal).await;
        done.map_err(SnapshotError::state)
    }

    /// Creates a foreign key without looking at the rows, which takes a moment, and looks at them afterwards under a
    /// lock that keeps nobody from writing (manual, *ALTER TABLE*, `VALIDATE CONSTRAINT`).
    ///
    /// A partitioned table cannot have it in two steps before version 18 on its own side, and the other side's
    /// partitions would not be told that it was validated.
    async fn foreign_key(&self, pending: &PendingStatement, key: &ForeignKey) -> Result<(), SnapshotError> {
        let text = &pending.statement;
        let (Some(unchecked), false) = (not_valid(text), self.is_partitioned(key).await?) else {
            return match self.run(pending, text, true).await {
                Err(error) => self.violated(pending, error).await,
                done => done,
            };
        };
        match self.validated(key).await? {
            None => self.run(pending, &unchecked, false).await?,
            // An interrupted run has created it.
            Some(false) => {}
            Some(true) => return self.done(pending).await,
        }
        let validate =
            format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", key.table.quoted(), key.quoted_name());
        match self.run(pending, &validate, true).await {
            Err(SnapshotError::Statement { source, .. })
                if source.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) =>
            {
                self.done(pending).await?;
                self.warn("created as NOT VALID", pending, &source);
                Ok(())
            }
            done => done,
        }
    }

    async fn is_partitioned(&self, key: &ForeignKey) -> Result<bool, SnapshotError> {
        for table in [&key.table, &key.referenced] {
            let row = self.target.query_one(sql::IS_PARTITIONED, &[&table.quoted()]).await;
            let row = row.map_err(SnapshotError::target_sql(format!("looking at table {table}")))?;
            if row.get(0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn validated(&self, key: &ForeignKey) -> Result<Option<bool>, SnapshotError> {
        let row = self.target.query_opt(sql::FOREIGN_KEY, &[&key.table.quoted(), &key.name]).await;
        let row = row.map_err(SnapshotError::target_sql(format!("looking for foreign key {}", key.name)))?;
        Ok(row.map(|row| row.get(0)))
    }

    /// A foreign key that does not hold: it points into a table whose rows are not copied, or is violated on the
    /// source too. It is created without looking at the rows there are, or else left out; either way somebody is told.
    async fn violated(&self, pending: &PendingStatement, error: SnapshotError) -> Result<(), SnapshotError> {
        let violation = match error {
            SnapshotError::Statement { source, .. }
                if source.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) =>
            {
                source
            }
            error => return Err(error),
        };
        if let Some(unchecked) = not_valid(&pending.statement) {
            match self.run(pending, &unchecked, true).await {
                Ok(()) => {
                    self.warn("created as NOT VALID", pending, &violation);
                    return Ok(());
                }
                // A foreign key of a partitioned table cannot be NOT VALID before version 18.
                Err(SnapshotError::Statement { source, .. }) if source.as_db_error().is_some() => {}
                Err(error) => return Err(error),
            }
        }
        self.done(pending).await?;
        self.warn("left out", pending, &violation);
        Ok(())
    }

    fn warn(&self, what: &str, pending: &PendingStatement, violation: &tokio_postgres::Error) {
        let (name, why) = (summary(&pending.statement), describe(violation));
        let message = format!("{what}, because rows violate it: {name}: {why}");
        self.observer.event(CopyEvent::Warning { message: &message });
    }
}
