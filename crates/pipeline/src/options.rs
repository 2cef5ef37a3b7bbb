//! The numbers that a flow is run with. Every wait and every buffer has a limit here.

use std::time::Duration;

use relevo_model::SourceLsn;
use tokio::sync::watch;

use crate::IdleRules;

/// How a flow is run. The defaults suit a pair of ordinary servers.
#[derive(Debug, Clone)]
pub struct FlowOptions {
    /// Where a batch stops growing, in bytes. One transaction part that is larger still goes alone.
    pub batch_bytes: usize,
    /// How much may be held in memory, waiting and in the target's hand together, in bytes. The source is not
    /// asked for more beyond it, so the bound is this and the one part that crossed it.
    pub memory_bytes: usize,
    /// When a bare position is worth a write on the target.
    pub idle: IdleRules,
    /// The position that the flow is held at, as long as it is: nothing behind it is handed to the target.
    pub hold: watch::Receiver<Option<SourceLsn>>,
    /// How often the target is asked how far it has flushed while commits wait for it.
    pub probe_busy_interval: Duration,
    /// How often it is asked otherwise, as a sign of life.
    pub probe_idle_interval: Duration,
    /// After how long without an answer the target counts as lost and both ends are opened again.
    pub probe_timeout: Duration,
    /// At shutdown: how long the batch in hand may take to commit.
    pub grace: Duration,
    /// At shutdown: how much longer what was committed may take to become durable.
    pub durability_grace: Duration,
    /// At shutdown: how much longer the source may take to end the stream in order.
    pub close_grace: Duration,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self {
            batch_bytes: 8 << 20,
            memory_bytes: 256 << 20,
            idle: IdleRules::default(),
            hold: watch::channel(None).1,
            probe_busy_interval: Duration::from_millis(25),
            probe_idle_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(2),
            durability_grace: Duration::from_secs(1),
            close_grace: Duration::from_millis(500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_leaves_time_for_the_rest_of_the_process_in_its_5_seconds() {
        let FlowOptions { grace, durability_grace, close_grace, .. } = FlowOptions::default();
        assert!(grace + durability_grace + close_grace <= Duration::from_millis(3500));
    }
}
