//! What the session has learnt: which table each relation means, and the statements that it has prepared.
//!
//! Only what was learnt is kept here; asking the server is the caller's part, which knows what else is under
//! way. What may not enter: values.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use relevo_model::{Change, Relation, RelationId};
use tokio_postgres::Statement;

use crate::blame::Item;
use crate::mapping::TableMap;
use crate::shape::Shape;
use crate::statement::Slot;

/// How many statements stay prepared. Each costs memory on the server too: tens of kilobytes with its plan.
const LIMIT_STATEMENTS: usize = 1000;

/// A prepared statement with what its parameters stand for.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) statement: Statement,
    pub(crate) slots: Arc<[Slot]>,
}

/// What the session has learnt.
#[derive(Default)]
pub(crate) struct Known {
    maps: HashMap<RelationId, Arc<TableMap>>,
    statements: Recent<(RelationId, Shape), Prepared>,
}

impl Known {
    /// The table of the relation, unless the source has described the relation anew since it was looked up.
    pub(crate) fn map(&self, relation: &Arc<Relation>) -> Option<&Arc<TableMap>> {
        self.maps.get(&relation.id).filter(|map| same(&map.relation, relation))
    }

    /// The relation, and those besides it that the changes are about and whose tables are not known. Of a relation that the
    /// source describes anew on the way, only the first description counts: it is needed first.
    pub(crate) fn unknown<'r, 'a>(
        &self,
        relation: &'r Arc<Relation>,
        items: &[Item<'a>],
    ) -> (&'r Arc<Relation>, Vec<&'a Arc<Relation>>) {
        let mut seen = HashSet::from([relation.id]);
        let others = items.iter().filter_map(|item| match item.change {
            Change::Insert { relation, .. }
            | Change::Update { relation, .. }
            | Change::Delete { relation, .. } => Some(relation),
            Change::Truncate { .. } | Change::Message { .. } => None,
        });
        let others = others.filter(|other| seen.insert(other.id) && self.map(other).is_none());
        (relation, others.collect())
    }

    /// Remembers the table of a relation, and forgets the statements of what the relation was before.
    pub(crate) fn learn_map(&mut self, map: Arc<TableMap>) {
        let id = map.relation.id;
        self.statements.forget(|(of, _)| *of == id);
        self.maps.insert(id, map);
    }

    /// Forgets which table the relation means; the next change looks it up again.
    pub(crate) fn forget_map(&mut self, relation: &Relation) {
        self.maps.remove(&relation.id);
    }

    /// The statement for changes of this shape, if there is one.
    pub(crate) fn statement(&mut self, key: &(RelationId, Shape)) -> Option<&Prepared> {
        self.statements.get(key)
    }

    /// Remembers a statement.
    pub(crate) fn learn_statement(&mut self, key: (RelationId, Shape), prepared: Prepared) {
        self.statements.insert(key, prepared, LIMIT_STATEMENTS);
    }
}

/// Whether two descriptions are the same; usually they are the same value in memory.
pub(crate) fn same(a: &Arc<Relation>, b: &Arc<Relation>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// A map of bounded size that forgets what was not used lately.
struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    clock: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), clock: 0 }
    }
}

impl<K: std::hash::Hash + Eq, V> Recent<K, V> {
    fn get(&mut self, key: &K) -> Option<&V> {
        self.clock += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    /// Adds an entry. When `limit` is reached, the half that was used longest ago goes first: so the search for
    /// it is rare.
    fn insert(&mut self, key: K, value: V, limit: usize) {
        if self.entries.len() >= limit {
            let mut times: Vec<u64> = self.entries.values().map(|(used, _)| *used).collect();
            times.sort_unstable();
            let oldest_kept = times.get(times.len() / 2).copied().unwrap_or_default();
            self.entries.retain(|_, (used, _)| *used >= oldest_kept);
        }
        self.clock += 1;
        self.entries.insert(key, (self.clock, value));
    }

    fn forget(&mut self, which: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| !which(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_lately_outlives_the_limit() {
        let mut recent = Recent::default();
        for key in 0..10 {
            recent.insert(key, key, 10);
        }
        assert_eq!(recent.get(&0), Some(&0));
        recent.insert(10, 10, 10);
        assert!(recent.entries.len() <= 10);
        assert_eq!(recent.get(&0), Some(&0));
        assert_eq!(recent.get(&10), Some(&10));
        assert_eq!(recent.get(&1), None);
    }

    #[test]
    fn entries_can_be_forgotten() {
        let mut recent = Recent::default();
        recent.insert((1, 'a'), (), 10);
        recent.insert((2, 'a'), (), 10);
        recent.forget(|(table, _)| *table == 1);
        assert_eq!(recent.get(&(1, 'a')), None);
        assert_eq!(recent.get(&(2, 'a')), Some(&()));
    }
}
