//! `relevo run --json`: what happens, as one JSON object a line on standard output. The names are a contract.
//!
//! Nobody waits for whoever reads the lines: a thread of its own writes them, and when too many wait they are left out
//! and counted.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use relevo_telemetry::{CopyProgress, TableState};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::run::board::FlowBoard;

/// So many lines wait at most.
const WAITING_LINES: usize = 10_000;
/// How often a copy says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the last lines may take when the process ends.
const END_LIMIT: Duration = Duration::from_millis(500);
const END_PAUSE: Duration = Duration::from_millis(5);

/// Where lines go.
#[derive(Debug, Clone)]
pub struct Lines {
    sender: SyncSender<String>,
    left_out: Arc<AtomicU64>,
}

/// Who writes them.
pub struct LineWriter(JoinHandle<()>);

impl Lines {
    /// Begins to write to standard output.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> std::io::Result<(Self, LineWriter)> {
        let (sender, receiver) = sync_channel(WAITING_LINES);
        let writer =
            std::thread::Builder::new().name("json-lines".to_owned()).spawn(move || write(&receiver))?;
        Ok((Self { sender, left_out: Arc::default() }, LineWriter(writer)))
    }

    /// Adds a line: `event` is the kind, `fields` an object with the rest.
    pub fn say(&self, event: &str, fields: Value) {
        let lost = self.left_out.load(Ordering::Relaxed);
        if lost > 0 && self.send(&line("left_out", json!({ "lines": lost }))) {
            self.left_out.fetch_sub(lost, Ordering::Relaxed);
        }
        if !self.send(&line(event, fields)) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send(&self, line: &str) -> bool {
        // Nobody reads any more: that is no reason to stop, and nothing is missed.
        !matches!(self.sender.try_send(line.to_owned()), Err(TrySendError::Full(_)))
    }
}

impl LineWriter {
    /// Waits until what was said is written, for a moment. Every [`Lines`] must be gone.
    pub async fn end(self) {
        let until = tokio::time::Instant::now() + END_LIMIT;
        while !self.0.is_finished() && tokio::time::Instant::now() < until {
            tokio::time::sleep(END_PAUSE).await;
        }
    }
}

fn write(lines: &Receiver<String>) {
    let mut output = std::io::stdout();
    for line in lines {
        // Whoever asked for the lines is gone.
        if output.write_all(line.as_bytes()).and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}

fn line(event: &str, fields: Value) -> String {
    let at = jiff::Timestamp::now();
    let mut object = serde_json::Map::from_iter([
        ("event".to_owned(), event.into()),
        ("at".to_owned(), format!("{at:.3}").into()),
    ]);
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    format!("{}\n", Value::Object(object))
}

/// Says each second how far the copy is, while rows flow or follow-up work is done, and once more at its end.
pub async fn report(board: Arc<FlowBoard>, lines: Lines, end: CancellationToken) {
    let mut ticks = interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut copied = false;
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(copy) = board.copy_progress() else { continue };
        let copies = !copy.phase.is_empty() || is_under_way(&copy);
        if copies || copied {
            lines.say("progress", progress(&copy));
        }
        copied = copies;
    }
}

fn is_under_way(copy: &CopyProgress) -> bool {
    copy.tables.iter().any(|table| table.state < TableState::Copied)
}

/// How far the copy is, with the tables that are under way.
fn progress(copy: &CopyProgress) -> Value {
    let there = copy.tables.iter().filter(|table| table.state >= TableState::Copied).count();
    let under_way: Vec<Value> = copy
        .tables
        .iter()
        .filter(|table| table.state == TableState::Copying)
        .map(|table| {
            json!({ "table": table.name, "rows": table.rows, "bytes": table.bytes,
                    "total_bytes_estimate": table.total_bytes_estimate })
        })
        .collect();
    json!({
        "phase": copy.phase,
        "rows": copy.rows,
        "bytes": copy.bytes,
        "total_bytes_estimate": copy.total_bytes_estimate,
        "bytes_per_second": copy.bytes_per_second,
        "remaining_seconds": copy.remaining_seconds,
        "tables_copied": there,
        "tables_total": copy.tables.len(),
        "tables": under_way,
    })
}

#[cfg(test)]
mod tests {
    use relevo_telemetry::TableProgress;

    use super::*;

    #[test]
    fn a_line_is_one_object_that_says_what_and_when() {
        let text = line("warning", json!({ "message": "two\nlines" }));
        assert_eq!(text.matches('\n').count(), 1);
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&read["event"], &read["message"]), (&"warning".into(), &"two\nlines".into()));
        assert!(read["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let (sender, receiver) = sync_channel(2);
        let lines = Lines { sender, left_out: Arc::default() };
        for _ in 0..5 {
            lines.say("state", json!({}));
        }
        let next = || serde_json::from_str::<Value>(&receiver.recv().unwrap()).unwrap();
        assert_eq!((next()["event"].clone(), next()["event"].clone()), ("state".into(), "state".into()));
        lines.say("state", json!({}));
        let left_out = next();
        assert_eq!((&left_out["event"], &left_out["lines"]), (&"left_out".into(), &3.into()));
        assert_eq!(next()["event"], "state");
    }

    #[test]
    fn progress_tells_the_sum_and_the_tables_under_way() {
        let table = |name: &str, state, bytes| TableProgress {
            name: name.to_owned(),
            state,
            rows: bytes / 10,
            bytes,
            total_bytes_estimate: Some(100),
        };
        let copy = CopyProgress {
            phase: "rows".to_owned(),
            rows: 11,
            bytes: 110,
            total_bytes_estimate: Some(300),
            bytes_per_second: Some(10),
            remaining_seconds: Some(19),
            tables: vec![
                table("public.a", TableState::Streaming, 80),
                table("public.b", TableState::Copying, 30),
                table("public.c", TableState::Pending, 0),
            ],
        };
        let said = progress(&copy);
        assert_eq!((&said["tables_copied"], &said["tables_total"]), (&1.into(), &3.into()));
        assert_eq!((&said["bytes"], &said["remaining_seconds"]), (&110.into(), &19.into()));
        assert_eq!(said["tables"].as_array().unwrap().len(), 1);
        assert_eq!(said["tables"][0]["table"], "public.b");
    }
}
