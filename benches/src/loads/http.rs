//! Requests per second through ingress: from the internet to nginx in the guest.

use anyhow::Context;

use super::{Entrant, Figure, Load};
use crate::stage::Stage;

struct Http {
    figure: Figure,
    /// The words of the client up to the URL; SECONDS stands for the time.
    words: Vec<&'static str>,
    seconds: u64,
    /// Which of nginx's two ports.
    port: usize,
    /// The text beside the rate in the client's output.
    rate: fn(&str) -> Option<f64>,
}

pub(super) fn all(seconds: f64) -> Vec<Box<dyn Load>> {
    // Both clients count whole seconds.
    let seconds = seconds.ceil().max(1.0) as u64;
    let figure = |id: &str, name: &str| Figure::new(id, "http", name, "requests/s", true);
    vec![
        Box::new(Http {
            figure: figure("wrk", "wrk, HTTP/1.1, 64 connections"),
            words: vec!["wrk", "-t2", "-c64", "-dSECONDS"],
            seconds,
            port: 0,
            rate: |said| word_after(said, "Requests/sec:"),
        }),
        Box::new(Http {
            figure: figure("h2load", "h2load, HTTP/2, 16 connections of 16 streams"),
            words: vec!["h2load", "-t1", "-c16", "-m16", "-DSECONDS"],
            seconds,
            port: 1,
            rate: |said| word_before(said, " req/s"),
        }),
    ]
}

impl Load for Http {
    fn figures(&self) -> Vec<Figure> {
        vec![self.figure.clone()]
    }

    fn fits(&self, entrant: &Entrant) -> bool {
        entrant.is(|traits| traits.http)
    }

    fn once(&self, stage: &Stage, entrant: &mut Entrant) -> anyhow::Result<Vec<Option<f64>>> {
        let running = entrant.running(stage)?;
        running.serve_http(stage)?;
        let address = running.http.get(self.port).context("a port")?;
        let url = format!("http://{address}/");
        let seconds = self.seconds.to_string();
        let words: Vec<String> = self
            .words
            .iter()
            .map(|word| word.replace("SECONDS", &seconds))
            .map(|word| match word.starts_with("-d") {
                true => format!("{word}s"),
                false => word,
            })
            .chain([url])
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = stage.run(stage.world.internet(), &words, self.seconds as f64)?;
        let rate = (self.rate)(&said).filter(|rate| *rate > 0.0);
        let failed = said
            .lines()
            .find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
        if let Some(line) = failed {
            eprintln!("  {}: {}", entrant.contender.name(), line.trim());
        }
        Ok(vec![Some(rate.context("no request was answered")?)])
    }
}

fn word_after(text: &str, mark: &str) -> Option<f64> {
    text.split_once(mark)?
        .1
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

fn word_before(text: &str, mark: &str) -> Option<f64> {
    let before = text.split_once(mark)?.0;
    before.split_whitespace().last()?.parse().ok()
}
