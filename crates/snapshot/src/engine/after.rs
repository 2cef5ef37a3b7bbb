//! What comes after the rows of one table and is about it alone: its indexes and keys, and the planner's statistics.

use std::sync::PoisonError;

use relevo_connect::describe;
use relevo_model::FaultClass;
use relevo_state as state;

use super::Table;
use super::work::Outcome;
use super::worker::Worker;
use crate::session::{begin, check_attempt, commit, roll_back};
use crate::{CopyEvent, SnapshotError, script, sql};

/// The SQLSTATEs of names that are not there: `undefined_object`, `undefined_function`, `undefined_table`,
/// `undefined_column`, `invalid_schema_name`.
const UNDEFINED: [&str; 5] = ["42704", "42883", "42P01", "42703", "3F000"];

impl Worker<'_, '_> {
    /// Runs one of the table's own statements, together with the note that it is done.
    pub(super) async fn statement(
        &mut self,
        table: &Table<'_>,
        number: usize,
    ) -> Result<Outcome, SnapshotError> {
        let engine = self.engine;
        let flow = &engine.sessions.options.flow;
        let Some(pending) = table.statements.get(number) else { return Ok(Outcome::Done) };
        let target = self.target().await?;
        begin(target).await?;
        // First, so that it waits for a session that was lost and may still be at it.
        if !state::is_pending(&***target, flow, pending.ordinal).await.map_err(SnapshotError::state)? {
            roll_back(target).await?;
            return Ok(Outcome::Done);
        }
        match target.batch_execute(&pending.statement).await {
            Ok(()) => {}
            Err(error) if error.code().is_some_and(|code| UNDEFINED.contains(&code.code())) => {
                // An index may use a function that itself comes after the rows: it takes its place in the order.
                roll_back(target).await?;
                let mut deferred = table.deferred.lock().unwrap_or_else(PoisonError::into_inner);
                deferred.push(pending.ordinal);
                return Ok(Outcome::Done);
            }
            Err(source) => {
                let statement = script::summary(&pending.statement);
                return Err(SnapshotError::Statement { statement, source });
            }
        }
        state::finish_statement(&***target, flow, pending.ordinal).await.map_err(SnapshotError::state)?;
        check_attempt(target, flow, engine.attempt).await?;
        commit(target).await?;
        Ok(Outcome::Done)
    }

    /// Gives the planner its statistics: without them the first queries, Relevo's own among them, scan whole tables.
    /// Then the table is ready.
    pub(super) async fn ready(&mut self, table: &Table<'_>) -> Result<Outcome, SnapshotError> {
        let engine = self.engine;
        let name = &table.job.table;
        let target = self.target().await?;
        match target.batch_execute(&format!("ANALYZE {}", name.quoted())).await {
            Ok(()) => {}
            Err(error) if relevo_connect::classify(&error) == FaultClass::Transient => {
                return Err(SnapshotError::target_sql(format!("analysing {name}"))(error));
            }
            Err(error) => {
                let message = format!("table {name} could not be analysed: {}", describe(&error));
                engine.observer.event(CopyEvent::Warning { message: &message });
            }
        }
        if !table.statements.is_empty() {
            // The commits of the statements were not flushed; a crash may have taken some back.
            begin(target).await?;
            let missing = self.missing_statements(table).await?;
            let target = self.target().await?;
            if !missing.is_empty() {
                roll_back(target).await?;
                return Ok(Outcome::MissingStatements(missing));
            }
            target
                .batch_execute(sql::WRITE_COMMIT)
                .await
                .map_err(SnapshotError::target_sql("flushing what was created"))?;
            engine.commit_flushed(target).await?;
        }
        engine.observer.event(CopyEvent::TableReady { table: name });
        Ok(Outcome::Done)
    }

    /// The numbers of the statements that are still to be run.
    async fn missing_statements(&mut self, table: &Table<'_>) -> Result<Vec<usize>, SnapshotError> {
        let flow = &self.engine.sessions.options.flow;
        let ordinals: Vec<i32> = table.statements.iter().map(|pending| pending.ordinal).collect();
        let target = self.target().await?;
        let pending =
            state::still_pending(&***target, flow, &ordinals).await.map_err(SnapshotError::state)?;
        let deferred = table.deferred.lock().unwrap_or_else(PoisonError::into_inner);
        let is_missing = |ordinal: &i32| pending.contains(ordinal) && !deferred.contains(ordinal);
        let numbered = ordinals.iter().enumerate().filter(|(_, ordinal)| is_missing(ordinal));
        Ok(numbered.map(|(number, _)| number).collect())
    }
}
