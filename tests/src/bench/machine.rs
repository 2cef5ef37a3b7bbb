//! The machine's clocks: processor time of a server, of everybody, and the load before.

use std::fs;

use crate::Cluster;
use crate::process::{children, cpu_seconds};

/// How many processors there are.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// Processor seconds of a server with its sessions and workers, up to now.
#[must_use]
pub fn server_seconds(cluster: &Cluster) -> f64 {
    let pid = fs::read_to_string(cluster.data().join("postmaster.pid")).expect("postmaster.pid");
    let pid = pid.lines().next().and_then(|pid| pid.trim().parse().ok()).expect("the server's number");
    // Before the children: one that ends in between is missed for once instead of counted twice.
    let (own, ended) = cpu_seconds(pid);
    own + ended + children(pid).into_iter().map(|child| cpu_seconds(child).0).sum::<f64>()
}

/// All that the machine's processors have done: user, nice, system, irq and softirq of `/proc/stat`, in seconds.
#[must_use]
pub fn all_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .map(|line| line.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect())
        .expect("a line");
    [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum::<f64>() / 100.0
}

/// The most memory that a process has had so far, in bytes (`VmHWM` of `/proc/PID/status`).
#[must_use]
pub fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The load average of the last minute.
#[must_use]
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
}
