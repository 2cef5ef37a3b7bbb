//! What ends a command, and with which exit code.

use std::error::Error;

use relevo_model::{Fault, FaultClass};
use thiserror::Error;

/// A command did not do what it was asked to.
#[derive(Debug, Error)]
pub enum CliError {
    /// The command line or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// It was not done, because it could lose or repeat changes or destroy rows.
    #[error("{0}")]
    Refused(String),
}

impl CliError {
    /// The command line or the configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// It was tried and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// It was not done, for safety.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused(message.into())
    }

    /// An error of either side: refused when it says so, otherwise failed. The message holds the whole chain.
    pub fn from_fault(fault: &dyn Fault) -> Self {
        match fault.class() {
            FaultClass::Refused => Self::Refused(chain(fault)),
            FaultClass::Transient | FaultClass::Blocked => Self::Failed(chain(fault)),
        }
    }

    /// The process's exit code; the contract is in the help text of the program.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
        }
    }
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Some errors repeat their cause in their own text.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
