//! What ends servers and processes when the test process itself is killed and no destructor runs.
//!
//! A watchdog is a small shell that reads from a pipe which only the test process holds open. When that end closes
//! without the watchdog having been dismissed first, its master is dead, and it cleans up. It is in a process group
//! of its own, since a test runner kills the whole group of a test that takes too long.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Ends a server: SIGQUIT, SIGKILL after 5 s, and its folder is removed. $1: the cluster's folder.
const END_CLUSTER: &str = r#"
while read -r _; do :; done
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
    kill -QUIT "$pid" 2>/dev/null
    tries=50
    while kill -0 "$pid" 2>/dev/null && [ $tries -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
    kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
"#;

/// Ends a process. $1: its number.
const END_PROCESS: &str = r#"while read -r _; do :; done; kill -KILL "$1" 2>/dev/null"#;

/// Kills every process that names a folder in its command line, as all of a browser do, and removes the folder. $1: the
/// folder.
const END_BROWSER: &str = r#"
while read -r _; do :; done
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$pid" = $$ ] || ! tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -qF -- "$1" || kill -KILL "$pid" 2>/dev/null
done
rm -rf "$1"
"#;

/// Cleans up when this process dies; does nothing when it is dropped.
#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// Ends the server that runs in `folder` and removes the folder.
    #[must_use]
    pub fn of_cluster(folder: &Path) -> Self {
        Self::start(END_CLUSTER, &folder.to_string_lossy())
    }

    /// Kills the process.
    #[must_use]
    pub fn of_process(pid: u32) -> Self {
        Self::start(END_PROCESS, &pid.to_string())
    }

    /// Kills a browser whose processes all name `folder`, and removes the folder.
    #[must_use]
    pub fn of_browser(folder: &Path) -> Self {
        Self::start(END_BROWSER, &folder.to_string_lossy())
    }

    fn start(script: &str, argument: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "relevo-test-watchdog", argument]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Self(command.spawn().expect("/bin/sh starts"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Killed before its pipe closes, it never wakes.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
