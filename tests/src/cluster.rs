//! A PostgreSQL server of a test's own: data directory, port, settings, start, stop and crash.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::Config;

use crate::Database;
use crate::certificates::Certificates;
use crate::install::Version;
use crate::ports::Port;
use crate::process::{self, give_to_server_user, server_command, wait_for_exit};
use crate::template::Template;
use crate::watchdog::Watchdog;

/// The password of the superuser `postgres` on every server of the tests; over TCP it is asked for. No output of
/// Relevo may ever contain it.
pub const PASSWORD: &str = "Kennwort-9f3c-never-print-me";

/// How long a server may take to start. Crash recovery is part of it.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an orderly shutdown may take before it is cut short.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Settings of every server. No test pulls the plug of the machine, and what a killed process has written stays in
/// the system's cache; so nothing need be forced to disk.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
wal_level = logical
max_wal_senders = 20
max_replication_slots = 20
max_prepared_transactions = 10
max_connections = 100
shared_buffers = 64MB
max_wal_size = 1GB
jit = off
log_replication_commands = on
log_line_prefix = '%m [%p] %a: '
log_timezone = 'UTC'
lc_messages = 'C'
";

const HBA: &str = "
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
";

/// What a server shall be like.
#[derive(Debug)]
pub struct ClusterBuilder {
    version: Version,
    settings: String,
    hba: String,
    certificates: Option<Certificates>,
}

impl ClusterBuilder {
    /// A server with the usual settings.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self { version, settings: SETTINGS.to_owned(), hba: HBA.to_owned(), certificates: None }
    }

    /// Adds a setting, or another value for one of the usual ones.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        // In postgresql.conf the last line counts.
        writeln!(self.settings, "{name} = '{}'", value.replace('\'', "''")).expect("a String takes all");
        self
    }

    /// Replaces `pg_hba.conf`. Keep a line for the harness itself: `local all all trust`.
    #[must_use]
    pub fn hba(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.hba);
        self
    }

    /// Offers TLS with a certificate for `localhost` and 127.0.0.1, see [`Cluster::certificates`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.certificates = Some(Certificates::create());
        self
    }

    /// Creates and starts the server.
    pub async fn start(self) -> Cluster {
        let folder = tempfile::Builder::new().prefix("relevo-").tempdir().expect("a temporary folder");
        give_to_server_user(folder.path());
        let template = Template::take(self.version);
        let data = folder.path().join("data");
        template.copy_to(&data, PASSWORD);
        let cluster = Cluster {
            version: self.version,
            port: Port::reserve(),
            certificates: self.certificates,
            server: Mutex::new(None),
            watchdog: Some(Watchdog::of_cluster(folder.path())),
            data,
            folder,
            _template: template,
        };
        cluster.write_settings(&self.settings);
        cluster.write_hba(&self.hba);
        cluster.start().await;
        cluster
    }
}

/// A running (or stopped) server. Dropping it stops it and removes everything; when that happens because a test
/// panicked, the end of its log is printed.
#[derive(Debug)]
pub struct Cluster {
    version: Version,
    port: Port,
    certificates: Option<Certificates>,
    server: Mutex<Option<Child>>,
    watchdog: Option<Watchdog>,
    data: PathBuf,
    folder: TempDir,
    _template: Template,
}

impl Cluster {
    /// What the server shall be like.
    #[must_use]
    pub fn builder(version: Version) -> ClusterBuilder {
        ClusterBuilder::new(version)
    }

    /// Creates and starts a server with the usual settings.
    pub async fn create(version: Version) -> Self {
        ClusterBuilder::new(version).start().await
    }

