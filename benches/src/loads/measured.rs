//! Loads that are one client of this program, whose sample says it all.

use anyhow::Context;

use super::{Entrant, Figure, Load};
use crate::client::Sample;
use crate::stage::{PORT, SINK, SINK_NAME, Stage};

/// The clients that connect at once, and the bulk flows that go beside small messages.
const CLIENTS: &str = "64";
const FLOWS: &str = "16";

type Value = fn(&Sample) -> f64;

/// A client and what counts of its sample.
struct Client {
    words: Vec<String>,
    seconds: f64,
    figures: Vec<(Figure, Value)>,
    /// Whether the halves' CPU seconds per GB are a figure too: the last.
    cpu: Option<Figure>,
    needs: Needs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Tcp,
    Udp,
    Resolver,
}

pub(super) fn all(seconds: f64) -> Vec<Box<dyn Load>> {
    let mut all: Vec<Box<dyn Load>> = Vec::new();
    let time = seconds.to_string();
    for (kind, flows) in [("up", "1"), ("up", "16"), ("down", "1"), ("down", "16")] {
        let plural = if flows == "1" { "" } else { "s" };
        let name = format!("{kind}, {flows} flow{plural}");
        let id = format!("{kind}-{flows}");
        let cpu = Figure::new(&format!("cpu-{id}"), "cpu", &name, "CPU s/GB", false);
        let figure = Figure::new(&id, "bulk", &name, "Gbit/s", true);
        let value: Value = |sample| sample.bits_per_second / 1e9;
        let client = Client::new(kind, &[flows, &time], seconds, Needs::Tcp);
        all.push(Box::new(client.figure(figure, value).cpu(cpu)));
    }
    let p50: Value = |sample| sample.p50_us;
    let p99: Value = |sample| sample.p99_us;
    let rate: Value = |sample| sample.per_second;

    let short = Client::new("short", &[CLIENTS, &time], seconds, Needs::Tcp);
    let name = format!("short connections, {CLIENTS} clients");
    let figure = Figure::new("short", "connections", &name, "/s", true);
    all.push(Box::new(short.figure(figure, rate)));
    let one = Client::new("short", &["1", &time], seconds, Needs::Tcp);
    let name = "connect and one byte, p50";
    let figure = Figure::new("connect-p50", "connections", name, "µs", false);
    all.push(Box::new(one.figure(figure, p50)));

    let latency = |id: &str, name: &str| Figure::new(id, "latency", name, "µs", false);
    let idle = Client::new("ping-pong", &[&time], seconds, Needs::Tcp)
        .figure(latency("idle-p50", "ping-pong 64 B, p50"), p50)
        .figure(latency("idle-p99", "ping-pong 64 B, p99"), p99);
    all.push(Box::new(idle));
    let name = |q: &str| format!("ping-pong beside {FLOWS} bulk flows, {q}");
    let beside = Client::new("beside", &[FLOWS, &time], seconds, Needs::Tcp)
        .figure(latency("beside-p50", &name("p50")), p50)
        .figure(latency("beside-p99", &name("p99")), p99);
    all.push(Box::new(beside));

    let udp = |id: &str, name: &str| Figure::new(id, "udp", name, "/s", true);
    let blast = Client::new("blast", &["4", &time], seconds, Needs::Udp);
    let name = "datagrams of 200 B that arrive, 4 flows";
    all.push(Box::new(blast.figure(udp("udp-one-way", name), rate)));
    let echo = Client::new("echo", &["4", &time], seconds, Needs::Udp);
    let name = "datagrams of 200 B there and back, 4 flows";
    all.push(Box::new(echo.figure(udp("udp-echo", name), rate)));

    let dns = Client::new("dns", &[SINK_NAME, "4", &time], seconds, Needs::Resolver);
    let name = "DNS queries from cache, 4 clients";
    let figure = Figure::new("dns", "dns", name, "/s", true);
    all.push(Box::new(dns.figure(figure, rate)));
    all
}

impl Client {
    fn new(kind: &str, rest: &[&str], seconds: f64, needs: Needs) -> Self {
        let words = std::iter::once(&kind).chain(rest);
        Self {
            words: words.map(|word| (*word).to_owned()).collect(),
            seconds,
            figures: Vec::new(),
            cpu: None,
            needs,
        }
    }

    fn figure(mut self, figure: Figure, value: Value) -> Self {
        self.figures.push((figure, value));
        self
    }

    fn cpu(mut self, figure: Figure) -> Self {
        self.cpu = Some(figure);
        self
    }
}

impl Load for Client {
    fn figures(&self) -> Vec<Figure> {
        let figures = self.figures.iter().map(|(figure, _)| figure);
        figures.chain(&self.cpu).cloned().collect()
    }

    fn fits(&self, entrant: &Entrant) -> bool {
        entrant.is(|traits| match self.needs {
            Needs::Tcp => true,
            Needs::Udp => traits.udp,
            Needs::Resolver => traits.dns,
        })
    }

    fn once(&self, stage: &Stage, entrant: &mut Entrant) -> anyhow::Result<Vec<Option<f64>>> {
        let running = entrant.running(stage)?;
        let server = format!("{SINK}:{PORT}");
        let to = match self.needs {
            Needs::Resolver => running.resolver.clone().context("no resolver")?,
            Needs::Tcp | Needs::Udp => server,
        };
        let (kind, rest) = self.words.split_first().context("a client")?;
        let mut words = vec![&*stage.this, kind, &to];
        words.extend(rest.iter().map(String::as_str));
        let before = running.cpu_seconds();
        let said = stage.run(running.space(stage), &words, self.seconds)?;
        let cpu = running.cpu_seconds() - before;
        let sample: Sample = serde_json::from_str(&said).context("the client's sample")?;
        let mut values: Vec<Option<f64>> = self
            .figures
            .iter()
            .map(|(_, value)| Some(value(&sample)))
            .collect();
        if self.cpu.is_some() {
            let gigabytes = sample.bytes as f64 / 1e9;
            values.push(running.has_processes().then_some(cpu / gigabytes));
        }
        Ok(values)
    }
}
