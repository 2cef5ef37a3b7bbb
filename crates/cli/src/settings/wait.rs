//! What `relevo wait` goes by: of the settings of a flow, only what it needs.

use std::time::Duration;

use relevo_connect::ConnInfo;
use relevo_model::{FlowName, Side, SourceLsn};

use super::File;
use crate::args::WaitArgs;
use crate::error::CliError;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// What is waited for, and where.
pub struct WaitSettings {
    /// The position, or who is asked for it.
    pub position: Position,
    /// Where it is waited for.
    pub target: ConnInfo,
    /// The name that was given, if one was.
    pub name: Option<FlowName>,
    /// How long.
    pub timeout: Duration,
}

/// A position of the source.
pub enum Position {
    /// This one.
    Given(SourceLsn),
    /// The one that this source is at.
    Now(Box<ConnInfo>),
}

impl File {
    /// What to wait for and where. Whoever gives a position need not name the source.
    ///
    /// # Errors
    /// [`CliError::Usage`].
    pub fn wait(&self, args: &WaitArgs) -> Result<WaitSettings, CliError> {
        let timeout = match args.timeout {
            None => DEFAULT_TIMEOUT,
            Some(given) => Duration::try_from(given)
                .ok()
                .filter(|limit| !limit.is_zero())
                .ok_or_else(|| CliError::usage(format!("timeout is {given:#}: expected more than 0s")))?,
        };
        let name = self.flow_name(&args.flow)?;
        let position = match args.lsn {
            Some(lsn) => Position::Given(lsn),
            None => Position::Now(Box::new(self.endpoint_of(Side::Source, &args.flow)?)),
        };
        Ok(WaitSettings { position, target: self.endpoint_of(Side::Target, &args.flow)?, name, timeout })
    }
}
