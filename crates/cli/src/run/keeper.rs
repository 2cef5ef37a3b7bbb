//! Stores what the flow says of itself on the target, for `relevo status` of anybody, keeps `relevo.error` short, and shows
//! how many errors and what results of `relevo verify` are written there. It is
//! a courtesy: a target that does not answer keeps nothing else from working, and gets the newest word once it does.
//!
//! While another process works for the flow it is that one's word that counts, and nothing is stored.

use std::sync::Arc;
use std::time::Duration;

use relevo_connect::{ConnInfo, SessionSettings, SqlSession, connect_sql};
use relevo_model::{FlowName, Side};
use relevo_state::{self as state, CopyPace, ERRORS_KEPT, SentTable};
use relevo_telemetry::{CopyProgress, TableState};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::run::board::{FlowBoard, Said};

const RETRY_PAUSE: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How often the oldest errors are removed.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is noted how far a copy is.
const NOTE_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is looked up what the last comparisons of both sides have said, and how many errors there are.
const WRITTEN_INTERVAL: Duration = Duration::from_secs(5);
/// How long the last word may take when the process ends.
const LAST_WORD_LIMIT: Duration = Duration::from_millis(500);

/// Who stores it, and where.
pub struct Keeper {
    /// The target.
    pub info: ConnInfo,
    /// The flow.
    pub flow: FlowName,
    /// What is to be stored, and which session on the target is our own.
    pub board: Arc<FlowBoard>,
}

/// What is noted of a copy.
#[derive(Debug, Default, PartialEq, Eq)]
struct CopyNote {
    pace: CopyPace,
    tables: Vec<SentTable>,
}

impl CopyNote {
    fn of(copy: &CopyProgress) -> Self {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let pace = CopyPace {
            bytes_per_second: copy.bytes_per_second.map(signed),
            remaining_seconds: copy.remaining_seconds.map(signed),
        };
        let sent = copy.tables.iter().filter(|table| table.state == TableState::Copying);
        let tables = sent.map(|table| SentTable {
            table: table.name.clone(),
            rows: signed(table.rows),
            bytes: signed(table.bytes),
        });
        Self { pace, tables: tables.collect() }
    }
}

impl Keeper {
    /// Stores every new state until `end`, then the last one once more.
    pub async fn run(self, end: CancellationToken) {
        let mut said = self.board.said();
        let mut session = None;
        let mut trims = interval(TRIM_INTERVAL);
        trims.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut notes = interval(NOTE_INTERVAL);
        notes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(WRITTEN_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut noted = CopyNote::default();
        loop {
            let word = said.borrow_and_update().clone();
            let stored = self.store(&mut session, &word).await;
            tokio::select! {
                () = end.cancelled() => break,
                () = tokio::time::sleep(RETRY_PAUSE), if !stored => {}
                changed = said.changed() => if changed.is_err() { break },
                _ = trims.tick() => self.trim(&mut session).await,
                _ = looks.tick() => self.show_written(&mut session).await,
                _ = notes.tick() => if stored { self.note_copy(&mut session, &mut noted).await },
            }
        }
        let word = said.borrow_and_update().clone();
        if timeout(LAST_WORD_LIMIT, self.store(&mut session, &word)).await.is_err() {
            debug!("the flow's last state could not be stored on the target in time");
        }
    }

    /// Whether it is stored now.
    async fn store(&self, session: &mut Option<SqlSession>, (state, detail): &Said) -> bool {
        let work = async {
            let open = self.open(session).await?;
            let own = self.board.own_pids();
            let done = state::say_state(&*open, &self.flow, *state, detail.as_deref(), &own).await;
            *session = Some(open);
            done.map_err(|error| error.to_string())
        };
        match timeout(ANSWER_LIMIT, work).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => {
                *session = None;
                debug!(error, "the flow's state could not be stored on the target");
                false
            }
            Err(_) => false,
        }
    }

    /// Notes how far the copy is, if that has changed. Only who may say what the flow does may say this.
    async fn note_copy(&self, session: &mut Option<SqlSession>, noted: &mut CopyNote) {
        // Once it is over there is nothing to be said of it.
        let Some(copy) = self.board.copy_progress().filter(|copy| !copy.phase.is_empty()) else { return };
        let note = CopyNote::of(&copy);
        if note == *noted {
            return;
        }
        let work = async {
            let open = self.open(session).await?;
            let done = state::note_copy(&*open, &self.flow, note.pace, &note.tables).await;
            *session = Some(open);
            done.map_err(|error| error.to_string())
        };
        match timeout(ANSWER_LIMIT, work).await {
            Ok(Ok(())) => *noted = note,
            Ok(Err(error)) => {
                *session = None;
                debug!(error, "how far the copy is could not be noted on the target");
            }
            Err(_) => {}
        }
    }

    /// Removes the oldest errors, if there are too many.
    async fn trim(&self, session: &mut Option<SqlSession>) {
        let work = async {
            let open = self.open(session).await?;
            let done = state::trim_errors(&*open, &self.flow, ERRORS_KEPT).await;
            *session = Some(open);
            done.map_err(|error| error.to_string())
        };
        match timeout(ANSWER_LIMIT, work).await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => debug!(removed, "the oldest errors were removed from relevo.error"),
            Ok(Err(error)) => {
                *session = None;
                debug!(error, "relevo.error could not be trimmed");
            }
            Err(_) => {}
        }
    }

    /// Shows what the last comparisons have said, and how many errors are written down.
    async fn show_written(&self, session: &mut Option<SqlSession>) {
        let work = async {
            let open = self.open(session).await?;
            let read = async {
                let verified = state::verified(&*open, &self.flow).await?;
                Ok::<_, state::StateError>((verified, state::error_count(&*open, &self.flow).await?))
            };
            let read = read.await;
            *session = Some(open);
            read.map_err(|error| error.to_string())
        };
        match timeout(ANSWER_LIMIT, work).await {
            Ok(Ok((verified, errors))) => {
                self.board.verified(verified);
                self.board.errors_counted(errors);
            }
            Ok(Err(error)) => {
                *session = None;
                debug!(error, "what the last comparisons have said could not be read");
            }
            Err(_) => {}
        }
    }

    async fn open(&self, session: &mut Option<SqlSession>) -> Result<SqlSession, String> {
        match session.take() {
            Some(open) => Ok(open),
            None => {
                let settings = SessionSettings::for_values(self.flow.slot());
                connect_sql(&self.info, Side::Target, &settings).await.map_err(|error| error.to_string())
            }
        }
    }
}
