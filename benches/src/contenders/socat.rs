//! A pair of socat for each port.

use super::between::Link;
use super::pair::{End, Plan};
use super::{Contender, Family, Running, lacks};
use crate::stage::Stage;

pub(crate) struct Socat {
    name: String,
    link: Link,
}

impl Socat {
    pub(crate) fn over(link: Link) -> Self {
        let name = link.name("socat");
        Self { name, link }
    }
}

impl Contender for Socat {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> Family {
        Family::Pair
    }

    fn missing(&self) -> Option<String> {
        lacks("socat", "socat").or_else(|| self.link.missing())
    }

    fn start(&self, stage: &Stage, number: u16) -> anyhow::Result<Running> {
        let plan = Plan::new(stage, self.name(), number, self.link)?;
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
        End::Link(between) => between.socat_listen(),
    }
}

fn dial(end: &End<'_>) -> String {
    match end {
        End::Tcp(address) => format!("TCP:{address},nodelay"),
        End::Link(between) => between.socat_dial(),
    }
}
