//! Looking at both databases, once or again and again, and what follows from what they say.

use std::time::Duration;

use relevo_catalog::Selection;
use relevo_connect::{ConnInfo, ConnectError, SqlSession};
use relevo_model::{Fault, FlowName, Side, SourceLsn, Timestamp};
use relevo_state::FlowState;
use relevo_telemetry::Role;
use tokio::time::Instant;

use super::sides::{SourceSide, TargetSide, not_added, read_source, read_target};
use super::{Status, Unreachable, Watched, copying};
use crate::args::StatusArgs;
use crate::connect;
use crate::error::{CliError, NO_FLOW, chain};
use crate::output;
use crate::settings::{File, FlowSettings, Standing};

/// The slots of Relevo in this database, for when the flow's name has to be guessed.
const SLOTS: &str = "SELECT slot_name::text FROM pg_catalog.pg_replication_slots \
     WHERE plugin = 'pgoutput' AND database = pg_catalog.current_database() AND slot_name LIKE 'relevo\\_%'";
/// Comparing the catalog with the flow is not worth more while somebody watches.
const NOT_ADDED_INTERVAL: Duration = Duration::from_secs(30);

/// Whoever looks. Sessions stay open from one look to the next.
pub struct Looker {
    settings: FlowSettings,
    selection: Selection,
    standing: Option<Standing>,
    source: Option<SqlSession>,
    target: Option<SqlSession>,
    flow: Option<FlowName>,
    not_added: Option<(Instant, u64)>,
}

impl Looker {
    /// Nobody has been asked yet.
    ///
    /// # Errors
    /// [`CliError::Usage`].
    pub fn new(args: &StatusArgs, file: &File) -> Result<Self, CliError> {
        Ok(Self {
            settings: file.flow(&args.flow)?,
            selection: file.selection(&args.patterns)?,
            standing: file.standing().cloned(),
            source: None,
            target: None,
            flow: None,
            not_added: None,
        })
    }

    /// The next look opens its sessions anew: what these will answer is not known.
    pub fn forget_sessions(&mut self) {
        (self.source, self.target) = (None, None);
    }

    /// How the flow is now.
    ///
    /// # Errors
    /// [`CliError::Failed`]: neither side answers, or none of them knows the flow.
    pub async fn look(&mut self) -> Result<Status, CliError> {
        let (source, target) = tokio::join!(
            session(self.source.take(), &self.settings.source, Side::Source),
            session(self.target.take(), &self.settings.target, Side::Target)
        );
        let mut unreachable = Vec::new();
        for (side, error) in [(Side::Source, source.as_ref().err()), (Side::Target, target.as_ref().err())] {
            if let Some(error) = error {
                let side = side.to_string();
                unreachable.push(Unreachable { side, kind: error.kind(), error: chain(error) });
            }
        }
        (self.source, self.target) = (source.ok(), target.ok());
        let (source, target) = (self.source.as_ref(), self.target.as_ref());
        let flow = match &self.flow {
            Some(flow) if unreachable.len() < 2 => flow.clone(),
            _ => flow_of(&self.settings, source, target, &unreachable).await?,
        };
        let mut on_target = match target {
            Some(session) => read_target(session, &flow).await?,
            None => TargetSide::default(),
        };
        let on_source = match source {
            Some(session) => read_source(session, &flow).await?,
            None => SourceSide::default(),
        };
        if let Some(source) = source
            && on_target.state.is_some()
        {
            let known = self.not_added.filter(|(at, _)| at.elapsed() < NOT_ADDED_INTERVAL);
            let (at, count) = match known {
                Some(known) => known,
                None => (Instant::now(), not_added(source, &self.selection, &on_target.recorded).await?),
            };
            self.not_added = Some((at, count));
            on_target.tables.not_added = count;
        }
        if on_target.state.is_none() && on_source.slot.is_none() && unreachable.is_empty() {
            return Err(CliError::failed(format!(
                "there is no flow {flow} between these databases: begin one with relevo run, or give its --name"
            ))
            .of_kind(NO_FLOW));
        }
        self.flow = Some(flow.clone());
        Ok(status(&flow, self.standing.as_ref(), (on_source, on_target), unreachable))
    }
}

/// The session that is there, or a new one.
async fn session(kept: Option<SqlSession>, info: &ConnInfo, side: Side) -> Result<SqlSession, ConnectError> {
    match kept.filter(|session| !session.is_closed()) {
        Some(session) => Ok(session),
        None => connect::session(info, side).await,
    }
}

/// The flow's name when only the target is at hand: the given one, or the only one there.
///
/// # Errors
/// [`CliError::Failed`]: there is none, or none of that name; [`CliError::Usage`]: there is more than one.
pub async fn flow_on_target(wanted: Option<&FlowName>, target: &SqlSession) -> Result<FlowName, CliError> {
    let failed = |error| CliError::state(&error);
    if relevo_state::installed_version(&**target).await.map_err(failed)?.is_none() {
        return Err(CliError::failed(
            "the target has no schema relevo: no flow was ever begun into this database",
        )
        .of_kind(NO_FLOW));
    }
    let mut flows: Vec<FlowName> =
        relevo_state::flows(&**target).await.map_err(failed)?.into_iter().map(|flow| flow.name).collect();
    let Some(wanted) = wanted else { return only(flows, "the target") };
    flows.retain(|name| name == wanted);
    flows
        .pop()
        .ok_or_else(|| CliError::failed(format!("the target knows of no flow {wanted}")).of_kind(NO_FLOW))
}

