//! Where log lines go and how they look. Standard output is left to what a command was asked for.

use std::io;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::args::{LogArgs, LogFormat};
use crate::error::CliError;
use crate::redact::redact;
use crate::run::progress::StderrBesideBars;
use crate::settings::LogSection;

const DEFAULT_FILTER: &str = "info";

/// How standard error is to look: as the command line says, or the file, or for people.
pub fn format(args: &LogArgs, file: &LogSection) -> LogFormat {
    args.log_format.or(file.format).unwrap_or(LogFormat::Text)
}

/// Begins to log to standard error.
///
/// # Errors
/// [`CliError::Usage`]: the filter is not one.
pub fn start(args: &LogArgs, file: &LogSection) -> Result<(), CliError> {
    let directives = args.filter.as_deref().or(file.filter.as_deref()).unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::builder().parse(directives).map_err(|error| {
        CliError::usage(format!(
            "log filter {:?}: {error}; expected error, warn, info, debug, trace, or directives such as \
             relevo_source=debug",
            redact(directives)
        ))
    })?;
    let allowed = tracing_subscriber::registry().with(filter_fn(says_no_values)).with(filter);
    let lines = fmt::layer().with_writer(StderrBesideBars::default);
    match format(args, file) {
        LogFormat::Json => allowed.with(lines.json().flatten_event(true).with_current_span(false)).init(),
        LogFormat::Text => {
            let colour = io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
            allowed.with(lines.with_target(false).with_ansi(colour)).init();
        }
    }
    Ok(())
}

/// Says why the process ends. With JSON lines this one is of their kind too, whatever the filter and even when
/// logging could not begin: whoever reads them must not meet anything else.
pub fn last_word(format: LogFormat, error: &CliError) {
    match format {
        LogFormat::Text => eprintln!("relevo: {error}\n{}", code(error.kind())),
        LogFormat::Json => {
            let line = serde_json::json!({
                "timestamp": jiff::Timestamp::now().to_string(),
                "level": "ERROR",
                "message": error.to_string(),
                "kind": error.kind(),
                "exit_code": error.exit_code(),
                "target": "relevo",
            });
            eprintln!("{line}");
        }
    }
}

/// The line by which people find out more.
pub fn code(kind: &str) -> String {
    format!("code: {kind} (relevo explain {kind})")
}

/// That library logs statements with their parameters, which are people's data: whatever the filter asks for, only
/// its warnings are shown.
fn says_no_values(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::WARN || !metadata.target().starts_with("tokio_postgres")
}
