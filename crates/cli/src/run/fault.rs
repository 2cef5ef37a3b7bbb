//! One kind of error for everything that happens before the stream: the side, what can be done, and the words.

use relevo_catalog::{CatalogError, Finding, UNANSWERED};
use relevo_model::{Fault, FaultClass, Side};
use relevo_state::StateError;

use crate::error::{CliError, chain};

/// Beginning a flow failed.
#[derive(Debug)]
pub struct StartFault {
    /// Where.
    pub side: Side,
    /// What can be done about it.
    pub class: FaultClass,
    /// The short word for it.
    pub kind: &'static str,
    /// What happened and what to do, without secrets.
    pub text: String,
}

impl std::fmt::Display for StartFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl<F: Fault> From<F> for StartFault {
    fn from(fault: F) -> Self {
        Self { side: fault.side(), class: fault.class(), kind: fault.kind(), text: chain(&fault) }
    }
}

impl StartFault {
    /// Catalogs of that side could not be read.
    pub fn catalog(side: Side) -> impl FnOnce(CatalogError) -> Self {
        move |error| {
            let text = format!("{side}: {}", chain(&error));
            Self { side, class: error.class(), kind: error.kind(), text }
        }
    }

    /// Schema `relevo` of that side could not be read or written.
    pub fn state(side: Side) -> impl FnOnce(StateError) -> Self {
        move |error| {
            let class = error.sql_error().map_or(FaultClass::Refused, relevo_connect::classify);
            Self { side, class, kind: error.kind(), text: format!("{side}: {error}") }
        }
    }

    /// A statement of the command line's own failed.
    #[must_use]
    pub fn sql(side: Side, action: &str, error: &tokio_postgres::Error) -> Self {
        let text = format!("{side}: {action}: {}", relevo_connect::describe(error));
        Self { side, class: relevo_connect::classify(error), kind: relevo_connect::kind(error), text }
    }

    /// What `relevo check` would say must be mended first.
    #[must_use]
    pub fn findings(findings: &[Finding]) -> Self {
        let line = |finding: &Finding| {
            let side = finding.side.map_or(String::new(), |side| format!("{side}: "));
            let subject = finding.subject.as_ref().map_or(String::new(), |subject| format!("{subject}: "));
            let remedy = finding
                .remedy
                .as_ref()
                .map_or(String::new(), |remedy| format!(" → {}", remedy.replace('\n', " ")));
            format!("{side}{subject}{}{remedy}", finding.message)
        };
        // A side that was lost while it was asked passes no verdict, and those of the other one may stand on half the facts.
        if let Some(lost) = findings.iter().find(|finding| finding.check == UNANSWERED) {
            return Self {
                side: lost.side.unwrap_or(Side::Target),
                class: FaultClass::Transient,
                kind: UNANSWERED,
                text: line(lost),
            };
        }
        let lines: Vec<String> = findings.iter().map(line).collect();
        Self {
            side: findings.first().and_then(|finding| finding.side).unwrap_or(Side::Target),
            class: FaultClass::Blocked,
            kind: findings.first().map_or("check", |finding| finding.check),
            text: format!("this must be mended first (relevo check shows it all):\n  {}", lines.join("\n  ")),
        }
    }

    /// A start that must not go on.
    #[must_use]
    pub fn refused(side: Side, kind: &'static str, text: String) -> Self {
        Self { side, class: FaultClass::Refused, kind, text }
    }
}

impl From<StartFault> for CliError {
    fn from(fault: StartFault) -> Self {
        CliError::of_class(fault.class, fault.text).of_kind(fault.kind)
    }
}

/// Somebody asked the process to stop.
pub fn interrupted() -> StartFault {
    StartFault {
        side: Side::Target,
        class: FaultClass::Transient,
        kind: "interrupted",
        text: "interrupted".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_is_lost_during_the_checks_is_asked_again() {
        let missing = Finding::error("wal_level", Side::Source, "wal_level is replica");
        let lost = Finding::error(UNANSWERED, Side::Target, "connection closed");
        assert_eq!(StartFault::findings(std::slice::from_ref(&missing)).class, FaultClass::Blocked);
        let fault = StartFault::findings(&[missing, lost]);
        assert_eq!((fault.class, fault.side), (FaultClass::Transient, Side::Target));
        assert_eq!(fault.text, "target: connection closed");
    }
}
