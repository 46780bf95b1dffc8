//! CPU time and memory of the two halves, from /proc.

use std::fs;

/// Clock ticks per second of /proc; fixed by the kernel's interface to programs.
const TICKS: f64 = 100.0;

/// User and system time of both halves so far, in seconds, with the children that have ended.
pub(crate) fn cpu_seconds() -> f64 {
    let ticks: u64 = processes("odyn-net")
        .chain(processes("enclaver-outer"))
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok())
        .filter_map(|stat| ticks(&stat))
        .sum();
    ticks as f64 / TICKS
}

/// Resident bytes of odyn-net and of enclaver-outer.
pub(crate) fn resident() -> (u64, u64) {
    let sum = |name| processes(name).filter_map(rss).sum();
    (sum("odyn-net"), sum("enclaver-outer"))
}

fn ticks(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold spaces: fields are counted behind it.
    let rest = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn rss(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn processes(name: &'static str) -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(move |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        })
}
