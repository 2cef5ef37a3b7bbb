//! The command line: commands, options, their environment variables and help texts.
//!
//! What may not enter: defaults of settings (they stand once, in `settings`) and anything that runs.

mod http;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use relevo_model::{FlowName, SourceLsn};

pub use http::HttpArgs;

/// Keeps a PostgreSQL standby database current by logical replication.
///
/// Exit codes: 0 done; 1 failed; 2 usage or configuration; 3 refused because going on would be unsafe.
#[derive(Parser)]
#[command(name = "relevo", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Prepare both databases, copy the source, then stream its changes until stopped.
    Run(RunArgs),
    /// Say how the flow is: state, positions, lag, slot, tables.
    Status(StatusArgs),
    /// Ask the `relevo run` on this machine whether it is alive. Exit code 0: it is; 1: it is not, or does not answer.
    Healthcheck(HealthcheckArgs),
    /// Look at both databases and say what would stand in the way of replication, and how to mend it.
    Check(CheckArgs),
    /// List the tables of the flow and those that are not part of it; add tables to it or take them out, while it runs
    /// or not.
    Tables(TablesArgs),
    /// List what went wrong without stopping the flow, newest first.
    Errors(ErrorsArgs),
    /// Return when the target has applied a position of the source: who has written there reads it here.
    Wait(WaitArgs),
    /// Say once which node of the configuration file is the primary.
    Init(InitArgs),
    /// Give the role of the primary to another node, planned: nothing is lost, and writes pause for a moment.
    Switchover(SwitchoverArgs),
    /// Give the role of the primary to a standby because the primary is lost.
    Failover(FailoverArgs),
    /// Let a former primary, or a standby that was left behind, follow the present primary.
    Rejoin(RejoinArgs),
    /// List who was the primary when, and how the role moved.
    History(HistoryArgs),
    /// Compare both sides at one position of the source while the flow runs. Exit code 3: they differ.
    Verify(VerifyArgs),
    /// Compare both sides, and rewrite exactly the rows of the target that differ, while the flow runs.
    Repair(RepairArgs),
    /// Forget how far the flow is and drop its slot: the next `relevo run` empties its tables on the target and
    /// copies them anew.
    Reset(ResetArgs),
    /// Say what an error's kind means and what to do: what docs/errors.md says, without a connection.
    Explain(ExplainArgs),
    /// Print the completions of a shell.
    Completions(CompletionsArgs),
    /// Print the manual page of a command, or write all of them into a directory.
    Man(ManArgs),
}

/// How much is logged, and how.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, or directives such as relevo_source=debug. Default: info.
    #[arg(long = "log", env = "RELEVO_LOG", global = true, value_name = "FILTER")]
    pub filter: Option<String>,
    /// How log lines look. They go to standard error. Default: text.
    #[arg(long, env = "RELEVO_LOG_FORMAT", global = true, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which flow: the two databases and its name.
///
/// The URLs stay text here: a parse error of clap's would print them with their passwords.
#[derive(Clone, Args)]
pub struct FlowArgs {
    /// Configuration file (TOML).
    #[arg(long, env = "RELEVO_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The database that changes come from: a libpq URL or keyword string. A password is better kept in
    /// PGPASSFILE or password_file than here, where the process list shows it.
    #[arg(long, env = "RELEVO_SOURCE_URL", value_name = "URL", hide_env_values = true)]
    pub source: Option<String>,
    /// The database that changes go to.
    #[arg(long, env = "RELEVO_TARGET_URL", value_name = "URL", hide_env_values = true)]
    pub target: Option<String>,
    /// Name of the flow; its slot and publication are named relevo_NAME. Default: derived from both databases.
    #[arg(long, env = "RELEVO_NAME")]
    pub name: Option<FlowName>,
    /// The node of the configuration file that this is about: for run, the one that this Relevo stands beside; for other
    /// commands, the standby whose flow is meant. Default for those: the only standby.
    #[arg(long, env = "RELEVO_NODE", value_name = "NODE")]
    pub node: Option<String>,
}

/// Patterns over the tables.
#[derive(Debug, Clone, Args)]
pub struct PatternArgs {
    /// Tables to replicate, as schema.table with * and ?; may be given several times. Default: every user table.
    #[arg(long, env = "RELEVO_INCLUDE", value_name = "PATTERN", value_delimiter = ',')]
    pub include: Vec<String>,
    /// Tables to leave out; may be given several times. Default: none.
    #[arg(long, env = "RELEVO_EXCLUDE", value_name = "PATTERN", value_delimiter = ',')]
    pub exclude: Vec<String>,
}

