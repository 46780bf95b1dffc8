//! `odyn-bench`: what a flow through both halves costs, next to a direct connection.
//!
//! Builds the namespaces of the tests, runs the same load directly and through odyn-net in
//! interleaved rounds, and prints medians with their spread and ratios. Needs root and release
//! executables: `just bench` builds them, and keeps their logs short.

#![forbid(unsafe_code)]

mod drain;
mod load;
mod memory;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use load::{Load, Sample};
use odyn_tests::guest::Guest;
use odyn_tests::world::World;
use serde::Serialize;

const SERVER: &str = "203.0.113.10:5201";

/// The variable that chooses the way of capture.
const CAPTURE: &str = "ODYN_CAPTURE";

const POLICY: &str = "version: v1\nname: bench\negress:\n  allow:\n    - 203.0.113.0/24\n";

/// Measures odyn-net against a direct connection.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds of every measurement.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each bulk measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Idle flows for the memory measurement.
    #[arg(long, default_value_t = 5000)]
    idle: usize,
    /// Only how long the exit takes.
    #[arg(long)]
    drain: bool,
    /// Ways of capture to measure, in turn: nftables, tun.
    #[arg(long, value_delimiter = ',', default_value = "nftables,tun")]
    capture: Vec<String>,
    /// Write all samples to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    load: Option<Load>,
}

/// One line of the table: a load, and which number of its sample counts.
struct Row {
    name: &'static str,
    unit: &'static str,
    words: Vec<String>,
    value: fn(&Sample) -> f64,
}

#[derive(Default, Serialize)]
struct Measured {
    direct: Vec<f64>,
    odyn: Vec<f64>,
    cpu_seconds_per_gb: Vec<f64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.load {
        Some(load) => load.run(),
        None => orchestrate(&args),
    }
}

fn rows(seconds: f64) -> Vec<Row> {
    let words = |kind: &str, rest: &[&str]| {
        let mut words = vec![kind.to_owned(), SERVER.to_owned()];
        words.extend(rest.iter().map(|word| (*word).to_owned()));
        words
    };
    let seconds = seconds.to_string();
    let bits: fn(&Sample) -> f64 = |s| s.bits_per_second / 1e9;
    let bulk = |name, kind, flows: &str| Row {
        name,
        unit: "Gbit/s",
        words: words(kind, &[flows, &seconds]),
        value: bits,
    };
    vec![
        bulk("up, 1 flow", "up", "1"),
        bulk("up, 16 flows", "up", "16"),
        bulk("down, 1 flow", "down", "1"),
        bulk("down, 16 flows", "down", "16"),
        Row {
            name: "ping-pong 64 B, p50",
            unit: "µs",
            words: words("ping-pong", &["5000"]),
            value: |s| s.p50_us,
        },
        Row {
            name: "ping-pong 64 B, p99",
            unit: "µs",
            words: words("ping-pong", &["5000"]),
            value: |s| s.p99_us,
        },
        Row {
            name: "connect and one byte, p50",
            unit: "µs",
            words: words("short", &["1", "1"]),
            value: |s| s.p50_us,
        },
        Row {
            name: "short connections, 64 clients",
            unit: "/s",
            words: words("short", &["64", &seconds]),
            value: |s| s.per_second,
        },
    ]
}

