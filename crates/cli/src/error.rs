//! What ends a command: with which exit code, under which kind, in which words.

use std::error::Error;
use std::fmt;

use relevo_catalog::CatalogError;
use relevo_model::{Fault, FaultClass, Side};
use relevo_state::StateError;

/// The kind of an error that only says which flow there is not.
pub const NO_FLOW: &str = "no_such_flow";

/// The kind of an error on standard output or standard error.
pub const OUTPUT: &str = "output";

/// A command did not do what it was asked to.
#[derive(Debug)]
pub enum CliError {
    /// The command line or the configuration is wrong.
    Usage(Said),
    /// It was tried and failed.
    Failed(Said),
    /// It was not done, because it could lose or repeat changes or destroy rows.
    Refused(Said),
}

/// What is said of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The stable word for it; docs/errors.md explains each.
    pub kind: &'static str,
    /// What happened and what to do, without secrets.
    pub text: String,
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said().text)
    }
}

impl Error for CliError {}

impl CliError {
    /// The command line or the configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(Said { kind: "usage", text: message.into() })
    }

    /// It was tried and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(Said { kind: "failed", text: message.into() })
    }

    /// It was not done, for safety.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused(Said { kind: "refused", text: message.into() })
    }

    /// The same error under the stable word for it.
    #[must_use]
    pub fn of_kind(mut self, kind: &'static str) -> Self {
        debug_assert!(relevo_model::is_kind(kind), "{kind} is not in relevo_model::KINDS");
        self.said_mut().kind = kind;
        self
    }

    /// The same error with more to say behind it.
    #[must_use]
    pub fn and(mut self, more: &str) -> Self {
        self.said_mut().text.push_str(more);
        self
    }

    /// An error of either side: refused when it says so, otherwise failed. The message holds the whole chain.
    pub fn from_fault(fault: &dyn Fault) -> Self {
        Self::of_class(fault.class(), chain(fault)).of_kind(fault.kind())
    }

    /// What can be done about it says how the command ends.
    pub fn of_class(class: FaultClass, message: impl Into<String>) -> Self {
        match class {
            FaultClass::Refused => Self::refused(message),
            FaultClass::Transient | FaultClass::Blocked => Self::failed(message),
        }
    }

    /// What is stored on the target could not be read or written.
    pub fn state(error: &StateError) -> Self {
        Self::failed(format!("target: {error}")).of_kind(error.kind())
    }

    /// A system catalog could not be read.
    pub fn catalog(error: &CatalogError) -> Self {
        Self::failed(chain(error)).of_kind(error.kind())
    }

    /// A statement of a command's own failed.
    pub fn sql(side: Side, action: &str, error: &tokio_postgres::Error) -> Self {
        let text = format!("{side}: {action}: {}", relevo_connect::describe(error));
        Self::failed(text).of_kind(relevo_connect::kind(error))
    }

    /// The stable word for it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.said().kind
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

    const fn said(&self) -> &Said {
        match self {
            Self::Usage(said) | Self::Failed(said) | Self::Refused(said) => said,
        }
    }

    const fn said_mut(&mut self) -> &mut Said {
        match self {
            Self::Usage(said) | Self::Failed(said) | Self::Refused(said) => said,
        }
    }
}

/// What happened, and the stable word for it: for texts that have no place of their own for it.
#[must_use]
pub fn with_kind(text: &str, kind: &str) -> String {
    format!("{text} [{kind}]")
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
