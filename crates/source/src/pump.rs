//! The loop that serves the socket while streaming: reads, assembles, queues, and answers the server in time whatever
//! the apply side does.
//!
//! What may not enter: how the stream was begun (see `connection`, `start`). Every wait is one `select!` whose arms are
//! cancel-safe: a half-read frame lives in [`Framed`], a half-taken transaction in the assembler.

use std::time::Duration;

use bytes::Bytes;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use relevo_model::{Ahead, Feedback, SourceLsn, Timestamp, TransactionPart, Xid};
use relevo_pgoutput::{Assembler, Step, StreamStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection::server_message;
use crate::error::{SourceError, about_publication};
use crate::frame::{Frame, Framed};
use crate::monitor::SourceMonitor;
use crate::pace::Pace;
use crate::queue::Writer;
use crate::wire::{StatusUpdate, StreamMessage};

/// Status updates that only report progress are at least this far apart.
const REPORT_SPACING: Duration = Duration::from_millis(10);
/// How long the server may take to end the stream in order.
pub(crate) const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// What the owner wants of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Go on.
    Stream,
    /// Report for the last time and end the stream in order.
    Close,
}

/// Settings of the loop.
#[derive(Debug, Clone)]
pub(crate) struct PumpSettings {
    /// Where the stream was asked to begin.
    pub start: SourceLsn,
    /// How often the server is told the positions.
    pub status_interval: Duration,
    /// How long it may stay silent although it was asked to answer.
    pub receive_timeout: Duration,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to.
    AsTold,
    /// By an error, which is in the queue.
    Failed,
}

/// What the loop was told to do.
enum End {
    /// It was told to close.
    Close,
    /// Its owner is gone.
    Abandoned,
}

/// What has become of a transaction that went ahead of its commit, and whether it is committed on the target.
pub(crate) type Settled = (Xid, bool);

/// What is to happen before the next frame is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    /// Nothing.
    Nothing,
    /// Parts are taken: once there is room, or when the next step of reading back is done.
    Parts,
    /// It has to be said what has become of a transaction that went ahead.
    Settlement,
}

/// The loop's state: everything that must outlive a cancelled wait.
pub(crate) struct Pump<S, T: StreamStore> {
    framed: Framed<S>,
    assembler: Assembler<T>,
    queue: Writer,
    feedback: watch::Receiver<Feedback>,
    settled: mpsc::UnboundedReceiver<Settled>,
    monitor: SourceMonitor,
    settings: PumpSettings,
    pace: Pace,
    received: SourceLsn,
    /// When the last message was sent, by the server's clock.
    sent_at: Timestamp,
    /// The position of the last event that was queued: a keepalive is news only beyond it.
    queued: SourceLsn,
    /// What the server was told last, and when.
    told: Feedback,
    told_at: Instant,
    /// Whether the socket is read: not while the queue is full or a streamed transaction is read back.
    listening: bool,
    /// Nobody could have been heard before this: the start, or the end of a pause in reading.
    listening_since: Instant,
    heard_at: Instant,
    /// The server wants an answer at once.
    answer: bool,
    /// The transaction that is being dropped because it lies before the start.
    dropping: bool,
}

impl<S, T> Pump<S, T>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: StreamStore,
{
    pub(crate) fn new(
        framed: Framed<S>,
        assembler: Assembler<T>,
        queue: Writer,
        (feedback, settled): (watch::Receiver<Feedback>, mpsc::UnboundedReceiver<Settled>),
        monitor: SourceMonitor,
        settings: PumpSettings,
        pace: Pace,
    ) -> Self {
        let (now, start) = (Instant::now(), settings.start);
        monitor.heard(now);
        monitor.set_received(start);
        Self {
            framed,
            assembler,
            queue,
            feedback,
            settled,
            monitor,
            settings,
            pace,
            received: start,
            sent_at: Timestamp::default(),
            queued: start,
            told: Feedback::default(),
            told_at: now,
            listening: true,
            listening_since: now,
            heard_at: now,
            answer: true,
            dropping: false,
        }
    }

    /// Streams until told otherwise, and says whether that is how it ended. An error that ended it goes to the queue,
    /// behind everything that came before it.
    ///
    /// # Errors
    /// Only what goes wrong while the stream is closed.
    pub(crate) async fn run(mut self, mut command: watch::Receiver<Command>) -> Result<Ended, SourceError> {
        let end = self.stream(&mut command).await;
        self.monitor.set_paused(false, Instant::now());
        self.monitor.set_streamed(0);
        match end {
            Ok(End::Close) => match timeout(CLOSE_LIMIT, self.close()).await {
                Ok(result) => result.map(|()| Ended::AsTold),
                Err(_) => {
                    tracing::info!(
                        "the source did not end the stream within {} s (it is inside a large transaction); the \
                         connection is cut, which loses nothing",
                        CLOSE_LIMIT.as_secs()
                    );
                    Ok(Ended::AsTold)
                }
            },
            Ok(End::Abandoned) => Ok(Ended::AsTold),
            Err(error) => {
                self.queue.fail(error);
                Ok(Ended::Failed)
            }
        }
    }

