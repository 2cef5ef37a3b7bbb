//! The bar that a person sees on a terminal while rows are copied. Without a terminal nothing is drawn; the log lines
//! say the same.

use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use relevo_snapshot::Phase;

/// All bars of the process. Log lines go through it, so that they do not tear a bar.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

const BYTES: &str = "{prefix:>10} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left, {msg}";
const STEPS: &str = "{prefix:>10} [{bar:30}] {pos}/{len} {msg}";

/// The one bar of a copy.
#[derive(Default)]
pub struct CopyBar(Mutex<Option<ProgressBar>>);

impl CopyBar {
    /// A phase begins: rows are measured in bytes, the rest in steps.
    pub fn begin(&self, phase: Phase, steps: usize, estimated_bytes: u64) {
        self.end();
        let (length, template) = match phase {
            Phase::Rows => (estimated_bytes, BYTES),
            _ => (u64::try_from(steps).unwrap_or(u64::MAX), STEPS),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = BARS.add(ProgressBar::new(length)).with_style(style).with_prefix(phase.as_str());
        bar.enable_steady_tick(Duration::from_millis(250));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
    }

    /// A step is done.
    pub fn step(&self) {
        self.with(|bar| bar.inc(1));
    }

    /// The rows of this table flow.
    pub fn table(&self, name: &str) {
        self.with(|bar| bar.set_message(name.to_owned()));
    }

    /// More rows were sent. What COPY writes may be more than the table: the bar's end moves along.
    pub fn copied(&self, bytes: u64) {
        self.with(|bar| {
            bar.inc(bytes);
            if bar.length().is_some_and(|length| bar.position() > length) {
                bar.set_length(bar.position());
            }
        });
    }

    /// Rows that were sent have to go again.
    pub fn lost(&self, bytes: u64) {
        self.with(|bar| bar.set_position(bar.position().saturating_sub(bytes)));
    }

    /// Nothing is copied any more.
    pub fn end(&self) {
        if let Some(bar) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }

    fn with(&self, what: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            what(bar);
        }
    }
}

/// Standard error, beside whatever bar is drawn there.
#[derive(Debug, Clone, Copy, Default)]
pub struct StderrBesideBars;

impl Write for StderrBesideBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
