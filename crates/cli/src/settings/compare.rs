//! What `relevo verify` and `relevo repair` go by.

use std::num::NonZeroUsize;
use std::time::Duration;

use relevo_catalog::Selection;
use relevo_verify::VerifyOptions;

use super::File;
use crate::args::{CompareArgs, PatternArgs};
use crate::error::CliError;

const DEFAULT_JOBS: usize = 2;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How many rows of each table are listed; the others are counted.
const ROWS_LISTED: usize = 1000;

/// What is compared, and how.
pub struct CompareSettings {
    /// Which tables, how many at a time, how fast.
    pub options: VerifyOptions,
    /// How long it may take until both sides stand at one position.
    pub timeout: Duration,
}

impl File {
    /// What to compare, and how.
    ///
    /// # Errors
    /// [`CliError::Usage`].
    pub fn compare(&self, args: &CompareArgs) -> Result<CompareSettings, CliError> {
        let timeout = match args.timeout {
            None => DEFAULT_TIMEOUT,
            Some(given) => Duration::try_from(given)
                .ok()
                .filter(|limit| !limit.is_zero())
                .ok_or_else(|| CliError::usage(format!("timeout is {given:#}: expected more than 0s")))?,
        };
        let bytes_per_second = args.rate.map(|rate| rate.as_u64());
        if bytes_per_second == Some(0) {
            return Err(CliError::usage("rate is 0: expected some bytes in a second, such as 50MiB"));
        }
        let selection = Selection::parse(&args.tables, [] as [&str; 0])
            .map_err(|error| CliError::usage(format!("--table: {error}")))?;
        // Those that no table owns are in no list of the flow: the patterns of the file say which take part.
        let sequences = match args.tables.is_empty() {
            true => self.selection(&PatternArgs { include: Vec::new(), exclude: Vec::new() })?,
            false => selection.clone(),
        };
        let jobs = args.jobs.or(NonZeroUsize::new(DEFAULT_JOBS)).unwrap_or(NonZeroUsize::MIN);
        let options = VerifyOptions {
            selection,
            sequences: Some(sequences),
            jobs,
            bytes_per_second,
            rows_listed: ROWS_LISTED,
        };
        Ok(CompareSettings { options, timeout })
    }
}
