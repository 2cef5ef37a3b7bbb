//! The byte-bounded queue between the socket and whoever takes the events: order, back-pressure, and the first error.
//!
//! What may not enter: anything about the connection. The queue never drops a part, and an error is handed over
//! only after everything that was queued before it. What one read has brought is shown to the reader together: it is
//! woken once, and finds all of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relevo_model::{Ahead, SourceEvent, SourceLsn, TransactionPart};
use tokio::sync::Notify;

use crate::SourceError;

#[derive(Debug, Default)]
struct State {
    events: VecDeque<SourceEvent>,
    bytes: usize,
    error: Option<SourceError>,
}

#[derive(Debug)]
struct Shared {
    budget_bytes: usize,
    state: Mutex<State>,
    readable: Notify,
    writable: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half-way while the lock is held, so a panic elsewhere has broken nothing here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both ends of a queue that takes no more once `budget_bytes` wait in it. A part larger than the budget still goes in
/// when the queue is below it, so what waits is bounded by the budget and one part.
pub(crate) fn queue(budget_bytes: usize) -> (Writer, Reader) {
    let shared = Arc::new(Shared {
        budget_bytes: budget_bytes.max(1),
        state: Mutex::default(),
        readable: Notify::new(),
        writable: Notify::new(),
    });
    (Writer { shared: Arc::clone(&shared), gathered: Vec::new(), gathered_bytes: 0 }, Reader(shared))
}

/// The end that the socket feeds.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// What the reader is shown at the next [`Writer::publish`].
    gathered: Vec<SourceEvent>,
    gathered_bytes: usize,
}

impl Writer {
    /// Queues a part; the caller looks at [`Writer::is_full`] before it makes another.
    pub(crate) fn part(&mut self, part: TransactionPart) {
        self.gathered_bytes += part.size_bytes;
        self.gathered.push(SourceEvent::Part(part));
    }

    /// Queues what goes ahead of a transaction's commit.
    pub(crate) fn ahead(&mut self, ahead: Ahead) {
        let event = SourceEvent::Ahead(ahead);
        self.gathered_bytes += size_bytes(&event);
        self.gathered.push(event);
    }

    /// Queues a keepalive position. Of several that wait behind each other only the newest is kept.
    pub(crate) fn keepalive(&mut self, position: SourceLsn) {
        match self.gathered.last_mut() {
            Some(SourceEvent::Keepalive(waiting)) => *waiting = position,
            _ => self.gathered.push(SourceEvent::Keepalive(position)),
        }
    }

    /// Lets the reader see what was queued.
    pub(crate) fn publish(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        state.bytes += std::mem::take(&mut self.gathered_bytes);
        if let (Some(SourceEvent::Keepalive(_)), Some(SourceEvent::Keepalive(_))) =
            (state.events.back(), self.gathered.first())
        {
            state.events.pop_back();
        }
        state.events.extend(self.gathered.drain(..));
        drop(state);
        self.shared.readable.notify_one();
    }

    /// Ends the queue. The first error stays; later ones are its consequences.
    pub(crate) fn fail(&mut self, error: SourceError) {
        self.publish();
        self.shared.state().error.get_or_insert(error);
        self.shared.readable.notify_one();
    }

    /// The budget is used up.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes() >= self.shared.budget_bytes
    }

    /// Nothing waits: whoever takes the events keeps up.
    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.shared.state().events.is_empty()
    }

    /// Shows everything, and waits until the budget is not used up. Cancel-safe.
    pub(crate) async fn wait_for_room(&mut self) {
        self.publish();
        while self.is_full() {
            self.shared.writable.notified().await;
        }
    }

    /// What waits, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.gathered_bytes + self.shared.state().bytes
    }
}

impl Drop for Writer {
    /// Whoever reads must not wait for ever for a loop that is gone.
    fn drop(&mut self) {
        self.fail(SourceError::Thread { what: "has ended".to_owned() });
    }
}

/// The end that the pipeline takes from.
#[derive(Debug)]
pub(crate) struct Reader(Arc<Shared>);

