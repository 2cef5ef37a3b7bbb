//! From the messages of one connection to whole transactions in commit order.
//!
//! Ordinary transactions arrive one after the other, each after its commit. Between them come the blocks of
//! transactions that are still running (when streaming was asked for); those wait in a [`StreamStore`] and are
//! replayed at their commit. Whatever does not fit this order is an error: nothing is ever ignored.

use std::collections::HashMap;

use bytes::Bytes;
use relevo_model::{Ahead, Fault, Origin, SourceLsn, TransactionPart, Xid};

use crate::ahead::{Descriptions, RunningAhead};
use crate::decode::{Decoder, decode};
use crate::error::{AssembleError, Place};
use crate::format::Format;
use crate::message::{Message, Prepared};
use crate::relations::RelationCache;
use crate::stream::{MemoryStore, StreamStore};
use crate::transaction::OpenTransaction;

type Result<T> = std::result::Result<T, AssembleError>;

/// How much of a streamed transaction is read back in one step, as far as no part is full before: some milliseconds of
/// work.
const STEP_FRAMES: usize = 2048;
const STEP_BYTES: usize = 1 << 20;

/// What a step of [`Assembler::step`] has brought.
#[derive(Debug)]
pub enum Step {
    /// A part.
    Part(TransactionPart),
    /// Something of a transaction that still runs, or has committed and waits for [`Assembler::settle_ahead`].
    Ahead(Ahead),
    /// Nothing yet: a streamed transaction is being read back.
    More,
    /// Nothing before [`Assembler::settle_ahead`] has said what has become of the transaction that was cut into parts while
    /// it ran.
    Unsettled,
    /// Nothing; the next frame can be fed.
    Done,
}

/// Turns the frames of one replication connection into transactions.
///
/// Feed it a frame, then take parts until there are none, then feed the next:
///
/// ```
/// # use bytes::Bytes;
/// # use relevo_pgoutput::{AssembleError, Assembler, Format, MemoryStore, Protocol, Streaming};
/// # fn demo(frames: Vec<Bytes>) -> Result<(), AssembleError> {
/// let format = Format { protocol: Protocol::V1, streaming: Streaming::Off };
/// let mut assembler = Assembler::new(format, 8 << 20, MemoryStore::new(64 << 20));
/// for frame in frames {
///     assembler.feed(&frame)?;
///     while let Some(part) = assembler.next_part()? {
///         println!("{} changes", part.changes.len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Its memory is bounded by one part, the parts' largest change, and the store's limit.
#[derive(Debug)]
pub struct Assembler<S: StreamStore = MemoryStore> {
    decoder: Decoder,
    part_bytes: usize,
    relations: RelationCache,
    state: State,
    /// The transactions that are being streamed, with the origin that their first block named.
    streams: HashMap<Xid, Option<Origin>>,
    store: S,
    /// A streamed transaction that has committed and is being read back.
    replay: Option<Replay<S::Frames>>,
    /// Whether a running transaction may be cut into parts before it has committed.
    goes_ahead: bool,
    /// The one that is.
    ahead: Option<RunningAhead>,
    /// It has committed, and may have to be read back all the same.
    settling: Option<Settling<S::Frames>>,
    /// What waits to be taken of it.
    ready_ahead: Option<Ahead>,
    /// A part that waits to be taken.
    ready: Option<TransactionPart>,
    previous_end_lsn: SourceLsn,
    failed: bool,
}

#[derive(Debug)]
enum State {
    Outside,
    Transaction(OpenTransaction),
    StreamBlock {
        xid: Xid,
        /// Nothing has followed the Stream Start of the transaction's first block.
        at_start: bool,
    },
}

#[derive(Debug)]
struct Replay<F> {
    transaction: OpenTransaction,
    end_lsn: SourceLsn,
    frames: F,
}

#[derive(Debug)]
struct Settling<F> {
    replay: Replay<F>,
    descriptions: Descriptions,
}

impl<S: StreamStore> Assembler<S> {
    /// An assembler for a connection that has just been started. A transaction whose changes occupy more than
    /// `part_bytes` (as [`Change::size_bytes`](relevo_model::Change::size_bytes) counts) comes in parts.
    #[must_use]
    pub fn new(format: Format, part_bytes: usize, store: S) -> Self {
        Self {
            decoder: Decoder::new(format),
            part_bytes,
            relations: RelationCache::default(),
            state: State::Outside,
            streams: HashMap::new(),
            store,
            replay: None,
            goes_ahead: false,
            ahead: None,
            settling: None,
            ready_ahead: None,
            ready: None,
            previous_end_lsn: SourceLsn::ZERO,
            failed: false,
        }
    }