fn only(mut names: Vec<FlowName>, place: &str) -> Result<FlowName, CliError> {
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok(name),
        (None, _) => {
            Err(CliError::failed(format!("{place} knows of no flow; if there is one, give its --name"))
                .of_kind(NO_FLOW))
        }
        (Some(last), false) => {
            names.push(last);
            let names: Vec<&str> = names.iter().map(FlowName::as_str).collect();
            Err(CliError::usage(format!(
                "{place} knows several flows, give one as --name: {}",
                names.join(", ")
            ))
            .of_kind("ambiguous_flow"))
        }
    }
}

async fn flow_of(
    settings: &FlowSettings,
    source: Option<&SqlSession>,
    target: Option<&SqlSession>,
    unreachable: &[Unreachable],
) -> Result<FlowName, CliError> {
    match (&settings.name, source, target) {
        (Some(name), Some(_), _) | (Some(name), _, Some(_)) => Ok(name.clone()),
        (None, Some(source), Some(target)) => {
            let failed = |error| CliError::catalog(&error);
            let source = relevo_catalog::server(source).await.map_err(failed)?;
            let target = relevo_catalog::server(target).await.map_err(failed)?;
            Ok(connect::flow_name(None, &source, &target))
        }
        (None, None, Some(target)) => flow_on_target(None, target).await,
        (None, Some(source), None) => {
            let rows = source
                .query(SLOTS, &[])
                .await
                .map_err(|error| CliError::sql(Side::Source, "reading the slots", &error))?;
            let name =
                |row: &tokio_postgres::Row| row.get::<_, String>(0).strip_prefix("relevo_")?.parse().ok();
            only(rows.iter().filter_map(name).collect(), "the source")
        }
        (_, None, None) => {
            let errors: Vec<&str> = unreachable.iter().map(|side| side.error.as_str()).collect();
            Err(CliError::failed(format!("neither database can be reached: {}", errors.join("; ")))
                .of_kind(unreachable.first().map_or("connection_lost", |side| side.kind)))
        }
    }
}

/// What follows from both sides.
fn status(
    flow: &FlowName,
    standing: Option<&Standing>,
    (source, target): (SourceSide, TargetSide),
    unreachable: Vec<Unreachable>,
) -> Status {
    let (state, detail, at) = match target.state {
        // A flow that streams holds its slot; one that was killed could not write down that it stopped.
        Some((FlowState::Streaming | FlowState::Preparing, detail, at))
            if source.slot.is_some() && !source.active && target.applied.is_some() =>
        {
            (FlowState::Stopped, detail, Some(at))
        }
        // A source that does not answer cannot be streamed from; what was written down is only the last word.
        Some((FlowState::Streaming, _, at)) if !source.known => {
            let why = "the source cannot be reached; streaming is what the flow last said of itself";
            (FlowState::Preparing, Some(why.to_owned()), Some(at))
        }
        Some((state, detail, at)) => (state, detail, Some(at)),
        None if !target.known => {
            let why = "the target, where the flow's state is written down, cannot be reached";
            (if source.active { FlowState::Streaming } else { FlowState::Failed }, Some(why.to_owned()), None)
        }
        None => (FlowState::Preparing, None, None),
    };
    // A walsender reports positions without changes, which are written down only now and then.
    let applied = target.applied.max(source.replayed.filter(|_| target.applied.is_some()));
    let lag_bytes = source.current.zip(applied).map(|(current, applied)| current.bytes_since(applied));
    let lag_seconds = match (lag_bytes, source.now, target.commit_time) {
        (Some(0), ..) => Some(0.0),
        (_, now, Some(commit_time)) => Some(now.unwrap_or_else(Timestamp::now).seconds_since(commit_time)),
        _ => None,
    };
    let text = |lsn: Option<SourceLsn>| lsn.map(|lsn| lsn.to_string());
    Status {
        name: flow.to_string(),
        node: standing.map(|standing| standing.node.clone()),
        role: match standing {
            Some(standing) if standing.node == standing.primary => Role::Primary,
            Some(_) | None => Role::Standby,
        },
        primary: standing.map(|standing| standing.primary.clone()),
        epoch: standing.map_or(0, |standing| standing.epoch),
        state: state.as_str(),
        state_detail: detail,
        state_at: at.map(output::time),
        running: source.active,
        source_lsn: text(source.current),
        received_lsn: text(source.received.max(applied)),
        applied_lsn: text(applied),
        durable_lsn: text(source.confirmed),
        lag_bytes,
        lag_seconds,
        last_commit_time: target.commit_time.map(output::time),
        slot: source.slot,
        tables: target.tables,
        copy: target.copy.map(|copy| copying::of_process(copy, source.active)),
        errors: target.errors,
        last_error: target.last_error,
        unreachable,
        watched: Watched { tables: target.each_table, handovers: target.handovers },
    }
}
