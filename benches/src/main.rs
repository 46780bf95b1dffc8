//! `odyn-bench`: what a flow through guest and host costs, beside other ways to do the same.
//!
//! Builds the namespaces of the tests, starts every contender in them, and runs each load with
//! each contender in turn, round after round: a direct cable, odyn-net in its variants, pairs of
//! HAProxy, nginx and socat over the same kind of Unix socket, and networks in user space. Prints
//! tables with medians, spread and verdicts on the targets. Needs root and release executables:
//! `just bench` builds them. `scripts/setup bench` installs the others.

#![forbid(unsafe_code)]

mod choice;
mod client;
mod contenders;
mod drain;
mod loads;
mod measure;
mod procs;
mod report;
mod stage;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;

use client::Client;
use contenders::between::Link;
use contenders::ours::{Ours, VARIANTS};
use loads::Scale;
use report::results::Results;

/// Measures odyn-net beside a direct cable, other proxies, and networks in user space.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// Rounds of every measurement.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Only these rows, by their names or those of their groups, both as in --list; `beside*` is
    /// all whose names begin so. What one client measures together is run together.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these contenders; `odyn*` is all whose names begin so.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    contenders: Vec<String>,
    /// A variant of ours, in place of the usual ones; may be repeated. Variables of OUTER_ go to
    /// the host, others to the guest; ODYN_NET and ENCLAVER_OUTER are executables of another build.
    #[arg(long = "variant", value_name = "NAME[:VARIABLE=VALUE,...]")]
    variants: Vec<Ours>,
    /// Transport of the links of odyn-net and socat: unix, vsock, or both
    /// beside each other. vsock is that of this machine (CID 1), and is in the contender's name.
    #[arg(
        long,
        value_name = "LINK",
        value_delimiter = ',',
        default_value = "unix"
    )]
    link: Vec<Link>,
    /// Idle flows for the measurements of memory.
    #[arg(long, value_delimiter = ',', default_value = "5000,20000")]
    idle: Vec<usize>,
    /// Connections that come and go while memory must not grow.
    #[arg(long, default_value_t = 100_000)]
    churn: usize,
    /// Minutes after which nothing new is begun.
    #[arg(long, default_value_t = 90.0)]
    minutes: f64,
    /// Only how long the exit takes.
    #[arg(long)]
    drain: bool,
    /// Say who there is and what is measured, and do nothing.
    #[arg(long)]
    list: bool,
    /// Write all samples to this file, after each round; `odyn-bench report` reads it.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write pictures into this directory, after each round.
    #[arg(long, value_name = "DIR")]
    svg_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints the tables of an earlier run again.
    Report {
        /// The file that --json wrote.
        file: PathBuf,
        /// Everybody's figures as multiples of this one's, too.
        #[arg(long, value_name = "NAME")]
        ratio_to: Option<String>,
        /// Write pictures into this directory.
        #[arg(long, value_name = "DIR")]
        svg_dir: Option<PathBuf>,
    },
    /// Runs all of it in a virtual machine that has AF_VSOCK.
    Vm(vm::Vm),
    #[command(flatten)]
    Client(Client),
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In one line, whatever RUST_BACKTRACE says.
            eprintln!("odyn-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Some(Command::Client(client)) => client.run(),
        Some(Command::Report {
            file,
            ratio_to,
            svg_dir,
        }) => {
            let results = Results::read(&file)?;
            finish(&results, None, svg_dir.as_deref())?;
            if let Some(peer) = ratio_to {
                print!("{}", report::ratios(&results, &peer));
            }
            Ok(())
        }
        Some(Command::Vm(vm)) => {
            let results = vm.run()?;
            print!("{}", report::text(&results));
            print!("{}", report::ratios(&results, vm::YARDSTICK));
            Ok(())
        }
        None if args.drain => drain::measure(args.rounds),
        None => compare(args),
    }
}

fn compare(args: Args) -> anyhow::Result<()> {
    ensure!(args.seconds > 0.0, "--seconds must be more than 0");
    let variants = match args.variants.is_empty() {
        true => VARIANTS
            .iter()
            .map(|spec| spec.parse())
            .collect::<Result<_, _>>()?,
        false => args.variants,
    };
    let contenders = choice::contenders(contenders::all(&variants, &args.link), &args.contenders)?;
    let loads = loads::all(&Scale {
        seconds: args.seconds,
        idle: args.idle,
        churn: args.churn,
    });
    if args.list {
        for contender in &contenders {
            let missing = contender.missing();
            let missing = missing.map_or(String::new(), |why| format!(" (left out: {why})"));
            println!("{}{missing}", contender.name());
        }
        println!();
        for figure in loads.iter().flat_map(|load| load.figures()) {
            let (group, id) = (&figure.group, &figure.id);
            println!("{id:18} {group:12} {}, {}", figure.name, figure.unit);
        }
        return Ok(());
    }
    let only = choice::Rows::new(&args.only, &loads)?;
    if let Some(path) = &args.json {
        Results::writable(path)?;
    }
    let plan = measure::Plan {
        rounds: args.rounds,
        seconds: args.seconds,
        limit: Duration::from_secs_f64(args.minutes * 60.0),
        only,
    };
    measure::run(&plan, contenders, loads, |results| {
        finish(results, args.json.as_deref(), args.svg_dir.as_deref())
    })
}

fn finish(
    results: &Results,
    json: Option<&std::path::Path>,
    svg_dir: Option<&std::path::Path>,
) -> anyhow::Result<()> {
    // First what cannot fail: a run is long, and nothing that comes after may lose it.
    print!("{}", report::text(results));
    if let Some(path) = json {
        results.write(path)?;
    }
    svg_dir.map_or(Ok(()), |dir| report::pictures(results, dir))
}
