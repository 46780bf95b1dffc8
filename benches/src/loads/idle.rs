//! Resident memory of flows that do nothing.

use std::time::Duration;

use super::{Entrant, Figure, Load};
use crate::stage::{PORT, SINK, Stage, file_limit, until};

/// Files that a half needs beside those of its flows.
const OTHER_FILES: usize = 500;
/// For what was started to come to rest.
const SETTLE: Duration = Duration::from_millis(500);

pub(super) struct Idle {
    /// The number of flows that was asked for; it names the figure.
    wanted: usize,
    /// The number of flows that the limit of open files allows.
    flows: usize,
    /// Whether what guest and host take at rest is a figure too.
    rest: bool,
}

impl Idle {
    pub(super) fn new(wanted: usize, rest: bool) -> Self {
        let most = file_limit().saturating_sub(OTHER_FILES);
        Self {
            wanted,
            flows: wanted.min(most),
            rest,
        }
    }
}

impl Idle {
    /// Time to open them all, for the slowest machine.
    fn limit(&self) -> Duration {
        Duration::from_secs(20) + Duration::from_millis(2) * u32::try_from(self.flows).unwrap_or(0)
    }
}

impl Load for Idle {
    fn figures(&self) -> Vec<Figure> {
        let (wanted, flows) = (self.wanted, self.flows);
        let figure = |half: &str| {
            let name = format!("idle flow, {flows} of them, {half} half");
            Figure::new(
                &format!("idle-{wanted}-{half}"),
                "memory",
                &name,
                "KiB",
                false,
            )
        };
        let rest = |half: &str| {
            let name = format!("at rest, {half} half");
            Figure::new(&format!("rest-{half}"), "memory", &name, "KiB", false)
        };
        let mut figures = vec![figure("guest"), figure("host")];
        if self.rest {
            figures.extend([rest("guest"), rest("host")]);
        }
        figures
    }

    fn fits(&self, entrant: &Entrant) -> bool {
        entrant.is(|traits| {
            let files = self.flows.saturating_mul(traits.files_per_flow);
            traits.processes && files.saturating_add(OTHER_FILES) <= file_limit()
        })
    }

    fn note(&self) -> Option<String> {
        let (flows, wanted) = (self.flows, self.wanted);
        (flows < wanted)
            .then(|| format!("{flows} idle flows instead of {wanted}: the limit of open files"))
    }

    fn most_rounds(&self) -> usize {
        3
    }

    fn once(&self, stage: &Stage, entrant: &mut Entrant) -> anyhow::Result<Vec<Option<f64>>> {
        let running = entrant.fresh(stage)?;
        std::thread::sleep(SETTLE);
        let before = running.resident();
        let (server, flows) = (format!("{SINK}:{PORT}"), self.flows.to_string());
        let words = [&*stage.this, "idle", &server, &flows];
        let mut client = stage.spawn(running.space(stage), "idle", &words, &[]);
        until(self.limit(), "idle flows", || {
            client.ended().is_some() || client.stdout().starts_with(b"ready")
        })?;
        anyhow::ensure!(
            client.ended().is_none(),
            "{}",
            String::from_utf8_lossy(&client.stderr()).trim()
        );
        std::thread::sleep(SETTLE);
        let after = running.resident();
        let mut values = Vec::new();
        for (before, after) in before.iter().zip(after) {
            let each = after.saturating_sub(*before) as f64 / self.flows as f64 / 1024.0;
            values.push((after > 0).then_some(each));
        }
        if self.rest {
            let rest = before.map(|bytes| (bytes > 0).then_some(bytes as f64 / 1024.0));
            values.extend(rest);
        }
        Ok(values)
    }
}
