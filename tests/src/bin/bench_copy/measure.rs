//! Processor time: of the servers, of the tool, and of whoever else uses the machine meanwhile.

use std::fs;

use relevo_tests::Cluster;
use relevo_tests::process::{children, cpu_seconds};

use crate::world::World;

/// Processor seconds up to some instant, or between two.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// Of the tool with its children.
    pub tool: f64,
    /// Of the source's server with its sessions.
    pub source: f64,
    /// Of the target's server with its sessions and workers.
    pub target: f64,
    /// Of everybody else on the machine.
    pub others: f64,
}

impl Cpu {
    /// Reads the clocks. `tool`: a process that runs; programs that have ended are counted in any case.
    pub fn now(world: &World, tool: Option<u32>) -> Self {
        let (own, ended) = cpu_seconds(std::process::id());
        let tool = ended + tool.map_or(0.0, |pid| cpu_seconds(pid).0 + cpu_seconds(pid).1);
        let (source, target) = (server(&world.source), server(&world.target));
        Self { tool, source, target, others: machine() - own - tool - source - target }
    }

    /// What has been used since.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            tool: self.tool - earlier.tool,
            source: self.source - earlier.source,
            target: self.target - earlier.target,
            others: (self.others - earlier.others).max(0.0),
        }
    }
}

fn server(cluster: &Cluster) -> f64 {
    let pid = fs::read_to_string(cluster.data().join("postmaster.pid")).expect("postmaster.pid");
    let pid = pid.lines().next().and_then(|pid| pid.trim().parse().ok()).expect("the server's number");
    // Before the children: one that ends in between is missed for once instead of counted twice.
    let (own, ended) = cpu_seconds(pid);
    own + ended + children(pid).into_iter().map(|child| cpu_seconds(child).0).sum::<f64>()
}

/// All that the machine's processors have done: user, nice, system, irq and softirq of `/proc/stat`.
fn machine() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .map(|line| line.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect())
        .expect("a line");
    [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum::<f64>() / 100.0
}

/// The load average of the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
}
