//! Pipelining: many requests under way on one session, answered in order.
//!
//! tokio-postgres queues a request when its future is polled for the first time, and the server answers in the
//! same order. So each future is polled once when it is pushed, and afterwards only the oldest is waited for:
//! answers are always read before more is written, and the two directions cannot block each other. What may not
//! enter: what the requests mean.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use relevo_model::TargetLsn;

/// How many requests are under way at most.
const LIMIT_REQUESTS: usize = 1024;
/// How many bytes of requests are under way at most, roughly.
const LIMIT_BYTES: usize = 4 << 20;

/// What the server answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Done, and nothing more to say.
    Done,
    /// How many rows the statement touched.
    Rows(u64),
    /// A position in the target's WAL.
    Position(TargetLsn),
}

pub(crate) type Answer<E> = Result<Reply, E>;

enum Request<'a, E> {
    Waiting(Pin<Box<dyn Future<Output = Answer<E>> + Send + 'a>>),
    Answered(Answer<E>),
}

/// The requests under way, oldest first. `T` says what a request was for.
pub(crate) struct Flight<'a, T, E = tokio_postgres::Error> {
    under_way: VecDeque<(Request<'a, E>, T, usize)>,
    bytes: usize,
    filling: bool,
}

impl<'a, T, E> Flight<'a, T, E> {
    pub(crate) fn new() -> Self {
        Self { under_way: VecDeque::new(), bytes: 0, filling: true }
    }

    /// Sends a request of about `bytes` bytes.
    pub(crate) async fn push(
        &mut self,
        tag: T,
        bytes: usize,
        request: impl Future<Output = Answer<E>> + Send + 'a,
    ) {
        let mut request: Pin<Box<dyn Future<Output = Answer<E>> + Send + 'a>> = Box::pin(request);
        let first = poll_fn(|context| Poll::Ready(request.as_mut().poll(context))).await;
        let request = match first {
            Poll::Ready(answer) => Request::Answered(answer),
            Poll::Pending => Request::Waiting(request),
        };
        self.bytes += bytes;
        self.under_way.push_back((request, tag, bytes));
    }

    /// Whether answers should be taken before more is sent.
    ///
    /// A full window is emptied by half, so that the session writes in large gulps instead of one request for
    /// each answer.
    pub(crate) fn is_full(&mut self) -> bool {
        let (requests, bytes) = (self.under_way.len(), self.bytes);
        if self.filling {
            self.filling = requests < LIMIT_REQUESTS && bytes < LIMIT_BYTES;
        } else {
            self.filling = requests <= LIMIT_REQUESTS / 2 && bytes <= LIMIT_BYTES / 2;
        }
        !self.filling
    }

    /// The answer to the oldest request; `None` when nothing is under way.
    pub(crate) async fn next(&mut self) -> Option<(T, Answer<E>)> {
        let (request, tag, bytes) = self.under_way.pop_front()?;
        self.bytes -= bytes;
        let answer = match request {
            Request::Answered(answer) => answer,
            Request::Waiting(request) => request.await,
        };
        Some((tag, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn requests_start_when_pushed_and_answers_come_in_order() {
        let started = Arc::new(Mutex::new(Vec::new()));
        let mut flight: Flight<'_, u64, ()> = Flight::new();
        for n in 0..5 {
            let started = Arc::clone(&started);
            flight
                .push(n, 10, async move {
                    started.lock().unwrap().push(n);
                    if n % 2 == 0 {
                        tokio::task::yield_now().await;
                    }
                    Ok(Reply::Rows(n))
                })
                .await;
        }
        assert_eq!(*started.lock().unwrap(), [0, 1, 2, 3, 4]);
        for n in 0..5 {
            assert_eq!(flight.next().await, Some((n, Ok(Reply::Rows(n)))));
        }
        assert_eq!(flight.next().await, None);
    }

    #[tokio::test]
    async fn a_full_window_is_emptied_by_half_before_more_is_sent() {
        let mut flight: Flight<'_, (), ()> = Flight::new();
        while !flight.is_full() {
            flight.push((), LIMIT_BYTES / 8, async { Ok(Reply::Done) }).await;
        }
        let mut taken = 0;
        while flight.is_full() {
            flight.next().await;
            taken += 1;
        }
        assert_eq!(taken, 4);
        for _ in 0..LIMIT_REQUESTS {
            flight.push((), 0, async { Ok(Reply::Done) }).await;
        }
        assert!(flight.is_full());
    }
}
