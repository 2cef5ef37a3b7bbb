//! How often `relevo status --watch` looks.

use std::time::Duration;

use crate::error::CliError;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// More often is a burden on the databases, and nobody's eye.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// How often to look, from the option.
///
/// # Errors
/// [`CliError::Usage`].
pub fn watch_interval(given: Option<jiff::SignedDuration>) -> Result<Duration, CliError> {
    let Some(given) = given else { return Ok(DEFAULT_INTERVAL) };
    Duration::try_from(given)
        .ok()
        .filter(|interval| *interval >= LEAST_INTERVAL)
        .ok_or_else(|| CliError::usage(format!("interval is {given:#}: expected at least 100ms")))
}
