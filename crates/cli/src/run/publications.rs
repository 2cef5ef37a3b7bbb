//! Whether the source still publishes every table that the flow has copied, with every operation.
//!
//! The server says nothing when a table is taken out of a publication: its changes just stop. So the publications are
//! looked at when a flow goes on, and again whenever their rows in the catalog change; while something is missing
//! there, nothing streams. What may not enter: creating or mending publications.

use std::collections::BTreeSet;

use relevo_catalog::{Finding, Severity, TableInfo};
use relevo_connect::SqlSession;
use relevo_model::{ChangeSource, Fault, FaultClass, Feedback, FlowName, Side, SourceEvent};
use relevo_snapshot::Existing;
use relevo_source::{PgSource, SourceError};
use thiserror::Error;
use tokio::sync::watch;
use tracing::info;

use crate::run::fault::StartFault;
use crate::run::sides::tell;
use crate::settings::TableSettings;

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
    /// The tables that the flow has copied, as `schema.table`.
    copied: BTreeSet<String>,
    fingerprint: Option<String>,
    wrong: watch::Sender<Wrong>,
}

impl Publications {
    /// Of a flow that has copied these tables, named `schema.table`. Nothing is wrong yet.
    #[must_use]
    pub fn new(flow: &FlowName, copied: BTreeSet<String>) -> Self {
        let (wrong, _) = watch::channel(None);
        Self { flow: flow.clone(), copied, fingerprint: None, wrong }
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
    pub async fn look(&mut self, source: &SqlSession, settings: &TableSettings) -> Result<(), StartFault> {
        let names = [self.flow.publication(), self.flow.insert_only_publication()];
        let row = source.query_one(FINGERPRINT, &[&names[0], &names[1]]).await;
        let row = row.map_err(|error| StartFault {
            side: Side::Source,
            class: relevo_connect::classify(&error),
            kind: relevo_connect::kind(&error),
            text: format!("source: reading the publications: {}", relevo_connect::describe(&error)),
        })?;
        let fingerprint: String = row.get(0);
        if self.fingerprint.as_ref() == Some(&fingerprint) {
            return Ok(());
        }
        let tables = relevo_catalog::user_tables(source).await.map_err(StartFault::catalog(Side::Source))?;
        let roots = roots_of(&tables, &self.copied);
        let selected = relevo_snapshot::selected_tables(tables, &settings.selection);
        let findings = relevo_snapshot::publish(
            source,
            &self.flow,
            &selected,
            settings.via_partition_root,
            Existing::Report,
        )
        .await?;
        let (wrong, other) = self.judge(findings, &roots);
        tell(&other);
        if wrong.is_none() && self.wrong.borrow().is_some() {
            info!(flow = %self.flow, "source: the publications are as they should be again");
        }
        self.wrong.send_replace(wrong);
        self.fingerprint = Some(fingerprint);
        Ok(())
    }

    /// What loses changes, in words, and what is only worth a line in the log: a table that came later was never
    /// promised to be replicated.
    fn judge(&self, findings: Vec<Finding>, roots: &BTreeSet<String>) -> (Wrong, Vec<Finding>) {
        let is_ours = |finding: &Finding| {
            let subject = finding.subject.as_deref().unwrap_or_default();
            finding.check != "publication_table" || self.copied.contains(subject) || roots.contains(subject)
        };
        let (wrong, mut other): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|finding| finding.severity == Severity::Error && is_ours(finding));
        for finding in other.iter_mut().filter(|finding| finding.severity == Severity::Error) {
            finding.severity = Severity::Warning;
        }
        let text = (!wrong.is_empty()).then(|| StartFault::findings(&wrong).text);
        (text, other)
    }
}

/// The partitioned tables above the copied partitions: they stand in the publication for them.
fn roots_of(tables: &[TableInfo], copied: &BTreeSet<String>) -> BTreeSet<String> {
    tables
        .iter()
        .filter(|table| copied.contains(&table.name.to_string()))
        .filter_map(|table| table.partition_root.as_ref().map(ToString::to_string))
        .collect()
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

    async fn close(self) -> Result<(), StreamError> {
        Ok(self.source.close().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publications() -> Publications {
        let copied = BTreeSet::from(["public.t".to_owned()]);
        Publications::new(&"e2e".parse().unwrap(), copied)
    }

    fn unpublished(table: &str) -> Finding {
        Finding::error("publication_table", Side::Source, "is selected, but not published").about(table)
    }

    #[test]
    fn a_copied_table_must_be_published_and_one_that_came_later_need_not() {
        let roots = BTreeSet::from(["public.root".to_owned()]);
        let findings = ["public.t", "public.later", "public.root"].map(unpublished).to_vec();
        let (wrong, other) = publications().judge(findings, &roots);
        let wrong = wrong.unwrap();
        assert!(wrong.contains("public.t") && wrong.contains("public.root"), "{wrong}");
        assert!(!wrong.contains("later"), "{wrong}");
        assert_eq!(other.len(), 1);
        assert_eq!(other[0].severity, Severity::Warning);
    }

    #[test]
    fn a_publication_that_is_gone_or_changed_is_always_wrong() {
        let gone = Finding::error("publication_missing", Side::Source, "is gone").about("relevo_e2e");
        assert!(publications().judge(vec![gone], &BTreeSet::new()).0.is_some());
        assert_eq!(publications().judge(Vec::new(), &BTreeSet::new()).0, None);
    }
}