impl Reader {
    /// The next event, or the error once there are no more. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<SourceEvent, SourceError> {
        loop {
            if let Some(result) = self.take() {
                return result;
            }
            self.0.readable.notified().await;
        }
    }

    /// The error that ended the queue, if it has ended; events before it are thrown away.
    pub(crate) fn into_error(self) -> Option<SourceError> {
        self.0.state().error.take()
    }

    fn take(&self) -> Option<Result<SourceEvent, SourceError>> {
        let mut state = self.0.state();
        let Some(event) = state.events.pop_front() else { return state.error.take().map(Err) };
        let size_bytes = size_bytes(&event);
        if size_bytes > 0 {
            let was_full = state.bytes >= self.0.budget_bytes;
            state.bytes -= size_bytes;
            let has_room = state.bytes < self.0.budget_bytes;
            drop(state);
            if was_full && has_room {
                self.0.writable.notify_one();
            }
        }
        Some(Ok(event))
    }
}

/// What an event occupies while it waits, in bytes.
fn size_bytes(event: &SourceEvent) -> usize {
    match event {
        SourceEvent::Part(part) | SourceEvent::Ahead(Ahead::Part(part) | Ahead::Commit(part)) => {
            part.size_bytes
        }
        SourceEvent::Keepalive(_) | SourceEvent::Ahead(Ahead::Abort(_)) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relevo_model::{Timestamp, TransactionHeader, Xid};

    use super::*;

    fn part(end: u64, size_bytes: usize) -> TransactionPart {
        let header = TransactionHeader {
            xid: Xid(1),
            commit_lsn: SourceLsn::new(end - 1),
            commit_time: Timestamp::default(),
            origin: None,
        };
        let end = Some(SourceLsn::new(end));
        TransactionPart { header: Arc::new(header), first: true, changes: Vec::new(), end, size_bytes }
    }

    #[tokio::test]
    async fn the_error_comes_after_everything_that_was_queued_before_it() {
        let (mut writer, mut reader) = queue(100);
        writer.part(part(10, 5));
        writer.fail(SourceError::ShuttingDown);
        writer.fail(SourceError::protocol("a consequence"));
        assert!(matches!(reader.next().await, Ok(SourceEvent::Part(_))));
        assert!(matches!(reader.next().await, Err(SourceError::ShuttingDown)));
    }

    #[tokio::test]
    async fn only_the_newest_of_several_keepalives_waits_and_order_is_kept() {
        let (mut writer, mut reader) = queue(100);
        writer.keepalive(SourceLsn::new(1));
        writer.keepalive(SourceLsn::new(2));
        writer.part(part(10, 5));
        writer.keepalive(SourceLsn::new(11));
        writer.publish();
        writer.keepalive(SourceLsn::new(12));
        writer.publish();
        assert_eq!(reader.next().await.unwrap(), SourceEvent::Keepalive(SourceLsn::new(2)));
        assert!(matches!(reader.next().await, Ok(SourceEvent::Part(_))));
        assert_eq!(reader.next().await.unwrap(), SourceEvent::Keepalive(SourceLsn::new(12)));
    }

    #[tokio::test]
    async fn what_was_queued_is_shown_together() {
        let (mut writer, mut reader) = queue(100);
        let reading = tokio::spawn(async move { (reader.next().await, reader.take().is_some()) });
        tokio::task::yield_now().await;
        writer.part(part(10, 5));
        tokio::task::yield_now().await;
        writer.part(part(20, 5));
        tokio::task::yield_now().await;
        assert!(!reading.is_finished(), "nothing is shown yet");
        writer.publish();
        assert!(matches!(reading.await.unwrap(), (Ok(SourceEvent::Part(_)), true)), "both are");
    }

    #[tokio::test]
    async fn a_part_larger_than_the_budget_goes_alone() {
        let (mut writer, mut reader) = queue(10);
        assert!(!writer.is_full());
        writer.part(part(10, 1000));
        assert!(writer.is_full(), "what was queued counts before it is shown");
        let waiting = tokio::spawn(async move {
            writer.wait_for_room().await;
            writer.bytes()
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(matches!(reader.next().await, Ok(SourceEvent::Part(_))));
        assert_eq!(waiting.await.unwrap(), 0);
    }
}
