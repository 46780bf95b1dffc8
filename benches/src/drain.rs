//! How long the exit takes: from the app's last instruction to the end of odyn-net.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use odyn_tests::guest::Guest;
use odyn_tests::world::World;

use crate::report::{median, range};
use crate::stage::{PORT, SINK};

/// Threads of the app that open flows.
const OPENERS: usize = 32;
/// Between two looks whether odyn-net has ended.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// A drain to measure: a number of flows, and the bytes that each writes last.
const CASES: [(usize, usize); 5] = [(0, 0), (100, 0), (100, 65_536), (5000, 0), (5000, 65_536)];

/// Prints the table.
pub(crate) fn measure(rounds: usize) -> anyhow::Result<()> {
    let policy = format!("version: v1\nname: bench\negress:\n  allow:\n    - {SINK}/32\n");
    let world = World::builder().policy(&policy).start();
    let world = world.context("needs root")?;
    let this = world.install(&std::env::current_exe()?);
    let this = this.to_str().context("a path in UTF-8")?;
    let server = format!("{SINK}:{PORT}");
    let _server = world.internet_spawn("serve", &[this, "serve", &server]);
    world.internet().wait_tcp(&server);

    println!("| flows | last bytes of each | time to the exit, ms |");
    println!("|---|---|---|");
    for (flows, bytes) in CASES {
        let samples = (0..rounds)
            .map(|_| once(&world, this, &server, flows, bytes))
            .collect::<anyhow::Result<Vec<f64>>>()?;
        let (low, high) = range(&samples);
        println!(
            "| {flows} | {bytes} | {:.1} ({low:.1}–{high:.1}) |",
            median(&samples)
        );
    }
    Ok(())
}

fn once(
    world: &World,
    this: &str,
    server: &str,
    flows: usize,
    bytes: usize,
) -> anyhow::Result<f64> {
    let words = [this, "exit", server, &flows.to_string(), &bytes.to_string()];
    let mut guest = Guest::new(&words)
        .flag("--drain-timeout=120s")
        .limit(Duration::from_secs(200))
        .spawn(world);
    while guest.process.ended().is_none() {
        thread::sleep(LOOK_AGAIN);
    }
    let ended = now();
    let output = guest.finish();
    ensure!(output.code == 0, "{}", output.describe());
    let cut = output.audit.iter().filter(|flow| flow.end == "cut").count();
    ensure!(cut == 0, "{cut} flows were cut");
    let exited: f64 = output.stdout.trim().parse().context("the app's time")?;
    Ok((ended - exited) * 1e3)
}

/// Seconds since the epoch: the same clock in every namespace.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// The app: opens flows, writes to each, says what time it is, and exits with all of them open.
pub(crate) fn exit(to: SocketAddr, flows: usize, bytes: usize) -> anyhow::Result<()> {
    let threads: Vec<_> = (0..OPENERS)
        .map(|number| {
            let share = flows / OPENERS + usize::from(number < flows % OPENERS);
            thread::spawn(move || open(to, share))
        })
        .collect();
    let mut held = Vec::with_capacity(flows);
    for thread in threads {
        let opened = thread.join();
        held.extend(opened.map_err(|_| anyhow::anyhow!("a thread panicked"))??);
    }
    let last = vec![7; bytes];
    for stream in &mut held {
        stream.write_all(&last)?;
    }
    println!("{}", now());
    std::io::stdout().flush()?;
    std::process::exit(0);
}

fn open(to: SocketAddr, flows: usize) -> std::io::Result<Vec<TcpStream>> {
    (0..flows)
        .map(|_| {
            let mut stream = TcpStream::connect(to)?;
            // The server answers with one byte, and only reads from there on.
            stream.write_all(b"h")?;
            stream.read_exact(&mut [0])?;
            Ok(stream)
        })
        .collect()
}
