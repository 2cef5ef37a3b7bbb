//! What a transaction that was applied between nodes says of itself to whoever decodes it again.
//!
//! Whoever applies writes it into the transaction as logical messages (manual, *pg_logical_emit_message*); whoever reads a
//! node's slot finds it there. What may not enter: how messages are written or read.

use std::fmt;
use std::str::FromStr;

use crate::{Change, SourceLsn};

/// The prefix of Relevo's own logical messages.
const PREFIX: &str = "relevo";
/// The first message of a transaction that was applied.
const APPLIED: &[u8] = b"applied";

/// Whether the change says, as the first of its transaction, that the transaction came from elsewhere.
#[must_use]
pub fn is_applied(change: &Change) -> bool {
    own_message(change).is_some_and(|content| content == APPLIED)
}

fn own_message(change: &Change) -> Option<&[u8]> {
    match change {
        Change::Message { transactional: true, prefix, content, .. } if prefix == PREFIX => Some(content),
        _ => None,
    }
}

/// Which transactions of a source one transaction of its target holds. It follows the first message; one that takes further
/// transactions in before it ends says so again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedMark {
    /// System identifier of the source's server.
    pub system_id: String,
    /// All that the target had of it before this transaction was committed at or before this LSN: where the commit record of the
    /// last transaction begins, or the byte before the position from which the target follows this source.
    pub after: SourceLsn,
    /// Where the commit record of the first transaction begins.
    pub first: SourceLsn,
    /// Where the commit record of the last one begins.
    pub last: SourceLsn,
}

impl AppliedMark {
    /// What the change says, if it is such a message.
    #[must_use]
    pub fn of(change: &Change) -> Option<Self> {
        std::str::from_utf8(own_message(change)?).ok()?.parse().ok()
    }
}

impl fmt::Display for AppliedMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system_id, after, first, last } = self;
        write!(f, "applied {system_id} {after} {first} {last}")
    }
}

/// The text is no such message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAppliedMark;

impl fmt::Display for NoAppliedMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected: applied, a system identifier, and three LSNs")
    }
}

impl std::error::Error for NoAppliedMark {}

impl FromStr for AppliedMark {
    type Err = NoAppliedMark;

    fn from_str(text: &str) -> Result<Self, NoAppliedMark> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(NoAppliedMark);
        if word()? != "applied" {
            return Err(NoAppliedMark);
        }
        let system_id = word()?.to_owned();
        let mut lsn = || word().and_then(|text| text.parse().map_err(|_| NoAppliedMark));
        let mark = Self { system_id, after: lsn()?, first: lsn()?, last: lsn()? };
        // What is not understood to its end says something else.
        if words.next().is_some() { Err(NoAppliedMark) } else { Ok(mark) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(prefix: &str, content: &str, transactional: bool) -> Change {
        Change::Message {
            lsn: SourceLsn::ZERO,
            transactional,
            prefix: prefix.to_owned(),
            content: content.to_owned().into(),
        }
    }

    #[test]
    fn only_relevos_own_messages_within_transactions_count() {
        let text = "applied 7 0/1 0/2 0/3";
        assert!(AppliedMark::of(&message("relevo", text, true)).is_some());
        for other in [message("other", text, true), message("relevo", text, false)] {
            assert_eq!(AppliedMark::of(&other), None);
        }
        assert!(is_applied(&message("relevo", "applied", true)));
        assert!(!is_applied(&message("relevo", text, true)), "the first message is the word alone");
        for wrong in ["applied", "applied 7 0/1 0/2", "applied 7 0/1 0/2 0/3 0/4", "heartbeat 7 0/1 0/2 0/3"]
        {
            assert_eq!(AppliedMark::of(&message("relevo", wrong, true)), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(system in any::<u64>(), lsns in any::<[u64; 3]>()) {
            let [after, first, last] = lsns.map(SourceLsn::new);
            let mark = AppliedMark { system_id: system.to_string(), after, first, last };
            prop_assert_eq!(mark.to_string().parse(), Ok(mark));
        }
    }
}
