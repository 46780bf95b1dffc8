//! A pair of HAProxy, with splicing or without.

use std::fmt::Write as _;

use super::between::Link;
use super::pair::{End, Plan};
use super::{Contender, Family, Running, lacks, text};
use crate::stage::{Stage, file_limit};

pub(crate) struct Haproxy {
    pub(crate) splice: Splice,
}

/// When it moves bytes with splice(2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Splice {
    Never,
    /// When it takes a flow for a bulk flow: whether it does depends on how busy the machine is.
    Auto,
    Always,
}

impl Contender for Haproxy {
    fn name(&self) -> &str {
        match self.splice {
            Splice::Never => "haproxy",
            Splice::Auto => "haproxy-splice",
            Splice::Always => "haproxy-splice-always",
        }
    }

    fn family(&self) -> Family {
        Family::Pair
    }

    fn missing(&self) -> Option<String> {
        lacks("haproxy", "haproxy")
    }

    fn start(&self, stage: &Stage, number: u16) -> anyhow::Result<Running> {
        let plan = Plan::new(stage, self.name(), number, Link::Unix)?;
        let halves = [
            ("a.cfg", plan.guest_ends(), &plan.guest),
            ("b.cfg", plan.host_ends(), stage.world.host()),
        ];
        let [a, b] = halves.map(|(file, ends, namespace)| -> anyhow::Result<_> {
            let path = plan.dir.join(file);
            std::fs::write(&path, self.config(&ends))?;
            let words = ["haproxy", "-db", "-f", &text(&path)];
            Ok(stage.spawn(namespace, self.name(), &words, &[]))
        });
        let (a, b) = (a?, b?);
        plan.run(stage, vec![a], vec![b])
    }
}

impl Haproxy {
    fn config(&self, ends: &[(End<'_>, End<'_>)]) -> String {
        // A connection takes two files, and so does each pipe.
        let pipes = if self.splice == Splice::Never {
            0
        } else {
            1000
        };
        let files = file_limit().min(200_000);
        let most = files.saturating_sub(1000 + 2 * pipes) / 2;
        let splice = match self.splice {
            Splice::Never => "",
            Splice::Auto => "  option splice-auto\n",
            Splice::Always => "  option splice-request\n  option splice-response\n",
        };
        let mut config = format!(
            "global\n  maxconn {most}\n  maxpipes {pipes}\ndefaults\n  mode tcp\n{splice}  \
             timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n"
        );
        for (number, (from, to)) in ends.iter().enumerate() {
            let _ = write!(
                config,
                "listen l{number}\n  bind {}\n  server s {}\n",
                address(from),
                address(to)
            );
        }
        config
    }
}

fn address(end: &End<'_>) -> String {
    match end {
        End::Tcp(address) => (*address).to_owned(),
        End::Link(between) => format!("unix@{}", text(&between.socket)),
    }
}
