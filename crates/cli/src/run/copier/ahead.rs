//! What can be looked at while the stream is still being opened, so that the first rows need not wait for it. What may not
//! enter: anything that changes a database, or needs the flow to be ours.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use relevo_catalog::{Selection, TableName};
use relevo_model::Side;
use relevo_snapshot::{CopyOptions, CopyPlan};
use relevo_state as state;
use tracing::debug;

use super::{Copier, names_of};
use crate::run::copy::copy_options;
use crate::run::fault::StartFault;
use crate::run::sides::Sides;
use crate::run::start;

/// How old it may be, and how long it may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What was looked at.
pub(super) struct Ahead {
    at: Instant,
    sides: Sides,
    planned: Planned,
}

/// A plan, and what it was made for.
pub(super) struct Planned {
    /// The tables that were recorded.
    pub(super) tables: BTreeSet<TableName>,
    pub(super) selection: Selection,
    pub(super) plan: CopyPlan,
}

impl Ahead {
    /// Both sides and the plan, unless they are old.
    pub(super) fn if_recent(self) -> Option<(Sides, Planned)> {
        (self.at.elapsed() < LIMIT).then_some((self.sides, self.planned))
    }
}

impl Copier<'_> {
    /// Opens both sides and plans the copy, as every attempt does. Whatever is in the way is found again by the attempt,
    /// which says it.
    pub(super) async fn look_ahead(&self) -> Option<Ahead> {
        let at = Instant::now();
        let look = async {
            let sides = start::open(self.settings).await?;
            let failed = StartFault::state(Side::Target);
            let recorded = state::tables(&*sides.target, self.flow).await.map_err(failed)?;
            let selection = self.selection(&sides, &recorded).await?;
            let options = CopyOptions { selection, ..copy_options(self.settings, &sides, self.flow) };
            let plan = relevo_snapshot::plan(&sides.source, &sides.target, &options).await?;
            let planned = Planned { tables: names_of(&recorded), selection: options.selection, plan };
            Ok::<_, StartFault>(Ahead { at, sides, planned })
        };
        match tokio::time::timeout(LIMIT, look).await {
            Ok(Ok(ahead)) => Some(ahead),
            Ok(Err(fault)) => {
                debug!(kind = fault.kind, "planning ahead failed, it will be done again: {}", fault.text);
                None
            }
            Err(_) => None,
        }
    }
}
