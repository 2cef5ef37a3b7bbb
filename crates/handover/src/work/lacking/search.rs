//! From which position of the new primary a standby gets just what it lacks: read off the transactions that the new primary
//! applied while it was a standby itself. Pure.
//!
//! Each of them says which transactions of the old primary it holds, and what came before it. So the answer needs no trust in
//! how the slot was kept: what the slot does not hold any more leaves a gap that is seen. Where there is no position at which
//! both were the same, there is no answer: a batch of one standby is not a batch of another.

use std::fmt;

use relevo_model::{AppliedMark, Change, SourceLsn, TransactionPart, is_applied};

/// Why there is no such position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nowhere {
    /// The slot begins behind what the standby has.
    Gap(SourceLsn),
    /// The standby has a part of what came to the new primary in one transaction.
    Within(SourceLsn, SourceLsn),
    /// Rows changed that did not come with a transaction of the old primary, such as those of a table that was copied.
    Otherwise(SourceLsn),
}

impl fmt::Display for Nowhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap(after) => {
                write!(
                    f,
                    "what the new primary applied up to {after} of the old one is not in its slot any more"
                )
            }
            Self::Within(first, last) => write!(
                f,
                "the new primary applied the transactions that the old one committed from {first} to {last} in one, and the \
                 standby has some of them"
            ),
            Self::Otherwise(at) => {
                write!(
                    f,
                    "the new primary has rows that did not come from the old one's stream (commit at {at})"
                )
            }
        }
    }
}

/// What one transaction says of itself.
#[derive(Debug, Default)]
struct Said {
    applied: bool,
    mark: Option<AppliedMark>,
    rows: bool,
}

/// The search, transaction by transaction.
#[derive(Debug)]
pub(super) struct Search {
    /// The old primary's server.
    system_id: String,
    /// What the standby has of it.
    has: SourceLsn,
    /// Behind the last transaction, on the new primary.
    behind: SourceLsn,
    now: Said,
    found: Option<SourceLsn>,
    nowhere: Option<Nowhere>,
}

impl Search {
    /// `begin`: from where on the slot holds everything.
    pub(super) fn new(system_id: &str, has: SourceLsn, begin: SourceLsn) -> Self {
        Self {
            system_id: system_id.to_owned(),
            has,
            behind: begin,
            now: Said::default(),
            found: None,
            nowhere: None,
        }
    }

    /// Takes the next part. `false`: there is no answer, whatever follows.
    pub(super) fn take(&mut self, part: &TransactionPart) -> bool {
        if part.first {
            let applied = part.changes.first().is_some_and(is_applied);
            self.now = Said { applied, ..Said::default() };
        }
        for change in &part.changes {
            match (change, AppliedMark::of(change), &mut self.now.mark) {
                (_, Some(more), Some(mark)) => mark.last = mark.last.max(more.last),
                (_, Some(mark), none) => *none = Some(mark),
                (Change::Message { .. }, None, _) => {}
                _ => self.now.rows = true,
            }
        }
        if let Some(end) = part.end {
            let said = std::mem::take(&mut self.now);
            if let Err(nowhere) = self.whole(&said, part.header.commit_lsn) {
                self.nowhere.get_or_insert(nowhere);
            }
            self.behind = end;
        }
        self.nowhere.is_none()
    }

    fn whole(&mut self, said: &Said, commit_lsn: SourceLsn) -> Result<(), Nowhere> {
        let Some(mark) = said.mark.as_ref().filter(|_| said.applied) else {
            // One that only moved a position has no rows; a table that joins has no mark, whatever came with it.
            return if said.rows { Err(Nowhere::Otherwise(commit_lsn)) } else { Ok(()) };
        };
        if mark.system_id != self.system_id {
            return Err(Nowhere::Otherwise(commit_lsn));
        }
        // A position lies behind a commit record or before it.
        if mark.last < self.has && self.found.is_none() {
            return Ok(());
        }
        if mark.first < self.has {
            return Err(Nowhere::Within(mark.first, mark.last));
        }
        if self.found.is_none() {
            if mark.after >= self.has {
                return Err(Nowhere::Gap(mark.after));
            }
            self.found = Some(self.behind);
        }
        Ok(())
    }

    /// Everything was taken up to `lead`, the position at which the new primary took the role. `last`: the old primary's last
    /// commit that it had by then, or the byte before the position from which it followed it.
    pub(super) fn end(self, lead: SourceLsn, last: SourceLsn) -> Result<SourceLsn, Nowhere> {
        match (self.nowhere, self.found) {
            (Some(nowhere), _) => Err(nowhere),
            (None, Some(found)) => Ok(found),
            // It lacks nothing.
            (None, None) if last < self.has => Ok(lead),
            (None, None) => Err(Nowhere::Gap(last)),
        }
    }
}

#[cfg(test)]
mod tests;
