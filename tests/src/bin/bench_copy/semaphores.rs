//! System V semaphores that a program leaves behind: pgcopydb does, two sets in each run, until the machine has no more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use relevo_tests::bench::tool;
use relevo_tests::process::is_running;

/// The sets that are there, by their numbers.
pub fn present() -> BTreeSet<u32> {
    // A heading, then a line for each set: key, number, and more (proc_sysvipc(5)). None on another system.
    let text = fs::read_to_string("/proc/sysvipc/sem").unwrap_or_default();
    text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect()
}

/// Removes the sets that were not there before and that no process which still runs has touched last: others on this
/// machine may use semaphores too.
pub fn remove_since(before: &BTreeSet<u32>) {
    for number in present().difference(before).map(u32::to_string) {
        let about = tool::command(Path::new("ipcs")).args(["-s", "-i", &number]).output();
        let Ok(about) = about else { return };
        if is_left_behind(&String::from_utf8_lossy(&about.stdout), is_running) {
            // Whoever is quicker has removed it.
            let _ = tool::command(Path::new("ipcrm")).args(["-s", &number]).output();
        }
    }
}

/// Whether what `ipcs -s -i` says of a set names only processes that have ended.
fn is_left_behind(about: &str, runs: impl Fn(u32) -> bool) -> bool {
    let rows = about.lines().skip_while(|line| !line.trim_start().starts_with("semnum")).skip(1);
    let processes: Vec<u32> = rows.filter_map(|row| row.split_whitespace().nth(4)?.parse().ok()).collect();
    !processes.is_empty() && !processes.into_iter().any(|process| process != 0 && runs(process))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "
Semaphore Array semid=32
uid=0\t gid=0\t cuid=0\t cgid=0
mode=0600, access_perms=0600
nsems = 2
otime = Sun Nov 22 08:44:23 2026
ctime = Sun Nov 22 08:44:20 2026
semnum     value      ncount     zcount     pid
0          1          0          0          4711
1          1          0          0          0
";

    #[test]
    fn a_set_of_a_process_that_runs_is_not_left_behind() {
        assert!(is_left_behind(SET, |_| false));
        assert!(!is_left_behind(SET, |process| process == 4711));
        assert!(!is_left_behind("ipcs: id 32 not found", |_| false));
    }
}
