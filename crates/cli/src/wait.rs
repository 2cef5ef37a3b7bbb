//! `relevo wait`: returns when the target has applied a position of the source, so that whoever has written there reads it
//! here.
//!
//! It asks the two databases and never the running process, so it works from wherever they can be reached. A side that is
//! away for a moment is waited for, within the same limit.

use std::time::Duration;

use relevo_connect::{ConnInfo, SqlSession};
use relevo_model::{Fault, FaultClass, FlowName, Side, SourceIdentity, SourceLsn};
use relevo_state::{FlowRecord, StoredProgress};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::types::PgLsn;
use tracing::{debug, warn};

use crate::args::WaitArgs;
use crate::error::{CliError, chain};
use crate::settings::{File, Position, WaitSettings};
use crate::{connect, output, status};

/// The first pause between two looks at the target; each is longer than the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A transaction of our own on the source, and where its only record ends: behind every commit that was there before, and
/// before its own. So the target has all of them once it is past that position; and since a commit follows, it gets there at
/// once even when nobody else writes. Needs no table and no right (manual, *Replication Management Functions*).
const MARK: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'relevo', 'wait')";
/// What is not flushed is not sent: its flush is not left to the WAL writer. Standbys of the source are not waited for.
const FLUSH: &str = "SET synchronous_commit = local";
/// Whether a session still answers.
const ALIVE: &str = "SELECT 1";

/// The document of `relevo wait --json`.
#[derive(Debug, Serialize)]
struct Outcome {
    name: Option<String>,
    reached: bool,
    lsn: Option<String>,
    applied_lsn: Option<String>,
    behind_bytes: Option<u64>,
    waited_seconds: f64,
}

/// What is waited for.
struct Goal {
    lsn: SourceLsn,
    /// System id and name of the database that said so, if one was asked.
    source: Option<(String, String)>,
}

/// How far it is, for whoever waited in vain.
#[derive(Default)]
struct Seen {
    goal: Option<SourceLsn>,
    flow: Option<FlowName>,
    record: Option<FlowRecord>,
    progress: Option<StoredProgress>,
    /// Why a side cannot be asked just now.
    trouble: Option<String>,
}

/// Why there is nothing to be seen.
enum Trouble {
    /// It passes: a link that was lost, a server that restarts.
    Passing(String),
    /// It does not.
    Lasting(CliError),
}

/// Waits.
///
/// # Errors
/// [`CliError::Failed`]: not reached in time, or it never can be; [`CliError::Usage`].
pub async fn run(args: &WaitArgs, file: &File) -> Result<(), CliError> {
    let settings = file.wait(args)?;
    let started = Instant::now();
    let mut seen = Seen::default();
    let result = timeout_at(started + settings.timeout, wait(&settings, &mut seen)).await;
    let waited = started.elapsed();
    match result {
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => seen.show(args.json, true, waited),
        Err(_) => {
            if args.json {
                seen.show(true, false, waited)?;
            }
            Err(CliError::failed(seen.in_vain(settings.timeout)).of_kind("not_reached"))
        }
    }
}

/// Waits without a limit.
async fn wait(settings: &WaitSettings, seen: &mut Seen) -> Result<(), CliError> {
    let goal = loop {
        let goal = match &settings.position {
            Position::Given(lsn) => Ok(Goal { lsn: *lsn, source: None }),
            Position::Now(source) => mark(source).await,
        };
        match goal {
            Ok(goal) => break goal,
            Err(trouble) => seen.bear(trouble).await?,
        }
    };
    seen.goal = Some(goal.lsn);
    loop {
        match follow(settings, &goal, seen).await {
            Ok(()) => return Ok(()),
            Err(trouble) => seen.bear(trouble).await?,
        }
    }
}

/// Opens a session; a wrong password does not pass, a server that restarts does.
async fn session(info: &ConnInfo, side: Side) -> Result<SqlSession, Trouble> {
    connect::session(info, side).await.map_err(|error| match error.class() {
        FaultClass::Transient => Trouble::Passing(chain(&error)),
        FaultClass::Blocked | FaultClass::Refused => Trouble::Lasting(CliError::from_fault(&error)),
    })
}

/// A question went wrong: with the session, or because of what was asked.
async fn asked(session: &SqlSession, error: CliError) -> Trouble {
    match session.batch_execute(ALIVE).await {
        Ok(()) => Trouble::Lasting(error),
        Err(_) => Trouble::Passing(error.to_string()),
    }
}

/// Asks the source for a position behind all that is committed there now.
async fn mark(source: &ConnInfo) -> Result<Goal, Trouble> {
    let session = session(source, Side::Source).await?;
    let answer = async {
        let facts = relevo_catalog::server(&session).await;
        let facts = facts
            .map_err(|error| CliError::failed(format!("source: {}", chain(&error))).of_kind(error.kind()))?;
        let failed = |error| CliError::sql(Side::Source, "marking the present position", &error);
        session.batch_execute(FLUSH).await.map_err(failed)?;
        let row = session.query_one(MARK, &[]).await.map_err(failed)?;
        let lsn = SourceLsn::new(row.get::<_, PgLsn>(0).into());
        Ok(Goal { lsn, source: Some((facts.system_id, facts.database)) })
    };
    match answer.await {
        Ok(goal) => Ok(goal),
        Err(error) => Err(asked(&session, error).await),
    }
}

