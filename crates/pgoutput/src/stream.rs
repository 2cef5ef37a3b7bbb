//! Where the blocks of transactions that are still running wait for their commit or abort.
//!
//! What waits are the raw frames: they are the most compact form, a store on disk can hold them as they are,
//! and a relation may only be described to the cache in commit order. A store knows nothing of what is in a
//! frame.

use std::collections::HashMap;

use bytes::Bytes;
use relevo_model::{Fault, FaultClass, Side, Xid};

/// Holds the frames of running transactions, by top-level transaction and (sub)transaction.
///
/// After an error the store is dropped with the assembler that uses it.
pub trait StreamStore {
    /// What can go wrong.
    type Error: Fault;
    /// The frames of one transaction in the order in which they were appended. `None` may stand where a frame was
    /// dropped, so that nobody is kept for long by a great many of them.
    type Frames: Iterator<Item = Result<Option<Bytes>, Self::Error>>;

    /// Adds a frame of (sub)transaction `subxid` of the top-level transaction `xid` (`subxid == xid` for its
    /// own).
    ///
    /// # Errors
    /// The store is full or broken.
    fn append(&mut self, xid: Xid, subxid: Xid, frame: Bytes) -> Result<(), Self::Error>;

    /// Drops what `subxid` has appended; everything of `xid` when both are equal. What is unknown is nothing.
    ///
    /// # Errors
    /// The store is broken.
    fn abort(&mut self, xid: Xid, subxid: Xid) -> Result<(), Self::Error>;

    /// Takes out what is left of the top-level transaction `xid`, in order.
    ///
    /// # Errors
    /// The store is broken.
    fn commit(&mut self, xid: Xid) -> Result<Self::Frames, Self::Error>;

    /// What the store holds, in bytes of memory or disk.
    fn bytes(&self) -> u64;

    /// What it holds of that in memory, in bytes.
    fn memory_bytes(&self) -> u64;
}

/// Running transactions in memory, up to a hard limit.
#[derive(Debug)]
pub struct MemoryStore {
    limit_bytes: u64,
    bytes: u64,
    /// Counts the frames appended, which gives their order across subtransactions.
    appended: u64,
    transactions: HashMap<Xid, HashMap<Xid, Frames>>,
}

/// The frames of one (sub)transaction.
#[derive(Debug, Default)]
struct Frames {
    bytes: u64,
    frames: Vec<(u64, Bytes)>,
}

/// Running transactions need more memory than they may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "transactions that are still running on the source need {needed_bytes} bytes of memory, and {limit_bytes} \
     are allowed: allow more, or end long transactions on the source"
)]
pub struct MemoryStoreError {
    /// What all of them would need with the frame that did not fit.
    pub needed_bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
}

impl Fault for MemoryStoreError {
    fn class(&self) -> FaultClass {
        FaultClass::Blocked
    }

    fn side(&self) -> Side {
        Side::Source
    }

    fn kind(&self) -> &'static str {
        "stream_store"
    }
}

impl MemoryStore {
    /// What a frame occupies besides its bytes.
    const FRAME_OVERHEAD_BYTES: u64 = size_of::<(u64, Bytes)>() as u64;

    /// A store that refuses to hold more than `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, bytes: 0, appended: 0, transactions: HashMap::new() }
    }
}

impl StreamStore for MemoryStore {
    type Error = MemoryStoreError;
    type Frames = MemoryFrames;

    fn append(&mut self, xid: Xid, subxid: Xid, frame: Bytes) -> Result<(), MemoryStoreError> {
        let frame_bytes = (frame.len() as u64).saturating_add(Self::FRAME_OVERHEAD_BYTES);
        let needed_bytes = self.bytes.saturating_add(frame_bytes);
        if needed_bytes > self.limit_bytes {
            return Err(MemoryStoreError { needed_bytes, limit_bytes: self.limit_bytes });
        }
        self.bytes = needed_bytes;
        let held = self.transactions.entry(xid).or_default().entry(subxid).or_default();
        held.bytes += frame_bytes;
        // A frame is a slice of a read buffer that others share, and would keep all of it alive for as long as
        // the transaction runs: a copy makes the limit mean what it says.
        held.frames.push((self.appended, Bytes::copy_from_slice(&frame)));
        self.appended += 1;
        Ok(())
    }

