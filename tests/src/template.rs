//! Data directories to copy: `initdb` takes a second, a copy of what it made a fraction of that.
//!
//! A copy has its original's system identifier, and two ends of a flow with the same one would be a case of its
//! own. So there are several originals of each version, and clusters that live at the same time take different ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::install::{self, Version};
use crate::process::{give_to_server_user, server_command};

static TAKEN: Mutex<BTreeSet<(Version, u32)>> = Mutex::new(BTreeSet::new());

/// The right to copy one original; nobody else in this process has it meanwhile.
#[derive(Debug)]
pub struct Template {
    version: Version,
    index: u32,
}

impl Template {
    /// Takes the first original of that version that no other cluster of this process was copied from.
    pub fn take(version: Version) -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let index = (0..).find(|index| taken.insert((version, *index))).expect("a number that is not taken");
        Self { version, index }
    }

    /// Makes `data` a new data directory with this superuser password. Makes the original first when need be.
    pub fn copy_to(&self, data: &Path, password: &str) {
        let original = self.original(password);
        let mut copy = server_command(Path::new("/bin/cp"));
        copy.args(["-R", "-p", "--reflink=auto"]).arg(&original).arg(data);
        run(copy, "copy of a data directory");
    }

    fn original(&self, password: &str) -> PathBuf {
        let user = rustix::process::geteuid().as_raw();
        let folder = install::cache().join(format!("templates-{user}"));
        let name = format!("{}-{}", self.version.full(), self.index);
        let original = folder.join(&name);
        if !original.exists() {
            fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            give_to_server_user(&folder);
            // Made under a name of its own and moved, since other test processes do the same at the same time.
            let made =
                tempfile::Builder::new().prefix(".new.").tempdir_in(&folder).expect("a temporary folder");
            give_to_server_user(made.path());
            let data = made.path().join("data");
            self.initdb(made.path(), &data, password);
            if let Err(error) = fs::rename(&data, &original) {
                assert!(original.exists(), "rename to {}: {error}", original.display());
            }
        }
        original
    }

    fn initdb(&self, folder: &Path, data: &Path, password: &str) {
        let password_file = folder.join("password");
        fs::write(&password_file, password).expect("a password file");
        give_to_server_user(&password_file);
        let mut initdb = server_command(&self.version.server_bin().join("initdb"));
        initdb.args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"]);
        initdb.args(["--encoding=UTF8", "--locale=C.UTF-8"]);
        initdb.arg("--pwfile").arg(&password_file).arg("--pgdata").arg(data);
        run(initdb, "initdb");
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&(self.version, self.index));
    }
}

fn run(mut command: Command, what: &str) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