    /// The same, which also yields parts of transactions that still run ([`Step::Ahead`]), of one at a time. Whoever asks for
    /// them takes them by [`Assembler::step`].
    #[must_use]
    pub fn with_ahead(self) -> Self {
        Self { goes_ahead: true, ..self }
    }

    /// Takes one message: the payload of an `XLogData` message. Then call [`Assembler::next_part`] until it
    /// gives `None`.
    ///
    /// # Errors
    /// What the source sent is not understood, or does not fit what it sent before. Nothing can be fed after an
    /// error; the next connection needs a new assembler.
    pub fn feed(&mut self, frame: &Bytes) -> Result<()> {
        if self.failed {
            return Err(AssembleError::Failed);
        }
        let pending = self.ready.is_some() || self.replay.is_some();
        let result = if pending || self.ready_ahead.is_some() || self.settling.is_some() {
            Err(AssembleError::PartsPending)
        } else {
            self.take(frame)
        };
        self.failed = result.is_err();
        result
    }

    /// The next part of the transaction that the last frame completed or filled.
    ///
    /// # Errors
    /// A streamed transaction that has committed cannot be read back, or its content is not understood.
    pub fn next_part(&mut self) -> Result<Option<TransactionPart>> {
        loop {
            match self.step()? {
                Step::Part(part) => return Ok(Some(part)),
                Step::More => {}
                // Nothing goes ahead for those who do not settle it.
                Step::Ahead(ahead) => {
                    self.settle_ahead(ahead.xid(), false);
                }
                Step::Done | Step::Unsettled => return Ok(None),
            }
        }
    }

    /// As [`Assembler::next_part`], but never works for long: whoever has other things to do calls this until it is
    /// done.
    ///
    /// # Errors
    /// As [`Assembler::next_part`].
    pub fn step(&mut self) -> Result<Step> {
        if self.failed {
            return Err(AssembleError::Failed);
        }
        if let Some(part) = self.ready.take() {
            return Ok(Step::Part(part));
        }
        if let Some(ahead) = self.ready_ahead.take() {
            return Ok(Step::Ahead(ahead));
        }
        if self.settling.is_some() {
            return Ok(Step::Unsettled);
        }
        let result = self.replay();
        self.failed = result.is_err();
        result
    }

    /// Whether a streamed transaction that has committed is being read back.
    #[must_use]
    pub fn is_reading_back(&self) -> bool {
        self.replay.is_some()
    }

