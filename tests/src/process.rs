//! Operating system users, signals and process trees, as far as the tests need them.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// The user and group that servers run as when the tests run as root, which servers refuse to do.
#[derive(Debug, Clone, Copy)]
pub struct ServerUser {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// `None` for an ordinary user, who runs servers as himself; else `postgres` or, where there is none, `nobody`.
#[must_use]
pub fn server_user() -> Option<ServerUser> {
    static USER: OnceLock<Option<ServerUser>> = OnceLock::new();
    *USER.get_or_init(|| {
        geteuid().is_root().then(|| {
            let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
            ["postgres", "nobody"]
                .into_iter()
                .find_map(|wanted| find_user(&users, wanted))
                .expect("a user postgres or nobody to run servers as")
        })
    })
}

fn find_user(users: &str, wanted: &str) -> Option<ServerUser> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == wanted).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(ServerUser { uid, gid })
    })
}

/// A command that runs as the servers' user, in a process group of its own (so that Ctrl-C reaches the test, which
/// then ends the servers in order), with nothing of the environment that libpq or a server would listen to.
#[must_use]
pub fn server_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    clean_environment(&mut command);
    command.process_group(0).current_dir("/");
    if let Some(user) = server_user() {
        // As root this also drops the supplementary groups.
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// Leaves of the environment only what has no say in PostgreSQL's or Relevo's settings.
pub fn clean_environment(command: &mut Command) {
    let kept = ["HOME", "LD_LIBRARY_PATH", "PATH", "TMPDIR"];
    command.env_clear();
    command.envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
}

/// Gives a file or folder to the servers' user.
pub fn give_to_server_user(path: &Path) {
    if let Some(user) = server_user() {
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
            .unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
    }
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // ESRCH is all that can happen to a process of our own.
        let _ = kill_process(pid, signal);
    }
}

/// The children of a process, by `/proc`.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

/// The processes that name a folder in their command lines, by `/proc`. Watchdogs, which name what they watch, do not count.
#[must_use]
pub fn processes_naming(folder: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let names = |pid: u32| {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let line = String::from_utf8_lossy(&line);
        line.contains(&*folder.to_string_lossy()) && !line.contains("relevo-test-watchdog")
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| names(*pid))
        .collect()
}

/// Stops a process where it is (SIGSTOP) and yields its children: it has no more than these, and gets none.
#[must_use]
pub fn hold_with_children(parent: u32) -> Vec<u32> {
    signal(parent, Signal::STOP);
    // The signal takes effect when the process is next scheduled.
    while is_running(parent) && stat_field(parent, 0).is_some_and(|state| state != "T") {
        std::thread::sleep(Duration::from_millis(1));
    }
    children(parent)
}

/// Whether a process runs (a zombie does not).
#[must_use]
pub fn is_running(pid: u32) -> bool {
    stat_field(pid, 0).is_some_and(|state| state != "Z" && state != "X")
}

/// The processor time of a process, in seconds: its own, and that of its ended children and theirs (`proc(5)`).
#[must_use]
pub fn cpu_seconds(pid: u32) -> (f64, f64) {
    // USER_HZ, in which the kernel counts for programs, is 100 on every architecture that the tests run on.
    let field =
        |index| stat_field(pid, index).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / 100.0;
    (field(11) + field(12), field(13) + field(14))
}

fn parent_of(pid: u32) -> Option<u32> {
    stat_field(pid, 1)?.parse().ok()
}

/// A field of `/proc/PID/stat` behind the program's name, which may hold spaces and brackets itself.
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(index).map(str::to_owned)
}

/// Waits for a child's end, at most `timeout`.
pub fn wait_for_exit(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().expect("the state of a child") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
