//! Who used the processors: the tool, the walsender that serves it, the sessions that apply, and everybody else.

use relevo_tests::bench::machine::{all_seconds, server_seconds};
use relevo_tests::process::cpu_seconds;

use crate::world::Servers;

/// Processor seconds up to some instant, or between two.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// Of Relevo.
    pub tool: f64,
    /// Of the walsender.
    pub walsender: f64,
    /// Of the target's server with all its sessions and workers.
    pub target: f64,
    /// Of everybody else on the machine.
    pub others: f64,
}

impl Cpu {
    /// Reads the clocks. `tool`: Relevo, if it is that what is measured.
    pub fn now(servers: &Servers, tool: Option<u32>, walsender: u32) -> Self {
        let tool = tool.map_or(0.0, |pid| cpu_seconds(pid).0);
        let walsender = cpu_seconds(walsender).0;
        let target = server_seconds(&servers.target);
        // The benchmark's own part too: its looking for the marker is nothing that a target must bear.
        let others = all_seconds() - tool - walsender - target;
        Self { tool, walsender, target, others }
    }

    /// What has been used since.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            tool: self.tool - earlier.tool,
            walsender: self.walsender - earlier.walsender,
            target: self.target - earlier.target,
            others: (self.others - earlier.others).max(0.0),
        }
    }
}