/// Looks at the target until it is there. It ends early only with trouble.
async fn follow(settings: &WaitSettings, goal: &Goal, seen: &mut Seen) -> Result<(), Trouble> {
    let target = session(&settings.target, Side::Target).await?;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Err(error) = seen.look(settings, goal, &target).await {
            return Err(asked(&target, error).await);
        }
        if seen.reached(goal) {
            return Ok(());
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

async fn flow_of(settings: &WaitSettings, goal: &Goal, target: &SqlSession) -> Result<FlowName, CliError> {
    let derived = match (&settings.name, &goal.source) {
        (None, Some((system_id, database))) => {
            let facts = relevo_catalog::server(target).await;
            let facts = facts.map_err(|error| {
                CliError::failed(format!("target: {}", chain(&error))).of_kind(error.kind())
            })?;
            Some(FlowName::derive((system_id, database), (&facts.system_id, &facts.database)))
        }
        _ => None,
    };
    status::flow_on_target(settings.name.as_ref().or(derived.as_ref()), target).await
}

impl Seen {
    async fn look(
        &mut self,
        settings: &WaitSettings,
        goal: &Goal,
        target: &SqlSession,
    ) -> Result<(), CliError> {
        let failed = |error| CliError::state(&error);
        let flow = match self.flow.clone() {
            Some(flow) => flow,
            None => self.flow.insert(flow_of(settings, goal, target).await?).clone(),
        };
        self.record = relevo_state::flow(&**target, &flow).await.map_err(failed)?;
        self.progress = relevo_state::progress(&**target, &flow).await.map_err(failed)?;
        self.trouble = None;
        match (&goal.source, &self.progress) {
            (Some(asked), Some(StoredProgress { source, .. })) => same_source(&flow, asked, source),
            _ => Ok(()),
        }
    }

    /// A table that has not arrived with the copy misses what the position says: the copy must have been complete once.
    fn reached(&self, goal: &Goal) -> bool {
        self.record.as_ref().is_some_and(|record| record.completed)
            && self.progress.as_ref().is_some_and(|stored| stored.progress.applied >= goal.lsn)
    }

    /// What passes is waited for.
    async fn bear(&mut self, trouble: Trouble) -> Result<(), CliError> {
        let why = match trouble {
            Trouble::Lasting(error) => return Err(error),
            Trouble::Passing(why) => why,
        };
        if self.trouble.is_none() {
            warn!(error = %why, "no answer; it is asked again until the time is up");
        } else {
            debug!(error = %why, "still no answer");
        }
        self.trouble = Some(why);
        sleep(LONGEST_PAUSE).await;
        Ok(())
    }

    fn applied(&self) -> Option<SourceLsn> {
        self.progress.as_ref().map(|stored| stored.progress.applied)
    }

    fn behind_bytes(&self) -> Option<u64> {
        Some(self.goal?.bytes_since(self.applied()?))
    }

    fn show(&self, json: bool, reached: bool, waited: Duration) -> Result<(), CliError> {
        let text = |lsn: Option<SourceLsn>| lsn.map(|lsn| lsn.to_string());
        let outcome = Outcome {
            name: self.flow.as_ref().map(ToString::to_string),
            reached,
            lsn: text(self.goal),
            applied_lsn: text(self.applied()),
            behind_bytes: self.behind_bytes(),
            waited_seconds: waited.as_secs_f64(),
        };
        if json {
            return output::json(&outcome);
        }
        let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
        output::print(&format!(
            "flow {} has applied {}: it stands at {} after {:.3} s\n",
            or_unknown(outcome.name),
            or_unknown(outcome.lsn),
            or_unknown(outcome.applied_lsn),
            outcome.waited_seconds
        ))
    }

    /// What stood in the way when the time was up.
    fn in_vain(&self, limit: Duration) -> String {
        let limit = output::seconds(limit.as_secs_f64());
        let Some(goal) = self.goal else {
            let why = self.trouble.as_deref().unwrap_or("the source has not answered");
            return format!("not within {limit}: the source could not be asked for its position: {why}");
        };
        let mut text = format!("{goal} is not applied within {limit}");
        if let Some(flow) = &self.flow {
            match (self.applied(), self.behind_bytes()) {
                (Some(applied), Some(0)) => text += &format!(": flow {flow} stands at {applied}"),
                (Some(applied), behind) => {
                    let behind = output::bytes(behind.unwrap_or(0));
                    text += &format!(": flow {flow} stands at {applied}, {behind} before it");
                }
                (None, _) => text += &format!(": flow {flow} has no progress yet"),
            }
        }
        if let Some(record) = &self.record {
            text += &format!("; its state is {}", record.state);
            if let Some(detail) = &record.detail {
                text += &format!(" ({detail})");
            }
            if !record.completed {
                text += ", and its initial copy is not complete";
            }
        }
        if let Some(why) = &self.trouble {
            text += &format!("; the last answer was an error: {why}");
        } else if self.flow.is_none() {
            text += ": the target has not answered";
        }
        text
    }
}

/// A position of another source says nothing.
fn same_source(
    flow: &FlowName,
    (system_id, database): &(String, String),
    source: &SourceIdentity,
) -> Result<(), CliError> {
    if (system_id, database) == (&source.system_id, &source.database) {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "flow {flow} follows database {:?} of the server with system identifier {}, but --source is database {database:?} \
         of {system_id}: their positions cannot be compared; name the flow's own source",
        source.database, source.system_id
    )).of_kind("other_source"))
}
