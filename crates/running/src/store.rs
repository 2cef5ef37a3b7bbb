//! The store: which transaction is where, and what moves to the spool when memory runs short.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use bytes::{Buf, Bytes};
use relevo_model::Xid;
use relevo_pgoutput::StreamStore;
use relevo_spool::{Scratch, ScratchFrames, SharedSpool, SpoolError};

use crate::error::{Held, RunningError};
use crate::memory::{Packed, PackedFrames};

/// How many transactions an error names besides the largest.
const OTHERS_NAMED: usize = 2;
/// What a subtransaction takes that was rolled back, as long as its frames are there.
const ABORTED_BYTES: u64 = 8;
/// What stands before a frame in the spool: its subtransaction.
const SUBXID_BYTES: usize = 4;

/// The transactions that run on the source, with a bound for their memory and that of the spool for their disk.
pub struct RunningStore {
    spool: SharedSpool,
    memory_limit_bytes: u64,
    transactions: HashMap<Xid, Transaction>,
    /// What the transactions take that are in memory.
    memory_bytes: u64,
}

#[derive(Default)]
struct Transaction {
    content: Content,
    /// The subtransactions whose frames do not count any more.
    aborted: HashSet<Xid>,
    sent_bytes: u64,
}

enum Content {
    Memory(Packed),
    Spooled(Box<Scratch>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Memory(Packed::default())
    }
}

impl Transaction {
    fn memory_bytes(&self) -> u64 {
        let packed = match &self.content {
            Content::Memory(packed) => packed.bytes(),
            Content::Spooled(_) => 0,
        };
        packed + ABORTED_BYTES * self.aborted.len() as u64
    }

    fn spool_bytes(&self) -> u64 {
        match &self.content {
            Content::Memory(_) => 0,
            Content::Spooled(log) => log.bytes(),
        }
    }
}

impl RunningStore {
    /// A store that holds nothing yet. What does not fit into `memory_limit_bytes` goes to the spool; a single frame may
    /// be larger than that, and goes there too.
    #[must_use]
    pub fn new(spool: SharedSpool, memory_limit_bytes: u64) -> Self {
        Self { spool, memory_limit_bytes, transactions: HashMap::new(), memory_bytes: 0 }
    }

