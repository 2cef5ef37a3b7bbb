//! Sequences: whether those of the target are where they would have to be if it took the role now.
//!
//! Their values belong to no snapshot and follow once in a heartbeat. So what is asked is not whether both are equal: one of
//! the target must not stay behind where the source's was when the comparison began, because its next value might be a
//! duplicate key. One that is ahead only leaves a gap; it is named. What may not enter: how they are made to follow.

use std::collections::BTreeSet;

use relevo_catalog::{Selection, SequenceInfo, TableName};
use relevo_model::Side;
use relevo_snapshot::{SequenceGap, SequenceMode, SequencePlace, Sequences, sequence_gaps};
use relevo_state::{self as state, TableState};
use tokio::time::{Duration, Instant, sleep};

use crate::{Ends, VerifyError, session};

/// How often those that are behind are looked at again.
const LOOK: Duration = Duration::from_millis(200);

/// Which sequences are compared, and where the source's were at first.
pub(crate) struct Before {
    found: Vec<SequenceInfo>,
    tables: BTreeSet<TableName>,
    selection: Selection,
}

/// Where the source's stand. `None`: the flow has not brought everything yet, and until then they do not follow.
pub(crate) async fn before(ends: &Ends, selection: &Selection) -> Result<Option<Before>, VerifyError> {
    let target = session::reading(&ends.target, Side::Target, &ends.flow).await?;
    let complete = state::flow(&*target, &ends.flow).await?.is_some_and(|flow| flow.copied);
    let tables = state::tables(&*target, &ends.flow).await?;
    target.close().await;
    if !complete {
        return Ok(None);
    }
    let streaming = tables.into_iter().filter(|table| table.state == TableState::Streaming);
    let tables = streaming.map(|table| TableName::new(&table.schema, &table.name)).collect();
    let source = session::reading(&ends.source, Side::Source, &ends.flow).await?;
    let found = relevo_catalog::sequences(&source).await.map_err(catalog(Side::Source))?;
    source.close().await;
    let before = Before { found, tables, selection: selection.clone() };
    Ok(Some(before))
}

fn catalog(side: Side) -> impl FnOnce(relevo_catalog::CatalogError) -> VerifyError {
    move |source| VerifyError::Catalog { side, source }
}

/// Those that stand elsewhere on the target. One that is behind is waited for.
pub(crate) async fn compare(ends: &Ends, before: &Before) -> Result<Vec<SequenceGap>, VerifyError> {
    let source = session::reading(&ends.source, Side::Source, &ends.flow).await?;
    let target = session::reading(&ends.target, Side::Target, &ends.flow).await?;
    let began = Instant::now();
    let wanted: Vec<&SequenceInfo> = before.found.iter().filter(|sequence| before.takes(sequence)).collect();
    loop {
        let there = relevo_catalog::sequences(&target).await.map_err(catalog(Side::Target))?;
        let after = relevo_catalog::sequences(&source).await.map_err(catalog(Side::Source))?;
        let gaps = sequence_gaps(&wanted, &there, &after);
        let behind = gaps.iter().any(|gap| gap.place == SequencePlace::Behind);
        if !behind || began.elapsed() >= ends.timeout {
            source.close().await;
            target.close().await;
            return Ok(gaps);
        }
        sleep(LOOK).await;
    }
}

impl Before {
    /// One that a table owns goes with it, if the table follows.
    fn takes(&self, sequence: &SequenceInfo) -> bool {
        sequence.is_selected(&self.selection)
            && sequence.owned_by.as_ref().is_none_or(|(table, _)| self.tables.contains(table))
    }
}

/// Moves those of the target that are behind to where the source's stand. Returns how many.
///
/// # Errors
/// See [`VerifyError`].
pub async fn repair_sequences(ends: &Ends, selection: &Selection) -> Result<usize, VerifyError> {
    let source = session::reading(&ends.source, Side::Source, &ends.flow).await?;
    let target = session::writing(&ends.target, &ends.flow).await?;
    let mut sequences = Sequences::new(selection.clone());
    let set = sequences.set(&source, &target, SequenceMode::Forward).await;
    let set = set.map_err(|source| VerifyError::Sequences { source: Box::new(source) })?;
    source.close().await;
    target.close().await;
    Ok(set.set)
}
