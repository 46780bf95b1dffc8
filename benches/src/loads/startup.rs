//! How long a start takes.

use super::{Entrant, Figure, Load};
use crate::contenders::Family;
use crate::stage::Stage;

/// From the first instruction of odyn-net.
pub(super) struct Startup;

impl Load for Startup {
    fn figures(&self) -> Vec<Figure> {
        let figure = |id: &str, name: &str| Figure::new(id, "start", name, "ms", false);
        vec![
            figure("start-program", "from exec to the program's start"),
            figure("start-first-byte", "from exec to the app's first byte"),
        ]
    }

    fn fits(&self, entrant: &Entrant) -> bool {
        entrant.family() == Family::Ours
    }

    fn once(&self, stage: &Stage, entrant: &mut Entrant) -> anyhow::Result<Vec<Option<f64>>> {
        let times = entrant.contender.start_times(stage)?;
        Ok(times.map(Some).into())
    }
}
