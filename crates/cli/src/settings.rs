//! Settings: where each value comes from (option, environment, file, default) and what it must be.
//!
//! Every default stands here, once. What may not enter: anything that connects.

mod compare;
mod health;
mod http;
mod nodes;
mod wait;
mod watch;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use relevo_catalog::Selection;
use relevo_connect::ConnInfo;
use relevo_model::{FlowName, Side};
use relevo_snapshot::Split;
use relevo_spool::SharedSpool;
use relevo_telemetry::Entrance;
use serde::Deserialize;

use crate::args::{FlowArgs, LogFormat, PatternArgs, RunArgs, SchemaArg, SynchronousCommitArg, TableArgs};
use crate::error::CliError;
use crate::redact::{redact, redact_all};

pub use compare::CompareSettings;
pub use health::HealthSettings;
pub use http::shows_token;
pub use nodes::{HandoverSettings, Standing};
pub use wait::{Position, WaitSettings};
pub use watch::watch_interval;

const DEFAULT_BATCH: ByteSize = ByteSize::mib(8);
const DEFAULT_MEMORY: ByteSize = ByteSize::mib(256);
const DEFAULT_SPOOL_LIMIT: ByteSize = ByteSize::gib(10);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(10);
const DEFAULT_RECEIVE_TIMEOUT: Duration = Duration::from_secs(60);
/// A source that decodes a large transaction may be silent for seconds: with less it would be given up again and again.
const LEAST_RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Whoever wants more does not want to know.
const GREATEST_RECEIVE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The configuration file, as written. Unknown keys are errors: a misspelt setting must not be ignored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    name: Option<FlowNameText>,
    source: Option<Endpoint>,
    target: Option<Endpoint>,
    tables: TablesSection,
    schema: SchemaSection,
    copy: CopySection,
    apply: ApplySection,
    heartbeat: HeartbeatSection,
    replication: ReplicationSection,
    http: http::HttpSection,
    log: LogSection,
    handover: nodes::HandoverSection,
    hooks: nodes::HooksSection,
    /// `[node.NAME]`: the databases between which the role of the primary moves.
    #[serde(rename = "node")]
    nodes: BTreeMap<String, Endpoint>,
    /// The name of the flow into the node that a command is about, once that is known.
    #[serde(skip)]
    flow_into_node: Option<FlowName>,
    /// What that command found out about the role.
    #[serde(skip)]
    standing: Option<Standing>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct FlowNameText(FlowName);

