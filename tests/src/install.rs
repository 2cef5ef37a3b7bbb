//! Where the programs are: servers and client tools of each version, and the `relevo` binary.
//!
//! `tests/tools/fetch.sh` puts them into `.cache/postgres` and writes the manifest that is read here.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

/// A major version of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u32);

impl Version {
    /// PostgreSQL 14.
    pub const V14: Self = Self(14);
    /// PostgreSQL 15.
    pub const V15: Self = Self(15);
    /// PostgreSQL 16.
    pub const V16: Self = Self(16);
    /// PostgreSQL 17.
    pub const V17: Self = Self(17);
    /// PostgreSQL 18.
    pub const V18: Self = Self(18);
    /// Every version that Relevo supports.
    pub const ALL: [Self; 5] = [Self::V14, Self::V15, Self::V16, Self::V17, Self::V18];

    /// The number.
    #[must_use]
    pub const fn major(self) -> u32 {
        self.0
    }

    /// The folder of `postgres` and `initdb`.
    #[must_use]
    pub fn server_bin(self) -> PathBuf {
        let folder = cache().join(self.0.to_string()).join("bin");
        // The real folder: a server that is reached through a symlink looks for its files beside the symlink.
        fs::canonicalize(&folder).unwrap_or_else(|error| missing(&folder, &error))
    }

    /// The full version of the server, such as `15.18`.
    #[must_use]
    pub fn full(self) -> String {
        self.manifest()["version"].as_str().expect("a version in the manifest").to_owned()
    }

    /// Whether the server has an extension's files.
    #[must_use]
    pub fn has_extension(self, name: &str) -> bool {
        let extensions = self.manifest()["extensions"].as_array().expect("extensions in the manifest");
        extensions.iter().any(|extension| extension == name)
    }

    fn manifest(self) -> &'static Value {
        &manifest()["servers"][self.0.to_string()]
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}", self.0)
    }
}

/// The folder of `pg_dump`, `psql` and `pgbench` of a major version: 16, 17 or 18 (newer ones speak to older
/// servers).
#[must_use]
pub fn client_bin(major: u32) -> PathBuf {
    let folder = cache().join(format!("client-{major}")).join("bin");
    fs::canonicalize(&folder).unwrap_or_else(|error| missing(&folder, &error))
}

/// A `pg_dump` that speaks TLS and can read that server; `None` when none of the client tools can. Some packages of
/// them are built without TLS.
#[must_use]
pub fn tls_pg_dump(server: Version) -> Option<PathBuf> {
    let speaks_tls = |bin: &Path| {
        let mut psql = std::process::Command::new(bin.join("psql"));
        let nobody = ["-h", "127.0.0.1", "-p", "1", "-c", ""];
        let output = psql.args(nobody).env("PGSSLMODE", "require").output().expect("psql runs");
        !String::from_utf8_lossy(&output.stderr).contains("not compiled in")
    };
    let newest_first = [18, 17, 16].into_iter().filter(|major| *major >= server.major());
    newest_first.map(client_bin).find(|bin| speaks_tls(bin)).map(|bin| bin.join("pg_dump"))
}

/// The folder of `prometheus` and `promtool`.
#[must_use]
pub fn prometheus_bin() -> PathBuf {
    let folder = repository().join(".cache/prometheus/bin");
    fs::canonicalize(&folder).unwrap_or_else(|error| missing(&folder, &error))
}

/// The newest client tools.
#[must_use]
pub fn newest_client_bin() -> PathBuf {
    client_bin(18)
}

/// The top of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository")
}

/// `.cache/postgres`, or where it points to: as root the repository may lie where the servers' user may not enter.
#[must_use]
pub fn cache() -> PathBuf {
    let folder = repository().join(".cache/postgres");
    fs::canonicalize(&folder).unwrap_or_else(|error| missing(&folder, &error))
}

/// The `relevo` binary beside the running test: same target directory, same profile.
#[must_use]
pub fn relevo_binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            let here = std::env::current_exe().expect("the path of the running test");
            let folder = here.parent().expect("the test lies in a folder");
            let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
            let binary = profile.join("relevo");
            let Ok(built) = fs::metadata(&binary).and_then(|found| found.modified()) else {
                panic!("{} does not exist: run cargo build --workspace first", binary.display());
            };
            if newest_source().is_some_and(|changed| changed > built) {
                eprintln!(
                    "note: {} is older than its sources: run cargo build --workspace",
                    binary.display()
                );
            }
            binary
        })
        .clone()
}

/// When a source file of the product changed last.
fn newest_source() -> Option<std::time::SystemTime> {
    let mut newest = None;
    let mut folders: Vec<PathBuf> = fs::read_dir(repository().join("crates"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("src")))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.filter_map(Result::ok) {
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                folders.push(entry.path());
            } else {
                newest = newest.max(found.modified().ok());
            }
        }
    }
    newest
}

fn manifest() -> &'static Value {
    static MANIFEST: OnceLock<Value> = OnceLock::new();
    MANIFEST.get_or_init(|| {
        let path = cache().join("manifest.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| missing(&path, &error));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}

fn missing(path: &Path, error: &std::io::Error) -> ! {
    panic!("{}: {error}; run tests/tools/fetch.sh (make fetch) first", path.display())
}