/// Which tables.
#[derive(Debug, Clone, Args)]
pub struct TableArgs {
    /// By their names.
    #[command(flatten)]
    pub patterns: PatternArgs,
    /// Replicate partitioned tables as whole tables, so that the target may be partitioned differently or not at
    /// all. Alone it means true. Default: false, every partition is replicated to the partition of the same name.
    #[arg(
        long,
        env = "RELEVO_VIA_PARTITION_ROOT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub via_partition_root: Option<bool>,
}

/// Options of `relevo run`.
#[derive(Clone, Args)]
pub struct RunArgs {
    /// Which flow.
    #[command(flatten)]
    pub flow: FlowArgs,
    /// Which tables.
    #[command(flatten)]
    pub tables: TableArgs,
    /// Where the target's tables come from. Default: auto.
    #[arg(long, env = "RELEVO_SCHEMA", value_name = "MODE")]
    pub schema: Option<SchemaArg>,
    /// The pg_dump to copy the schema with; of the source's major version or newer. Default: found on PATH.
    #[arg(long, env = "RELEVO_PG_DUMP", value_name = "FILE")]
    pub pg_dump: Option<PathBuf>,
    /// How many tables, parts of large tables and indexes the initial copy works on at the same time; each takes a
    /// connection to either database. Default: the machine's cores, from 2 to 8.
    #[arg(long, env = "RELEVO_COPY_JOBS", value_name = "NUMBER")]
    pub copy_jobs: Option<NonZeroUsize>,
    /// From which size on a table is copied in parts. For tests: usually those are that the others would wait for.
    #[arg(long, env = "RELEVO_COPY_SPLIT_BYTES", value_name = "SIZE", hide = true)]
    pub copy_split_bytes: Option<ByteSize>,
    /// Say on standard output what happens, for machines: one JSON object a line. What each holds is in the README.
    /// Default: false.
    #[arg(long, env = "RELEVO_JSON")]
    pub json: bool,
    /// Where and for whom metrics, health, status and the live page are.
    #[command(flatten)]
    pub http: Box<HttpArgs>,
    /// Bytes of changes that go to the target in one transaction at most, unless one source transaction is larger.
    /// Default: 8MiB.
    #[arg(long, env = "RELEVO_BATCH_BYTES", value_name = "SIZE")]
    pub batch_bytes: Option<ByteSize>,
    /// Bytes of changes held in memory at most; beyond it the source has to wait. Default: 256MiB.
    #[arg(long, env = "RELEVO_MEMORY", value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Directory for what does not fit into memory: large transactions that still run on the source, and the changes of
    /// tables that are still being copied. A volume that outlives the container keeps copied tables from being copied
    /// again. Default: in the system's directory for temporary files, closed to others.
    #[arg(long, env = "RELEVO_SPOOL", value_name = "DIRECTORY")]
    pub spool: Option<PathBuf>,
    /// Bytes that the spool may take on disk; beyond it the flow has failed until there is room. Default: 10GiB.
    #[arg(long, env = "RELEVO_SPOOL_LIMIT", value_name = "SIZE")]
    pub spool_limit: Option<ByteSize>,
    /// Whether each commit on the target waits for its flush. Either way a position is confirmed to the source
    /// only once the target has flushed it. Default: off.
    #[arg(long, env = "RELEVO_SYNCHRONOUS_COMMIT", value_name = "SETTING")]
    pub synchronous_commit: Option<SynchronousCommitArg>,
    /// How often an idle source is made to write a small WAL record, so that its slot keeps moving. Default: 10s.
    #[arg(long, env = "RELEVO_HEARTBEAT_INTERVAL", value_name = "DURATION")]
    pub heartbeat_interval: Option<jiff::SignedDuration>,
    /// How long the source may stay silent although it is asked to answer, before its replication connection is
    /// given up and opened anew: 5s to 1h. Default: 60s.
    #[arg(long, env = "RELEVO_RECEIVE_TIMEOUT", value_name = "DURATION")]
    pub receive_timeout: Option<jiff::SignedDuration>,
}

/// Where the target's tables come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchemaArg {
    /// Copied when none of them exists, used when all of them do.
    Auto,
    /// Copied from the source.
    Copy,
    /// They exist, possibly with more columns or another column order, and are used as they are.
    Existing,
}

