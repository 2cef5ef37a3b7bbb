//! What beginning and copying both speak of: the two sides, a flow that is ready, and what somebody should know.

use relevo_catalog::{Finding, ServerFacts, Severity};
use relevo_connect::SqlSession;
use relevo_model::{FlowName, Side, SourceIdentity};
use tracing::{info, warn};

use crate::run::alive::Server;
use crate::run::board::FlowBoard;
use crate::run::copier::Rows;
use crate::run::publications::Publications;
use crate::settings::RunSettings;

/// A flow that is ready to stream.
pub struct Started {
    /// Its name.
    pub flow: FlowName,
    /// The source that its positions belong to.
    pub identity: SourceIdentity,
    /// What must stay as it is.
    pub publications: Publications,
    /// The rows that are still to come; `None`: the copy is complete.
    pub copy: Option<Rows>,
}

/// Both sides, open.
pub struct Sides {
    /// A session on the source.
    pub source: SqlSession,
    /// A session on the target.
    pub target: SqlSession,
}

/// What both sides are.
pub struct Facts {
    /// What the source is.
    pub source: ServerFacts,
    /// What the target is.
    pub target: ServerFacts,
}

impl Sides {
    /// Both servers, the very ones that were reached, for whoever watches whether they live.
    #[must_use]
    pub fn servers(&self, settings: &RunSettings) -> [Server; 2] {
        let flow = &settings.flow;
        [
            Server { info: flow.source.pinned(self.source.host()), side: Side::Source },
            Server { info: flow.target.pinned(self.target.host()), side: Side::Target },
        ]
    }
}

/// Logs what somebody should know, once: several steps of a start, and several attempts, find the same. Errors are told by
/// whoever ends because of them.
pub fn tell(board: &FlowBoard, findings: &[Finding]) {
    for finding in findings {
        if !board.is_news(&format!("{} {:?} {}", finding.check, finding.subject, finding.message)) {
            continue;
        }
        let subject = finding.subject.as_deref().unwrap_or_default();
        let remedy = finding.remedy.as_deref().unwrap_or_default();
        match finding.severity {
            Severity::Ok | Severity::Error => {}
            Severity::Notice => info!(check = finding.check, subject, remedy, "{}", finding.message),
            Severity::Warning => warn!(check = finding.check, subject, remedy, "{}", finding.message),
        }
    }
}
