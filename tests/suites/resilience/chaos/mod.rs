//! Either half dies, at any moment, under load.
//!
//! `ODYN_TEST_CHAOS` is the number of deaths over all tests here (200 at night), and
//! `ODYN_TEST_SEED` repeats a run. Each prints how long the link was away for the app: from
//! the death to the first new flow that carries a byte.

mod load;
mod measure;
mod silent_wire;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use odyn_tests::cut::Wire;
use odyn_tests::guest::Running;
use odyn_tests::process::{run, until};
use odyn_tests::{AuditRecord, Namespace, World, process};

use self::load::{Event, INGRESS, Load, POLICY, SOON};
use self::measure::{Footprint, Random, Times, WARM_UP, back_to, deaths, now, print_times};
use crate::start;

fn world() -> odyn_tests::world::Builder {
    World::builder()
        .policy(POLICY)
        .outer(&["--ingress", INGRESS, "--guest-logs", "DIR/guests"])
        .dns("address=/dyn.shop.example/203.0.113.20")
}

/// Asserts that each flow of a run that ended in peace has exactly one record.
fn one_record_each(load: &Load, records: &[AuditRecord]) {
    let ids: HashSet<u64> = records.iter().map(|record| record.flow).collect();
    assert_eq!(ids.len(), records.len(), "a flow has two records");
    let last = ids.iter().max().copied().unwrap_or(0);
    let missing: Vec<u64> = (1..=last).filter(|id| !ids.contains(id)).collect();
    assert!(missing.is_empty(), "flows without a record: {missing:?}");
    let tcp = records.iter().filter(|record| is_connection(record));
    assert_eq!(load.tcp().count(), tcp.count(), "the app counted others");
    let cut: Vec<_> = records.iter().filter(|r| r.end == "cut").collect();
    assert!(cut.is_empty(), "{cut:?}");
}

/// Asserts that the host's file has each line of the app once, in order and whole.
fn every_line_once(world: &World) {
    let path = world.dir().join("guests/chaos/stdout.log");
    let text = fs::read_to_string(&path).expect("the app's output");
    let lines: Vec<&str> = text.lines().collect();
    let (last, numbered) = lines.split_last().expect("some lines");
    assert_eq!(*last, format!("lines {}", numbered.len()));
    for (number, line) in numbered.iter().enumerate() {
        assert_eq!(*line, format!("line {number}"));
    }
    println!("lines of the app: {}", numbered.len());
}

/// Whether the record is of a TCP connection that the app opened.
fn is_connection(record: &AuditRecord) -> bool {
    record.protocol == "tcp" && record.direction == "egress"
}

/// Asserts that nothing hung, and every question had an answer.
fn nothing_hung(load: &Load) {
    let hung: Vec<&Event> = load
        .seen
        .iter()
        .filter(|event| matches!(event.outcome.as_str(), "hung" | "timeout"))
        .collect();
    assert!(hung.is_empty(), "{hung:?}");
}

/// Says how long flows that were open at these moments still took to end.
fn print_ends(load: &Load, what: &str, moments: &[f64]) {
    let last = |moment: &f64| {
        load.tcp()
            .filter(|event| event.began < *moment && event.ended > *moment)
            .map(|event| event.ended - moment)
            .fold(0.0, f64::max)
    };
    let times: Vec<f64> = moments.iter().map(last).collect();
    assert!(
        times.iter().all(|last| *last < SOON.as_secs_f64()),
        "{times:?}"
    );
    print_times(&format!("end of the flows after {what}"), times);
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
    let running = guest.flag("--stdio").flag("host").spawn(&world);
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
                times.add(load.recovery(moment, now()));
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
            times.add(load.recovery(moment, now()));
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
    times.print("a cut");
    print_ends(&load, "a cut", &whole);
    nothing_hung(&load);
    one_record_each(&load, &out.audit);
    every_line_once(&world);
}

#[test]
fn the_host_may_die_at_any_moment() {
    let mut world = start!(world());
    if world.direct() {
        return;
    }
    let mut random = Random::new("host");
    let mut load = Load::new(&world);
    let running = load.guest().flag("--stdio").flag("host").spawn(&world);
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
            times.add(load.recovery(moment, dead));
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
    times.print("the death of enclaver-outer");
    print_ends(&load, "the death of enclaver-outer", &moments);
    nothing_hung(&load);
    one_record_each(&load, &out.audit);
    every_line_once(&world);
}

#[test]
fn odyn_net_may_die_at_any_moment_alone_or_with_the_host() {
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
        let app = process::children(odyn).pop().expect("it has an app");
        let moment = now();
        running.process.signal(Signal::SIGKILL);
        // The start of the next one waits for the ports of both.
        until(SOON, "odyn-net to end, and the app with it", || {
            process::is_gone(odyn) && process::is_gone(app)
        });
        let dead = now();
        let is_both = death % 3 == 2;
        if is_both {
            world.outer().kill();
            world.start_outer();
        }
        let records = running.audit_path().to_owned();
        let before = std::mem::replace(&mut running, guest.spawn(&world));
        let recovery = load.recovery(moment, dead);
        if is_both { &mut times_both } else { &mut times }.add(recovery);
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
    times.print("the death of odyn-net");
    times_both.print("the death of both");
}

/// Waits until every flow that the app saw end in this run has its record: nothing flushes them.
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
    // The last line may be torn: its writer was killed.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut ids = HashSet::new();
    let mut tcp = 0;
    for line in whole.lines() {
        let record: AuditRecord = serde_json::from_str(line).expect("a record");
        assert!(ids.insert(record.flow), "twice: {line}");
        tcp += usize::from(is_connection(&record));
    }
    tcp
}

/// All that odyn-net sets up in a namespace. The ports are the same when those of the run before are free.
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
        for line in run(command).lines() {
            // The number of a TUN device, which each run makes anew.
            let line = line
                .split_once(": ")
                .filter(|(number, rest)| {
                    rest.starts_with("odyn0") && number.bytes().all(|byte| byte.is_ascii_digit())
                })
                .map_or(line, |(_, rest)| rest);
            all += line;
            all.push('\n');
        }
    }
    all
}
