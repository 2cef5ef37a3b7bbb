//! What the demonstration prints: on a terminal one line that is written over, else a line every two seconds.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often a live line is printed when it cannot be written over.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// Standard output.
pub struct Screen {
    terminal: bool,
    live: Cell<bool>,
    last_plain: Cell<Option<Instant>>,
}

impl Screen {
    /// Looks whether standard output is a terminal.
    pub fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, live: Cell::new(false), last_plain: Cell::new(None) }
    }

    /// Begins a section.
    pub fn section(&self, title: &str) {
        if self.terminal {
            self.say(&format!("\n\x1b[1m▌ {title}\x1b[0m"));
        } else {
            self.say(&format!("\n== {title}"));
        }
        self.last_plain.set(None);
    }

    /// Prints a line that stays.
    pub fn say(&self, line: &str) {
        let end_live = if self.live.replace(false) { "\n" } else { "" };
        print(&format!("{end_live}{line}\n"));
    }

    /// Shows a line that the next one replaces.
    pub fn live(&self, line: &str) {
        if self.terminal {
            self.live.set(true);
            print(&format!("\r\x1b[2K{line}"));
        } else if self.last_plain.get().is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL) {
            self.last_plain.set(Some(Instant::now()));
            print(&format!("{line}\n"));
        }
    }
}

/// A reader that has gone away (such as `head`) is no reason to fail.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
