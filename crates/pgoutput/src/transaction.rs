//! Gathers the changes of one transaction and cuts it into parts that fit in memory.

use std::sync::Arc;

use relevo_model::{Change, Origin, SourceLsn, Timestamp, TransactionHeader, TransactionPart, Xid};

/// A transaction whose changes are arriving.
#[derive(Debug)]
pub(crate) struct OpenTransaction {
    header: Arc<TransactionHeader>,
    /// Something other than an origin has arrived.
    has_content: bool,
    first: bool,
    changes: Vec<Change>,
    size_bytes: usize,
}

impl OpenTransaction {
    pub(crate) fn new(
        xid: Xid,
        commit_lsn: SourceLsn,
        commit_time: Timestamp,
        origin: Option<Origin>,
    ) -> Self {
        let header = Arc::new(TransactionHeader { xid, commit_lsn, commit_time, origin });
        Self { header, has_content: false, first: true, changes: Vec::new(), size_bytes: 0 }
    }

    /// A transaction that still runs: nobody knows yet when it will commit.
    pub(crate) fn running(xid: Xid) -> Self {
        Self::new(xid, SourceLsn::ZERO, Timestamp::default(), None)
    }

    /// No part of it has been cut off yet.
    pub(crate) fn is_whole(&self) -> bool {
        self.first
    }

    /// What is known of it.
    pub(crate) fn header(&self) -> &Arc<TransactionHeader> {
        &self.header
    }

    /// The last part of a transaction that ran until now, under its true header.
    pub(crate) fn finish_as(mut self, header: &Arc<TransactionHeader>, end: SourceLsn) -> TransactionPart {
        self.header = Arc::clone(header);
        self.cut(Some(end))
    }

    pub(crate) fn xid(&self) -> Xid {
        self.header.xid
    }

    pub(crate) fn commit_lsn(&self) -> SourceLsn {
        self.header.commit_lsn
    }

    /// Sets the origin, unless one is set or content has arrived: `false` then.
    pub(crate) fn set_origin(&mut self, origin: Origin) -> bool {
        if self.has_content || self.header.origin.is_some() {
            return false;
        }
        Arc::make_mut(&mut self.header).origin = Some(origin);
        true
    }

    /// Notes that the transaction's content has begun.
    pub(crate) fn begin_content(&mut self) {
        self.has_content = true;
    }

    /// Adds a change. When it no longer fits into a part of `part_bytes`, what came before it is that part.
    ///
    /// So a part is only larger than `part_bytes` when it holds a single change, and the last part of a
    /// transaction is only empty when the transaction is.
    pub(crate) fn push(&mut self, change: Change, part_bytes: usize) -> Option<TransactionPart> {
        let size_bytes = change.size_bytes();
        let full = !self.changes.is_empty() && self.size_bytes.saturating_add(size_bytes) > part_bytes;
        let part = full.then(|| self.cut(None));
        self.changes.push(change);
        self.size_bytes += size_bytes;
        part
    }

    /// The last part.
    pub(crate) fn finish(mut self, end: SourceLsn) -> TransactionPart {
        self.cut(Some(end))
    }

    fn cut(&mut self, end: Option<SourceLsn>) -> TransactionPart {
        TransactionPart {
            header: Arc::clone(&self.header),
            first: std::mem::replace(&mut self.first, false),
            changes: std::mem::take(&mut self.changes),
            end,
            size_bytes: std::mem::take(&mut self.size_bytes),
        }
    }
}
