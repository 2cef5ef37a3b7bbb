//! The gate before the target: while the flow is held at a position, nothing behind it goes through.
//!
//! The database refuses what lies behind a hold in any case. The gate is there so that it need not, and so that the
//! position of the hold is stored at once when everything before it is applied. What may not enter: who holds the flow,
//! and why.

use std::future::pending;

use relevo_model::SourceLsn;
use tokio::sync::watch;

/// Follows whether the flow is held, and whether that was said.
#[derive(Debug)]
pub(crate) struct Gate {
    hold: watch::Receiver<Option<SourceLsn>>,
    /// The position at which the flow was said to stand.
    said: Option<SourceLsn>,
}

impl Gate {
    pub fn new(hold: watch::Receiver<Option<SourceLsn>>) -> Self {
        Self { hold, said: None }
    }

    /// The position that nothing may go behind.
    pub fn limit(&mut self) -> Option<SourceLsn> {
        *self.hold.borrow_and_update()
    }

    /// Waits until the limit has changed. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.hold.changed().await.is_err() {
            // Nobody is left who could change it.
            pending().await
        }
    }

    /// The flow stands at the limit: whether that is news.
    pub fn stands(&mut self, at: SourceLsn) -> bool {
        self.said.replace(at) != Some(at)
    }

    /// The flow goes on: whether it was said to stand.
    pub fn goes_on(&mut self) -> bool {
        self.said.take().is_some()
    }
}
