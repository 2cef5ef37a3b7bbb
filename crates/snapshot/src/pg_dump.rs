//! Running `pg_dump`: finding one that is new enough, and getting a schema from it without a secret on its
//! command line (manual, *pg_dump*).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use relevo_catalog::TableName;
use relevo_connect::{ConnInfo, RIGHTS_SCHEMA};
use relevo_model::Side;

use crate::SnapshotError;

/// Where packages put the client programs of each major version, with that version between the two parts.
const PACKAGE_PLACES: [(&str, &str, &str); 2] =
    [("/usr/lib/postgresql", "", "bin/pg_dump"), ("/usr", "pgsql-", "bin/pg_dump")];

/// The dump's strings are written for this setting, whatever the server's is; the splitter relies on it.
const OPTIONS: &str = "-c standard_conforming_strings=on";

/// A `pg_dump` that can read the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgDump {
    path: PathBuf,
}

/// A part of the schema (`--section`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// What must be there before the rows.
    PreData,
    /// What comes after them.
    PostData,
}

impl PgDump {
    /// Finds a `pg_dump` of at least the source's major version.
    ///
    /// # Errors
    /// [`SnapshotError::PgDumpMissing`], [`SnapshotError::PgDumpTooOld`].
    pub async fn find(given: Option<&Path>, source_major: i32) -> Result<Self, SnapshotError> {
        let first = given.map_or_else(|| PathBuf::from("pg_dump"), Path::to_owned);
        let found = Self::check(first, given, source_major).await;
        if given.is_some() || found.is_ok() {
            return found;
        }
        for path in packaged(source_major) {
            if let Ok(found) = Self::check(path, None, source_major).await {
                return Ok(found);
            }
        }
        found
    }

    async fn check(path: PathBuf, given: Option<&Path>, source_major: i32) -> Result<Self, SnapshotError> {
        let output = tokio::process::Command::new(&path)
            .arg("--version")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| SnapshotError::PgDumpMissing {
                path: given.map(Path::to_owned),
                source_major,
                source,
            })?;
        let text = String::from_utf8_lossy(&output.stdout);
        match major(&text) {
            Some(major) if major >= source_major => Ok(Self { path }),
            found => {
                let found =
                    found.map_or_else(|| format!("unknown ({:?})", text.trim()), |major| major.to_string());
                Err(SnapshotError::PgDumpTooOld { path, found, source_major })
            }
        }
    }

    /// Dumps a section of the source's schema as the snapshot shows it, or as it is now. `relations`: of these tables and
    /// sequences only, with what belongs to them, but without the types and schemas that they need; none: everything.
    ///
    /// # Errors
    /// [`SnapshotError::PgDumpFailed`] and what [`ConnInfo::libpq_env`] may say.
    pub(crate) async fn dump(
        &self,
        source: &ConnInfo,
        (snapshot, encoding): (Option<&str>, &str),
        relations: &[TableName],
        section: Section,
    ) -> Result<String, SnapshotError> {
        let mut command = Command::new(&self.path);
        let _files = source.libpq_env(Side::Source, &mut command)?;
        let secret = value(&command, "PGPASSWORD");
        let options =
            value(&command, "PGOPTIONS").map_or_else(|| OPTIONS.to_owned(), |own| format!("{own} {OPTIONS}"));
        command
            .env("PGOPTIONS", options)
            .args(["--schema-only", "--format=plain", "--no-password", "--exclude-schema=relevo"])
            .arg(format!("--exclude-schema={RIGHTS_SCHEMA}"))
            .args(["--no-publications", "--no-subscriptions"])
            .arg(format!("--encoding={encoding}"))
            .args(snapshot.map(|snapshot| format!("--snapshot={snapshot}")))
            // In double quotes nothing is a pattern.
            .args(relations.iter().map(|relation| format!("--table={}", relation.quoted())))
            .arg(match section {
                Section::PreData => "--section=pre-data",
                Section::PostData => "--section=post-data",
            })
            .stdin(Stdio::null());
        let output = tokio::process::Command::from(command).kill_on_drop(true).output().await;
        let output = output.map_err(|error| failed("could not be run", &error.to_string(), None))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(failed(&output.status.to_string(), &stderr, secret.as_deref()));
        }
        if !stderr.trim().is_empty() {
            tracing::debug!(stderr = %scrub(&stderr, secret.as_deref()), "pg_dump had something to say");
        }
        String::from_utf8(output.stdout)
            .map_err(|_| failed("done", "the schema has names or texts that are not valid UTF-8", None))
    }
}

fn value(command: &Command, name: &str) -> Option<String> {
    let (_, value) = command.get_envs().find(|(known, _)| *known == OsStr::new(name))?;
    value.map(|value| value.to_string_lossy().into_owned())
}

fn failed(status: &str, stderr: &str, secret: Option<&str>) -> SnapshotError {
    SnapshotError::PgDumpFailed { status: status.to_owned(), stderr: scrub(stderr, secret) }
}

/// On one line, and without the password.
fn scrub(text: &str, secret: Option<&str>) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match secret.filter(|secret| !secret.is_empty()) {
        Some(secret) => line.replace(secret, "***"),
        None => line,
    }
}

/// The major version in `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` or `… 18beta1`.
fn major(text: &str) -> Option<i32> {
    let version = text.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// The programs that packages installed, the least version that will do first.
fn packaged(source_major: i32) -> Vec<PathBuf> {
    let mut found: Vec<(i32, PathBuf)> = Vec::new();
    for (directory, prefix, program) in PACKAGE_PLACES {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let version =
                name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|v| v.parse().ok());
            if let Some(version) = version.filter(|version| *version >= source_major) {
                found.push((version, entry.path().join(program)));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_every_distribution_prints() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("pg_dump (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(major("pg_dump: unknown"), None);
    }

    #[test]
    fn what_pg_dump_says_is_shown_without_the_password() {
        let text = "pg_dump: error:\n  password=hunter2 is wrong\n";
        assert_eq!(scrub(text, Some("hunter2")), "pg_dump: error: password=*** is wrong");
        assert_eq!(scrub("a\nb", Some("")), "a b");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_or_no_pg_dump_is_refused_by_name() {
        let gone = PgDump::find(Some(Path::new("/nowhere/pg_dump")), 15).await.unwrap_err();
        assert!(
            gone.to_string().contains("/nowhere/pg_dump") && gone.to_string().contains("--pg-dump"),
            "{gone}"
        );
        let other = PgDump::find(Some(Path::new("/bin/echo")), 15).await.unwrap_err();
        assert!(matches!(other, SnapshotError::PgDumpTooOld { .. }), "{other}");
    }
}
