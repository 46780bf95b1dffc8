//! Either half dies, at any moment, under load.
//!
//! `ODYN_TEST_CHAOS` says how many deaths there shall be over all tests here (200 at night), and
//! `ODYN_TEST_SEED` repeats a run. Each prints how long the link was away for the program: from
//! the death to the first new flow that carries a byte.

mod load;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use odyn_tests::cut::Wire;
use odyn_tests::guest::Running;
use odyn_tests::process::{self, run, until};
use odyn_tests::{AuditRecord, Namespace, World};

use self::load::{Event, Footprint, Load, POLICY, SOON, now};
use crate::start;

/// Deaths without `ODYN_TEST_CHAOS`: what CI has a minute for.
const DEATHS: usize = 24;

/// Load before the first look at what it costs: caches are filled, and buffers have been large.
const WARM_UP: Duration = Duration::from_secs(3);

/// The part of all deaths, in hundredths, that a test here has.
fn deaths(part: usize) -> usize {
    let all = match std::env::var("ODYN_TEST_CHAOS") {
        Ok(text) => text.parse().expect("ODYN_TEST_CHAOS is a number"),
        Err(_) => DEATHS,
    };
    (all * part).div_ceil(100)
}

/// Random numbers that come again with the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn new(test: &str) -> Self {
        let seed = match std::env::var("ODYN_TEST_SEED") {
            Ok(text) => text.parse().expect("ODYN_TEST_SEED is a number"),
            Err(_) => now().to_bits(),
        };
        eprintln!("{test}: ODYN_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit
    }

    /// Some time under load before the next death.
    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(self.below(400)));
    }
}

/// How long the deaths took the network away.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn print(mut self, what: &str) {
        if self.0.is_empty() {
            return;
        }
        self.0.sort_by(f64::total_cmp);
        let at = |part: usize| self.0[(self.0.len() * part / 100).min(self.0.len() - 1)] * 1000.0;
        let (count, p50, p99, max) = (self.0.len(), at(50), at(99), at(100));
        println!("{what}: {count} times, p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms");
    }
}

fn world() -> odyn_tests::world::Builder {
    World::builder()
        .policy(POLICY)
        .dns("address=/dyn.shop.example/203.0.113.20")
}

/// That each flow of a run that ended in peace has exactly one record.
fn one_record_each(load: &Load, records: &[AuditRecord]) {
    let ids: HashSet<u64> = records.iter().map(|record| record.flow).collect();
    assert_eq!(ids.len(), records.len(), "a flow has two records");
    let last = ids.iter().max().copied().unwrap_or(0);
    let missing: Vec<u64> = (1..=last).filter(|id| !ids.contains(id)).collect();
    assert!(missing.is_empty(), "flows without a record: {missing:?}");
    let tcp = records.iter().filter(|record| record.protocol == "tcp");
    assert_eq!(
        load.tcp().count(),
        tcp.count(),
        "the program counted others"
    );
    let cut: Vec<_> = records.iter().filter(|r| r.end == "cut").collect();
    assert!(cut.is_empty(), "{cut:?}");
}

/// That nothing hung, and every question had an answer.
fn nothing_hung(load: &Load) {
    let hung: Vec<&Event> = load
        .seen
        .iter()
        .filter(|event| matches!(event.outcome.as_str(), "hung" | "timeout"))
        .collect();
    assert!(hung.is_empty(), "{hung:?}");
}

/// How long flows that were open at these moments still took to end.
fn ends_after(load: &Load, moments: &[f64]) -> Times {
    let mut times = Times::default();
    for moment in moments {
        let ends = load
            .tcp()
            .filter(|event| event.began < *moment && event.ended > *moment)
            .map(|event| event.ended - moment);
        let last = ends.fold(0.0, f64::max);
        assert!(last < SOON.as_secs_f64(), "a flow ended after {last} s");
        times.0.push(last);
    }
    times
}

