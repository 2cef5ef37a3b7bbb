//! `relevo run`: begin the flow, or go on with it, and keep it running until somebody stops it.

mod additions;
mod alive;
mod around;
pub mod board;
mod copier;
mod copy;
mod fault;
mod holding;
mod keeper;
mod lines;
mod monitor;
mod node;
pub mod progress;
mod publications;
mod sequences;
mod sides;
mod start;
mod stream;
mod watch_tables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relevo_arrivals::Arrivals;
use relevo_model::{FaultClass, FlowName};
use relevo_snapshot::Sequences;
use relevo_state::FlowState;
use relevo_telemetry::{Board, HttpOptions, HttpServer, Identity, Role};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::additions::Additions;
use self::board::FlowBoard;
use self::copier::{Copier, Rows};
use self::holding::HoldWatch;
use self::keeper::Keeper;
use self::lines::Lines;
use self::monitor::Watch;
use self::sequences::SequenceFollower;
use self::sides::Started;
use self::stream::Coming;
use self::watch_tables::TableWatch;
use crate::args::RunArgs;
use crate::error::{CliError, OUTPUT, chain, with_kind};
use crate::settings::{File, RunSettings, shows_token};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often a start that takes long shows that it is alive.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long the helpers beside the stream may take to end, all of them together. The stream has taken up to 3.5 s of the
/// promised 5 s by then.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Runs the flow until SIGTERM or SIGINT.
///
/// # Errors
/// [`CliError::Failed`]: it could not begin; [`CliError::Refused`]: it may not go on.
pub async fn run(args: &RunArgs, file: &File) -> Result<(), CliError> {
    let place = node::Place::of(args, file)?;
    let settings = match &place {
        None => file.run(args)?,
        Some(place) => place.settings(&place.me)?,
    };
    let shutdown = CancellationToken::new();
    listen_for_signals(&shutdown)?;
    let telemetry =
        |error: relevo_telemetry::TelemetryError| CliError::failed(chain(&error)).of_kind(error.kind());
    let board = Board::new(Identity {
        name: settings.flow.name.as_ref().map_or(String::new(), ToString::to_string),
        node: place.as_ref().map(|place| place.me.clone()),
        role: Role::Standby,
        epoch: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
    .map_err(telemetry)?;
    if let Some(place) = &place {
        board.set_cluster(place.cluster_name());
    }
    let http = HttpServer::open(&settings.http).await.map_err(telemetry)?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        source = place.is_none().then(|| settings.flow.source.to_string()),
        target = %settings.flow.target,
        node = place.as_ref().map(|place| &place.me),
        http = %http.place(),
        "relevo begins"
    );
    if shows_token(&settings.http) {
        warn!(
            "the token of the HTTP endpoint travels unencrypted: whoever can read the network can read it; give tls_cert"
        );
    }
    let end = CancellationToken::new();
    let server =
        tokio::spawn(http.serve(board.clone(), HttpOptions::default(), end.clone().cancelled_owned()));
    let (lines, writer) = match args.json {
        true => Lines::start()
            .map(|(lines, writer)| (Some(lines), Some(writer)))
            .map_err(|error| CliError::failed(format!("standard output: {error}")).of_kind(OUTPUT))?,
        false => (None, None),
    };
    let history = tokio::spawn(Arc::clone(&board).keep_history(end.clone().cancelled_owned()));
    let board = Arc::new(FlowBoard::new(board, lines.clone()));
    if place.is_none() {
        board.between(&settings.flow.source, &settings.flow.target);
    }
    let mut helpers = vec![server, history];
    if let Some(lines) = lines {
        helpers.push(tokio::spawn(lines::report(Arc::clone(&board), lines, end.clone())));
    }
    let result = match place {
        None => follow(&settings, &board, &shutdown, &end, &mut helpers).await,
        Some(place) => node::live(place, &board, &shutdown).await,
    };
    match &result {
        Ok(()) => board.set_state(FlowState::Stopped, None),
        Err(error) => {
            board.set_state(FlowState::Failed, Some(with_kind(&error.to_string(), error.kind())));
        }
    }
    end.cancel();
    end_helpers(helpers).await;
    board.no_more_lines();
    if let Some(writer) = writer {
        writer.end().await;
    }
    if result.is_ok() {
        info!("relevo ends");
    }
    result
}

/// Waits for the helpers, which were asked to end.
async fn end_helpers(helpers: Vec<JoinHandle<()>>) {
    let until = Instant::now() + END_LIMIT;
    for mut helper in helpers {
        // One that does not end in time is cut off; none of them holds data.
        if timeout_at(until, &mut helper).await.is_err() {
            helper.abort();
        }
    }
}

/// Begins, then streams.
async fn follow(
    settings: &RunSettings,
    board: &Arc<FlowBoard>,
    shutdown: &CancellationToken,
    end: &CancellationToken,
    helpers: &mut Vec<JoinHandle<()>>,
) -> Result<(), CliError> {
    let Some(started) = begin(settings, board, shutdown).await? else { return Ok(()) };
    let keeper =
        Keeper { info: settings.flow.target.clone(), flow: started.flow.clone(), board: board.clone() };
    helpers.push(tokio::spawn(keeper.run(end.clone())));
    let Started { flow, identity, publications, copy } = started;
    let wrong = publications.wrong();
    let watch = Watch {
        info: settings.flow.source.clone(),
        flow: flow.clone(),
        heartbeat_interval: settings.heartbeat_interval,
        board: board.clone(),
        publications,
    };
    helpers.push(tokio::spawn(watch.run(end.clone())));
    let tables = TableWatch {
        source: settings.flow.source.clone(),
        target: settings.flow.target.clone(),
        flow: flow.clone(),
        selection: settings.tables.selection.clone(),
        board: board.clone(),
    };
    helpers.push(tokio::spawn(tables.run(end.clone())));
    let sequences = SequenceFollower {
        source: settings.flow.source.clone(),
        target: settings.flow.target.clone(),
        flow: flow.clone(),
        interval: settings.heartbeat_interval,
        sequences: Sequences::new(settings.tables.selection.clone()),
        board: board.clone(),
    };
    helpers.push(tokio::spawn(sequences.run(end.clone())));
    let hold = watch::channel(None).0;
    let holding = HoldWatch { info: settings.flow.target.clone(), flow: flow.clone(), hold: hold.clone() };
    helpers.push(tokio::spawn(holding.run(end.clone())));
    let shown = Arc::clone(board);
    let spool = settings.spool_of(&flow);
    if copy.is_none()
        && let Err(error) = spool.sweep()
    {
        warn!("what is in the spool could not be removed: {error}");
    }
    let coming = Coming {
        arrivals: Arrivals::new(move |table| shown.table_joined(table)),
        spool: relevo_arrivals::SharedSpool::new(spool.clone()),
        opened: watch::channel(0).0,
        complete: Arc::new(AtomicBool::new(copy.is_none())),
        looking: Arc::default(),
    };
    board.limits(settings.memory_bytes, spool.clone());
    // Whichever ends takes the other along.
    let end_both = shutdown.child_token();
    let streaming = async {
        let streamed =
            stream::Streamed { flow: flow.clone(), identity, wrong, coming: coming.clone(), spool, hold };
        let result = stream::stream(settings, streamed, board, end_both.clone()).await;
        end_both.cancel();
        result
    };
    let copying = async {
        let mut copy = copy;
        let additions = Additions { settings, board, flow: &flow };
        let result = loop {
            if let Some(rows) = copy.take()
                && let Err(error) = bring(settings, board, &flow, &coming, rows, &end_both).await
            {
                break Err(error);
            }
            tokio::select! {
                () = end_both.cancelled() => break Ok(()),
                () = additions.wait() => {}
            }
            copy = Some(Rows { first: None, added: true });
        };
        end_both.cancel();
        result
    };
    let (streamed, copied) = tokio::join!(streaming, copying);
    copied.and(streamed)
}

/// Brings rows beside the stream until every table follows it.
async fn bring(
    settings: &RunSettings,
    board: &Arc<FlowBoard>,
    flow: &FlowName,
    coming: &Coming,
    rows: Rows,
    end: &CancellationToken,
) -> Result<(), CliError> {
    if !rows.added {
        board.copy_begins();
    }
    let (coming_too, opened) = (coming.clone(), coming.opened.subscribe());
    let copier = Copier { settings, board, flow, coming: coming_too, opened };
    copier.run(rows, end).await?;
    if !end.is_cancelled() {
        coming.complete.store(true, Ordering::Release);
        if let Err(error) = coming.spool.release() {
            warn!("the spool is no longer needed, and could not be removed: {error}");
        }
    }
    Ok(())
}

/// Prepares both sides and copies, with patience for what passes. `None`: stopped meanwhile.
async fn begin(
    settings: &RunSettings,
    board: &Arc<FlowBoard>,
    shutdown: &CancellationToken,
) -> Result<Option<Started>, CliError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let fault = match alive(board, start::begin(settings, board, shutdown)).await {
            Ok(started) => return Ok(Some(started)),
            Err(fault) => fault,
        };
        board.copy_ended();
        board.start_failed(fault.side, fault.kind, &fault.text);
        if shutdown.is_cancelled() {
            warn!(side = %fault.side, kind = fault.kind, "stopped while beginning: {}", fault.text);
            return Ok(None);
        }
        if fault.class != FaultClass::Transient {
            return Err(fault.into());
        }
        error!(side = %fault.side, kind = fault.kind, retry_in = ?pause, "{}", fault.text);
        board.set_state(FlowState::Preparing, Some(with_kind(&fault.text, fault.kind)));
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = alive(board, sleep(pause)) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Awaits `future` while `/healthz` sees that the process is alive.
async fn alive<F: Future>(board: &FlowBoard, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut beats = interval(BEAT_INTERVAL);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            output = &mut future => return output,
            _ = beats.tick() => board.beat(),
        }
    }
}

/// SIGTERM and SIGINT ask the flow to end; it then has 5 seconds and does not need them.
fn listen_for_signals(shutdown: &CancellationToken) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::failed(format!("signals cannot be received: {error}")).of_kind("system")
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(
            signal = name,
            "stopping: what is in hand is finished or rolled back, what is durable is confirmed"
        );
        shutdown.cancel();
    });
    Ok(())
}