    async fn stream(&mut self, command: &mut watch::Receiver<Command>) -> Result<End, SourceError> {
        loop {
            let taken = self.take_frames().await;
            // Also before an error: what came before it counts.
            self.queue.publish();
            let pending = taken?;
            let full = self.queue.is_full();
            let now = Instant::now();
            self.listen(!full && pending == Pending::Nothing, now);
            self.show(full, now);
            self.report(now)?;
            if self.listening {
                self.pace.wait_before_read(!self.queue.is_empty());
            }
            let due_at = self.due_at();
            tokio::select! {
                biased;
                changed = command.changed() => match changed {
                    Ok(()) if *command.borrow() == Command::Close => return Ok(End::Close),
                    Ok(()) => {}
                    Err(_) => return Ok(End::Abandoned),
                },
                received = self.framed.drive(self.listening) => {
                    let received = received?;
                    if received.bytes == 0 {
                        return Err(SourceError::Closed { doing: "streaming" });
                    }
                    self.heard_at = Instant::now();
                    self.monitor.heard(self.heard_at);
                    self.pace.read(received, self.heard_at);
                }
                () = self.queue.wait_for_room(), if full => {}
                settled = self.settled.recv() => match settled {
                    Some(settled) => self.settle(settled)?,
                    None => return Ok(End::Abandoned),
                },
                changed = self.feedback.changed() => if changed.is_err() {
                    return Ok(End::Abandoned);
                },
                () = sleep_until(due_at) => {}
                // Lets the runtime look at the socket and the clock in between.
                () = tokio::task::yield_now(), if pending == Pending::Parts && !full => {}
            }
        }
    }

    /// Whether the socket is read from now on.
    fn listen(&mut self, listening: bool, now: Instant) {
        if listening && !self.listening {
            self.listening_since = now;
        }
        self.listening = listening;
    }

    /// Lets others see what is held, and whether the source has to wait for it.
    fn show(&self, full: bool, now: Instant) {
        let streamed = usize::try_from(self.assembler.streamed_memory_bytes()).unwrap_or(usize::MAX);
        self.monitor.set_buffered(self.queue.bytes().saturating_add(streamed));
        self.monitor.set_streamed(self.assembler.streamed_bytes());
        self.monitor.set_paused(full, now);
    }

    /// When the next status update is due.
    fn due_at(&self) -> Instant {
        let spacing = match self.feedback.borrow().durable > self.told.durable {
            true => REPORT_SPACING.min(self.settings.status_interval),
            false => self.settings.status_interval,
        };
        self.told_at + spacing
    }

    /// Sends a status update if one is due, and finds out whether the link is dead.
    fn report(&mut self, now: Instant) -> Result<(), SourceError> {
        if !self.answer && now < self.due_at() {
            return Ok(());
        }
        let quiet_since = self.heard_at.max(self.listening_since);
        let silence = now.duration_since(quiet_since);
        if self.listening && silence > self.settings.receive_timeout {
            return Err(SourceError::Silent { silence });
        }
        // Whoever reads the time of the last contact must be able to tell an idle source from an unreachable one.
        let ask = self.listening && now.duration_since(self.heard_at) >= self.settings.status_interval;
        self.tell(now, ask)
    }

    fn tell(&mut self, now: Instant, ask: bool) -> Result<(), SourceError> {
        let feedback = *self.feedback.borrow();
        let update = StatusUpdate {
            write: self.received.max(feedback.received).max(feedback.applied),
            flush: feedback.durable,
            apply: feedback.applied.max(feedback.durable),
            reply: ask,
        };
        update.write(Timestamp::now(), self.framed.output())?;
        (self.told, self.told_at, self.answer) = (feedback, now, false);
        Ok(())
    }

    /// Takes whole frames out of what was read until there are none. Returns what is pending before the next: parts, because
    /// the queue is full, or because a streamed transaction is being read back, or a settlement.
    async fn take_frames(&mut self) -> Result<Pending, SourceError> {
        loop {
            // The queue is looked at once: whoever takes from it may make room at any moment, and a frame must not be
            // fed while parts of the one before it are pending.
            let pending = self.take_parts()?;
            if pending != Pending::Nothing {
                return Ok(pending);
            }
            match self.framed.take()? {
                Some(Frame::CopyData(content)) => self.take_content(content)?,
                Some(Frame::Message(message)) => self.take_message(message).await?,
                Some(Frame::CopyBoth) => return Err(SourceError::protocol("a second CopyBothResponse")),
                None => return Ok(Pending::Nothing),
            }
        }
    }

    /// Queues the parts that are there, as far as there is room. A streamed transaction is read back step by step,
    /// whatever its size, because the server wants its answers meanwhile. Returns what may still be pending.
    fn take_parts(&mut self) -> Result<Pending, SourceError> {
        while !self.queue.is_full() {
            match self.assembler.step()? {
                Step::Part(part) => self.queue_part(part),
                Step::Ahead(ahead) => self.queue_ahead(ahead),
                Step::More => return Ok(Pending::Parts),
                Step::Unsettled => return Ok(Pending::Settlement),
                Step::Done => return Ok(Pending::Nothing),
            }
            if self.assembler.is_reading_back() {
                return Ok(Pending::Parts);
            }
        }
        Ok(Pending::Parts)
    }

