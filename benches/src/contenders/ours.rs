//! odyn-net and enclaver-outer, in the variants that are still in the running.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use odyn_tests::process::Process;
use odyn_tests::world::executable;

use super::between::{Between, Link};
use super::{Contender, Family, Running, text};
use crate::stage::{HOST, HTTP, PORT, SINK, SINK_NAME, Stage, until, wait};

/// The variants that are measured unless the command line names some. A variable of `OUTER_` goes to the
/// host, any other to the guest; `ODYN_NET` and `ENCLAVER_OUTER` name the executables of another
/// build. A variant whose variables its build does not know is named and left out.
pub(crate) const VARIANTS: [&str; 4] = [
    "odyn-net:ODYN_CAPTURE=nftables",
    "odyn-net-tun:ODYN_CAPTURE=tun",
    "odyn-net-lanes:ODYN_CAPTURE=nftables,ODYN_LANES=always,OUTER_LANES=always",
    "odyn-net-h2:ODYN_CAPTURE=nftables,ODYN_LANES=never,OUTER_LANES=never",
];

/// The time limit for a pair's start; an emulated machine is slow.
pub(super) const UP: Duration = Duration::from_secs(60);
/// The number of those that are only started: beyond everybody's, and their second instances'.
const STARTS: u16 = 200;

/// A variant of guest and host.
#[derive(Debug, Clone)]
pub(crate) struct Ours {
    name: String,
    env: Vec<(String, String)>,
    link: Link,
}

impl FromStr for Ours {
    type Err = anyhow::Error;

    /// `NAME` or `NAME:VARIABLE=VALUE,…`.
    fn from_str(spec: &str) -> anyhow::Result<Self> {
        let (name, rest) = spec.split_once(':').unwrap_or((spec, ""));
        let mut env = Vec::new();
        for pair in rest.split(',').filter(|pair| !pair.is_empty()) {
            let (variable, value) = pair
                .split_once('=')
                .with_context(|| format!("{pair}: not VARIABLE=VALUE"))?;
            env.push((variable.to_owned(), value.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            env,
            link: Link::Unix,
        })
    }
}

impl Ours {
    /// The same over another link.
    pub(crate) fn over(mut self, link: Link) -> Self {
        (self.name, self.link) = (link.name(&self.name), link);
        self
    }

    fn between(&self, dir: &Path, number: u16) -> Between {
        Between::new(self.link, dir.join("link.sock"), number, 0)
    }

    /// The variables for one half.
    fn env(&self, outer: bool) -> Vec<(String, String)> {
        let mine = |(name, _): &&(String, String)| name.starts_with("OUTER_") == outer;
        self.env.iter().filter(mine).cloned().collect()
    }

    /// An executable of this variant, which may name another build of it.
    fn executable(&self, variable: &str, name: &str) -> PathBuf {
        let own = self.env.iter().find(|(own, _)| own == variable);
        own.map_or_else(|| executable(variable, name), |(_, path)| path.into())
    }

    /// The command line of odyn-net up to the app's own words, and its variables.
    fn guest_words(
        &self,
        dir: &Path,
        between: &Between,
        policy: &Path,
    ) -> (Vec<String>, Vec<(String, String)>) {
        let mut words = vec![text(&self.executable("ODYN_NET", "odyn-net"))];
        words.extend(["run", "--log-level", "error", "--user", "nobody"].map(str::to_owned));
        for (flag, value) in [
            ("--policy", text(policy)),
            ("--link", between.url()),
            ("--audit", text(&dir.join("audit"))),
        ] {
            words.extend([flag.to_owned(), value]);
        }
        words.push("--".to_owned());
        (words, self.env(false))
    }

