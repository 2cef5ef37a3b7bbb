//! A terminal of its own for a program that draws: tmux without anybody in front of it.
//!
//! What may not enter: what is drawn.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::install::relevo_binary;
use crate::process::{clean_environment, is_running};
use crate::watchdog::Watchdog;

/// What the terminal runs: something to be seen before and after, the program, and how it left the terminal.
const SCRIPT: &str = r#"
echo "[before]"
sh -c 'echo $$ >"$PROGRAM_PID"; exec "$PROGRAM" "$@"' program "$@"
echo "[ended $?]"
case $(stty -a) in *" -icanon"*|*" -echo "*) echo "[left raw]" ;; *) echo "[left as it was]" ;; esac
exec sleep 600
"#;

/// A terminal in which `relevo` runs. Dropping it ends everything in it.
#[derive(Debug)]
pub struct Terminal {
    folder: TempDir,
    _watchdog: Watchdog,
}

impl Terminal {
    /// Runs `relevo` with these arguments and variables in a terminal of that many columns and lines.
    #[must_use]
    pub fn start((columns, lines): (u16, u16), arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Self::tmux(folder.path().join("socket"));
        clean_environment(&mut command);
        command.env("LC_ALL", "C.UTF-8").env("PROGRAM", relevo_binary());
        command.env("PROGRAM_PID", folder.path().join("pid"));
        command.envs(variables.iter().copied());
        command.args(["-f", "/dev/null", "new-session", "-d"]);
        command.args(["-x", &columns.to_string(), "-y", &lines.to_string()]);
        command.args(["sh", "-c", SCRIPT, "script"]).args(arguments);
        assert!(command.status().expect("the tmux program").success(), "tmux starts");
        let server = Self::tmux(folder.path().join("socket"))
            .args(["display-message", "-p", "#{pid}"])
            .output()
            .expect("the tmux program");
        let pid = String::from_utf8_lossy(&server.stdout).trim().parse().expect("the pid of tmux");
        Self { folder, _watchdog: Watchdog::of_process(pid) }
    }

    fn tmux(socket: PathBuf) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(socket);
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Self::tmux(self.folder.path().join("socket"));
        let output = command.args(arguments).output().expect("the tmux program");
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What is to be seen, line by line.
    #[must_use]
    pub fn text(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Types keys, by tmux's names for them: `q`, `Escape`, `C-c`, `PageDown`.
    pub fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Makes the terminal another size.
    pub fn resize(&self, columns: u16, lines: u16) {
        self.run(&["resize-window", "-x", &columns.to_string(), "-y", &lines.to_string()]);
    }

    /// The process of the program.
    #[must_use]
    pub fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.folder.path().join("pid")).expect("the program's pid");
        text.trim().parse().expect("a number")
    }

    /// Whether the program still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        is_running(self.pid())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = Self::tmux(self.folder.path().join("socket"));
        let _ = command.arg("kill-server").stderr(Stdio::null()).status();
    }
}
