//! Programs that tell when they began.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::connect;

/// Longer than any measurement: the orchestrator ends programs that stay.
const LONG: Duration = Duration::from_secs(4 * 3600);

/// Seconds since the epoch: the same clock in every namespace.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// Says the time and becomes `words`.
pub(crate) fn stamp(words: &[String]) -> anyhow::Result<()> {
    let (program, rest) = words.split_first().context("a program")?;
    println!("{}", now());
    std::io::stdout().flush()?;
    let error = Command::new(program).args(rest).exec();
    Err(error).context(program.clone())
}

/// Says the time, and again when the server has answered one byte.
pub(crate) fn first(to: SocketAddr) -> anyhow::Result<()> {
    println!("{}", now());
    let mut stream = connect(to)?;
    stream.write_all(b"e")?;
    stream.read_exact(&mut [0])?;
    println!("{}", now());
    Ok(())
}

/// Says `ready` and stays.
pub(crate) fn wait() -> anyhow::Result<()> {
    println!("ready");
    stay()
}

/// Does nothing until it is ended.
pub(crate) fn stay() -> anyhow::Result<()> {
    std::io::stdout().flush()?;
    thread::sleep(LONG);
    Ok(())
}
