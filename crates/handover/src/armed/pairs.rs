//! Which positions of this node's own WAL go with which positions of the primary's. Pure.

use std::collections::VecDeque;

use relevo_model::SourceLsn;

/// How many pairs are kept. When there are more, every second one goes: the slot then moves in longer strides.
const KEPT: usize = 64;

/// Pairs (here, there): whatever the primary committed behind `there` is committed on this node behind `here`.
#[derive(Debug, Default)]
pub(super) struct Pairs(VecDeque<(SourceLsn, SourceLsn)>);

impl Pairs {
    /// Takes the next pair. One that lies before the last begins anew: this node follows another primary.
    pub(super) fn note(&mut self, here: SourceLsn, there: SourceLsn) {
        match self.0.back_mut() {
            Some((_, known)) if *known > there => self.0.clear(),
            // Nothing has come since: it still holds further on.
            Some(last) if last.1 == there => {
                last.0 = last.0.max(here);
                return;
            }
            _ => {}
        }
        self.0.push_back((here, there));
        if self.0.len() > KEPT {
            let mut at = 0;
            self.0.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
    }

    /// The furthest position here before which there is nothing that is unknown to whoever has all of the primary up to `has`.
    pub(super) fn reached(&self, has: SourceLsn) -> Option<SourceLsn> {
        let reached = self.0.partition_point(|(_, there)| *there <= has);
        reached.checked_sub(1).map(|at| self.0[at].0)
    }

    /// The last position of the primary that was seen here.
    pub(super) fn last(&self) -> Option<SourceLsn> {
        self.0.back().map(|(_, there)| *there)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Happens {
        /// The primary's next transactions are applied here in one.
        Applies {
            there: u64,
            here: u64,
        },
        /// Other WAL is written here.
        Writes(u64),
        Sample,
        /// The other standby has so much more.
        OtherHas(u64),
    }

    fn any() -> impl Strategy<Value = Happens> {
        prop_oneof![
            3 => (1_u64..50, 1_u64..50).prop_map(|(there, here)| Happens::Applies { there, here }),
            1 => (1_u64..50).prop_map(Happens::Writes),
            3 => Just(Happens::Sample),
            2 => (0_u64..80).prop_map(Happens::OtherHas),
        ]
    }

    proptest! {
        /// The slot never moves behind a transaction that the other standby lacks, and never backwards.
        #[test]
        fn nothing_that_the_other_lacks_is_given_up(happens in prop::collection::vec(any(), 0..400)) {
            let (mut here, mut there, mut has) = (1000_u64, 10_u64, 0_u64);
            let mut commits: Vec<(u64, u64)> = Vec::new();
            let (mut pairs, mut slot) = (Pairs::default(), 0_u64);
            for event in happens {
                match event {
                    Happens::Applies { there: more, here: bytes } => {
                        there += more;
                        commits.push((here, there));
                        here += bytes;
                    }
                    Happens::Writes(bytes) => here += bytes,
                    Happens::Sample => pairs.note(SourceLsn::new(here), SourceLsn::new(there)),
                    Happens::OtherHas(more) => {
                        has += more;
                        if let Some(reached) = pairs.reached(SourceLsn::new(has)) {
                            slot = slot.max(reached.as_u64());
                        }
                    }
                }
                prop_assert!(pairs.0.len() <= KEPT);
                let given_up = commits.iter().filter(|(at, _)| *at < slot);
                for (at, committed) in given_up {
                    prop_assert!(*committed <= has, "{committed} at {at} is given up, the other has {has}");
                }
            }
            // Once the other has all, all of it can go.
            pairs.note(SourceLsn::new(here), SourceLsn::new(there));
            prop_assert_eq!(pairs.reached(SourceLsn::new(there.max(has))), Some(SourceLsn::new(here)));
        }
    }

    #[test]
    fn another_primary_begins_anew() {
        let mut pairs = Pairs::default();
        pairs.note(SourceLsn::new(10), SourceLsn::new(100));
        pairs.note(SourceLsn::new(20), SourceLsn::new(50));
        assert_eq!(pairs.reached(SourceLsn::new(49)), None);
        assert_eq!(pairs.reached(SourceLsn::new(50)), Some(SourceLsn::new(20)));
    }
}
