//! Which tables go row by row for a while, because their changes could not be applied as sets.
//!
//! Somebody who swaps unique values, or whose rows are missing on the target, does so again: each time the batch would be
//! applied twice. Pure. What may not enter: why it failed.

use std::collections::HashMap;

use relevo_catalog::TableName;

/// The first pause, in batches; it doubles each time.
const FIRST_BATCHES: u64 = 2;
/// The longest pause, in batches.
const LONGEST_BATCHES: u64 = 256;

#[derive(Debug, Clone, Copy)]
struct Pause {
    /// The number of the first batch that may use sets again.
    until: u64,
    batches: u64,
}

/// The tables, by their names on the target.
#[derive(Debug, Default)]
pub(crate) struct Distrust(HashMap<TableName, Pause>);

impl Distrust {
    /// Whether the table goes row by row in this batch.
    pub(crate) fn holds(&self, table: &TableName, batch: u64) -> bool {
        self.0.get(table).is_some_and(|pause| batch < pause.until)
    }

    /// The table's changes in this batch had to be applied again in order.
    pub(crate) fn failed(&mut self, table: TableName, batch: u64) {
        let before = self.0.get(&table).copied();
        // One that has gone well for as long as it was paused begins anew.
        let recent = before.filter(|pause| batch < pause.until + pause.batches);
        let batches = recent.map_or(FIRST_BATCHES, |pause| (pause.batches * 2).min(LONGEST_BATCHES));
        self.0.insert(table, Pause { until: batch + 1 + batches, batches });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_again_waits_longer_and_who_goes_well_is_trusted_again() {
        let (t, u) = (TableName::new("s", "t"), TableName::new("s", "u"));
        let mut distrust = Distrust::default();
        assert!(!distrust.holds(&t, 10));
        distrust.failed(t.clone(), 10);
        assert!(distrust.holds(&t, 12) && !distrust.holds(&t, 13) && !distrust.holds(&u, 11));
        distrust.failed(t.clone(), 13);
        assert!(distrust.holds(&t, 17) && !distrust.holds(&t, 18));
        distrust.failed(t.clone(), 30);
        assert!(distrust.holds(&t, 32) && !distrust.holds(&t, 33), "it had gone well");
    }

    #[test]
    fn a_pause_has_an_end() {
        let t = TableName::new("s", "t");
        let mut distrust = Distrust::default();
        let mut batch = 1;
        for _ in 0..20 {
            distrust.failed(t.clone(), batch);
            let next = (batch + 1..).find(|batch| !distrust.holds(&t, *batch)).unwrap();
            assert!(next <= batch + 1 + LONGEST_BATCHES);
            batch = next;
        }
        distrust.failed(t.clone(), batch);
        assert!(distrust.holds(&t, batch + LONGEST_BATCHES));
    }
}