fn orchestrate(args: &Args) -> anyhow::Result<()> {
    let world = World::builder()
        .policy(POLICY)
        .start()
        .context("needs root")?;
    let this = world.install(&std::env::current_exe()?);
    let this = this.to_str().context("a path in UTF-8")?;
    let _server = world.internet_spawn("serve", &[this, "serve", SERVER]);
    world.internet().wait_tcp(SERVER);

    if args.drain {
        return drain::measure(&world, this, args.rounds);
    }
    let rows = rows(args.seconds);
    let mut measured: BTreeMap<(usize, &str), Measured> = BTreeMap::new();
    for round in 0..args.rounds {
        for (index, row) in rows.iter().enumerate() {
            let direct = direct(&world, this, &row.words)?;
            for capture in &args.capture {
                let (odyn, cpu) = through(&world, this, capture, &row.words)?;
                let entry = measured.entry((index, capture)).or_default();
                entry.direct.push((row.value)(&direct));
                entry.odyn.push((row.value)(&odyn));
                if odyn.bytes > 0 {
                    entry
                        .cpu_seconds_per_gb
                        .push(cpu / (odyn.bytes as f64 / 1e9));
                }
            }
        }
        eprintln!("round {} of {} done", round + 1, args.rounds);
    }
    print_table(&rows, &measured);
    for capture in &args.capture {
        idle_memory(&world, this, capture, args.idle)?;
    }
    if let Some(path) = &args.json {
        let named: BTreeMap<String, &Measured> = measured
            .iter()
            .filter_map(|((i, capture), m)| Some((format!("{}; {capture}", rows.get(*i)?.name), m)))
            .collect();
        std::fs::write(path, serde_json::to_string_pretty(&named)?)?;
    }
    Ok(())
}

fn direct(world: &World, this: &str, words: &[String]) -> anyhow::Result<Sample> {
    let mut command = world.host().command();
    command.arg(this).args(words);
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The sample, and the CPU seconds of both halves.
fn through(
    world: &World,
    this: &str,
    capture: &str,
    words: &[String],
) -> anyhow::Result<(Sample, f64)> {
    let mut all = vec![this];
    all.extend(words.iter().map(String::as_str));
    let before = memory::cpu_seconds();
    let mut guest = Guest::new(&all).env(CAPTURE, capture).spawn(world);
    // The guest half's time can be read only while it lives: the last look counts.
    let mut last = before;
    while guest.process.ended().is_none() {
        last = last.max(memory::cpu_seconds());
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = guest.finish();
    ensure!(output.code == 0, "{}", output.describe());
    Ok((serde_json::from_str(&output.stdout)?, last - before))
}

fn print_table(rows: &[Row], measured: &BTreeMap<(usize, &str), Measured>) {
    println!("| what | unit | capture | direct | odyn-net | ratio | CPU s/GB, both halves |");
    println!("|---|---|---|---|---|---|---|");
    for ((index, capture), m) in measured {
        let Some(row) = rows.get(*index) else {
            continue;
        };
        let (direct, odyn) = (median(&m.direct), median(&m.odyn));
        let cpu = match m.cpu_seconds_per_gb.is_empty() {
            true => "–".to_owned(),
            false => format!("{:.2}", median(&m.cpu_seconds_per_gb)),
        };
        println!(
            "| {} | {} | {capture} | {direct:.1} ({}) | {odyn:.1} ({}) | {:.2} | {cpu} |",
            row.name,
            row.unit,
            spread(&m.direct),
            spread(&m.odyn),
            odyn / direct,
        );
    }
}

fn idle_memory(world: &World, this: &str, capture: &str, flows: usize) -> anyhow::Result<()> {
    let to: SocketAddr = SERVER.parse()?;
    let words = [this, "idle", &to.to_string(), &flows.to_string()];
    let mut guest = Guest::new(&words).env(CAPTURE, capture).spawn(world);
    // The halves at rest, before the program has opened much.
    std::thread::sleep(Duration::from_millis(100));
    let (_, outer_before) = memory::resident();
    guest.process.wait_for("ready", Duration::from_secs(100));
    let (inner, outer) = memory::resident();
    drop(guest);
    let mut empty = Guest::new(&["sleep", "5"])
        .env(CAPTURE, capture)
        .spawn(world);
    std::thread::sleep(Duration::from_secs(1));
    let (inner_before, _) = memory::resident();
    empty.process.kill();
    let each =
        |after: u64, before: u64| (after.saturating_sub(before)) as f64 / flows as f64 / 1024.0;
    println!(
        "\n{capture}: resident memory at rest: odyn-net {:.1} MiB, enclaver-outer {:.1} MiB\n\
         resident memory of an idle flow ({flows} flows): odyn-net {:.1} KiB, enclaver-outer {:.1} KiB",
        inner_before as f64 / 1048576.0,
        outer_before as f64 / 1048576.0,
        each(inner, inner_before),
        each(outer, outer_before),
    );
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    format!("{low:.1}–{high:.1}")
}
