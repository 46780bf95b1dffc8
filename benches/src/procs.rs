//! CPU time and memory of processes, from /proc.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Clock ticks per second of /proc; fixed by the kernel's interface to programs.
const TICKS: f64 = 100.0;

/// User and system seconds of these processes and of all that came of them, the ended included.
pub(crate) fn cpu_seconds(roots: &[Pid]) -> f64 {
    let ticks: u64 = tree(roots)
        .into_iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok())
        .filter_map(|stat| ticks(&stat))
        .sum();
    ticks as f64 / TICKS
}

/// Resident bytes of these processes and of all that came of them.
pub(crate) fn resident(roots: &[Pid]) -> u64 {
    tree(roots).into_iter().filter_map(rss).sum()
}

/// Kills these processes and all that came of them.
pub(crate) fn kill(roots: &[Pid]) {
    for pid in tree(roots) {
        let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Own time, and that of children that have ended and were waited for.
fn ticks(stat: &str) -> Option<u64> {
    let fields = fields(stat)?;
    let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(field(11)? + field(12)? + field(13)? + field(14)?)
}

/// What follows the name, which stands in parentheses and may hold spaces.
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

fn rss(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// The processes and their descendants.
fn tree(roots: &[Pid]) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = fields(&stat).and_then(|fields| fields.get(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found: Vec<i32> = roots.iter().map(|pid| pid.as_raw()).collect();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children.get(&pid).into_iter().flatten());
        next += 1;
    }
    found
}

/// The id of a process as it is seen in its innermost PID namespace.
pub(crate) fn inner_pid(pid: Pid) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}
