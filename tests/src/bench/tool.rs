//! A program that is run to its end.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{clean_environment, signal};
use rustix::process::Signal;

/// A program with a clean environment.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    clean_environment(&mut command);
    command
}

/// Ends a program that is no longer waited for in order: it may have children, and shared memory to give back.
struct Running(Option<u32>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            signal(pid, Signal::TERM);
        }
    }
}

/// Runs a program to its end; panics with what it said when it fails.
pub async fn run(mut command: Command) {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = tokio::process::Command::from(command).spawn();
    let child = child.unwrap_or_else(|error| panic!("starting {name}: {error}"));
    let mut running = Running(child.id());
    let output = child.wait_with_output().await.unwrap_or_else(|error| panic!("{name}: {error}"));
    running.0 = None;
    assert!(
        output.status.success(),
        "{name}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
