//! What a workload is, and how it is done on the source.

use relevo_tests::{Cluster, Pgbench, Version};

use crate::ways::Way;
use crate::world::DATABASE;

/// What a workload is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Transactions.
    Transactions,
    /// Rows: of one transaction.
    Rows,
}

impl Unit {
    /// In a table's heading.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transactions => "tx",
            Self::Rows => "rows",
        }
    }
}

/// Tables and what happens to them. Numbers between two `@` are multiplied with the scale.
#[derive(Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// How many of them.
    pub count: u64,
    /// Statements that make its tables and fill them. They are copied before anything is measured.
    pub setup: &'static [&'static str],
    /// What is measured.
    pub load: Load,
    /// How it is measured.
    pub ways: &'static [Way],
    /// How many times as fast as native it shall be: on 15 (and earlier), on 18 (and from 16 on).
    pub bars: (f64, f64),
}

/// Changes on the source.
#[derive(Debug)]
pub enum Load {
    /// Statements of one session, one after the other; a DO block may commit.
    Statements(&'static [&'static str]),
    /// pgbench's tables and its own transaction.
    Pgbench {
        /// Options that make the tables.
        init: &'static str,
        /// Options of the run.
        run: &'static str,
    },
}

impl Workload {
    /// How many times as fast as native it shall be.
    pub fn bar(&self, version: Version) -> f64 {
        if version <= Version::V15 { self.bars.0 } else { self.bars.1 }
    }

    /// Makes the tables.
    pub async fn set_up(&self, source: &Cluster, scale: f64) {
        if let Load::Pgbench { init, .. } = self.load {
            pgbench(source, &scaled(init, scale)).await;
        }
        let session = source.connect(DATABASE).await;
        for statement in self.setup {
            session.sql(&scaled(statement, scale)).await;
        }
    }

    /// Changes them; yields how much was done, in the workload's unit.
    pub async fn load(&self, source: &Cluster, scale: f64) -> u64 {
        match self.load {
            Load::Statements(statements) => {
                let session = source.connect(DATABASE).await;
                for statement in statements {
                    session.sql(&scaled(statement, scale)).await;
                }
                scaled_number(self.count, scale)
            }
            Load::Pgbench { run, .. } => pgbench(source, &scaled(run, scale)).await,
        }
    }
}

async fn pgbench(source: &Cluster, options: &str) -> u64 {
    let options: Vec<&str> = options.split_whitespace().collect();
    let run = Pgbench::start(source, DATABASE, &options).finish().await;
    assert!(run.success, "pgbench {options:?}: {}", run.output);
    run.transactions
}

/// A text with its numbers between `@` multiplied; never less than 1.
fn scaled(text: &str, scale: f64) -> String {
    let mut result = String::new();
    for (index, piece) in text.split('@').enumerate() {
        if index % 2 == 0 {
            result += piece;
        } else {
            let number = piece.parse().unwrap_or_else(|_| panic!("between two @ stands {piece:?} in {text}"));
            result += &scaled_number(number, scale).to_string();
        }
    }
    result
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a small number, and not negative"
)]
fn scaled_number(number: u64, scale: f64) -> u64 {
    ((number as f64 * scale).round() as u64).max(1)
}
