//! The loads: what is measured of each contender.

mod churn;
mod http;
mod idle;
mod measured;
mod startup;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contenders::{Contender, Family, Running};
use crate::stage::Stage;

/// A number that a load yields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The name in targets and in the JSON file.
    pub(crate) id: String,
    /// The table and picture it stands in.
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) unit: String,
    /// Whether more of it is better.
    pub(crate) more_is_better: bool,
}

impl Figure {
    fn new(id: &str, group: &str, name: &str, unit: &str, more_is_better: bool) -> Self {
        Self {
            id: id.to_owned(),
            group: group.to_owned(),
            name: name.to_owned(),
            unit: unit.to_owned(),
            more_is_better,
        }
    }
}

/// How long a contender is looked at after its turn, and how often at most.
const LOOK: Duration = Duration::from_millis(60);
const LOOKS: usize = 20;

/// Something to do with each contender.
pub(crate) trait Load {
    /// The figures of the load, in this order.
    fn figures(&self) -> Vec<Figure>;

    /// Whether this contender can do it.
    fn fits(&self, entrant: &Entrant) -> bool;

    /// A remark for the report.
    fn note(&self) -> Option<String> {
        None
    }

    /// Rounds after which more would tell nothing new.
    fn most_rounds(&self) -> usize {
        usize::MAX
    }

    /// Does it once. A figure that does not apply is `None`.
    fn once(&self, stage: &Stage, entrant: &mut Entrant) -> anyhow::Result<Vec<Option<f64>>>;
}

/// A contender in the run.
pub(crate) struct Entrant {
    pub(crate) contender: Box<dyn Contender>,
    /// Tells its ports on the host apart from the others'.
    number: u16,
    running: Option<Running>,
    /// The figures of the last start.
    traits: Option<Traits>,
}

/// The abilities of a running contender.
#[derive(Debug, Clone, Copy)]
struct Traits {
    http: bool,
    udp: bool,
    dns: bool,
    processes: bool,
    files_per_flow: usize,
}

impl Entrant {
    pub(crate) fn new(contender: Box<dyn Contender>, number: u16) -> Self {
        Self {
            contender,
            number,
            running: None,
            traits: None,
        }
    }

    /// The instance that lives through all rounds; started, or started again after a failure.
    pub(crate) fn running(&mut self, stage: &Stage) -> anyhow::Result<&mut Running> {
        if self.running.is_none() {
            let running = self.contender.start(stage, self.number)?;
            self.traits = Some(Traits {
                http: running.http.iter().all(|address| !address.is_empty()),
                udp: running.udp,
                dns: running.resolver.is_some(),
                processes: running.has_processes(),
                files_per_flow: running.files_per_flow,
            });
            self.running = Some(running);
        }
        self.running
            .as_mut()
            .ok_or_else(|| anyhow::anyhow!("not running"))
    }

    /// An instance of its own, with nothing behind it.
    pub(crate) fn fresh(&self, stage: &Stage) -> anyhow::Result<Running> {
        self.contender.start(stage, self.number + 50)
    }

    /// Waits until it is at rest, so that it takes nothing from the next contender; ends it, and says
    /// what it said last, when it does not come to rest.
    pub(crate) fn rest(&mut self) -> Result<(), String> {
        let Some(running) = &self.running else {
            return Ok(());
        };
        let mut before = running.cpu_seconds();
        for _ in 0..LOOKS {
            std::thread::sleep(LOOK);
            let now = running.cpu_seconds();
            if now - before <= LOOK.as_secs_f64() / 3.0 {
                return Ok(());
            }
            before = now;
        }
        Err(self.stop())
    }

    /// Ends the instance, after a failure, and returns what it said last: the next load starts
    /// another.
    pub(crate) fn stop(&mut self) -> String {
        let running = self.running.take();
        running.map_or(String::new(), |running| running.last_words())
    }

    pub(crate) fn family(&self) -> Family {
        self.contender.family()
    }

    fn is(&self, ask: impl Fn(&Traits) -> bool) -> bool {
        self.traits.as_ref().is_some_and(ask)
    }
}

/// How much of everything.
pub(crate) struct Scale {
    pub(crate) seconds: f64,
    pub(crate) idle: Vec<usize>,
    pub(crate) churn: usize,
}

/// Every load, in the order of the tables.
pub(crate) fn all(scale: &Scale) -> Vec<Box<dyn Load>> {
    let mut all = measured::all(scale.seconds);
    all.extend(http::all(scale.seconds));
    all.push(Box::new(startup::Startup));
    for (index, flows) in scale.idle.iter().enumerate() {
        all.push(Box::new(idle::Idle::new(*flows, index == 0)));
    }
    if scale.churn > 0 {
        all.push(Box::new(churn::Churn(scale.churn)));
    }
    all
}
