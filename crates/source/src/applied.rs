//! Transactions that the source itself has from elsewhere: passed over, so that nothing goes round in circles, and so that
//! a standby that follows a former primary to its end gets nothing that came there afterwards.
//!
//! What it has from before it became the primary is not passed over: a standby that was behind it then lacks just that.
//! Whoever applies to a node marks its transactions with a logical message at their beginning. Their positions count as
//! those of any other transaction. What may not enter: anything about the connection.

use relevo_model::{Ahead, SourceLsn, TransactionPart, Xid, is_applied};

/// Passes over what carries the mark.
#[derive(Debug)]
pub(crate) struct Applied {
    /// Only what commits at or behind this LSN.
    from: SourceLsn,
    /// In the middle of a transaction that is passed over.
    inside: bool,
    /// The last transaction that does and began to come before its commit.
    ahead: Option<Xid>,
}

impl Applied {
    pub(crate) fn new(from: SourceLsn) -> Self {
        Self { from, inside: false, ahead: None }
    }

    /// Whether this is of a transaction that carries the mark.
    pub(crate) fn comes_from_elsewhere(&mut self, ahead: &Ahead) -> bool {
        if let Ahead::Part(part) = ahead
            && part.first
        {
            self.ahead = part.changes.first().is_some_and(is_applied).then_some(part.header.xid);
        }
        self.ahead == Some(ahead.xid())
    }

    /// The part as it is, or without its changes.
    pub(crate) fn pass_over(&mut self, mut part: TransactionPart) -> TransactionPart {
        if part.first {
            self.inside = part.header.commit_lsn >= self.from && part.changes.first().is_some_and(is_applied);
        }
        if self.inside {
            (part.changes, part.size_bytes) = (Vec::new(), 0);
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relevo_model::{Change, Timestamp, TransactionHeader, Xid};

    use super::*;

    fn message(content: &'static str) -> Change {
        Change::Message {
            lsn: SourceLsn::ZERO,
            transactional: true,
            prefix: "relevo".to_owned(),
            content: content.into(),
        }
    }

    fn part(changes: Vec<Change>, first: bool, last: bool) -> TransactionPart {
        let header = TransactionHeader {
            xid: Xid(1),
            commit_lsn: SourceLsn::new(8),
            commit_time: Timestamp::default(),
            origin: None,
        };
        TransactionPart {
            header: Arc::new(header),
            first,
            changes,
            end: last.then_some(SourceLsn::new(16)),
            size_bytes: 100,
        }
    }

    #[test]
    fn a_marked_transaction_is_passed_over_to_its_end_and_the_next_is_not() {
        let mut applied = Applied::new(SourceLsn::ZERO);
        let mut left = |part| {
            let left = applied.pass_over(part);
            (left.changes.len(), left.end.is_some())
        };
        assert_eq!(left(part(vec![message("heartbeat"), message("applied")], true, true)), (2, true));
        assert_eq!(left(part(vec![message("applied"), message("x")], true, false)), (0, false));
        assert_eq!(left(part(vec![message("y")], false, true)), (0, true));
        assert_eq!(left(part(vec![message("z")], true, true)), (1, true));
        assert_eq!(left(part(Vec::new(), true, true)), (0, true));
    }

    /// The commit record of these parts begins at 8.
    #[test]
    fn what_was_applied_before_the_position_is_sent() {
        for (from, changes) in [(7, 0), (8, 0), (9, 1)] {
            let mut applied = Applied::new(SourceLsn::new(from));
            let left = applied.pass_over(part(vec![message("applied")], true, true));
            assert_eq!(left.changes.len(), changes, "passed over from {from} on");
        }
    }
}
