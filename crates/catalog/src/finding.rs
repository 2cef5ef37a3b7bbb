//! What a check says: one verdict, on one thing, with the way out.

use std::fmt;

use relevo_model::Side;
use serde::{Serialize, Serializer};

use crate::expected::expected;

/// How much a finding matters. Ordered: the worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Good to know; nothing has to be done.
    Notice,
    /// The flow works, but not as most people want it.
    Warning,
    /// The flow cannot work, or would not be faithful.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Ok => "ok",
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One line of `relevo check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check it is: a stable code in `snake_case`, for scripts.
    pub check: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The side that it is about; `None` when it is about both.
    #[serde(serialize_with = "side")]
    pub side: Option<Side>,
    /// What it is about: a table, a column, a role.
    pub subject: Option<String>,
    /// What was found, for people.
    pub message: String,
    /// What is expected instead, or of a check that passed: as it is.
    pub expected: Option<&'static str>,
    /// What mends it, for people: SQL with remarks as comments, or else a sentence.
    pub remedy: Option<String>,
    /// The statements that mend it, one after the other on that side, each for itself: some must not be in a transaction
    /// with others. Empty when it takes a decision, or more than SQL.
    pub sql: Vec<String>,
}

fn side<S: Serializer>(side: &Option<Side>, serializer: S) -> Result<S::Ok, S::Error> {
    side.map(|side| side.to_string()).serialize(serializer)
}

impl Finding {
    /// A finding without subject and remedy.
    #[must_use]
    pub fn new(
        check: &'static str,
        severity: Severity,
        side: impl Into<Option<Side>>,
        message: impl Into<String>,
    ) -> Self {
        let (side, message) = (side.into(), message.into());
        let expected = expected(check);
        Self { check, severity, side, subject: None, message, expected, remedy: None, sql: Vec::new() }
    }

    /// A check that passed.
    #[must_use]
    pub fn ok(check: &'static str, side: impl Into<Option<Side>>, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, side, message)
    }

    /// Something good to know.
    #[must_use]
    pub fn notice(check: &'static str, side: impl Into<Option<Side>>, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Notice, side, message)
    }

    /// Something that most people would mend.
    #[must_use]
    pub fn warning(check: &'static str, side: impl Into<Option<Side>>, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Warning, side, message)
    }

    /// Something that must be mended first.
    #[must_use]
    pub fn error(check: &'static str, side: impl Into<Option<Side>>, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Error, side, message)
    }

    /// The same finding about `subject`.
    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    /// The same finding with what mends it, which takes more than SQL.
    #[must_use]
    pub fn mend(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same finding with the statements that mend it.
    #[must_use]
    pub fn mend_by<S: Into<String>>(mut self, sql: impl IntoIterator<Item = S>) -> Self {
        self.sql = sql.into_iter().map(Into::into).collect();
        self.remedy = Some(self.sql.join("\n"));
        self
    }

    /// The same finding with a remark behind its statements, as a comment: both can be pasted.
    #[must_use]
    pub fn then(mut self, remark: &str) -> Self {
        if let Some(remedy) = &mut self.remedy {
            remedy.push_str(&format!(" -- {remark}"));
        }
        self
    }
}

/// The worst severity among the findings; `Ok` when there are none.
#[must_use]
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_the_same_in_every_version() {
        let finding = Finding::warning("clock", Side::Source, "2 s off").about("a").mend("chronyc");
        assert_eq!(
            serde_json::to_value(&finding).unwrap(),
            serde_json::json!({"check": "clock", "severity": "warning", "side": "source",
                "subject": "a", "message": "2 s off", "expected": "clocks within a second of each other",
                "remedy": "chronyc", "sql": []})
        );
        let by = Finding::error("fsync", None, "off").mend_by(["A;", "B;"]).then("then wait");
        assert_eq!((by.remedy.as_deref(), by.sql.len()), (Some("A;\nB; -- then wait"), 2));
        let both = serde_json::to_value(Finding::ok("clock", None, "fine")).unwrap();
        assert_eq!(both["side"], serde_json::Value::Null);
    }

    #[test]
    fn the_worst_wins() {
        assert_eq!(worst(&[]), Severity::Ok);
        let found =
            [Finding::ok("a", None, ""), Finding::error("b", None, ""), Finding::notice("c", None, "")];
        assert_eq!(worst(&found), Severity::Error);
    }
}
