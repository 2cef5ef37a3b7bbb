//! [`PgSource`]: the port `ChangeSource` over a replication connection that a thread of its own serves.

use std::time::Duration;

use relevo_connect::Stream;
use relevo_model::{
    Ahead, ChangeSource, Fault, FaultClass, Feedback, SourceEvent, SourceLsn, TransactionPart, Xid,
};
use relevo_pgoutput::{Assembler, StreamStore};
use tokio::sync::{mpsc, oneshot, watch};

use crate::SourceError;
use crate::applied::Applied;
use crate::connection::ReplicationConnection;
use crate::monitor::SourceMonitor;
use crate::pace::{GATHER, Pace};
use crate::pump::{CLOSE_LIMIT, Command, Ended, Pump, Settled};
use crate::queue::{Reader, queue};
use crate::start::{StartOptions, begin};

type Done = oneshot::Receiver<Result<Ended, SourceError>>;

/// The changes of one slot.
///
/// A thread of its own serves the connection, so that the server gets its answers whatever keeps the rest of the
/// process busy. Dropping the value cuts the connection; [`ChangeSource::close`] ends it in order.
#[derive(Debug)]
pub struct PgSource {
    reader: Reader,
    feedback: watch::Sender<Feedback>,
    settled: mpsc::UnboundedSender<Settled>,
    command: watch::Sender<Command>,
    done: Done,
    monitor: SourceMonitor,
    failed: Option<(String, FaultClass, &'static str)>,
    applied: Option<Applied>,
}

impl PgSource {
    /// Connects, checks that it is the recorded source and that the flow may go on from the slot, waits for the slot if
    /// it is in use, and begins to stream. `store` holds what comes of transactions that still run.
    ///
    /// # Errors
    /// [`FaultClass::Refused`] when going on would lose or repeat changes; see [`crate::Refusal`].
    pub async fn start<T>(options: StartOptions, store: T) -> Result<Self, SourceError>
    where
        T: StreamStore + Send + 'static,
    {
        let (started, ready) = oneshot::channel();
        let failed = |what: String| SourceError::Thread { what };
        std::thread::Builder::new()
            .name("relevo-source".to_owned())
            .spawn(move || serve(&options, store, started))
            .map_err(|error| failed(format!("could not be started ({error})")))?;
        ready.await.map_err(|_| failed("ended before the stream began".to_owned()))?
    }

    /// What can be read of the connection at any time.
    #[must_use]
    pub fn monitor(&self) -> &SourceMonitor {
        &self.monitor
    }
}

/// The thread: a runtime of its own, the start, then the loop.
fn serve<T: StreamStore>(
    options: &StartOptions,
    store: T,
    mut started: oneshot::Sender<Result<PgSource, SourceError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let what = format!("could not be started ({error})");
            // Nobody waits any more: then nobody needs to know.
            let _ = started.send(Err(SourceError::Thread { what }));
            return;
        }
    };
    runtime.block_on(async {
        let beginning = async {
            let name = &options.application_name;
            let mut connection = ReplicationConnection::connect(&options.info, name).await?;
            let begun = begin(&mut connection, options).await?;
            Ok::<_, SourceError>((connection, begun))
        };
        let result = tokio::select! {
            result = beginning => result,
            () = started.closed() => return,
        };
        match result {
            Ok((connection, begun)) => {
                let (source, pump, command, done) = assemble(connection, options, begun, Some(GATHER), store);
                if started.send(Ok(source)).is_ok() {
                    let _ = done.send(pump.run(command).await);
                }
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    });
}

type Served<S, T> =
    (PgSource, Pump<S, T>, watch::Receiver<Command>, oneshot::Sender<Result<Ended, SourceError>>);

/// The two ends: what the pipeline holds, and the loop that serves the socket.
pub(crate) fn assemble<S, T>(
    connection: ReplicationConnection<S>,
    options: &StartOptions,
    (format, settings): (relevo_pgoutput::Format, crate::pump::PumpSettings),
    gather: Option<Duration>,
    store: T,
) -> Served<S, T>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: StreamStore,
{
    let (writer, reader) = queue(options.buffer_bytes);
    let start = options.start_lsn;
    // That the target has stored the start does not mean that it has flushed it.
    let known = Feedback { received: start, applied: start, durable: SourceLsn::ZERO };
    let (feedback, told) = watch::channel(known);
    let (settled, settlements) = mpsc::unbounded_channel();
    let (command, commanded) = watch::channel(Command::Stream);
    let (finished, done) = oneshot::channel();
    let assembler = Assembler::new(format, options.part_bytes, store);
    let assembler = if options.ahead { assembler.with_ahead() } else { assembler };
    let monitor = options.monitor.clone();
    let applied = options.skip_applied.map(Applied::new);
    let (told, pace) = ((told, settlements), Pace::new(gather));
    let pump = Pump::new(connection.framed, assembler, writer, told, monitor.clone(), settings, pace);
    let source = PgSource { reader, feedback, settled, command, done, monitor, failed: None, applied };
    (source, pump, commanded, finished)
}

impl ChangeSource for PgSource {
    type Error = SourceError;

    async fn next(&mut self) -> Result<SourceEvent, SourceError> {
        if let Some((first, class, kind)) = &self.failed {
            return Err(SourceError::Failed { first: first.clone(), class: *class, kind });
        }
        loop {
            let event = self.reader.next().await;
            if let Err(error) = &event {
                self.failed = Some((error.to_string(), error.class(), error.kind()));
            }
            let Some(applied) = &mut self.applied else { return event };
            match event {
                Ok(SourceEvent::Part(part)) => return Ok(SourceEvent::Part(applied.pass_over(part))),
                Ok(SourceEvent::Ahead(ahead)) => {
                    if !applied.comes_from_elsewhere(&ahead) {
                        return Ok(SourceEvent::Ahead(ahead));
                    }
                    // After its commit it is passed over like any other.
                    if matches!(ahead, Ahead::Part(TransactionPart { first: true, .. })) {
                        self.settle_ahead(ahead.xid(), false);
                    }
                }
                event => return event,
            }
        }
    }

    fn report(&mut self, feedback: Feedback) {
        self.feedback.send_if_modified(|known| {
            let newer = Feedback {
                received: known.received.max(feedback.received),
                applied: known.applied.max(feedback.applied),
                durable: known.durable.max(feedback.durable),
            };
            // The loop is not woken for what it tells only together with this, or when its time has come.
            let worth_telling = newer.durable > known.durable;
            *known = newer;
            worth_telling
        });
    }

    fn settle_ahead(&mut self, xid: Xid, committed: bool) {
        // A loop that has ended has said why, or nobody asks it any more.
        let _ = self.settled.send((xid, committed));
    }

    async fn close(self) -> Result<(), SourceError> {
        if self.failed.is_some() {
            return Ok(());
        }
        // The loop may have ended already; then there is nothing to close.
        let _ = self.command.send(Command::Close);
        match tokio::time::timeout(CLOSE_LIMIT + Duration::from_millis(500), self.done).await {
            Ok(Ok(Ok(Ended::AsTold))) => Ok(()),
            Ok(Ok(Ok(Ended::Failed)) | Err(_)) => self.reader.into_error().map_or(Ok(()), Err),
            Ok(Ok(Err(error))) => Err(error),
            // The connection is cut; the slot keeps what it was not told.
            Err(_) => Ok(()),
        }
    }
}

const _: fn() = || {
    fn sendable<T: Send + 'static>() {}
    sendable::<PgSource>();
    sendable::<Pump<Stream, relevo_pgoutput::MemoryStore>>();
};
