//! Opening sessions for commands, and finding out which flow a command is about.

use relevo_catalog::ServerFacts;
use relevo_connect::{ConnInfo, ConnectError, SessionSettings, SqlSession, connect_sql};
use relevo_model::{FlowName, Side};

use crate::error::CliError;
use crate::settings::FlowSettings;

/// What the sessions of commands are called on the servers, before the flow's name is known.
const APPLICATION_NAME: &str = "relevo";

/// Opens a session for looking things up, under the settings that all of Relevo's SQL expects.
///
/// # Errors
/// The server's or the network's, with what to do.
pub async fn session(info: &ConnInfo, side: Side) -> Result<SqlSession, ConnectError> {
    connect_sql(info, side, &SessionSettings::for_values(APPLICATION_NAME)).await
}

/// Opens a session on each side.
///
/// # Errors
/// The first that failed.
pub async fn both(settings: &FlowSettings) -> Result<(SqlSession, SqlSession), CliError> {
    let source = session(&settings.source, Side::Source).await.map_err(|e| CliError::from_fault(&e))?;
    let target = session(&settings.target, Side::Target).await.map_err(|e| CliError::from_fault(&e))?;
    Ok((source, target))
}

/// The flow's name: the given one, or what derives from both databases.
#[must_use]
pub fn flow_name(given: Option<&FlowName>, source: &ServerFacts, target: &ServerFacts) -> FlowName {
    given.cloned().unwrap_or_else(|| {
        FlowName::derive((&source.system_id, &source.database), (&target.system_id, &target.database))
    })
}
