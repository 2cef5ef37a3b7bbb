//! The `relevo` program as a process.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::PASSWORD;
use crate::endpoint::{self, Metrics, Response};
use crate::install::{newest_client_bin, relevo_binary};
use crate::ports::Port;
use crate::process::{clean_environment, signal, wait_for_exit};
use crate::wait::wait_until_some;
use crate::watchdog::Watchdog;

/// How long `relevo run` may take to stop in order: a promise to its users.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long the usual conditions may take. Generous: many tests share few cores.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How `relevo` shall be called. Cloned, it calls the same flow again.
#[derive(Debug, Clone)]
pub struct RelevoBuilder {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    http: Option<Arc<Port>>,
    /// Where it keeps what tables have missed; goes with the last process that was started from here.
    spool: Option<Arc<TempDir>>,
}

impl RelevoBuilder {
    /// `relevo run` between two databases, with an HTTP endpoint on a free port and JSON logs.
    #[must_use]
    pub fn run(source_url: &str, target_url: &str) -> Self {
        let http = Arc::new(Port::reserve());
        let listen = format!("127.0.0.1:{}", http.number());
        Self { arguments: Vec::new(), environment: Vec::new(), http: Some(http), spool: None }
            .spool(&new_spool())
            .args(["run", "--log-format", "json", "--http-listen", &listen])
            .args(["--source", source_url, "--target", target_url])
    }

    /// `relevo run` beside a node of a configuration file, with an HTTP endpoint on a free port and JSON logs.
    #[must_use]
    pub fn run_node(config: &str, node: &str) -> Self {
        let http = Arc::new(Port::reserve());
        let listen = format!("127.0.0.1:{}", http.number());
        Self { arguments: Vec::new(), environment: Vec::new(), http: Some(http), spool: None }
            .args(["run", "--log-format", "json", "--http-listen", &listen])
            .args(["--config", config, "--node", node])
    }

    /// Any other command.
    #[must_use]
    pub fn command(arguments: &[&str]) -> Self {
        Self { arguments: Vec::new(), environment: Vec::new(), http: None, spool: None }.args(arguments)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<'a>(
        mut self,
        arguments: impl IntoIterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Names the flow.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.args(["--name", name])
    }

    /// Lets it keep what tables have missed in this folder, as others do that work for the same flow. A Relevo that is
    /// killed leaves it there.
    #[must_use]
    pub fn spool(mut self, folder: &Arc<TempDir>) -> Self {
        self.spool = Some(Arc::clone(folder));
        self
    }

    /// Lets it choose itself where it keeps that: among the temporary files of `folder`.
    #[must_use]
    pub fn among_temporary_files(mut self, folder: &std::path::Path) -> Self {
        self.spool = None;
        self.env("TMPDIR", &folder.to_string_lossy())
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the process.
    #[must_use]
    pub fn start(self) -> Relevo {
        let mut child = self.spawn();
        let output = Arc::new(Output::default());
        let readers = read_output(&mut child, &output);
        let watchdog = Some(Watchdog::of_process(child.id()));
        Relevo { builder: self, child, output, readers, watchdog, ended: None }
    }

    /// Runs the process to its end; panics when that takes longer than `timeout`.
    #[must_use]
    pub fn finish_within(self, timeout: Duration) -> Finished {
        let mut relevo = self.start();
        let status = relevo.wait_for_exit(timeout);
        Finished { code: status.code(), stdout: relevo.stdout(), stderr: relevo.stderr() }
    }

    /// Runs the process to its end, which may take a minute.
    #[must_use]
    pub fn finish(self) -> Finished {
        self.finish_within(Duration::from_secs(60))
    }

    fn spawn(&self) -> Child {
        let mut command = Command::new(relevo_binary());
        clean_environment(&mut command);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", newest_client_bin().display())).env("RUST_BACKTRACE", "1");
        if let Ok(filter) = std::env::var("RELEVO_LOG") {
            command.env("RELEVO_LOG", filter);
        }
        if let Some(spool) = &self.spool {
            command.env("RELEVO_SPOOL", spool.path());
        }
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("relevo starts")
    }
}

/// A folder for what tables have missed.
pub(crate) fn new_spool() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a temporary folder"))
}

/// How a command ended and what it said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// Panics unless the exit code is this one.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "often the exit code is all that matters")]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// What a process has said so far.
#[derive(Debug, Default)]
struct Output {
    stdout: Mutex<String>,
    stderr: Mutex<String>,
}

/// A `relevo` process. Dropping it kills it; when that happens because a test panicked, the end of what it said is
/// printed. In any case what it said must not contain the password.
#[derive(Debug)]
pub struct Relevo {
    builder: RelevoBuilder,
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    watchdog: Option<Watchdog>,
    ended: Option<ExitStatus>,
}

impl Relevo {
    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The port of the HTTP endpoint.
    #[must_use]
    pub fn http_port(&self) -> u16 {
        self.builder.http.as_ref().expect("relevo run has an endpoint").number()
    }

