//! Whether the flow's publications are as they were made: there, with every operation, for every row.
//!
//! The server says nothing when an operation, a column or a row is taken out of a publication: those changes just stop,
//! of all tables. So the publications are looked at when a flow goes on, and again whenever their rows in the catalog
//! change; while something is wrong there, nothing streams. What may not enter: which tables they hold (see
//! `watch_tables`), and mending anything.

use relevo_catalog::{Finding, Severity};
use relevo_connect::SqlSession;
use relevo_model::{ChangeSource, Fault, FaultClass, Feedback, FlowName, Side, SourceEvent, Xid};
use relevo_snapshot::Existing;
use relevo_source::{PgSource, SourceError};
use thiserror::Error;
use tokio::sync::watch;
use tracing::info;

use crate::run::fault::StartFault;

/// Changes with every change of the two publications. Cheap enough for every second.
const FINGERPRINT: &str = "
SELECT pg_catalog.md5(pg_catalog.concat(
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', p.oid, p.xmin), ',' ORDER BY p.oid)
     FROM pg_catalog.pg_publication p WHERE p.pubname IN ($1, $2)), '/',
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', r.oid, r.xmin), ',' ORDER BY r.oid)
     FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname IN ($1, $2))))";

/// What is wrong with the publications; `None` while nothing is.
pub type Wrong = Option<String>;

/// Looks at the publications of one flow.
pub struct Publications {
    flow: FlowName,
    via_partition_root: bool,
    fingerprint: Option<String>,
    wrong: watch::Sender<Wrong>,
}

impl Publications {
    /// Nothing is wrong yet.
    #[must_use]
    pub fn new(flow: &FlowName, via_partition_root: bool) -> Self {
        let (wrong, _) = watch::channel(None);
        Self { flow: flow.clone(), via_partition_root, fingerprint: None, wrong }
    }

    /// For whoever must not stream while something is wrong.
    #[must_use]
    pub fn wrong(&self) -> watch::Receiver<Wrong> {
        self.wrong.subscribe()
    }

    /// Looks whether something has changed, and then what is wrong.
    ///
    /// # Errors
    /// The catalogs cannot be read.
    pub async fn look(&mut self, source: &SqlSession) -> Result<(), StartFault> {
        let names = [self.flow.publication(), self.flow.insert_only_publication()];
        let row = source.query_one(FINGERPRINT, &[&names[0], &names[1]]).await;
        let row = row.map_err(|error| StartFault::sql(Side::Source, "reading the publications", &error))?;
        let fingerprint: String = row.get(0);
        if self.fingerprint.as_ref() == Some(&fingerprint) {
            return Ok(());
        }
        // Without tables only the publications themselves are looked at.
        let findings =
            relevo_snapshot::publish(source, &self.flow, &[], self.via_partition_root, Existing::Report)
                .await?;
        let wrong = judge(findings);
        if wrong.is_none() && self.wrong.borrow().is_some() {
            info!(flow = %self.flow, "source: the publications are as they should be again");
        }
        self.wrong.send_replace(wrong);
        self.fingerprint = Some(fingerprint);
        Ok(())
    }
}

/// What loses changes, in words.
fn judge(mut findings: Vec<Finding>) -> Wrong {
    findings.retain(|finding| finding.severity == Severity::Error);
    (!findings.is_empty()).then(|| StartFault::findings(&findings).text)
}

/// Streaming from the source failed.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The source, or the link to it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The publications do not send everything any more.
    #[error("{0}")]
    Publications(String),
}

impl Fault for StreamError {
    fn class(&self) -> FaultClass {
        match self {
            Self::Source(error) => error.class(),
            Self::Publications(_) => FaultClass::Blocked,
        }
    }

    fn side(&self) -> Side {
        Side::Source
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Source(error) => error.kind(),
            Self::Publications(_) => "publication_changed",
        }
    }
}

/// A source that ends when the publications do not send everything any more.
pub struct Guarded {
    source: PgSource,
    wrong: watch::Receiver<Wrong>,
}

impl Guarded {
    /// Guards the source.
    #[must_use]
    pub fn new(source: PgSource, wrong: watch::Receiver<Wrong>) -> Self {
        Self { source, wrong }
    }
}

/// What is wrong at present, as an error.
///
/// # Errors
/// [`StreamError::Publications`].
pub fn must_be_right(wrong: &watch::Receiver<Wrong>) -> Result<(), StreamError> {
    match &*wrong.borrow() {
        Some(text) => Err(StreamError::Publications(text.clone())),
        None => Ok(()),
    }
}

impl ChangeSource for Guarded {
    type Error = StreamError;

    async fn next(&mut self) -> Result<SourceEvent, StreamError> {
        let Self { source, wrong } = self;
        let went_wrong = async {
            let text = wrong.wait_for(Option::is_some).await.ok().and_then(|text| text.clone());
            match text {
                Some(text) => text,
                // Nobody looks any more: the process ends.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            text = went_wrong => Err(StreamError::Publications(text)),
            event = source.next() => Ok(event?),
        }
    }

    fn report(&mut self, feedback: Feedback) {
        self.source.report(feedback);
    }

    fn settle_ahead(&mut self, xid: Xid, committed: bool) {
        self.source.settle_ahead(xid, committed);
    }

    async fn close(self) -> Result<(), StreamError> {
        Ok(self.source.close().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loses_changes_is_wrong_and_nothing_else() {
        let gone = Finding::error("publication_missing", Side::Source, "is gone").about("relevo_e2e");
        let notice = Finding::notice("publication_table", Side::Source, "is not selected").about("public.t");
        let wrong = judge(vec![notice.clone(), gone]).unwrap();
        assert!(wrong.contains("relevo_e2e: is gone") && !wrong.contains("public.t"), "{wrong}");
        assert_eq!(judge(vec![notice]), None);
    }
}