/// That a process at rest comes to take no more than it did, but for what an allocator keeps.
fn back_to(what: &str, pid: Pid, before: Footprint) {
    // What was reset is remembered for half a minute, and an idle thread waits for some seconds.
    let deadline = now() + 60.0;
    loop {
        let after = Footprint::at_rest(pid);
        let is_back = after.files <= before.files
            && after.threads <= before.threads
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

fn outer_pid(world: &mut World) -> Pid {
    world.outer().pid().expect("it runs")
}

fn pid(running: &Running) -> Pid {
    running.process.pid().expect("it runs")
}

#[test]
fn the_wire_may_be_cut_at_any_moment() {
    let mut world = start!(world());
    if world.direct() {
        return;
    }
    let mut random = Random::new("wire");
    let path = world.dir().join("wire.sock");
    let wire = Wire::new(&path, &world.link_path());
    let mut load = Load::new(&world);
    let guest = load
        .guest()
        .flag("--link")
        .flag(&format!("unix://{}", path.display()));
    let running = guest.spawn(&world);
    load.works();

    let rest = |load: &Load| {
        load.quiet();
        // UDP flows end with the link; else they would for minutes wait for more.
        for connection in wire.connections() {
            wire.cut(connection);
        }
    };
    let outer = outer_pid(&mut world);
    let both = |running: &Running| [pid(running), outer].map(Footprint::at_rest);
    let mut before = None;
    let (mut times, mut whole) = (Times::default(), Vec::new());
    let all = deaths(40);
    for death in 0..all {
        if death == all / 4 {
            std::thread::sleep(WARM_UP);
            rest(&load);
            before = Some(both(&running));
            load.set("load");
            load.works();
        }
        random.pause();
        let connections = wire.connections();
        match random.below(4) {
            0 => {
                // The next handshakes do not get far either.
                let bytes: Vec<usize> = (0..random.below(8))
                    .map(|_| random.below(300) as usize)
                    .collect();
                wire.doom(&bytes);
            }
            1 => {
                // In the middle of whatever they do.
                let some = random.below(1 + connections.len() as u64) as usize;
                let moment = now();
                for connection in &connections[..some] {
                    wire.cut(*connection);
                }
                times.0.push(load.recovery(moment, now()));
                continue;
            }
            _ => {}
        }
        let moment = now();
        for connection in connections {
            wire.cut(connection);
        }
        whole.push(moment);
        if random.below(8) > 0 {
            times.0.push(load.recovery(moment, now()));
        }
    }
    load.works();
    rest(&load);
    let [odyn, host] = before.expect("there were deaths");
    back_to("odyn-net", pid(&running), odyn);
    back_to("enclaver-outer", outer, host);
    load.set("stop");
    let out = running.finish();
    out.ok();
    load.look();
    times.print("recovery after a cut");
    ends_after(&load, &whole).print("end of the flows after a cut");
    nothing_hung(&load);
    one_record_each(&load, &out.audit);
}

#[test]
fn the_host_half_may_die_at_any_moment() {
    let mut world = start!(world());
    if world.direct() {
        return;
    }
    let mut random = Random::new("host half");
    let mut load = Load::new(&world);
    let running = load.guest().spawn(&world);
    load.works();
    let mut before = None;
    let (mut times, mut moments) = (Times::default(), Vec::new());
    let all = deaths(30);
    for death in 0..all {
        if death == all / 4 {
            std::thread::sleep(WARM_UP);
            load.quiet();
            world.outer().kill();
            world.start_outer();
            before = Some(Footprint::at_rest(pid(&running)));
            load.set("load");
            load.works();
        }
        random.pause();
        let moment = now();
        world.outer().kill();
        let dead = now();
        if random.below(4) == 0 {
            // Away for a while.
            random.pause();
        }
        world.start_outer();
        moments.push(moment);
        if random.below(8) > 0 {
            times.0.push(load.recovery(moment, dead));
        }
    }
    load.works();
    load.quiet();
    world.outer().kill();
    world.start_outer();
    back_to(
        "odyn-net",
        pid(&running),
        before.expect("there were deaths"),
    );
    load.set("stop");
    let out = running.finish();
    out.ok();
    load.look();
    times.print("recovery after the death of enclaver-outer");
    ends_after(&load, &moments).print("end of the flows after it");
    nothing_hung(&load);
    one_record_each(&load, &out.audit);
}

#[test]
fn odyn_net_may_die_at_any_moment_alone_or_with_the_host_half() {
    let mut world = start!(world());
    if world.direct() {
        return;
    }
    let mut random = Random::new("odyn-net");
    let namespace = world.guest_namespace();
    let mut load = Load::new(&world);
    let guest = load.guest().inside(&namespace);
    let mut running = guest.spawn(&world);
    load.works();
    let before = configuration(&namespace);

    let (alone, together) = (deaths(20), deaths(10));
    let (mut times, mut times_both) = (Times::default(), Times::default());
    let mut began = 0.0;
    let mut lost = Vec::new();
    for death in 0..alone + together {
        random.pause();
        records_arrive(&mut load, began, running.audit_path());
        let odyn = pid(&running);
        let program = process::children(odyn).pop().expect("it has a program");
        let moment = now();
        running.process.signal(Signal::SIGKILL);
        until(SOON, "odyn-net to end", || process::is_gone(odyn));
        let dead = now();
        let is_both = death % 3 == 2;
        if is_both {
            world.outer().kill();
            world.start_outer();
        }
        let records = running.audit_path().to_owned();
        let before = std::mem::replace(&mut running, guest.spawn(&world));
        let recovery = load.recovery(moment, dead);
        if is_both { &mut times_both } else { &mut times }
            .0
            .push(recovery);
        until(SOON, "the program to end with odyn-net", || {
            process::is_gone(program)
        });
        assert_eq!(before.into_code(), 137);
        let ended = load
            .tcp()
            .filter(|event| event.began > began && event.ended < moment)
            .count();
        lost.push(ended.saturating_sub(tcp_records(&records)));
        began = moment;
    }
    let after = configuration(&namespace);
    assert_eq!(before, after, "something of the dead is left");
    println!("flows that had ended, without their record: {lost:?}");
    load.set("stop");
    running.finish().ok();
    times.print("recovery after the death of odyn-net");
    times_both.print("recovery after the death of both");
}

/// Waits until every flow that the program saw end in this run has its record: nobody flushes.
fn records_arrive(load: &mut Load, began: f64, file: &Path) {
    load.look();
    let ended = load.tcp().filter(|event| event.began > began).count();
    until(SOON, "the records of flows that ended", || {
        tcp_records(file) >= ended
    });
}

/// The whole records of TCP flows in a file, each there once.
fn tcp_records(file: &Path) -> usize {
    let text = fs::read_to_string(file).expect("an audit file");
    // The last line may be torn: nobody was left to finish it.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut ids = HashSet::new();
    let mut tcp = 0;
    for line in whole.lines() {
        let record: AuditRecord = serde_json::from_str(line).expect("a record");
        assert!(ids.insert(record.flow), "twice: {line}");
        tcp += usize::from(record.protocol == "tcp");
    }
    tcp
}

/// All that odyn-net sets up in a namespace, without the ports, which differ from run to run.
fn configuration(namespace: &Namespace) -> String {
    let mut all = String::new();
    for words in [
        &["nft", "list", "ruleset"][..],
        &["ip", "rule"],
        &["ip", "-6", "rule"],
        &["ip", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
        &["ip", "address"],
        &["ip", "link"],
    ] {
        let mut command = namespace.command();
        command.args(words);
        all += &run(command);
    }
    all
}