/// `synchronous_commit` of the session that applies (manual, *Write Ahead Log* settings).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SynchronousCommitArg {
    /// A commit does not wait for its flush; its position is confirmed to the source only after it.
    Off,
    /// Every commit waits for its flush.
    On,
}

/// Options of `relevo status`.
#[derive(Args)]
pub struct StatusArgs {
    /// Which flow.
    #[command(flatten)]
    pub flow: FlowArgs,
    /// Which tables may be part of it: as given to `relevo run`.
    #[command(flatten)]
    pub patterns: PatternArgs,
    /// One JSON object instead of text; with --watch one a line.
    #[arg(long)]
    pub json: bool,
    /// Look again and again, and show it on the whole terminal until q is typed.
    #[arg(long)]
    pub watch: bool,
    /// How often to look, with --watch. Default: 1s.
    #[arg(long, value_name = "DURATION", requires = "watch")]
    pub interval: Option<jiff::SignedDuration>,
    /// Panic at this drawing, counted from 1. For tests.
    #[arg(long, env = "RELEVO_PANIC_AT_DRAWING", hide = true)]
    pub panic_at_drawing: Option<u64>,
}

/// Options of `relevo healthcheck`.
#[derive(Args)]
pub struct HealthcheckArgs {
    /// Configuration file (TOML) of that `relevo run`, for what is under [http].
    #[arg(long, env = "RELEVO_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How that `relevo run` listens, by its own settings.
    #[command(flatten)]
    pub http: Box<HttpArgs>,
    /// Ask whether it is ready: the standby follows its primary, or the node is the primary and its database answers.
    /// A flow that copies, or waits for a person, is alive and not ready.
    #[arg(long)]
    pub ready: bool,
    /// How long the answer may take. Default: 5s.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<jiff::SignedDuration>,
}