    fn queue_ahead(&mut self, ahead: Ahead) {
        match ahead {
            // It is on the target already, and left out like any other such transaction.
            Ahead::Commit(part) if part.header.commit_lsn < self.settings.start => {
                self.assembler.settle_ahead(part.header.xid, false);
                self.queue.ahead(Ahead::Abort(part.header.xid));
            }
            ahead => self.queue.ahead(ahead),
        }
    }

    /// Takes in what has become of a transaction that went ahead. One that does not any more is old news, if nothing of it
    /// is on the target.
    fn settle(&mut self, (xid, committed): Settled) -> Result<(), SourceError> {
        if !self.assembler.settle_ahead(xid, committed) && committed {
            let what =
                format!("transaction {} was committed on the target before it was on the source", xid.0);
            return Err(SourceError::protocol(what));
        }
        Ok(())
    }

    fn queue_part(&mut self, part: TransactionPart) {
        // The server skips what committed before the position that it was asked to begin at. Should it not, the
        // target has this transaction already. Begin says where the commit record starts, Commit where it ends.
        let start = self.settings.start;
        if part.first {
            self.dropping = part.header.commit_lsn < start;
            if self.dropping {
                tracing::warn!(
                    xid = part.header.xid.0,
                    commit_lsn = %part.header.commit_lsn,
                    start_lsn = %start,
                    "the source sent a transaction that committed before the requested start: it is on the target \
                     already and is left out"
                );
            }
        }
        // Both by the source's clock.
        self.pace
            .sent_behind(self.sent_at.postgres_us().saturating_sub(part.header.commit_time.postgres_us()));
        if !self.dropping {
            self.queued = part.end.unwrap_or(self.queued);
            self.queue.part(part);
        }
    }

    fn take_content(&mut self, content: Bytes) -> Result<(), SourceError> {
        match StreamMessage::parse(content)? {
            StreamMessage::Data { start, wal_end, sent_at, payload } => {
                self.advance(start.max(wal_end));
                self.sent_at = sent_at;
                // Its parts are taken before the next frame.
                Ok(self.assembler.feed(&payload)?)
            }
            StreamMessage::Keepalive { wal_end, reply } => {
                self.advance(wal_end);
                self.answer |= reply;
                // The first ones may name the slot's position, which lies before the requested start.
                if !self.assembler.in_transaction() && wal_end > self.queued {
                    self.queued = wal_end;
                    self.queue.keepalive(wal_end);
                }
                Ok(())
            }
        }
    }

    fn advance(&mut self, position: SourceLsn) {
        if position > self.received {
            self.received = position;
            self.monitor.set_received(position);
        }
        self.monitor.set_server(position);
    }

    async fn take_message(&mut self, message: Message) -> Result<(), SourceError> {
        match message {
            Message::ErrorResponse(body) => {
                Err(SourceError::server("streaming", server_message(body.fields())?))
            }
            // A server that shuts down says CommandComplete once everything is confirmed (`WalSndDone`).
            Message::CopyDone | Message::CommandComplete(_) => {
                frontend::copy_done(self.framed.output());
                // It may be gone by now; what matters was said before.
                let _ = timeout(CLOSE_LIMIT, self.framed.send()).await;
                Err(SourceError::ShuttingDown)
            }
            Message::NoticeResponse(body) => {
                let notice = server_message(body.fields())?;
                // PostgreSQL 18 leaves out a publication that does not exist with no more than a warning, where its
                // predecessors fail. Changes must not be left out in silence.
                if about_publication(&notice) {
                    return Err(SourceError::server("streaming", notice));
                }
                tracing::info!(%notice, "the source says");
                Ok(())
            }
            Message::ParameterStatus(_) | Message::NotificationResponse(_) => Ok(()),
            _ => Err(SourceError::protocol("a message that does not belong into a stream of changes")),
        }
    }

    /// Says for the last time how far everything is, and ends the stream in order.
    async fn close(&mut self) -> Result<(), SourceError> {
        self.tell(Instant::now(), false)?;
        frontend::copy_done(self.framed.output());
        loop {
            // What is still on its way was not asked for any more, and will be sent again.
            match self.framed.take()? {
                Some(Frame::CopyData(_) | Frame::CopyBoth) => {}
                Some(Frame::Message(Message::ErrorResponse(body))) => {
                    return Err(SourceError::server("ending the stream", server_message(body.fields())?));
                }
                Some(Frame::Message(Message::ReadyForQuery(_))) => break,
                Some(Frame::Message(_)) => {}
                None if self.framed.drive(true).await?.bytes == 0 => return Ok(()),
                None => {}
            }
        }
        frontend::terminate(self.framed.output());
        self.framed.send().await
    }
}
