//! Chance, times, and what a process takes of the machine.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;
use odyn_tests::process::until;

use super::load::SOON;

/// Deaths without `ODYN_TEST_CHAOS`: what CI has a minute for.
const DEATHS: usize = 24;

/// Load before the first look at what it costs: caches are filled, and buffers have been large.
pub(super) const WARM_UP: Duration = Duration::from_secs(3);

/// Threads that write logs while the app talks: as many as there were writes at the same time,
/// and they stay as long as there is always one for each in turn. One more for each death is a leak.
const WRITERS: usize = 2;

/// The part of all deaths, in hundredths, that a test here has.
pub(super) fn deaths(part: usize) -> usize {
    let all = match std::env::var("ODYN_TEST_CHAOS") {
        Ok(text) => text.parse().expect("ODYN_TEST_CHAOS is a number"),
        Err(_) => DEATHS,
    };
    (all * part).div_ceil(100)
}

/// Random numbers that come again with the same seed (splitmix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(test: &str) -> Self {
        let seed = match std::env::var("ODYN_TEST_SEED") {
            Ok(text) => text.parse().expect("ODYN_TEST_SEED is a number"),
            Err(_) => now().to_bits(),
        };
        eprintln!("{test}: ODYN_TEST_SEED={seed}");
        Self(seed)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit
    }

    /// Some time under load before the next death.
    pub(super) fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(self.below(400)));
    }
}

/// How long the deaths took the network away: out of the guest, and into it.
#[derive(Default)]
pub(super) struct Times {
    egress: Vec<f64>,
    ingress: Vec<f64>,
}

impl Times {
    pub(super) fn add(&mut self, [egress, ingress]: [f64; 2]) {
        self.egress.push(egress);
        self.ingress.push(ingress);
    }

    pub(super) fn print(self, what: &str) {
        print_times(&format!("recovery after {what}, egress"), self.egress);
        print_times(&format!("recovery after {what}, ingress"), self.ingress);
    }
}

pub(super) fn print_times(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| match times.get(times.len() * part / 100).or(times.last()) {
        Some(time) => time * 1000.0,
        None => f64::NAN,
    };
    let (count, p50, p99, max) = (times.len(), at(50), at(99), at(100));
    println!("{what}: {count} times, p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms");
}

/// Seconds since the epoch, by the clock that the app has too.
pub(super) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64()
}

/// The memory, descriptors and threads of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Footprint {
    pub(super) pss: u64,
    pub(super) files: usize,
    pub(super) threads: usize,
}

impl Footprint {
    /// Measures a process at rest, when all of its connections are there again.
    pub(super) fn at_rest(pid: Pid) -> Self {
        let mut last = Self::of(pid);
        let mut looks = 0;
        until(SOON, "a process to come to rest", || {
            std::thread::sleep(Duration::from_millis(100));
            let now = Self::of(pid);
            looks = if now.files == last.files {
                looks + 1
            } else {
                0
            };
            last = now;
            looks == 10
        });
        last
    }

    /// Measures a process; `pss` is in KiB.
    pub(super) fn of(pid: Pid) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
        let line = text.lines().find(|line| line.starts_with("Pss:"));
        let pss = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        let count =
            |name: &str| fs::read_dir(format!("/proc/{pid}/{name}")).map_or(0, Iterator::count);
        Self {
            pss: pss.expect("a size"),
            files: count("fd"),
            threads: count("task"),
        }
    }
}

/// Asserts that a process at rest takes no more than it did, but for what an allocator keeps.
pub(super) fn back_to(what: &str, pid: Pid, before: Footprint) {
    // What was reset is remembered for half a minute, and an idle thread waits for some seconds.
    let deadline = now() + 60.0;
    loop {
        let after = Footprint::at_rest(pid);
        let is_back = after.files <= before.files
            && after.threads <= before.threads + WRITERS
            && after.pss <= before.pss + before.pss / 4 + 8 * 1024;
        if is_back {
            println!("{what}: before {before:?}, after {after:?}");
            return;
        }
        assert!(
            now() < deadline,
            "{what}: before {before:?}, after {after:?}"
        );
    }
}