    /// What it wrote to standard output, over all its restarts.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.output.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it wrote to standard error, where the log goes, over all its restarts.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.output.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the log contains the text.
    pub async fn wait_for_log(&self, text: &str) {
        let seen = async || {
            if self.stderr().contains(text) { Ok(()) } else { Err("nothing of the kind".to_owned()) }
        };
        wait_until_some(&format!("{text:?} in the log"), PATIENCE, seen).await;
    }

    /// Gets a path of the HTTP endpoint; `None` when nobody answers.
    pub async fn get(&self, path: &str) -> Option<Response> {
        endpoint::get(self.http_port(), path).await
    }

    /// `/api/status`; `None` when nobody answers.
    pub async fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.get("/api/status").await?.body).ok()
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        let response = wait_until_some("an answer from /metrics", PATIENCE, async || {
            self.get("/metrics").await.ok_or_else(|| "no answer".to_owned())
        });
        Metrics::parse(&response.await.body)
    }

    /// Waits until `/api/status` satisfies a condition, and yields it. Panics when the process ends meanwhile.
    pub async fn wait_for_status(
        &mut self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let status = self.status().await;
            if let Some(status) = &status
                && condition(status)
            {
                return status.clone();
            }
            if let Some(exit) = self.try_exit() {
                panic!("relevo ended ({exit}) before: {what}");
            }
            let last = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            assert!(tokio::time::Instant::now() < deadline, "not within {timeout:?}: {what}; last: {last}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the flow is in that state (see the contract of `/api/status`).
    pub async fn wait_for_state(&mut self, state: &str) -> Value {
        self.wait_for_status(&format!("state {state}"), PATIENCE, |status| status["state"] == state).await
    }

    /// Waits until the copy is done and changes flow.
    pub async fn wait_until_streaming(&mut self) -> Value {
        self.wait_for_state("streaming").await
    }

    /// How the process ended, if it has.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the state of a child");
            if self.ended.is_some() {
                self.finish_reading();
            }
        }
        self.ended
    }

    /// Waits for the end of the process; panics when it takes longer than `timeout`.
    #[track_caller]
    pub fn wait_for_exit(&mut self, timeout: Duration) -> ExitStatus {
        if self.ended.is_none() {
            self.ended = wait_for_exit(&mut self.child, timeout);
            assert!(self.ended.is_some(), "relevo still runs after {timeout:?}");
            self.finish_reading();
        }
        self.ended.expect("it has ended")
    }

    /// Stops the process with SIGTERM, which must yield exit code 0 within 5 seconds.
    ///
    /// Blocks the thread meanwhile: with a [`crate::Proxy`] in between, which is a task of the test itself, a test needs
    /// `#[tokio::test(flavor = "multi_thread")]`.
    #[track_caller]
    pub fn terminate(&mut self) {
        self.send(Signal::TERM);
        let status = self.wait_for_exit(STOP_LIMIT);
        assert_eq!(status.code(), Some(0), "relevo after SIGTERM: {status}");
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        self.send(Signal::KILL);
        self.wait_for_exit(STOP_LIMIT);
    }

    /// Sends a signal.
    pub fn send(&self, wanted: Signal) {
        if self.ended.is_none() {
            signal(self.pid(), wanted);
        }
    }

    /// Starts the process again with the same arguments; what still runs is killed first.
    pub fn restart(&mut self) {
        self.kill();
        self.child = self.builder.spawn();
        self.readers = read_output(&mut self.child, &self.output);
        self.watchdog = Some(Watchdog::of_process(self.child.id()));
        self.ended = None;
    }

    fn finish_reading(&mut self) {
        self.watchdog = None;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Relevo {
    fn drop(&mut self) {
        signal_and_reap(self);
        if std::thread::panicking() {
            for (name, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
                let lines: Vec<&str> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(60)..];
                eprintln!("--- end of relevo's {name} ---\n{}\n---", tail.join("\n"));
            }
        } else {
            for text in [self.stdout(), self.stderr()] {
                if let Some(line) = text.lines().find(|line| line.contains(PASSWORD)) {
                    panic!("relevo printed the password: {line}");
                }
            }
        }
    }
}

fn signal_and_reap(relevo: &mut Relevo) {
    if relevo.ended.is_none() {
        let _ = relevo.child.kill();
        relevo.ended = relevo.child.wait().ok();
    }
    relevo.finish_reading();
}

/// Collects both outputs on threads of their own, so that a full pipe never blocks the process.
fn read_output(child: &mut Child, output: &Arc<Output>) -> Vec<JoinHandle<()>> {
    fn reader(
        stream: impl Read + Send + 'static,
        output: &Arc<Output>,
        which: fn(&Output) -> &Mutex<String>,
    ) -> JoinHandle<()> {
        let output = Arc::clone(output);
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line);
                which(&output).lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
                line.clear();
            }
        })
    }
    let stdout = child.stdout.take().expect("a pipe");
    let stderr = child.stderr.take().expect("a pipe");
    vec![reader(stdout, output, |all| &all.stdout), reader(stderr, output, |all| &all.stderr)]
}
