//! What the operating system says of this process. Only Linux says it; elsewhere there is nothing.

use std::fs;

/// CPU time, memory and open files.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ProcessUsage {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_files: u64,
}

/// The usage now (`man 5 proc`); `None` where there is no such thing.
pub(crate) fn usage() -> Option<ProcessUsage> {
    Some(ProcessUsage {
        cpu_seconds: cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?)?,
        resident_bytes: resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)?,
        open_files: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
    })
}

#[expect(clippy::cast_precision_loss, reason = "2^52 hundredths of a second are a million years")]
fn cpu_seconds(stat: &str) -> Option<f64> {
    /// `USER_HZ`, which is 100 on every architecture that Linux shows it on.
    const TICKS_PER_SECOND: f64 = 100.0;
    // The command's name may hold anything, parentheses and spaces too: count from its end.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_counted_from_the_end_of_the_name() {
        let stat = "42 (re) le vo) S 1 42 42 0 -1 4194560 1 2 3 4 150 75 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(2.25));
        assert_eq!(resident_bytes("Name:\trelevo\nVmRSS:\t   1024 kB\n"), Some(1_048_576));
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(resident_bytes(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_files() {
        let usage = usage().unwrap();
        assert!(usage.resident_bytes > 0 && usage.open_files > 0, "{usage:?}");
    }
}
