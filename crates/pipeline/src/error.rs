//! What ends a session of a flow, and what a flow returns when it may not go on.

use std::error::Error;
use std::fmt::Write;

use relevo_model::{Fault, FaultClass, Side, SourceLsn};

/// Why a session ended. [`Flow::run`](crate::Flow::run) handles all of them itself except those of class
/// [`FaultClass::Refused`], which it returns.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// One end reported an error.
    #[error("the {side} failed")]
    End {
        /// Which end.
        side: Side,
        /// What can be done about it.
        class: FaultClass,
        /// The short word for it.
        kind: &'static str,
        /// What the end said.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The source yielded something that does not follow what it yielded before. Applying it would repeat or
    /// reorder changes.
    #[error(
        "the source yielded a transaction out of order: {what} (commit {commit_lsn}, everything before {reached} \
         is on the target); nothing of it was applied. This is a fault of Relevo or of the slot: please report \
         it, with the log"
    )]
    OutOfOrder {
        /// What is wrong with it.
        what: &'static str,
        /// The commit LSN of the transaction that is out of place.
        commit_lsn: SourceLsn,
        /// The position that was reached before.
        reached: SourceLsn,
    },
    /// The target said that it is elsewhere than the batch it was given ends.
    #[error(
        "the target stored position {stored:?} for a batch that ends at {handed:?}; nothing beyond what was \
         confirmed before is confirmed. This is a fault of Relevo: please report it, with the log"
    )]
    WrongPosition {
        /// Where the batch ends.
        handed: Option<SourceLsn>,
        /// What the target answered.
        stored: Option<SourceLsn>,
    },
    /// The task that owns the target or its probe ended without a word, which only a panic does.
    #[error("the {task} task stopped unexpectedly; the log above may say why. It is started again")]
    TaskStopped {
        /// Which task.
        task: &'static str,
    },
    /// The target's second connection got no answer.
    #[error("the target has not answered for {silent_seconds} s; both connections are opened again")]
    TargetSilent {
        /// How long it was waited for.
        silent_seconds: u64,
    },
}

impl FlowError {
    /// Takes over an error of a port.
    pub(crate) fn end<F: Fault>(fault: F) -> Self {
        Self::End { side: fault.side(), class: fault.class(), kind: fault.kind(), cause: Box::new(fault) }
    }

    /// What went wrong with its causes, in one line, for a log or a status page. Which end it was is not repeated:
    /// [`Fault::side`] says it.
    #[must_use]
    pub fn text(&self) -> String {
        let first: &dyn Error = match self {
            Self::End { cause, .. } => cause.as_ref(),
            other => other,
        };
        let mut text = first.to_string();
        let mut next = first.source();
        while let Some(cause) = next {
            let words = cause.to_string();
            // Some libraries repeat the cause in their own text.
            if !text.contains(&words) {
                // Writing to a String cannot fail.
                let _ = write!(text, ": {words}");
            }
            next = cause.source();
        }
        text
    }
}

impl Fault for FlowError {
    fn class(&self) -> FaultClass {
        match self {
            Self::End { class, .. } => *class,
            Self::OutOfOrder { .. } | Self::WrongPosition { .. } => FaultClass::Refused,
            // A panic comes back with the same data: say so instead of calling it a passing trouble.
            Self::TaskStopped { .. } => FaultClass::Blocked,
            Self::TargetSilent { .. } => FaultClass::Transient,
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::End { side, .. } => *side,
            Self::OutOfOrder { .. } => Side::Source,
            Self::WrongPosition { .. } | Self::TaskStopped { .. } | Self::TargetSilent { .. } => Side::Target,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::End { kind, .. } => kind,
            Self::OutOfOrder { .. } => "out_of_order",
            Self::WrongPosition { .. } => "wrong_position",
            Self::TaskStopped { .. } => "task_stopped",
            Self::TargetSilent { .. } => "target_silent",
        }
    }
}
