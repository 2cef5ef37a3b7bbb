//! PostgreSQL's own load generator.

use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::cluster::Cluster;
use crate::install::newest_client_bin;
use crate::process::clean_environment;

/// A `pgbench` that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Pgbench(Child);

/// How a run of pgbench went.
#[derive(Debug, Clone)]
pub struct Run {
    /// Whether it ended without an error; it does not when the server goes away.
    pub success: bool,
    /// Transactions that it knows to be committed.
    pub transactions: u64,
    /// All that it said.
    pub output: String,
}

impl Pgbench {
    /// Creates and fills pgbench's tables: 100,000 accounts for each unit of scale.
    pub async fn init(cluster: &Cluster, database: &str, scale: u32) {
        let run = Self::start(cluster, database, &["-i", "-q", "-s", &scale.to_string()]).finish().await;
        assert!(run.success, "pgbench -i: {}", run.output);
    }

    /// Starts pgbench with these options, such as `["-c", "4", "-T", "10"]`, over the Unix socket.
    #[must_use]
    pub fn start(cluster: &Cluster, database: &str, options: &[&str]) -> Self {
        let mut command = std::process::Command::new(newest_client_bin().join("pgbench"));
        clean_environment(&mut command);
        command.env("PGHOST", cluster.socket_folder()).env("PGPORT", cluster.port().to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Command::from(command).kill_on_drop(true).spawn().expect("pgbench starts"))
    }

    /// Waits for the end.
    pub async fn finish(self) -> Run {
        let output = self.0.wait_with_output().await.expect("the output of pgbench");
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // "number of transactions actually processed: 1234", or "…: 1234/5000" with -t.
        let transactions = text
            .lines()
            .find_map(|line| line.strip_prefix("number of transactions actually processed: "))
            .and_then(|number| number.split('/').next()?.parse().ok())
            .unwrap_or(0);
        Run { success: output.status.success(), transactions, output: text }
    }

    /// Ends it now.
    pub async fn stop(mut self) {
        self.0.kill().await.expect("pgbench can be killed");
    }
}
