//! From committed to flushed: which position may be confirmed to the source.

use std::collections::VecDeque;

use relevo_model::{SourceLsn, TargetLsn};

/// Commits that wait until the target has flushed its WAL far enough. Pure.
///
/// A target with `synchronous_commit = off` returns from COMMIT before the commit is on disk. Confirming it to
/// the slot at that moment would let the source forget what a crash of the target then loses.
#[derive(Debug, Default, Clone)]
pub struct DurabilityQueue {
    waiting: VecDeque<(TargetLsn, SourceLsn)>,
    durable: SourceLsn,
}

impl DurabilityQueue {
    /// A queue in which nothing is known to be durable yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The target has committed `position`. `durable_at` is what it must flush for that; `None` when the commit
    /// was flushed before it returned — and with it every earlier one, since WAL is flushed in order.
    pub fn applied(&mut self, position: SourceLsn, durable_at: Option<TargetLsn>) {
        let Some(bound) = durable_at else {
            self.waiting.clear();
            self.durable = self.durable.max(position);
            return;
        };
        // A commit is never durable before an earlier one, even if the target's answers were to say so.
        let bound = self.waiting.back().map_or(bound, |(earlier, _)| bound.max(*earlier));
        if let Some(last) = self.waiting.back_mut()
            && last.0 == bound
        {
            last.1 = last.1.max(position);
            return;
        }
        self.waiting.push_back((bound, position));
    }

    /// The target has flushed its WAL up to here.
    pub fn flushed(&mut self, flushed: TargetLsn) {
        while let Some((bound, position)) = self.waiting.front()
            && *bound <= flushed
        {
            self.durable = self.durable.max(*position);
            self.waiting.pop_front();
        }
    }

    /// The last position that is stored and flushed on the target; [`SourceLsn::ZERO`] while none is known.
    #[must_use]
    pub fn durable(&self) -> SourceLsn {
        self.durable
    }

    /// Whether commits wait for a flush.
    #[must_use]
    pub fn pending(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// A commit: how far it moves the source position and the target's WAL; whether it was flushed.
        Commit { source: u64, target: u64, flushed: bool },
        /// A probe that finds this much of the target's WAL flushed, in percent of what is not.
        Flush { percent: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..100_u64, 0..100_u64, prop::bool::weighted(0.2))
                .prop_map(|(source, target, flushed)| Step::Commit { source, target, flushed }),
            (0..=100_u64).prop_map(|percent| Step::Flush { percent }),
        ]
    }

    proptest! {
        #[test]
        fn never_beyond_what_is_flushed_and_never_backwards(steps in prop::collection::vec(step(), 0..200)) {
            let mut queue = DurabilityQueue::new();
            let (mut source, mut written, mut flushed) = (0_u64, 0_u64, 0_u64);
            let mut commits: Vec<(u64, u64)> = Vec::new();
            let mut before = SourceLsn::ZERO;
            for step in steps {
                match step {
                    Step::Commit { source: by, target, flushed: at_once } => {
                        source += by;
                        written += target;
                        commits.push((written, source));
                        if at_once {
                            flushed = written;
                        }
                        let bound = (!at_once).then(|| TargetLsn::new(written));
                        queue.applied(SourceLsn::new(source), bound);
                    }
                    Step::Flush { percent } => {
                        flushed += (written - flushed) * percent / 100;
                        queue.flushed(TargetLsn::new(flushed));
                    }
                }
                // The truth: the last commit whose WAL, and that of all before it, is on disk.
                let truth = commits.iter().take_while(|(bound, _)| *bound <= flushed).last().map_or(0, |c| c.1);
                prop_assert!(queue.durable() >= before, "went backwards");
                prop_assert!(queue.durable().as_u64() <= truth, "{:?} beyond {truth}", queue.durable());
                before = queue.durable();
            }
            queue.flushed(TargetLsn::new(written));
            prop_assert_eq!(queue.durable().as_u64(), source, "everything flushed is everything durable");
            prop_assert!(!queue.pending());
        }
    }
}
