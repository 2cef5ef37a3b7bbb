//! Checks that what the source yields follows what it yielded before.
//!
//! A source that repeats or reorders a transaction would corrupt the target in silence. The check costs a few
//! comparisons for each part, and turns such a fault into a refusal.

use relevo_model::{SourceLsn, TransactionPart};

use crate::FlowError;

/// Follows the parts of one session.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// Transactions that commit before this position are on the target already.
    reached: SourceLsn,
    /// The commit LSN of the transaction whose parts are coming in.
    open: Option<SourceLsn>,
}

impl Order {
    /// Begins where the target's progress ends.
    pub fn new(applied: SourceLsn) -> Self {
        Self { reached: applied, open: None }
    }

    /// Whether a transaction has begun to come in and has not ended.
    pub fn inside(&self) -> bool {
        self.open.is_some()
    }

    /// Everything before this position has come in.
    pub fn reached(&self) -> SourceLsn {
        self.reached
    }

    /// Whether everything that commits before `position` has come in.
    pub fn has_passed(&self, position: SourceLsn) -> bool {
        self.reached >= position || self.open.is_some_and(|commit_lsn| commit_lsn >= position)
    }

    /// Checks the next part.
    pub fn part(&mut self, part: &TransactionPart) -> Result<(), FlowError> {
        let commit_lsn = part.header.commit_lsn;
        let reached = self.reached;
        let wrong = |what| Err(FlowError::OutOfOrder { what, commit_lsn, reached });
        match self.open {
            None if !part.first => return wrong("its beginning is missing"),
            Some(_) if part.first => return wrong("it begins inside another"),
            Some(open) if open != commit_lsn => return wrong("it goes on inside another"),
            None if commit_lsn < reached => return wrong("it was applied before"),
            _ => {}
        }
        self.open = Some(commit_lsn);
        if let Some(end) = part.end {
            if end <= commit_lsn {
                return wrong("it ends before its commit");
            }
            self.open = None;
            self.reached = end;
        }
        Ok(())
    }

    /// Takes in a keepalive position; `false` when it says nothing: inside a transaction, or nothing new.
    pub fn keepalive(&mut self, position: SourceLsn) -> bool {
        let new = !self.inside() && position > self.reached;
        if new {
            self.reached = position;
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relevo_model::{Fault, FaultClass, Timestamp, TransactionHeader, Xid};

    use super::*;

    fn part(commit: u64, first: bool, end: Option<u64>) -> TransactionPart {
        TransactionPart {
            header: Arc::new(TransactionHeader {
                xid: Xid(7),
                commit_lsn: SourceLsn::new(commit),
                commit_time: Timestamp::default(),
                origin: None,
            }),
            first,
            changes: Vec::new(),
            end: end.map(SourceLsn::new),
            size_bytes: 0,
        }
    }

    #[test]
    fn what_follows_is_accepted() {
        let mut order = Order::new(SourceLsn::new(100));
        order.part(&part(100, true, Some(110))).unwrap();
        order.part(&part(120, true, None)).unwrap();
        assert!(order.inside());
        assert!(!order.keepalive(SourceLsn::new(900)), "inside a transaction a position means nothing");
        order.part(&part(120, false, None)).unwrap();
        order.part(&part(120, false, Some(130))).unwrap();
        assert!(order.keepalive(SourceLsn::new(140)));
        assert!(!order.keepalive(SourceLsn::new(135)));
        order.part(&part(140, true, Some(150))).unwrap();
        assert_eq!(order.reached(), SourceLsn::new(150));
    }

    #[test]
    fn what_does_not_follow_is_refused() {
        let cases: [(&[TransactionPart], &str); 6] = [
            (&[part(99, true, Some(101))], "applied before"),
            (&[part(100, true, Some(110)), part(105, true, Some(120))], "applied before"),
            (&[part(100, false, Some(110))], "beginning is missing"),
            (&[part(100, true, None), part(120, true, None)], "begins inside"),
            (&[part(100, true, None), part(120, false, None)], "goes on inside"),
            (&[part(100, true, Some(100))], "ends before"),
        ];
        for (parts, expected) in cases {
            let mut order = Order::new(SourceLsn::new(100));
            let (last, before) = parts.split_last().unwrap();
            for part in before {
                order.part(part).unwrap();
            }
            let error = order.part(last).unwrap_err();
            assert_eq!(error.class(), FaultClass::Refused);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