    fn abort(&mut self, xid: Xid, subxid: Xid) -> Result<(), MemoryStoreError> {
        if xid == subxid {
            let dropped = self.transactions.remove(&xid).unwrap_or_default();
            self.bytes -= dropped.values().map(|held| held.bytes).sum::<u64>();
        } else if let Some(dropped) = self.transactions.get_mut(&xid).and_then(|subs| subs.remove(&subxid)) {
            self.bytes -= dropped.bytes;
        }
        Ok(())
    }

    fn commit(&mut self, xid: Xid) -> Result<MemoryFrames, MemoryStoreError> {
        let held = self.transactions.remove(&xid).unwrap_or_default();
        self.bytes -= held.values().map(|held| held.bytes).sum::<u64>();
        let mut frames: Vec<_> = held.into_values().flat_map(|held| held.frames).collect();
        frames.sort_unstable_by_key(|(order, _)| *order);
        Ok(MemoryFrames(frames.into_iter()))
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn memory_bytes(&self) -> u64 {
        self.bytes
    }
}

/// The frames of a transaction that has committed.
#[derive(Debug)]
pub struct MemoryFrames(std::vec::IntoIter<(u64, Bytes)>);

impl Iterator for MemoryFrames {
    type Item = Result<Option<Bytes>, MemoryStoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(_, frame)| Ok(Some(frame)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(store: &mut MemoryStore, xid: u32) -> Vec<Bytes> {
        store.commit(Xid(xid)).unwrap().filter_map(Result::unwrap).collect()
    }

    fn append(store: &mut MemoryStore, xid: u32, subxid: u32, frame: &'static str) {
        store.append(Xid(xid), Xid(subxid), Bytes::from_static(frame.as_bytes())).unwrap();
    }

    #[test]
    fn subtransactions_keep_the_order_in_which_they_were_appended() {
        let mut store = MemoryStore::new(1 << 20);
        for (xid, subxid, frame) in
            [(1, 1, "a"), (1, 2, "b"), (9, 9, "x"), (1, 1, "c"), (1, 3, "d"), (1, 2, "e")]
        {
            append(&mut store, xid, subxid, frame);
        }
        store.abort(Xid(1), Xid(3)).unwrap();
        assert_eq!(frames(&mut store, 1), ["a", "b", "c", "e"]);
        assert_eq!(frames(&mut store, 9), ["x"]);
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    fn an_abort_leaves_nothing_behind() {
        let mut store = MemoryStore::new(1 << 20);
        append(&mut store, 1, 1, "a");
        append(&mut store, 1, 2, "b");
        store.abort(Xid(1), Xid(1)).unwrap();
        store.abort(Xid(7), Xid(8)).unwrap();
        assert_eq!(store.bytes(), 0);
        assert!(frames(&mut store, 1).is_empty());
    }

    #[test]
    fn the_limit_is_hard_and_the_error_says_what_it_is() {
        let frame_bytes = 4 + MemoryStore::FRAME_OVERHEAD_BYTES;
        let mut store = MemoryStore::new(2 * frame_bytes);
        append(&mut store, 1, 1, "four");
        append(&mut store, 2, 2, "four");
        let error = store.append(Xid(2), Xid(2), Bytes::new()).unwrap_err();
        assert_eq!(error.limit_bytes, 2 * frame_bytes);
        assert_eq!(store.bytes(), 2 * frame_bytes);
        store.abort(Xid(1), Xid(1)).unwrap();
        append(&mut store, 2, 2, "four");
        assert_eq!(frames(&mut store, 2).len(), 2);
    }
}
