//! What commands print: text for people on a terminal, one JSON document for scripts.

use std::io::{self, Write};

use relevo_model::Timestamp;
use serde::Serialize;

use crate::error::{CliError, OUTPUT};

/// Prints one JSON document on standard output.
///
/// # Errors
/// [`CliError::Failed`]: standard output is gone.
pub fn json(document: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(document)
        .map_err(|error| CliError::failed(format!("JSON: {error}")).of_kind(OUTPUT))?;
    text.push('\n');
    print(&text)
}

/// Prints text on standard output.
///
/// # Errors
/// [`CliError::Failed`]: standard output is gone.
pub fn print(text: &str) -> Result<(), CliError> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| CliError::failed(format!("standard output: {error}")).of_kind(OUTPUT))
}

/// A point in time as RFC 3339, in UTC.
#[must_use]
pub fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.unix_us())
        .map_or_else(|_| "unknown".to_owned(), |at| format!("{at:.0}"))
}

/// A number of bytes for people: `1.5 GiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    bytesize::ByteSize::b(count).display().iec().to_string()
}

/// A number of seconds for people: `0 s`, `1.2 s`, `3 min 20 s`, `2 h 5 min`.
#[must_use]
pub fn seconds(value: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a lag fits, and is not negative"
    )]
    let whole = value.clamp(0.0, 1e15) as u64;
    match whole {
        0 if value < 0.001 => "0 s".to_owned(),
        0..60 => format!("{value:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_read_well() {
        for (value, text) in
            [(0.0, "0 s"), (0.25, "0.2 s"), (59.9, "59.9 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 5 min")]
        {
            assert_eq!(seconds(value), text);
        }
        assert_eq!(bytes(1536 << 20), "1.5 GiB");
    }
}
