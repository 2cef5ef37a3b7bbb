//! Which tables are on their way, shared by the copy that brings them and the target that lets them follow the stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relevo_model::{QualifiedName, SourceLsn};
use tokio::sync::watch;

/// How far a table is that does not follow the stream yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its rows are on their way.
    Coming,
    /// Its rows are those of the source at this LSN.
    Arrived(SourceLsn),
}

impl Stage {
    /// Of which position its rows are, if the stream has reached it.
    fn due(self, applied: SourceLsn) -> Option<SourceLsn> {
        match self {
            Self::Arrived(at) if at <= applied => Some(at),
            Self::Arrived(_) | Self::Coming => None,
        }
    }

    fn missing(self) -> Missing {
        match self {
            Self::Coming => Missing::Everything,
            Self::Arrived(at) => Missing::From(at),
        }
    }
}

/// What the stream brings for a table and cannot apply yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It applies everything.
    Nothing,
    /// Nobody knows yet from where on it is needed.
    Everything,
    /// What was committed before is among the rows already; and should they be lost, others come that are newer.
    From(SourceLsn),
}

impl Missing {
    /// Whether a transaction whose commit record begins there is to be kept.
    pub(crate) fn holds(self, commit_lsn: SourceLsn) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::From(at) => commit_lsn >= at,
        }
    }
}

/// The tables that do not follow the stream yet. Clones share one list; it outlives the sessions of a flow.
#[derive(Clone)]
pub struct Arrivals {
    tables: Arc<Mutex<BTreeMap<QualifiedName, Stage>>>,
    changed: watch::Sender<()>,
    told: Arc<dyn Fn(&QualifiedName) + Send + Sync>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl Arrivals {
    /// No tables. `told` is called with each table that follows the stream from then on; it must not block.
    pub fn new(told: impl Fn(&QualifiedName) + Send + Sync + 'static) -> Self {
        Self { tables: Arc::default(), changed: watch::channel(()).0, told: Arc::new(told) }
    }

    /// What the stream brings for the table is kept from now on. A table that had arrived is on its way again.
    pub fn expect(&self, table: QualifiedName) {
        self.lock().insert(table, Stage::Coming);
        self.changed.send_replace(());
    }

    /// The table's rows are committed and flushed on the target: those that the source had at `at`, a consistent point
    /// of a slot. Transactions whose commit record begins there or later are still to come. A table that nobody
    /// expects follows the stream already, and stays as it is.
    pub fn arrived(&self, table: &QualifiedName, at: SourceLsn) {
        if let Some(stage) = self.lock().get_mut(table) {
            *stage = Stage::Arrived(at);
        }
        self.changed.send_replace(());
    }

    /// The table is no longer waited for: it left the flow.
    pub fn forget(&self, table: &QualifiedName) {
        self.lock().remove(table);
        self.changed.send_replace(());
    }

    /// Takes over what the target has recorded: the tables that do not follow the stream, each with the LSN of its rows
    /// if they are all there. A table that was believed to have arrived and is not recorded as copied at that LSN (any
    /// more) is on its way again.
    pub fn reconcile(&self, recorded: impl IntoIterator<Item = (QualifiedName, Option<SourceLsn>)>) {
        let mut tables = self.lock();
        let believed = std::mem::take(&mut *tables);
        for (table, copied_at) in recorded {
            let stage = match (believed.get(&table), copied_at) {
                (Some(Stage::Arrived(at)), Some(copied_at)) if *at == copied_at => Stage::Arrived(copied_at),
                _ => Stage::Coming,
            };
            tables.insert(table, stage);
        }
        drop(tables);
        self.changed.send_replace(());
    }

    /// Whether the table has yet to arrive. One that has may follow the stream already, whatever was read of it before.
    #[must_use]
    pub fn is_coming(&self, table: &QualifiedName) -> bool {
        matches!(self.lock().get(table), Some(Stage::Coming))
    }

    /// How many tables do not follow the stream yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Waits until every table follows the stream. Cancel-safe.
    pub async fn all_joined(&self) {
        self.until(BTreeMap::is_empty).await;
    }

    pub(crate) fn joined(&self, table: &QualifiedName) {
        self.forget(table);
        (self.told)(table);
    }

    pub(crate) fn missing(&self, table: &QualifiedName) -> Missing {
        self.lock().get(table).map_or(Missing::Nothing, |stage| stage.missing())
    }

    /// The tables that do not follow the stream yet, each with what it misses.
    pub(crate) fn all_missing(&self) -> Vec<(QualifiedName, Missing)> {
        self.lock().iter().map(|(table, stage)| (table.clone(), stage.missing())).collect()
    }

    /// A table that can follow the stream from `applied` on. One whose rows are of a later position has to wait: it holds
    /// what the stream would bring once more.
    pub(crate) fn due(&self, applied: SourceLsn) -> Option<(QualifiedName, SourceLsn)> {
        self.lock().iter().find_map(|(table, stage)| Some((table.clone(), stage.due(applied)?)))
    }

    /// Waits until a table can follow the stream from `applied` on. Cancel-safe.
    pub(crate) async fn any_due(&self, applied: SourceLsn) {
        self.until(|tables| tables.values().any(|stage| stage.due(applied).is_some())).await;
    }

    async fn until(&self, holds: impl Fn(&BTreeMap<QualifiedName, Stage>) -> bool) {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if holds(&self.lock()) {
                return;
            }
            // The sender is `self`, so it is there.
            let _ = changes.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<QualifiedName, Stage>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The copier read of such a table that it is copied, found that it had not arrived, and did everything again that comes
    /// after its rows.
    #[test]
    fn a_table_that_has_joined_since_it_was_looked_at_is_not_coming() {
        let (arrivals, at) = (Arrivals::default(), SourceLsn::new(100));
        let table = QualifiedName { schema: "public".to_owned(), name: "t".to_owned() };
        arrivals.reconcile([(table.clone(), Some(at))]);
        assert!(arrivals.is_coming(&table), "nobody has said yet that its indexes are there");
        arrivals.arrived(&table, at);
        assert!(!arrivals.is_coming(&table));
        arrivals.joined(&table);
        assert!(!arrivals.is_coming(&table));
    }
}