/// Options of `relevo check`.
#[derive(Args)]
pub struct CheckArgs {
    /// Which flow.
    #[command(flatten)]
    pub flow: FlowArgs,
    /// Which tables.
    #[command(flatten)]
    pub tables: TableArgs,
    /// The pg_dump that `run` would use.
    #[arg(long, env = "RELEVO_PG_DUMP", value_name = "FILE")]
    pub pg_dump: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What `relevo tables` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TablesAction {
    /// Show every table of the flow, and those of the source that are not part of it.
    List,
    /// Copy tables and let them follow the source, each from its own moment on.
    Add,
    /// Take tables out; their rows on the target stay as they are.
    Remove,
}

/// Options of `relevo tables`.
#[derive(Args)]
pub struct TablesArgs {
    /// What to do. Default: list.
    #[arg(value_enum, value_name = "ACTION")]
    pub action: Option<TablesAction>,
    /// The tables, as schema.table with * and ?; to add or to remove. A partitioned table stands for its partitions.
    #[arg(value_name = "PATTERN")]
    pub tables: Vec<String>,
    /// Which flow.
    #[command(flatten)]
    pub flow: FlowArgs,
    /// Which tables may be part of it: as given to `relevo run`.
    #[command(flatten)]
    pub patterns: PatternArgs,
    /// The pg_dump to make tables with that the target lacks; as for `relevo run`. Default: found on PATH.
    #[arg(long, env = "RELEVO_PG_DUMP", value_name = "FILE")]
    pub pg_dump: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `relevo errors`.
#[derive(Args)]
pub struct ErrorsArgs {
    /// Which flow.
    #[command(flatten)]
    pub flow: FlowArgs,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    pub limit: i64,
    /// Remove them, and all older ones of the flow, once they are shown. Those that come meanwhile stay.
    #[arg(long)]
    pub clear: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `relevo wait`.
#[derive(Args)]
#[command(group(ArgGroup::new("position").required(true).args(["lsn", "now"])))]
pub struct WaitArgs {
    /// Which flow.
    #[command(flatten)]
    pub flow: FlowArgs,
    /// For this position, such as pg_current_wal_insert_lsn() has said on the source after a commit. The source is not
    /// asked, and need not be named.
    #[arg(long, value_name = "LSN")]
    pub lsn: Option<SourceLsn>,
    /// For all that was committed on the source when this command was called.
    #[arg(long)]
    pub now: bool,
    /// How long to wait before that is a failure (exit code 1). Default: 60s.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<jiff::SignedDuration>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What is compared, and how.
#[derive(Args)]
pub struct CompareArgs {
    /// Which flow.
    #[command(flatten)]
    pub flow: FlowArgs,
    /// Only these tables of the flow, as schema.table with * and ?; may be given several times. Default: all of them.
    #[arg(long = "table", value_name = "PATTERN")]
    pub tables: Vec<String>,
    /// How many tables are compared at the same time; each takes a connection to either database. Default: 2.
    #[arg(long, value_name = "NUMBER")]
    pub jobs: Option<NonZeroUsize>,
    /// How many bytes of each side are read in a second, at most. Default: no limit.
    #[arg(long, value_name = "SIZE")]
    pub rate: Option<ByteSize>,
    /// How long it may take until both sides stand at one position. Default: 60s.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<jiff::SignedDuration>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `relevo verify`.
#[derive(Args)]
pub struct VerifyArgs {
    /// What is compared, and how.
    #[command(flatten)]
    pub compare: CompareArgs,
}

/// Options of `relevo repair`.
#[derive(Args)]
pub struct RepairArgs {
    /// What is compared, and how.
    #[command(flatten)]
    pub compare: CompareArgs,
    /// Say which rows would be rewritten, and rewrite none. Exit code 3: there are some.
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `relevo reset`.
#[derive(Args)]
pub struct ResetArgs {
    /// Which flow.
    #[command(flatten)]
    pub flow: FlowArgs,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// The configuration file that names the nodes.
#[derive(Args)]
pub struct ClusterArgs {
    /// Configuration file (TOML) with a [node.NAME] for each database.
    #[arg(long, env = "RELEVO_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Options of `relevo init`.
#[derive(Args)]
pub struct InitArgs {
    /// The nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The node that is the primary now.
    #[arg(long, value_name = "NODE")]
    pub primary: String,
    /// Change nothing when a node knows a primary already, whichever it is: for what runs with every deployment. Every
    /// node has to answer then.
    #[arg(long)]
    pub once: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What the commands that move the role have in common.
#[derive(Args)]
pub struct HandoverArgs {
    /// The nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Say what was found and what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// End, as if killed, after this step. For tests.
    #[arg(long, env = "RELEVO_KILL_AFTER_STEP", hide = true)]
    pub kill_after_step: Option<usize>,
}

/// Options of `relevo switchover`.
#[derive(Args)]
pub struct SwitchoverArgs {
    /// The node that is to be the primary. The present one takes back, or finishes, what was interrupted.
    #[arg(long, value_name = "NODE")]
    pub to: String,
    /// For how long nobody may be able to write; beyond it everything is taken back. Default: 5s.
    #[arg(long, env = "RELEVO_MAX_PAUSE", value_name = "DURATION")]
    pub max_pause: Option<jiff::SignedDuration>,
    /// What all of them have.
    #[command(flatten)]
    pub handover: HandoverArgs,
}

/// Options of `relevo failover`.
#[derive(Args)]
pub struct FailoverArgs {
    /// The standby that is to be the primary.
    #[arg(long, value_name = "NODE")]
    pub to: String,
    /// Also when the primary answers and accepts writes (it is fenced first), when another standby has applied more, or
    /// when two nodes claim the role.
    #[arg(long)]
    pub force: bool,
    /// What all of them have.
    #[command(flatten)]
    pub handover: HandoverArgs,
}

/// Options of `relevo rejoin`.
#[derive(Args)]
pub struct RejoinArgs {
    /// The node that comes back.
    #[arg(value_name = "NODE")]
    pub node: String,
    /// Where what it has written on its own is kept: a file, or a directory. Default: the working directory.
    #[arg(long, env = "RELEVO_SALVAGE", value_name = "PATH")]
    pub salvage: Option<PathBuf>,
    /// What all of them have.
    #[command(flatten)]
    pub handover: HandoverArgs,
}

/// Options of `relevo history`.
#[derive(Args)]
pub struct HistoryArgs {
    /// The nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Options of `relevo explain`.
#[derive(Args)]
pub struct ExplainArgs {
    /// The kind, as it stands behind `code:`, in brackets or as `kind`. Default: all of them.
    #[arg(value_name = "KIND")]
    pub kind: Option<String>,
}

/// Options of `relevo completions`.
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Options of `relevo man`.
#[derive(Args)]
pub struct ManArgs {
    /// The command. Default: the program.
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
    /// Write every page into this directory instead, as relevo.1, relevo-run.1 and so on.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "command")]
    pub out: Option<PathBuf>,
}
