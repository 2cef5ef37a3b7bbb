//! The program `relevo`: reads the command line, runs a command, and turns its end into an exit code.

mod args;
mod check;
mod connect;
mod error;
mod errors;
mod handover;
mod healthcheck;
mod logging;
mod nodes;
mod offline;
mod output;
mod redact;
mod repair;
mod reset;
mod run;
mod settings;
mod status;
mod tables;
mod verify;
mod wait;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command, FlowArgs, LogFormat, StatusArgs};
use crate::error::CliError;
use crate::settings::{File, LogSection};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return told(&error),
    };
    if let Some(result) = offline::run(&cli.command) {
        return ended(result, LogFormat::Text);
    }
    let file = File::read(config(&cli.command));
    let format = logging::format(&cli.log, file.as_ref().map(File::log).unwrap_or(&LogSection::default()));
    // Whoever asked for JSON gets the end of it as JSON too.
    let format = if wants_json(&cli.command) { LogFormat::Json } else { format };
    ended(file.and_then(|file| dispatch(&cli, file)), format)
}

/// Says how it ended.
fn ended(result: Result<(), CliError>, format: LogFormat) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::last_word(format, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints help, or what is wrong with the command line. Whatever stands there may be a URL in the wrong place.
fn told(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Help that nobody reads is no failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    let variables: Vec<String> = std::env::vars_os()
        .filter(|(name, _)| name.to_string_lossy().starts_with("RELEVO_"))
        .map(|(_, text)| text.to_string_lossy().into_owned())
        .collect();
    let values = arguments.iter().filter_map(|argument| argument.split_once('=')).map(|(_, value)| value);
    let texts = arguments.iter().chain(&variables).map(String::as_str).chain(values);
    eprint!("{}", redact::redact_all(&error.render().to_string(), texts));
    eprintln!("\n{}", logging::code("usage"));
    ExitCode::from(2)
}

fn dispatch(cli: &Cli, file: File) -> Result<(), CliError> {
    // Log lines would be drawn into the picture.
    if !matches!(&cli.command, Command::Status(args) if status::draws(args)) {
        logging::start(&cli.log, file.log())?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        CliError::failed(format!("the runtime could not be started: {error}")).of_kind("system")
    })?;
    let result = runtime.block_on(async {
        // Those that are about one flow learn from the databases which one it is, if the file names nodes.
        let file = match flow_of(&cli.command) {
            // Who watches sees the role move.
            _ if watches(&cli.command) => file,
            Some(flow) => nodes::resolve(file, flow).await?,
            None => file,
        };
        match &cli.command {
            Command::Run(args) => run::run(args, &file).await,
            Command::Status(args) if args.watch => status::watch(args, &file).await,
            Command::Status(args) => status::run(args, &file).await,
            Command::Check(args) => check::run(args, &file).await,
            Command::Tables(args) => tables::run(args, &file).await,
            Command::Errors(args) => errors::run(args, &file).await,
            Command::Wait(args) => wait::run(args, &file).await,
            Command::Init(args) => handover::init(args, &file).await,
            Command::Switchover(args) => handover::switchover_to(args, &file).await,
            Command::Failover(args) => handover::failover_to(args, &file).await,
            Command::Rejoin(args) => handover::rejoin_node(args, &file).await,
            Command::History(args) => handover::history(args, &file).await,
            Command::Healthcheck(args) => healthcheck::run(args, &file).await,
            Command::Verify(args) => verify::run(args, &file).await,
            Command::Repair(args) => repair::run(args, &file).await,
            Command::Reset(args) => reset::run(args, &file).await,
            Command::Explain(_) | Command::Completions(_) | Command::Man(_) => Ok(()),
        }
    });
    // A name lookup or file access that hangs must not hold the process: nothing is left to be done.
    runtime.shutdown_background();
    result
}

/// The flow that a command is about. `relevo run` finds it out by itself, again and again.
fn flow_of(command: &Command) -> Option<&FlowArgs> {
    match command {
        Command::Status(args) => Some(&args.flow),
        Command::Check(args) => Some(&args.flow),
        Command::Tables(args) => Some(&args.flow),
        Command::Errors(args) => Some(&args.flow),
        Command::Wait(args) => Some(&args.flow),
        Command::Verify(args) => Some(&args.compare.flow),
        Command::Repair(args) => Some(&args.compare.flow),
        Command::Reset(args) => Some(&args.flow),
        Command::Run(_)
        | Command::Healthcheck(_)
        | Command::Init(_)
        | Command::Switchover(_)
        | Command::Failover(_)
        | Command::Rejoin(_)
        | Command::History(_)
        | Command::Explain(_)
        | Command::Completions(_)
        | Command::Man(_) => None,
    }
}

fn watches(command: &Command) -> bool {
    matches!(command, Command::Status(StatusArgs { watch: true, .. }))
}

/// Whether the command was asked for JSON. `relevo run` says its own on standard output, and its log is set by itself.
fn wants_json(command: &Command) -> bool {
    match command {
        Command::Status(args) => args.json,
        Command::Check(args) => args.json,
        Command::Tables(args) => args.json,
        Command::Errors(args) => args.json,
        Command::Wait(args) => args.json,
        Command::Verify(args) => args.compare.json,
        Command::Repair(args) => args.compare.json,
        Command::Init(args) => args.json,
        Command::Switchover(args) => args.handover.json,
        Command::Failover(args) => args.handover.json,
        Command::Rejoin(args) => args.handover.json,
        Command::History(args) => args.json,
        Command::Run(_)
        | Command::Healthcheck(_)
        | Command::Reset(_)
        | Command::Explain(_)
        | Command::Completions(_)
        | Command::Man(_) => false,
    }
}

fn config(command: &Command) -> Option<&Path> {
    let config = match command {
        Command::Run(args) => &args.flow.config,
        Command::Init(args) => &args.cluster.config,
        Command::Switchover(args) => &args.handover.cluster.config,
        Command::Failover(args) => &args.handover.cluster.config,
        Command::Rejoin(args) => &args.handover.cluster.config,
        Command::History(args) => &args.cluster.config,
        Command::Healthcheck(args) => &args.config,
        other => &flow_of(other)?.config,
    };
    config.as_deref()
}