impl TryFrom<String> for FlowNameText {
    type Error = relevo_model::FlowNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

/// One database in the file. No `Debug`: the URL may hold a password.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoint {
    url: String,
    password_file: Option<PathBuf>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("password_file", &self.password_file).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TablesSection {
    include: Vec<String>,
    exclude: Vec<String>,
    via_partition_root: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SchemaSection {
    mode: Option<SchemaArg>,
    pg_dump: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CopySection {
    jobs: Option<NonZeroUsize>,
    split_bytes: Option<ByteSize>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ApplySection {
    batch_bytes: Option<ByteSize>,
    memory: Option<ByteSize>,
    spool: Option<PathBuf>,
    spool_limit: Option<ByteSize>,
    synchronous_commit: Option<SynchronousCommitArg>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HeartbeatSection {
    interval: Option<jiff::SignedDuration>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReplicationSection {
    receive_timeout: Option<jiff::SignedDuration>,
}

/// How the file wants log lines; read before logging begins.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// The filter.
    pub filter: Option<String>,
    /// The format.
    pub format: Option<LogFormat>,
}

/// The file, and the flow that a command is about.
pub struct FlowSettings {
    /// Where changes come from.
    pub source: ConnInfo,
    /// Where they go to.
    pub target: ConnInfo,
    /// The name that was given, if one was.
    pub name: Option<FlowName>,
}

/// Which tables take part.
pub struct TableSettings {
    /// The patterns.
    pub selection: Selection,
    /// Partitioned tables travel as whole tables.
    pub via_partition_root: bool,
}

/// Everything that `relevo run` goes by.
pub struct RunSettings {
    /// Which flow.
    pub flow: FlowSettings,
    /// It leads from one node to another, between which the role of the primary moves.
    pub between_nodes: bool,
    /// Which tables.
    pub tables: TableSettings,
    /// Where the target's tables come from.
    pub schema: SchemaArg,
    /// The given pg_dump.
    pub pg_dump: Option<PathBuf>,
    /// How many things the copy does at the same time.
    pub copy_jobs: NonZeroUsize,
    /// Which tables are copied in parts.
    pub copy_split: Split,
    /// Where and for whom HTTP listens.
    pub http: Entrance,
    /// The greatest batch.
    pub batch_bytes: usize,
    /// The memory bound.
    pub memory_bytes: usize,
    /// Where what does not fit into memory goes, if it was said.
    pub spool: Option<PathBuf>,
    /// What it may take there.
    pub spool_limit_bytes: u64,
    /// `synchronous_commit` of the applying session.
    pub synchronous_commit: SynchronousCommitArg,
    /// How often an idle source is made to write.
    pub heartbeat_interval: Duration,
    /// How long the source may stay silent.
    pub receive_timeout: Duration,
}

impl RunSettings {
    /// The spool: a directory for each flow, as several may share a disk. Without `--spool` it lies among everybody's
    /// temporary files, under a name that others can guess.
    #[must_use]
    pub fn spool_of(&self, flow: &FlowName) -> SharedSpool {
        // Flows of one name between other databases are other flows. A place that is spelt in another way, or a hash
        // that changes with the compiler, only costs the copy of tables that had not arrived.
        let mut places = DefaultHasher::new();
        (self.flow.source.to_string(), self.flow.target.to_string()).hash(&mut places);
        let name = format!("{flow}-{:016x}", places.finish());
        match &self.spool {
            Some(directory) => SharedSpool::new(directory.join(name), self.spool_limit_bytes),
            None => SharedSpool::among_others(
                std::env::temp_dir().join(format!("relevo-{name}")),
                self.spool_limit_bytes,
            ),
        }
    }
}

impl File {
    /// Reads the file, or gives an empty one when none was named.
    ///
    /// # Errors
    /// [`CliError::Usage`]: it cannot be read, is not TOML, or has an unknown key or a bad value.
    pub fn read(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path).map_err(|error| {
            let shown = path.to_string_lossy();
            CliError::usage(format!("configuration file {}: {error}", redact(&shown)))
                .of_kind("configuration")
        })?;
        toml::from_str(&text).map_err(|error| {
            // Not the Display form: it quotes the offending line, and that line may hold a password.
            let before = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes().iter().take(before).filter(|byte| **byte == b'\n').count();
            CliError::usage(format!(
                "configuration file {}, line {line}: {}",
                path.display(),
                // It quotes values, and a URL may stand in the wrong place.
                redact_all(error.message(), text.split(['"', '\'']))
            ))
            .of_kind("configuration")
        })
    }

    /// How the file wants log lines.
    #[must_use]
    pub fn log(&self) -> &LogSection {
        &self.log
    }

    /// The flow, from options and the file.
    ///
    /// # Errors
    /// [`CliError::Usage`]: a database is not named, or its URL is not one.
    pub fn flow(&self, args: &FlowArgs) -> Result<FlowSettings, CliError> {
        let name = self.flow_name(args)?;
        Ok(FlowSettings {
            source: self.endpoint_of(Side::Source, args)?,
            target: self.endpoint_of(Side::Target, args)?,
            name,
        })
    }

    fn flow_name(&self, args: &FlowArgs) -> Result<Option<FlowName>, CliError> {
        if let Some(name) = &self.flow_into_node {
            return Ok(Some(name.clone()));
        }
        match &args.node {
            Some(name) => Err(CliError::usage(format!(
                "--node {name} (or RELEVO_NODE) names a node, and there is no configuration file with [node.{name}]: give \
                 --config FILE"
            ))),
            None => Ok(args.name.clone().or_else(|| self.name.as_ref().map(|name| name.0.clone()))),
        }
    }

    fn endpoint_of(&self, side: Side, args: &FlowArgs) -> Result<ConnInfo, CliError> {
        match side {
            Side::Source => endpoint(side, args.source.as_deref(), self.source.as_ref()),
            Side::Target => endpoint(side, args.target.as_deref(), self.target.as_ref()),
        }
    }

    /// The tables, from options and the file.
    ///
    /// # Errors
    /// [`CliError::Usage`]: a pattern is not one.
    pub fn tables(&self, args: &TableArgs) -> Result<TableSettings, CliError> {
        let selection = self.selection(&args.patterns)?;
        let via_partition_root = args.via_partition_root.or(self.tables.via_partition_root).unwrap_or(false);
        Ok(TableSettings { selection, via_partition_root })
    }

    /// The patterns, from options and the file.
    ///
    /// # Errors
    /// [`CliError::Usage`]: one is not a pattern.
    pub fn selection(&self, args: &PatternArgs) -> Result<Selection, CliError> {
        let choose = |given: &Vec<String>, file: &Vec<String>| {
            if given.is_empty() { file.clone() } else { given.clone() }
        };
        let include = choose(&args.include, &self.tables.include);
        let exclude = choose(&args.exclude, &self.tables.exclude);
        Selection::parse(&include, &exclude).map_err(|error| {
            let patterns = include.iter().chain(&exclude).map(String::as_str);
            CliError::usage(redact_all(&error.to_string(), patterns))
        })
    }

    /// Everything that `relevo run` goes by.
    ///
    /// # Errors
    /// [`CliError::Usage`].
    pub fn run(&self, args: &RunArgs) -> Result<RunSettings, CliError> {
        let memory = args.memory.or(self.apply.memory).unwrap_or(DEFAULT_MEMORY);
        let batch = args.batch_bytes.or(self.apply.batch_bytes).unwrap_or(DEFAULT_BATCH);
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        if memory < ByteSize::mib(16) {
            return Err(CliError::usage(format!("memory is {memory}: expected at least 16 MiB")));
        }
        if batch.as_u64() == 0 || batch.as_u64() * 2 > memory.as_u64() {
            return Err(CliError::usage(format!(
                "batch_bytes is {batch}: expected more than 0 and at most half of memory ({memory})"
            )));
        }
        let spool_limit = args.spool_limit.or(self.apply.spool_limit).unwrap_or(DEFAULT_SPOOL_LIMIT);
        if spool_limit < ByteSize::mib(1) {
            return Err(CliError::usage(format!("spool_limit is {spool_limit}: expected at least 1 MiB")));
        }
        let heartbeat = match args.heartbeat_interval.or(self.heartbeat.interval) {
            None => DEFAULT_HEARTBEAT,
            Some(given) => Duration::try_from(given)
                .ok()
                .filter(|interval| *interval >= Duration::from_secs(1))
                .ok_or_else(|| {
                    CliError::usage(format!("heartbeat interval is {given:#}: expected at least 1s"))
                })?,
        };
        let receive_timeout = match args.receive_timeout.or(self.replication.receive_timeout) {
            None => DEFAULT_RECEIVE_TIMEOUT,
            Some(given) => Duration::try_from(given)
                .ok()
                .filter(|limit| (LEAST_RECEIVE_TIMEOUT..=GREATEST_RECEIVE_TIMEOUT).contains(limit))
                .ok_or_else(|| CliError::usage(format!("receive timeout is {given:#}: expected 5s to 1h")))?,
        };
        Ok(RunSettings {
            flow: self.flow(&args.flow)?,
            between_nodes: self.flow_into_node.is_some(),
            tables: self.tables(&args.tables)?,
            schema: args.schema.or(self.schema.mode).unwrap_or(SchemaArg::Auto),
            pg_dump: self.pg_dump(args.pg_dump.as_deref()),
            copy_jobs: args.copy_jobs.or(self.copy.jobs).unwrap_or_else(default_copy_jobs),
            copy_split: args
                .copy_split_bytes
                .or(self.copy.split_bytes)
                .map_or(Split::WherePays, |size| Split::From(size.as_u64())),
            http: self.http.entrance(&args.http)?,
            batch_bytes: bytes(batch),
            memory_bytes: bytes(memory),
            spool: args.spool.clone().or_else(|| self.apply.spool.clone()),
            spool_limit_bytes: spool_limit.as_u64(),
            synchronous_commit: args
                .synchronous_commit
                .or(self.apply.synchronous_commit)
                .unwrap_or(SynchronousCommitArg::Off),
            heartbeat_interval: heartbeat,
            receive_timeout,
        })
    }

    /// The pg_dump that was given, if one was.
    #[must_use]
    pub fn pg_dump(&self, given: Option<&Path>) -> Option<PathBuf> {
        given.map(Path::to_path_buf).or_else(|| self.schema.pg_dump.clone())
    }
}

/// By the cores of this machine, for want of knowing those of the servers: two at least, so that one can read while the
/// other builds an index; more than eight would rather burden a source that has other work to do.
fn default_copy_jobs() -> NonZeroUsize {
    const FEWEST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
    const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
    std::thread::available_parallelism().unwrap_or(FEWEST).clamp(FEWEST, MOST)
}

fn endpoint(side: Side, option: Option<&str>, file: Option<&Endpoint>) -> Result<ConnInfo, CliError> {
    let url = option.or(file.map(|endpoint| endpoint.url.as_str())).ok_or_else(|| {
        let variable = side.to_string().to_uppercase();
        CliError::usage(format!(
            "the {side} database is not named: give --{side} URL, set RELEVO_{variable}_URL, \
             or write [{side}] url = \"…\" in the configuration file"
        ))
    })?;
    let info: ConnInfo =
        url.parse().map_err(|error| CliError::usage(format!("the {side}'s connection string: {error}")))?;
    // The password file belongs to the file's URL; another URL on the command line comes with its own secrets.
    match file.filter(|_| option.is_none()).and_then(|endpoint| endpoint.password_file.as_ref()) {
        None => Ok(info),
        Some(path) => Ok(info.with_password_file(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    use crate::args::{Cli, Command};

    fn run_args(args: &[&str]) -> RunArgs {
        let cli = Cli::try_parse_from(["relevo", "run"].iter().chain(args)).unwrap();
        match cli.command {
            Command::Run(args) => args,
            _ => unreachable!("the command line says run"),
        }
    }

    fn file(text: &str) -> Result<File, CliError> {
        let mut path = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut path, text.as_bytes()).unwrap();
        File::read(Some(path.path()))
    }

    const BOTH: &str = "[source]\nurl = \"postgres://a@s/shop\"\n[target]\nurl = \"postgres://a@t/shop\"\n[apply]\nmemory = \"64MiB\"\n";

    #[test]
    fn an_option_wins_over_the_file_and_the_file_over_the_default() {
        let file = file(BOTH).unwrap();
        let settings = file.run(&run_args(&["--source", "postgres://b@other/shop"])).unwrap();
        assert!(settings.flow.source.to_string().contains("other"));
        assert!(!settings.flow.target.to_string().contains("other"));
        assert_eq!(settings.memory_bytes, 64 << 20);
        assert_eq!(settings.batch_bytes, 8 << 20);
        assert_eq!(settings.http.listen.to_string(), "127.0.0.1:9187");
    }

    #[test]
    fn what_the_file_switches_on_can_be_switched_off_and_the_other_way_round() {
        let of = |written: &str, args: &[&str]| {
            let file = file(&format!("{BOTH}[tables]\n{written}\n")).unwrap();
            file.run(&run_args(args)).unwrap().tables.via_partition_root
        };
        let (on, off) = ("via_partition_root = true", "via_partition_root = false");
        assert!(of(on, &[]) && !of(off, &[]) && !of("", &[]));
        assert!(of(off, &["--via-partition-root"]) && of("", &["--via-partition-root=true"]));
        assert!(!of(on, &["--via-partition-root=false"]));
        // What follows after a space is the next option, as it always was.
        assert!(of("", &["--via-partition-root", "--schema", "copy"]));
        assert!(Cli::try_parse_from(["relevo", "run", "--via-partition-root=perhaps"]).is_err());
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_line_and_key_and_no_secret() {
        let text = "[source]\nurl = \"postgres://a:hunter2@s/shop\"\npasword_file = \"x\"\n";
        let error = file(text).unwrap_err().to_string();
        assert!(error.contains("pasword_file") && error.contains("line 3:"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_help_names_the_defaults() {
        let settings = file(BOTH).unwrap().run(&run_args(&["--memory", "256MiB"])).unwrap();
        let mut command = <Cli as clap::CommandFactory>::command();
        let help = command.find_subcommand_mut("run").unwrap().render_long_help().to_string();
        for value in [
            settings.http.listen.to_string(),
            format!("{}MiB", settings.batch_bytes >> 20),
            format!("{}MiB", DEFAULT_MEMORY.as_u64() >> 20),
            format!("{}s", settings.heartbeat_interval.as_secs()),
            format!("{}s", settings.receive_timeout.as_secs()),
        ] {
            assert!(help.contains(&format!("Default: {value}")), "{value} in:\n{help}");
        }
        assert_eq!(
            (settings.schema, settings.synchronous_commit),
            (SchemaArg::Auto, SynchronousCommitArg::Off)
        );
    }

    #[test]
    fn a_url_in_the_wrong_place_is_not_shown_and_the_line_is_right() {
        for (text, line) in [
            ("source = \"postgres://a:hunter2@s/shop\"\n", "line 1"),
            ("[apply]\n\nmemory = 'postgres://a:hunter2@s/shop'\n", "line 3"),
            ("[source]\nurl = \"x\"\nulr = \"y\"\n", "line 3"),
        ] {
            let error = file(text).unwrap_err().to_string();
            assert!(error.contains(line) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_database_that_is_not_named_is_asked_for_by_every_way_to_name_it() {
        let error = File::default().run(&run_args(&[])).err().unwrap().to_string();
        for part in ["--source", "RELEVO_SOURCE_URL", "[source]"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn sizes_and_times_that_cannot_work_are_refused() {
        let file = file(BOTH).unwrap();
        for args in [["--memory", "1MiB"], ["--batch-bytes", "60MiB"], ["--heartbeat-interval", "10ms"]] {
            assert!(file.run(&run_args(&args)).is_err(), "{args:?}");
        }
        for limit in ["4s", "4999ms", "61m", "-10s"] {
            let error =
                file.run(&run_args(&[&format!("--receive-timeout={limit}")])).err().unwrap().to_string();
            assert!(error.contains("receive timeout") && error.contains("expected 5s to 1h"), "{error}");
        }
    }

    #[test]
    fn the_receive_timeout_is_taken_from_the_option_then_the_file_then_the_default() {
        let of = |written: &str, args: &[&str]| {
            file(&format!("{BOTH}{written}")).unwrap().run(&run_args(args)).unwrap().receive_timeout.as_secs()
        };
        let written = "[replication]\nreceive_timeout = \"30s\"\n";
        assert_eq!((of("", &[]), of(written, &[])), (60, 30));
        assert_eq!(of(written, &["--receive-timeout", "5s"]), 5);
    }
}
