//! Whether memory grows with connections that have come and gone.

use std::time::Duration;

use super::{Entrant, Figure, Load};
use crate::contenders::Family;
use crate::stage::{PORT, SINK, Stage};

const CLIENTS: &str = "64";
/// A part of the connections goes before the first look, so that what is kept for reuse is there.
const WARM: usize = 5;
/// For what closes late.
const SETTLE: Duration = Duration::from_secs(1);
/// Connections per second that are enough for the slowest machine.
const SLOWEST: f64 = 500.0;

/// So many connections.
pub(super) struct Churn(pub(super) usize);

impl Load for Churn {
    fn figures(&self) -> Vec<Figure> {
        let figure = |half: &str| {
            let name = format!("growth over {} connections, {half} half", self.0);
            Figure::new(&format!("churn-{half}"), "churn", &name, "KiB", false)
        };
        vec![figure("guest"), figure("host")]
    }

    fn fits(&self, entrant: &Entrant) -> bool {
        entrant.family() == Family::Ours
    }

    fn most_rounds(&self) -> usize {
        3
    }

    fn once(&self, stage: &Stage, entrant: &mut Entrant) -> anyhow::Result<Vec<Option<f64>>> {
        let running = entrant.fresh(stage)?;
        let server = format!("{SINK}:{PORT}");
        let churn = |connections: usize| -> anyhow::Result<[u64; 2]> {
            let count = connections.to_string();
            let words = [&*stage.this, "churn", &server, CLIENTS, &count];
            stage.run(running.space(stage), &words, connections as f64 / SLOWEST)?;
            std::thread::sleep(SETTLE);
            Ok(running.resident())
        };
        let before = churn(self.0 / WARM)?;
        let after = churn(self.0)?;
        let grown = before.iter().zip(after);
        Ok(grown
            .map(|(before, after)| Some((after as f64 - *before as f64) / 1024.0))
            .collect())
    }
}
