//! Following the source: opens both ends for the pipeline, again after every error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relevo_arrivals::{ArrivalError, ArrivalTarget, Arrivals};
use relevo_connect::ConnInfo;
use relevo_model::{ChangeTarget, Fault, FaultClass, FlowName, Side, SourceIdentity, SourceLsn};
use relevo_pipeline::{AheadSessions, Flow, FlowOptions, Opened, Sessions};
use relevo_running::RunningStore;
use relevo_source::{PgSource, SourceMonitor, StartOptions};
use relevo_spool::SharedSpool;
use relevo_target::{
    ApplyOrder, FIRST_STRETCH, PgAheadTarget, PgFlushProbe, PgTarget, TargetError, TargetOptions,
};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::args::SynchronousCommitArg;
use crate::connect;
use crate::error::CliError;
use crate::run::alive::{Server, while_alive};
use crate::run::board::FlowBoard;
use crate::run::copier::reconcile;
use crate::run::fault::StartFault;
use crate::run::publications::{Guarded, StreamError, Wrong, must_be_right};
use crate::settings::RunSettings;

/// Of the memory bound, this share may wait behind the socket.
const SOCKET_SHARE: usize = 4;
/// And this share may be taken by transactions that still run on the source; what is left is the batcher's and the
/// target's.
const RUNNING_SHARE: usize = 8;

/// Opening one end failed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The source.
    #[error(transparent)]
    Source(#[from] StreamError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The tables that are on their way.
    #[error(transparent)]
    Arrivals(#[from] ArrivalError<TargetError>),
    /// What is recorded of the tables could not be looked up.
    #[error("{}", .0.text)]
    Recorded(StartFault),
}

impl OpenError {
    fn fault(&self) -> Result<&dyn Fault, &StartFault> {
        Ok(match self {
            Self::Source(error) => error,
            Self::Target(error) => error,
            Self::Arrivals(error) => error,
            Self::Recorded(fault) => return Err(fault),
        })
    }
}

impl Fault for OpenError {
    fn class(&self) -> FaultClass {
        self.fault().map_or_else(|fault| fault.class, Fault::class)
    }

    fn side(&self) -> Side {
        self.fault().map_or_else(|fault| fault.side, Fault::side)
    }

    fn kind(&self) -> &'static str {
        self.fault().map_or_else(|fault| fault.kind, Fault::kind)
    }
}

/// What is needed to open both ends.
struct Ends {
    source: ConnInfo,
    target: ConnInfo,
    flow: FlowName,
    identity: SourceIdentity,
    synchronous_commit: bool,
    part_bytes: usize,
    buffer_bytes: usize,
    running_bytes: u64,
    spool: SharedSpool,
    receive_timeout: Duration,
    monitor: SourceMonitor,
    previous_pid: Option<i32>,
    wrong: watch::Receiver<Wrong>,
    board: Arc<FlowBoard>,
    coming: Coming,
    hold: watch::Sender<Option<SourceLsn>>,
    /// Both ends are nodes between which the role of the primary moves.
    between_nodes: bool,
}

/// The tables that are on their way, for as long as there are any.
#[derive(Clone)]
pub struct Coming {
    /// Which.
    pub arrivals: Arrivals,
    /// What they miss meanwhile.
    pub spool: relevo_arrivals::SharedSpool,
    /// How often both ends were opened.
    pub opened: watch::Sender<u64>,
    /// There are none, until some are added.
    pub complete: Arc<AtomicBool>,
    /// Held by whoever looks at what is recorded and tells `arrivals` of it.
    pub looking: Arc<tokio::sync::Mutex<()>>,
}

impl Sessions for Ends {
    type Source = Guarded;
    type Target = ArrivalTarget<PgTarget>;
    type Probe = PgFlushProbe;
    type Error = OpenError;

    async fn open(&mut self) -> Result<Opened<Guarded, Self::Target, PgFlushProbe>, OpenError> {
        let options = TargetOptions {
            flow: self.flow.clone(),
            source: self.identity.clone(),
            synchronous_commit: self.synchronous_commit,
            previous_pid: self.previous_pid,
            order: ApplyOrder::Sets,
            first_stretch: FIRST_STRETCH,
            marked: self.between_nodes,
        };
        // A lock may be waited for as long as it takes, but not a server that is silent.
        let server = [Server { info: self.target.clone(), side: Side::Target }];
        let target = while_alive(&server, PgTarget::open(&self.target, options.clone())).await;
        let target = target.map_err(TargetError::from)??;
        self.previous_pid = Some(target.backend_pid());
        self.board.holds_apply_lock(target.backend_pid());
        self.hold.send_replace(target.hold().map(|hold| hold.at));
        // Of the same server: another one of a list of hosts would vouch for WAL that is not the target's.
        let pinned = self.target.pinned(target.host());
        let probe = async {
            let probe = while_alive(&server, PgFlushProbe::open(&pinned, &self.flow)).await;
            Ok::<_, OpenError>(probe.map_err(TargetError::from)??)
        };
        let from = target.progress().applied;
        let ahead = self.ahead(&pinned, &options);
        let led_from = target.led_from().unwrap_or_default();
        let (probe, target) = tokio::try_join!(probe, self.with_arrivals(target))?;
        let options = StartOptions {
            part_bytes: self.part_bytes,
            buffer_bytes: self.buffer_bytes,
            receive_timeout: self.receive_timeout,
            monitor: self.monitor.clone(),
            skip_applied: self.between_nodes.then_some(led_from),
            ahead: true,
            ..StartOptions::new(self.source.clone(), &self.flow, self.identity.clone(), from)
        };
        let running = RunningStore::new(self.spool.clone(), self.running_bytes);
        let source = PgSource::start(options, running).await.map_err(StreamError::from)?;
        // Only now: what forbids to go on at all comes first.
        must_be_right(&self.wrong)?;
        self.coming.opened.send_modify(|times| *times += 1);
        Ok(Opened { source: Guarded::new(source, self.wrong.clone()), target, probe, ahead: Some(ahead) })
    }
}