    /// Moves transactions to the spool, the largest first, until so many bytes more fit into memory, or there is nothing
    /// left to move. `coming`: the transaction that the bytes are for counts with them.
    fn make_room(&mut self, coming: Xid, needed_bytes: u64) -> Result<(), SpoolError> {
        while self.memory_bytes.saturating_add(needed_bytes) > self.memory_limit_bytes {
            let in_memory = self.transactions.iter_mut().filter_map(|(xid, transaction)| {
                let Content::Memory(packed) = &transaction.content else { return None };
                let coming_bytes = if *xid == coming { needed_bytes } else { 0 };
                Some((packed.bytes() + coming_bytes, transaction))
            });
            let Some((_, largest)) = in_memory.max_by_key(|(bytes, _)| *bytes) else { return Ok(()) };
            self.memory_bytes -= largest.memory_bytes();
            let moved = largest.move_to_spool(&self.spool);
            self.memory_bytes += largest.memory_bytes();
            moved?;
            let holds_coming = self.transactions.get(&coming).map(|transaction| &transaction.content);
            if matches!(holds_coming, Some(Content::Spooled(_))) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn push(&mut self, xid: Xid, subxid: Xid, frame: &[u8]) -> Result<(), SpoolError> {
        let transaction = self.transactions.entry(xid).or_default();
        transaction.sent_bytes += frame.len() as u64;
        if let Content::Memory(packed) = &transaction.content {
            let needed_bytes = packed.growth_bytes(frame.len());
            self.make_room(xid, needed_bytes)?;
        }
        let transaction = self.transactions.entry(xid).or_default();
        self.memory_bytes -= transaction.memory_bytes();
        let pushed = match &mut transaction.content {
            Content::Memory(packed) => {
                packed.push(subxid, frame);
                Ok(())
            }
            Content::Spooled(log) => write(log, subxid, frame),
        };
        self.memory_bytes += transaction.memory_bytes();
        pushed
    }

    /// The error, with what is to be done about it.
    fn explain(&self, xid: Xid, source: SpoolError) -> RunningError {
        let SpoolError::Full { dir, used_bytes, limit_bytes, .. } = source else { return source.into() };
        let held = self.transactions.iter().map(|(xid, transaction)| Held {
            xid: *xid,
            spool_bytes: transaction.spool_bytes(),
            sent_bytes: transaction.sent_bytes,
        });
        let mut held: Vec<Held> = held.collect();
        held.sort_by_key(|held| Reverse((held.spool_bytes, held.sent_bytes)));
        let mut held = held.into_iter();
        let nobody = Held { xid, spool_bytes: 0, sent_bytes: 0 };
        let largest = held.next().unwrap_or(nobody);
        let others = held.take(OTHERS_NAMED).filter(|other| other.spool_bytes > 0).collect();
        RunningError::Full { largest, others, used_bytes, limit_bytes, dir }
    }
}

impl Transaction {
    /// Moves what is in memory to a log of the spool, but for what was rolled back. After an error the transaction is
    /// not whole any more.
    fn move_to_spool(&mut self, spool: &SharedSpool) -> Result<(), SpoolError> {
        let mut log = spool.scratch()?;
        let Content::Memory(packed) = std::mem::take(&mut self.content) else { return Ok(()) };
        let mut written = Ok(());
        for (subxid, frame) in packed.into_frames() {
            if !self.aborted.contains(&subxid) {
                written = write(&mut log, subxid, &frame);
            }
            if written.is_err() {
                break;
            }
        }
        // Nothing is left of them, and their ids do not come again.
        self.aborted = HashSet::new();
        self.content = Content::Spooled(Box::new(log));
        written
    }
}

fn write(log: &mut Scratch, subxid: Xid, frame: &[u8]) -> Result<(), SpoolError> {
    log.append_joined(&subxid.0.to_be_bytes(), frame)
}

impl StreamStore for RunningStore {
    type Error = RunningError;
    type Frames = RunningFrames;

    fn append(&mut self, xid: Xid, subxid: Xid, frame: Bytes) -> Result<(), RunningError> {
        self.push(xid, subxid, &frame).map_err(|error| self.explain(xid, error))
    }

    fn abort(&mut self, xid: Xid, subxid: Xid) -> Result<(), RunningError> {
        if xid == subxid {
            let dropped = self.transactions.remove(&xid);
            self.memory_bytes -= dropped.map_or(0, |dropped| dropped.memory_bytes());
        } else if let Some(transaction) = self.transactions.get_mut(&xid)
            && transaction.aborted.insert(subxid)
        {
            self.memory_bytes += ABORTED_BYTES;
        }
        Ok(())
    }

    fn commit(&mut self, xid: Xid) -> Result<RunningFrames, RunningError> {
        let transaction = self.transactions.remove(&xid).unwrap_or_default();
        self.memory_bytes -= transaction.memory_bytes();
        let frames = match transaction.content {
            Content::Memory(packed) => Source::Memory(packed.into_frames()),
            Content::Spooled(log) => Source::Spooled(Box::new(log.into_frames()?)),
        };
        Ok(RunningFrames { frames, aborted: transaction.aborted })
    }

    fn bytes(&self) -> u64 {
        self.memory_bytes + self.transactions.values().map(Transaction::spool_bytes).sum::<u64>()
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

/// The frames of a transaction that has committed. What it took of the spool becomes free when they are dropped.
pub struct RunningFrames {
    frames: Source,
    aborted: HashSet<Xid>,
}

enum Source {
    Memory(PackedFrames),
    Spooled(Box<ScratchFrames>),
}

impl RunningFrames {
    fn frame(&mut self) -> Result<Option<(Xid, Bytes)>, RunningError> {
        match &mut self.frames {
            Source::Memory(frames) => Ok(frames.next()),
            Source::Spooled(frames) => {
                let Some(mut frame) = frames.next().transpose()? else { return Ok(None) };
                if frame.len() < SUBXID_BYTES {
                    return Err(RunningError::Short { length_bytes: frame.len() });
                }
                Ok(Some((Xid(frame.get_u32()), frame)))
            }
        }
    }
}

impl Iterator for RunningFrames {
    type Item = Result<Option<Bytes>, RunningError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.frame().transpose()?;
        Some(frame.map(|(subxid, frame)| (!self.aborted.contains(&subxid)).then_some(frame)))
    }
}
