//! Processor time: of the servers, of the tool, and of whoever else uses the machine meanwhile.

use relevo_tests::bench::machine::{all_seconds, server_seconds};
use relevo_tests::process::cpu_seconds;

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
        let (source, target) = (server_seconds(&world.source), server_seconds(&world.target));
        Self { tool, source, target, others: all_seconds() - own - tool - source - target }
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
