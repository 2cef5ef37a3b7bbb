//! A real Prometheus with the configuration and the rules that the repository ships; only addresses are put in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::percent_encode;
use crate::endpoint;
use crate::install::{prometheus_bin, repository};
use crate::ports::Port;
use crate::process::clean_environment;
use crate::relevo::PATIENCE;
use crate::wait::wait_until_some;
use crate::watchdog::Watchdog;

/// The folder of the repository with `prometheus.yml`, `rules` and `tests`.
#[must_use]
pub fn shipped() -> PathBuf {
    repository().join("deploy/prometheus")
}

/// Runs `promtool` in the shipped folder; yields whether it was content, and all that it said.
#[must_use]
pub fn promtool(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(prometheus_bin().join("promtool"));
    clean_environment(&mut command);
    let done = command.args(arguments).current_dir(shipped()).output().expect("promtool starts");
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (done.status.success(), said.concat())
}

/// The files of a folder whose names end with `.extension`, in the order of their names.
#[must_use]
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// A Prometheus of its own, on a port of its own, that ends with this value and keeps nothing.
#[derive(Debug)]
pub struct Prometheus {
    port: Port,
    folder: TempDir,
    child: Child,
    _watchdog: Watchdog,
}

impl Prometheus {
    /// Starts it. `targets`: each address of the shipped configuration, and what stands in its place.
    pub async fn start(targets: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut text = fs::read_to_string(shipped().join("prometheus.yml")).expect("prometheus.yml");
        for (address, instead) in targets {
            assert_eq!(text.matches(address).count(), 1, "{address} in prometheus.yml");
            text = text.replace(address, instead);
        }
        fs::write(folder.path().join("prometheus.yml"), text).expect("the configuration is written");
        let rules = folder.path().join("rules");
        fs::create_dir(&rules).expect("a folder for the rules");
        for file in files(&shipped().join("rules"), "yml") {
            fs::copy(&file, rules.join(file.file_name().expect("a name"))).expect("the rules are copied");
        }
        let port = Port::reserve();
        let child = spawn(folder.path(), &port);
        let prometheus = Self { _watchdog: Watchdog::of_process(child.id()), port, folder, child };
        wait_until_some("Prometheus is ready", PATIENCE, async || {
            match endpoint::get(prometheus.port.number(), "/-/ready").await {
                Some(answer) if answer.code == 200 => Ok(()),
                other => Err(format!("{other:?}; it says: {}", prometheus.log())),
            }
        })
        .await;
        prometheus
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// `data` of an answer of the HTTP API (Prometheus manual, *HTTP API*).
    ///
    /// # Errors
    /// What Prometheus has against it, or that it does not answer.
    pub async fn api(&self, path: &str) -> Result<Value, String> {
        let answer = endpoint::get(self.port.number(), path).await.ok_or("no answer")?;
        let answer: Value =
            serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer.to_string()),
        }
    }

    /// The samples of an expression now: each with its labels, and its value.
    ///
    /// # Errors
    /// As [`Prometheus::api`].
    pub async fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>, String> {
        let data = self.api(&format!("/api/v1/query?query={}", percent_encode(expression))).await?;
        let results = data["result"].as_array().ok_or_else(|| format!("not a vector: {data}"))?;
        let sample = |result: &Value| {
            let value = result["value"][1].as_str()?.parse().ok()?;
            Some((result["metric"].clone(), value))
        };
        results.iter().map(|result| sample(result).ok_or_else(|| format!("not a sample: {result}"))).collect()
    }
}

fn spawn(folder: &Path, port: &Port) -> Child {
    let mut command = Command::new(prometheus_bin().join("prometheus"));
    clean_environment(&mut command);
    let log = File::create(folder.join("log")).expect("a log");
    command
        .current_dir(folder)
        .arg("--config.file=prometheus.yml")
        .arg("--storage.tsdb.path=data")
        .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log);
    command.spawn().expect("prometheus starts")
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It has nothing to keep.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(20)..];
            eprintln!("--- end of Prometheus' log ---\n{}\n---", tail.join("\n"));
        }
    }
}
