//! Watches, while everything is killed, that the slot is never told more than the target has stored.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::database::Database;
use crate::pair::{DATABASE, FLOW, Pair};
use crate::wait::POLL_INTERVAL;

/// Compares the slot's `confirmed_flush_lsn` with the stored progress, again and again.
///
/// What was confirmed once stays confirmed: the greatest position ever seen in the slot is what any later progress is
/// compared with, also that of a target which came back from a crash.
#[derive(Debug)]
pub struct ConfirmedWatch {
    stop: watch::Sender<bool>,
    task: JoinHandle<Watched>,
}

/// What the watch has seen.
#[derive(Debug, Default, Clone)]
pub struct Watched {
    /// How many times both were compared.
    pub samples: u64,
    /// How many times the confirmed position had moved since the sample before.
    pub moves: u64,
    /// The first time that the slot was ahead of the target.
    pub violation: Option<String>,
}

impl ConfirmedWatch {
    /// Starts to watch the flow of a pair. It must stream already.
    #[must_use]
    pub fn start(pair: &Pair) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (source, target) = (pair.source.config(DATABASE), pair.target.config(DATABASE));
        Self { stop, task: tokio::spawn(watch_positions(source, target, stopped)) }
    }

    /// Stops it; panics if the slot was ever ahead, or nothing could be compared.
    pub async fn finish(self) -> Watched {
        self.stop.send_replace(true);
        let watched = self.task.await.expect("the watch's task");
        if let Some(violation) = &watched.violation {
            panic!("confirmed to the slot before it was stored: {violation}");
        }
        assert!(watched.samples > 0, "the slot and the progress could never be compared");
        watched
    }
}

async fn watch_positions(
    source: tokio_postgres::Config,
    target: tokio_postgres::Config,
    stopped: watch::Receiver<bool>,
) -> Watched {
    let confirmed_query = format!(
        "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = 'relevo_{FLOW}'"
    );
    let applied_query =
        format!("SELECT (applied_lsn - '0/0')::bigint FROM relevo.progress WHERE flow = '{FLOW}'");
    let mut watched = Watched::default();
    let (mut source_session, mut target_session) = (None, None);
    let mut confirmed = 0;
    while !*stopped.borrow() {
        // The slot first: the progress that is read after it can only be further.
        if let Some(now) = number(&source, &mut source_session, &confirmed_query).await
            && now > confirmed
        {
            confirmed = now;
            watched.moves += 1;
        }
        if let Some(applied) = number(&target, &mut target_session, &applied_query).await {
            watched.samples += 1;
            if applied < confirmed {
                watched.violation = Some(format!("slot at byte {confirmed}, progress at byte {applied}"));
                return watched;
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    watched
}

async fn number(config: &tokio_postgres::Config, session: &mut Option<Database>, query: &str) -> Option<i64> {
    if session.is_none() {
        *session = Database::connect(config).await.ok();
    }
    let value = session.as_ref()?.try_value(query).await.ok();
    if value.is_none() {
        *session = None;
    }
    value
}