    /// The server's major version.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// The folder of the Unix socket.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The certificates of a server that offers TLS.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("a server that was built with tls()")
    }

    /// The URL of a database, as superuser, over TCP.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", PASSWORD, database)
    }

    /// The URL of a database for a role.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        self.url_through(self.port(), user, password, database)
    }

    /// The URL of a database for a role, at another port of 127.0.0.1: a proxy's.
    #[must_use]
    pub fn url_through(&self, port: u16, user: &str, password: &str, database: &str) -> String {
        let [user, password, database] = [user, password, database].map(percent_encode);
        format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
    }

    /// The URL of a database, as superuser, over the Unix socket, which asks for no password.
    #[must_use]
    pub fn socket_url(&self, database: &str) -> String {
        let folder = percent_encode(&self.socket_folder().to_string_lossy());
        format!("postgres://postgres@{folder}:{}/{}", self.port(), percent_encode(database))
    }

    /// A session as superuser.
    pub async fn connect(&self, database: &str) -> Database {
        self.try_connect(database).await.unwrap_or_else(|error| {
            panic!("connecting to {} (database {database}): {error:?}\n{}", self.version, self.log_tail(20))
        })
    }

    /// A session as superuser, if the server is there.
    ///
    /// # Errors
    /// When it is not, or there is no such database.
    pub async fn try_connect(&self, database: &str) -> Result<Database, tokio_postgres::Error> {
        Database::connect(&self.config(database)).await
    }

    /// How the harness reaches a database; stays right when the server is stopped and started.
    #[must_use]
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(self.socket_folder()).port(self.port()).user("postgres").dbname(database);
        config.application_name("relevo-tests").connect_timeout(Duration::from_secs(10));
        config
    }

    /// Creates an empty database.
    pub async fn create_database(&self, name: &str) {
        let quoted = name.replace('"', "\"\"");
        self.connect("postgres").await.sql(&format!("CREATE DATABASE \"{quoted}\"")).await;
    }

    /// Another server from a copy of this one's data directory, which must be stopped: what a physical standby or a
    /// restored backup starts from. It has a port of its own and is not started; see [`Cluster::write_file`].
    #[must_use]
    pub fn twin(&self) -> Self {
        assert!(self.server().is_none(), "a data directory can only be copied while its server is stopped");
        let folder = tempfile::Builder::new().prefix("relevo-").tempdir().expect("a temporary folder");
        give_to_server_user(folder.path());
        let data = folder.path().join("data");
        copy_data(&self.data, &data);
        let twin = Self {
            version: self.version,
            port: Port::reserve(),
            certificates: None,
            server: Mutex::new(None),
            watchdog: Some(Watchdog::of_cluster(folder.path())),
            data,
            folder,
            _template: Template::take(self.version),
        };
        twin.write_settings("ssl = off\n");
        twin
    }

    /// Keeps the data directory as it is now; the server must be stopped. What is kept goes when the server goes.
    #[must_use]
    pub fn save(&self) -> Saved {
        assert!(self.server().is_none(), "a data directory can only be copied while its server is stopped");
        let copy = (0..).map(|n| self.folder.path().join(format!("saved-{n}"))).find(|path| !path.exists());
        let copy = copy.expect("a free name");
        copy_data(&self.data, &copy);
        Saved(copy)
    }

    /// Puts back what was kept; the server must be stopped.
    pub fn restore(&self, saved: &Saved) {
        assert!(self.server().is_none(), "a data directory can only be replaced while its server is stopped");
        fs::remove_dir_all(&self.data).expect("the data directory is removed");
        copy_data(&saved.0, &self.data);
    }

    /// Writes a file of the data directory, such as `standby.signal`.
    pub fn write_file(&self, name: &str, text: &str) {
        let path = self.data.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        give_to_server_user(&path);
    }

    /// Starts the server, which must be stopped, and waits until it takes connections.
    pub async fn start(&self) {
        assert!(self.server().is_none(), "the server runs already");
        let mut postgres = server_command(&self.version.server_bin().join("postgres"));
        postgres.arg("-D").arg(&self.data).stdin(Stdio::null());
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        postgres.stdout(log.try_clone().expect("a log file")).stderr(log);
        let child = postgres.spawn().unwrap_or_else(|error| panic!("starting {}: {error}", self.version));
        let pid = child.id();
        *self.server() = Some(child);
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.is_ready(pid) {
            let ended = self.server().as_mut().and_then(|child| child.try_wait().expect("a child's state"));
            if let Some(status) = ended {
                *self.server() = None;
                panic!("{} did not start: {status}\n{}", self.version, self.log_tail(30));
            }
            assert!(Instant::now() < deadline, "{} is not ready\n{}", self.version, self.log_tail(30));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the server in order (a "fast" shutdown: sessions are ended).
    pub fn stop(&self) {
        self.end(Signal::INT);
    }

    /// Stops and starts the server.
    pub async fn restart(&self) {
        self.stop();
        self.start().await;
    }

    /// Kills every process of the server at once, as a crash of the machine would (but for its disk cache).
    pub fn crash(&self) {
        let Some(mut child) = self.server().take() else { return };
        // Held first, so that no backend is started behind our back.
        let pids = process::hold_with_children(child.id());
        process::signal(child.id(), Signal::KILL);
        pids.iter().for_each(|pid| process::signal(*pid, Signal::KILL));
        child.wait().expect("the end of a killed child");
        while pids.iter().any(|pid| process::is_running(*pid)) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops every process where it is, so that the server neither answers nor closes anything.
    pub fn freeze(&self) {
        let Some(pid) = self.server().as_ref().map(Child::id) else { return };
        process::hold_with_children(pid).iter().for_each(|child| process::signal(*child, Signal::STOP));
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        let Some(pid) = self.server().as_ref().map(Child::id) else { return };
        process::signal(pid, Signal::CONT);
        process::children(pid).iter().for_each(|child| process::signal(*child, Signal::CONT));
    }

    /// Changes a setting that needs no restart.
    pub async fn reconfigure(&self, name: &str, value: &str) {
        let database = self.connect("postgres").await;
        database.sql(&format!("ALTER SYSTEM SET {name} = '{}'", value.replace('\'', "''"))).await;
        database.sql("SELECT pg_reload_conf()").await;
    }

    /// Replaces `pg_hba.conf` and has it read.
    pub async fn replace_hba(&self, lines: &str) {
        self.write_hba(lines);
        self.connect("postgres").await.sql("SELECT pg_reload_conf()").await;
    }

    /// Restarts the server with another certificate, see [`Certificates::issue_server`].
    pub async fn restart_with_certificate(&self, name: &str) {
        self.stop();
        self.certificates().install_server(name, &self.data);
        self.start().await;
    }

    /// Whether the server was started and not stopped.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.server().is_some()
    }

    /// The whole server log.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        let tail = all[all.len().saturating_sub(lines)..].join("\n");
        format!("--- end of the log of {} ---\n{tail}\n---", self.version)
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `postmaster.pid` says so (its 8th line, see `PostmasterMain`), and is of this very process.
    fn is_ready(&self, pid: u32) -> bool {
        let Ok(text) = fs::read_to_string(self.data.join("postmaster.pid")) else { return false };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first().is_some_and(|first| *first == pid.to_string()) && lines.get(7) == Some(&"ready")
    }

    fn end(&self, signal: Signal) {
        let Some(mut child) = self.server().take() else { return };
        process::signal(child.id(), signal);
        if wait_for_exit(&mut child, STOP_TIMEOUT).is_none() {
            process::signal(child.id(), Signal::QUIT);
            if wait_for_exit(&mut child, STOP_TIMEOUT).is_none() {
                process::signal(child.id(), Signal::KILL);
                let _ = child.wait();
            }
        }
    }

    fn write_settings(&self, settings: &str) {
        let mut text = format!("{settings}port = {}\n", self.port());
        writeln!(text, "unix_socket_directories = '{}'", self.socket_folder().display()).expect("a String");
        if let Some(certificates) = &self.certificates {
            certificates.install_server("server", &self.data);
            text.push_str("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n");
            text.push_str("ssl_ca_file = 'root.crt'\n");
        }
        let path = self.data.join("postgresql.conf");
        let usual = fs::read_to_string(&path).expect("postgresql.conf");
        fs::write(&path, usual + &text).expect("postgresql.conf");
    }

    fn write_hba(&self, lines: &str) {
        fs::write(self.data.join("pg_hba.conf"), lines).expect("pg_hba.conf");
    }

    /// A killed postmaster leaves a little shared memory behind, which only its next start would remove.
    fn remove_shared_memory(&self) {
        let Ok(text) = fs::read_to_string(self.data.join("postmaster.pid")) else { return };
        if let Some(id) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _ = std::process::Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
        }
    }
}

/// A data directory as it once was.
#[derive(Debug)]
pub struct Saved(PathBuf);

fn copy_data(from: &Path, to: &Path) {
    let mut copy = server_command(Path::new("/bin/cp"));
    copy.args(["-R", "-p", "--reflink=auto"]).arg(from).arg(to).stdin(Stdio::null());
    let status = copy.status().expect("cp runs");
    assert!(status.success(), "copy of {}: {status}", from.display());
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail(60));
        }
        self.thaw();
        self.end(Signal::QUIT);
        self.remove_shared_memory();
        self.watchdog = None;
    }
}

/// Percent-encodes what means something in a URL.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes all");
        }
        encoded
    })
}