impl Ends {
    /// The target's second session. What it applies passes no [`ArrivalTarget`], so nothing goes ahead while tables are on
    /// their way.
    fn ahead(&self, pinned: &ConnInfo, options: &TargetOptions) -> AheadSessions {
        let (pinned, options) = (pinned.clone(), options.clone());
        let arrivals = self.coming.arrivals.clone();
        let open = move || {
            let (pinned, options) = (pinned.clone(), options.clone());
            async move { PgAheadTarget::open(&pinned, options).await }
        };
        AheadSessions::new(open, move || arrivals.waiting() == 0)
    }

    /// The target that keeps what it cannot apply yet. Its session holds the flow, so what is recorded of the tables is
    /// nobody else's to change.
    async fn with_arrivals(&self, target: PgTarget) -> Result<ArrivalTarget<PgTarget>, OpenError> {
        let Coming { arrivals, spool, complete, looking, .. } = self.coming.clone();
        if target.has_tables_on_their_way() {
            // Another Relevo had the flow meanwhile, and they were added to that one.
            complete.store(false, Ordering::Release);
        }
        if !complete.load(Ordering::Acquire) {
            let id = spool.id().map_err(ArrivalError::from)?;
            let pinned = self.target.pinned(target.host());
            let session = connect::session(&pinned, Side::Target)
                .await
                .map_err(|error| OpenError::Recorded(error.into()))?;
            // Nobody may expect a table between the look at what is recorded and what follows from it.
            let _looking = looking.lock().await;
            reconcile(&session, &self.flow, &arrivals, &id)
                .await
                .map_err(StartFault::state(Side::Target))
                .map_err(OpenError::Recorded)?;
        }
        Ok(ArrivalTarget::open(target, arrivals, spool, self.part_bytes)?)
    }
}

/// What is streamed.
pub struct Streamed {
    /// The flow.
    pub flow: FlowName,
    /// The source that its positions belong to.
    pub identity: SourceIdentity,
    /// What is wrong with the publications.
    pub wrong: watch::Receiver<Wrong>,
    /// The tables that are on their way.
    pub coming: Coming,
    /// Where what does not fit into memory goes.
    pub spool: SharedSpool,
    /// The position that the flow is held at, as it becomes known.
    pub hold: watch::Sender<Option<SourceLsn>>,
}

/// Streams until `shutdown`.
///
/// # Errors
/// [`CliError::Refused`]: going on would lose or repeat changes. Everything else is retried.
pub async fn stream(
    settings: &RunSettings,
    streamed: Streamed,
    board: &Arc<FlowBoard>,
    shutdown: CancellationToken,
) -> Result<(), CliError> {
    let buffer_bytes = settings.memory_bytes / SOCKET_SHARE;
    let running_bytes = settings.memory_bytes / RUNNING_SHARE;
    let hold = streamed.hold.subscribe();
    let ends = Ends {
        source: settings.flow.source.clone(),
        target: settings.flow.target.clone(),
        flow: streamed.flow,
        identity: streamed.identity,
        synchronous_commit: settings.synchronous_commit == SynchronousCommitArg::On,
        part_bytes: settings.batch_bytes,
        buffer_bytes,
        running_bytes: u64::try_from(running_bytes).unwrap_or(u64::MAX),
        spool: streamed.spool,
        receive_timeout: settings.receive_timeout,
        monitor: board.source_monitor(),
        previous_pid: None,
        wrong: streamed.wrong,
        coming: streamed.coming,
        hold: streamed.hold,
        board: board.clone(),
        between_nodes: settings.between_nodes,
    };
    let options = FlowOptions {
        batch_bytes: settings.batch_bytes,
        memory_bytes: settings.memory_bytes - buffer_bytes - running_bytes,
        hold,
        ..FlowOptions::default()
    };
    let board = Arc::clone(board);
    // A task of its own: what it gives to the target's task it gives on the same thread. Whoever blocks on a future does
    // so on a thread that has to be woken for each event, and has to wake another one.
    let flow = async move { Flow::run(ends, options, board.as_ref(), shutdown).await };
    let ended = match AbortOnDropHandle::new(tokio::spawn(flow)).await.map_err(JoinError::try_into_panic) {
        Ok(ended) => ended,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends, and this with it.
        Err(Err(_)) => std::future::pending().await,
    };
    ended.map_err(|error| CliError::of_class(error.class(), error.text()).of_kind(error.kind()))
}