    /// Whether a transaction or stream block is half-way, or parts wait to be taken. A keepalive's position
    /// counts only when this is false.
    ///
    /// A transaction that is being streamed does not count between its blocks: its commit lies behind every
    /// position reported until then, so the server will send all of it again to whoever confirms one.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        let pending = self.ready.is_some() || self.ready_ahead.is_some();
        !matches!(self.state, State::Outside) || pending || self.replay.is_some() || self.settling.is_some()
    }

    /// Says what has become of a transaction of which something went ahead. `committed`, after [`Ahead::Commit`]: it is on
    /// the target, and not read back. Otherwise it comes as a whole after its commit, as if nothing had gone ahead.
    ///
    /// Returns whether that was to be said: `false` means that `xid` does not go ahead any more, or that it was said to be
    /// committed before it was.
    pub fn settle_ahead(&mut self, xid: Xid, committed: bool) -> bool {
        self.ready_ahead.take_if(|ahead| ahead.xid() == xid);
        if let Some(settling) = self.settling.take_if(|settling| settling.replay.transaction.xid() == xid) {
            match committed {
                true => settling.descriptions.tell(&mut self.relations),
                false => self.replay = Some(settling.replay),
            }
            return true;
        }
        !committed && self.ahead.take_if(|ahead| ahead.xid() == xid).is_some()
    }

    /// What the store holds of transactions that are being streamed, in bytes.
    #[must_use]
    pub fn streamed_bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// What of that is held in memory, in bytes.
    #[must_use]
    pub fn streamed_memory_bytes(&self) -> u64 {
        self.store.memory_bytes()
    }

    /// What the source has said of its tables.
    #[must_use]
    pub fn relations(&self) -> &RelationCache {
        &self.relations
    }

    fn place(&self) -> Place {
        match &self.state {
            State::Outside => Place::Outside,
            State::Transaction(open) => Place::Transaction(open.xid()),
            State::StreamBlock { xid, .. } => Place::StreamBlock(*xid),
        }
    }

    fn take(&mut self, frame: &Bytes) -> Result<()> {
        let message = self.decoder.decode(frame)?;
        refuse_two_phase(&message)?;
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Outside => self.outside(message),
            State::Transaction(open) => self.in_transaction_content(open, message),
            State::StreamBlock { xid, at_start } => {
                self.state = State::StreamBlock { xid, at_start: false };
                self.in_block(xid, at_start, message, frame)
            }
        }
    }

    fn outside(&mut self, message: Message) -> Result<()> {
        let name = message.name();
        match message {
            Message::Begin { final_lsn, commit_time, xid } => {
                self.state = State::Transaction(OpenTransaction::new(xid, final_lsn, commit_time, None));
            }
            Message::StreamStart { xid, first_segment } => {
                match (first_segment, self.streams.contains_key(&xid)) {
                    (true, true) => return Err(AssembleError::StreamedTwice { xid }),
                    (false, false) => return Err(AssembleError::UnknownStream { message: name, xid }),
                    (true, false) => self.begin_stream(xid),
                    (false, true) => {}
                }
                self.state = State::StreamBlock { xid, at_start: first_segment };
            }
            Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time } => {
                let Some(origin) = self.streams.remove(&xid) else {
                    return Err(AssembleError::UnknownStream { message: name, xid });
                };
                self.check_order(xid, commit_lsn, end_lsn)?;
                let frames = self.store.commit(xid).map_err(|error| store_error(xid, error))?;
                let transaction = OpenTransaction::new(xid, commit_lsn, commit_time, origin);
                self.commit_stream(Replay { transaction, end_lsn, frames });
            }
            Message::StreamAbort { xid, subxid, .. } => {
                let known = if xid == subxid {
                    self.streams.remove(&xid).is_some()
                } else {
                    self.streams.contains_key(&xid)
                };
                if !known {
                    return Err(AssembleError::UnknownStream { message: name, xid });
                }
                // A subtransaction of which nothing was published is aborted all the same: the store knows
                // nothing of it, and that is no error.
                self.store.abort(xid, subxid).map_err(|error| store_error(xid, error))?;
                self.stop_ahead(xid);
            }
            // It belongs to no transaction, was sent the moment it was written, and changes no table.
            Message::Logical { transactional: false, .. } => {}
            _ => {
                return Err(AssembleError::OutOfPlace {
                    message: name,
                    place: Place::Outside,
                    expected: "Begin, or a streamed transaction's block, commit or abort",
                });
            }
        }
        Ok(())
    }

    fn in_transaction_content(&mut self, mut open: OpenTransaction, message: Message) -> Result<()> {
        let (name, xid) = (message.name(), open.xid());
        match message {
            Message::Commit { commit_lsn, end_lsn, .. } => {
                let announced = open.commit_lsn();
                if announced != commit_lsn {
                    return Err(AssembleError::CommitMismatch { xid, announced, committed: commit_lsn });
                }
                self.check_order(xid, commit_lsn, end_lsn)?;
                self.ready = Some(open.finish(end_lsn));
                return Ok(());
            }
            Message::Origin { commit_lsn, name: origin } => {
                if !open.set_origin(Origin { name: origin, commit_lsn }) {
                    return Err(AssembleError::OutOfPlace {
                        message: name,
                        place: Place::TransactionContent(xid),
                        expected: "one Origin at most, right behind Begin",
                    });
                }
            }
            message => {
                open.begin_content();
                if let Some(change) = self.relations.change(message, Place::Transaction(xid))? {
                    self.ready = open.push(change, self.part_bytes);
                }
            }
        }
        self.state = State::Transaction(open);
        Ok(())
    }

    fn in_block(&mut self, xid: Xid, at_start: bool, message: Message, frame: &Bytes) -> Result<()> {
        match message {
            Message::StreamStop => self.state = State::Outside,
            Message::Origin { commit_lsn, name } if at_start => {
                self.streams.insert(xid, Some(Origin { name, commit_lsn }));
            }
            message => {
                let Some(subxid) = message.stream_xid() else {
                    return Err(AssembleError::OutOfPlace {
                        message: message.name(),
                        place: self.place(),
                        expected: "a change, Stream Stop, or an Origin at the start of the first block",
                    });
                };
                let appended = self.store.append(xid, subxid, frame.clone());
                appended.map_err(|error| store_error(xid, error))?;
                self.follow_ahead(xid, message);
            }
        }
        Ok(())
    }

    fn begin_stream(&mut self, xid: Xid) {
        self.streams.insert(xid, None);
        if self.goes_ahead && self.ahead.is_none() {
            self.ahead = Some(RunningAhead::new(xid, &self.relations));
        }
    }

    /// The same message once more, for whoever applies it before its commit.
    fn follow_ahead(&mut self, xid: Xid, message: Message) {
        let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.xid() == xid) else { return };
        match ahead.take(message, self.part_bytes) {
            Ok(part) => self.ready_ahead = part.map(Ahead::Part),
            Err(()) => self.stop_ahead(xid),
        }
    }

    /// What went ahead of the transaction, if anything did, is to be taken back.
    fn stop_ahead(&mut self, xid: Xid) {
        if let Some(ahead) = self.ahead.take_if(|ahead| ahead.xid() == xid) {
            self.ready_ahead = (!ahead.is_whole()).then_some(Ahead::Abort(xid));
        }
    }

    /// A streamed transaction has committed: it is read back, unless it may be on the target already.
    fn commit_stream(&mut self, replay: Replay<S::Frames>) {
        let xid = replay.transaction.xid();
        match self.ahead.take_if(|ahead| ahead.xid() == xid) {
            Some(ahead) if !ahead.is_whole() => {
                let (last, descriptions) = ahead.commit(replay.transaction.header(), replay.end_lsn);
                self.ready_ahead = Some(last);
                self.settling = Some(Settling { replay, descriptions });
            }
            _ => self.replay = Some(replay),
        }
    }

    /// Reads back a streamed transaction until a part is full, or the step has taken long enough.
    ///
    /// Descriptions of tables that an aborted subtransaction sent are dropped with it, as PostgreSQL's own apply
    /// worker does by cutting its file (`stream_abort_internal` in `worker.c`). They must be: the subtransaction
    /// may have altered the table, and another transaction altered it again, and used it, before this one
    /// commits. And they can be: subtransactions nest, so what came after one that is rolled back was rolled back
    /// with it, and for what comes later the server describes the table again (`cleanup_rel_sync_cache` in
    /// `pgoutput.c` forgets at an abort what it had described in that transaction).
    fn replay(&mut self) -> Result<Step> {
        let Some(mut replay) = self.replay.take() else { return Ok(Step::Done) };
        let xid = replay.transaction.xid();
        let (mut frames, mut bytes) = (0, 0);
        while let Some(frame) = replay.frames.next() {
            let frame = frame.map_err(|error| store_error(xid, error))?;
            (frames, bytes) = (frames + 1, bytes + frame.as_ref().map_or(0, Bytes::len));
            let took_long = frames >= STEP_FRAMES || bytes >= STEP_BYTES;
            let Some(frame) = frame else {
                if took_long {
                    self.replay = Some(replay);
                    return Ok(Step::More);
                }
                continue;
            };
            let message = decode(&frame, self.decoder.format(), true)?;
            let change = self.relations.change(message, Place::StreamBlock(xid))?;
            let part = change.and_then(|change| replay.transaction.push(change, self.part_bytes));
            if part.is_some() || took_long {
                self.replay = Some(replay);
                return Ok(part.map_or(Step::More, Step::Part));
            }
        }
        Ok(Step::Part(replay.transaction.finish(replay.end_lsn)))
    }

    fn check_order(&mut self, xid: Xid, commit_lsn: SourceLsn, end_lsn: SourceLsn) -> Result<()> {
        let previous_end_lsn = self.previous_end_lsn;
        if end_lsn <= commit_lsn || commit_lsn < previous_end_lsn {
            return Err(AssembleError::CommitOrder { xid, commit_lsn, end_lsn, previous_end_lsn });
        }
        self.previous_end_lsn = end_lsn;
        Ok(())
    }
}

/// Prepared transactions are never asked for. Taking one for a committed one would apply what may yet be rolled
/// back, and dropping it would lose what may yet be committed.
fn refuse_two_phase(message: &Message) -> Result<()> {
    let (xid, gid) = match message {
        Message::BeginPrepare(Prepared { xid, gid, .. })
        | Message::Prepare(Prepared { xid, gid, .. })
        | Message::StreamPrepare(Prepared { xid, gid, .. })
        | Message::CommitPrepared { xid, gid, .. }
        | Message::RollbackPrepared { xid, gid, .. } => (*xid, gid.clone()),
        _ => return Ok(()),
    };
    Err(AssembleError::TwoPhase { message: message.name(), xid, gid })
}

fn store_error(xid: Xid, source: impl Fault) -> AssembleError {
    AssembleError::Store { xid, class: source.class(), kind: source.kind(), source: Box::new(source) }
}