    /// Starts the host, with clients' addresses, and waits until it listens.
    fn start_outer(
        &self,
        stage: &Stage,
        between: &Between,
        http: Option<&[String; 2]>,
    ) -> anyhow::Result<Process> {
        let outer = text(&self.executable("ENCLAVER_OUTER", "enclaver-outer"));
        let (link, mappings) = (between.url(), http.map(mappings).unwrap_or_default());
        let mut words = vec![&*outer, "run", "--listen", &link, "--log-level", "error"];
        for mapping in &mappings {
            words.extend(["--ingress", mapping]);
        }
        let mut outer = stage.spawn(stage.world.host(), "outer", &words, &self.env(true));
        until(UP, "enclaver-outer to listen", || {
            outer.ended().is_some() || between.is_up()
        })?;
        Ok(outer)
    }
}

/// The policy: egress to the server, and, with `ingress`, the ports of nginx.
fn policy(dir: &Path, ingress: bool) -> anyhow::Result<std::path::PathBuf> {
    let mut yaml = format!(
        "version: v1\nname: bench\negress:\n  allow:\n    - {SINK}/32\n    - {SINK_NAME}\n"
    );
    if ingress {
        yaml.push_str("ingress:\n");
        for port in HTTP {
            yaml.push_str(&format!(
                "  - listen_port: {port}\n    target_port: {port}\n"
            ));
        }
    }
    let path = dir.join(if ingress {
        "policy.yaml"
    } else {
        "egress.yaml"
    });
    std::fs::write(&path, yaml)?;
    Ok(path)
}

fn mappings(http: &[String; 2]) -> Vec<String> {
    let pairs = HTTP.iter().zip(http);
    pairs.map(|(port, host)| format!("{port}={host}")).collect()
}

/// The address of the host's listener for the contender of this number.
pub(crate) fn host_ports(number: u16) -> [String; 2] {
    [0, 1].map(|more| format!("{HOST}:{}", 8100 + number * 2 + more))
}

impl Contender for Ours {
    fn name(&self) -> &str {
        &self.name
    }

    fn family(&self) -> Family {
        Family::Ours
    }

    fn missing(&self) -> Option<String> {
        let halves = [
            ("ODYN_NET", "odyn-net"),
            ("ENCLAVER_OUTER", "enclaver-outer"),
        ];
        let help: String = halves
            .iter()
            .filter_map(|(variable, name)| {
                let mut command = Command::new(self.executable(variable, name));
                Some(command.args(["run", "--help"]).output().ok()?.stdout)
            })
            .map(|help| String::from_utf8_lossy(&help).into_owned())
            .collect();
        let mut unknown = self.env.iter().filter(|(name, _)| {
            halves.iter().all(|(variable, _)| variable != name) && !help.contains(&**name)
        });
        unknown
            .next()
            .map(|(name, _)| format!("this build knows no {name}"))
            .or_else(|| self.link.missing())
    }

    fn start(&self, stage: &Stage, number: u16) -> anyhow::Result<Running> {
        let dir = stage.dir(&self.name)?;
        let http = host_ports(number);
        let between = self.between(&dir, number);
        let mut outer = self.start_outer(stage, &between, Some(&http))?;
        let guest = stage.guest()?;
        let (mut words, env) = self.guest_words(&dir, &between, &policy(&dir, true)?);
        // It runs for as long as its app: clients come from beside.
        words.extend([&*stage.this, "wait"].map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut inner = stage.spawn(&guest, "odyn-net", &words, &env);
        until(UP, "odyn-net to start its app", || {
            inner.ended().is_some() || inner.stdout().starts_with(b"ready")
        })?;
        for address in &http {
            let address: SocketAddr = address.parse()?;
            until(UP, "enclaver-outer to listen for clients", || {
                let connect = || TcpStream::connect(address).is_ok();
                outer.ended().is_some() || stage.world.internet().enter(connect)
            })?;
        }
        for process in [&mut outer, &mut inner] {
            if let Some(status) = process.ended() {
                let said = process.stderr();
                bail!("ended with {status}: {}", String::from_utf8_lossy(&said));
            }
        }
        Ok(Running {
            guest_half: vec![inner],
            host_half: vec![outer],
            app: None,
            guest: Some(guest),
            http,
            resolver: Some("192.0.2.53:53".to_owned()),
            udp: true,
            files_per_flow: 1,
        })
    }

    fn start_times(&self, stage: &Stage) -> anyhow::Result<[f64; 2]> {
        let dir = stage.dir(&self.name)?;
        let between = self.between(&dir, STARTS);
        let _outer = self.start_outer(stage, &between, None)?;
        let guest = stage.guest()?;
        let (words, env) = self.guest_words(&dir, &between, &policy(&dir, false)?);
        let server = format!("{SINK}:{PORT}");
        let mut all = vec![&*stage.this, "stamp"];
        all.extend(words.iter().map(String::as_str));
        all.extend([&*stage.this, "first", &server]);
        let mut inner = stage.spawn(&guest, "odyn-net", &all, &env);
        let said = wait(&mut inner, UP)?;
        let times: Vec<f64> = said.lines().map(str::parse).collect::<Result<_, _>>()?;
        match *times {
            [exec, app, byte] => Ok([(app - exec) * 1e3, (byte - exec) * 1e3]),
            _ => bail!("three times were expected: {said}"),
        }
    }
}
