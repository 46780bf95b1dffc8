//! A pair of socat for each port.

use super::pair::{End, Plan};
use super::{Contender, Family, Running, lacks};
use crate::stage::Stage;

pub(crate) struct Socat;

impl Contender for Socat {
    fn name(&self) -> &str {
        "socat"
    }

    fn family(&self) -> Family {
        Family::Pair
    }

    fn missing(&self) -> Option<String> {
        lacks("socat", "socat")
    }

    fn start(&self, stage: &Stage, number: u16) -> anyhow::Result<Running> {
        let plan = Plan::new(stage, self.name(), number)?;
        let halves = [
            (plan.guest_ends(), &plan.guest),
            (plan.host_ends(), stage.world.host()),
        ];
        let [a, b] = halves.map(|(ends, namespace)| {
            let spawn = |(from, to): &(End<'_>, End<'_>)| {
                // Half-closed connections live for as long as they may need.
                let words = ["socat", "-t", "60", &listen(from), &dial(to)];
                stage.spawn(namespace, "socat", &words, &[])
            };
            ends.iter().map(spawn).collect::<Vec<_>>()
        });
        plan.run(stage, a, b).map(|mut running| {
            // Two processes for each flow: not for thousands of them.
            running.files_per_flow = usize::MAX;
            running
        })
    }
}

fn listen(end: &End<'_>) -> String {
    match end {
        End::Tcp(address) => {
            let (host, port) = address.rsplit_once(':').unwrap_or(("", address));
            format!("TCP-LISTEN:{port},bind={host},reuseaddr,fork,backlog=4096,nodelay")
        }
        End::Unix(path) => format!("UNIX-LISTEN:{},fork,backlog=4096", path.display()),
    }
}

fn dial(end: &End<'_>) -> String {
    match end {
        End::Tcp(address) => format!("TCP:{address},nodelay"),
        End::Unix(path) => format!("UNIX-CONNECT:{}", path.display()),
    }
}
