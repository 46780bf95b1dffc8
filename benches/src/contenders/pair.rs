//! What the pairs of proxies share: proxy A in the guest, proxy B on the host, sockets of the
//! link between them, and rules that send the app's traffic to A.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, ensure};
use odyn_tests::namespace::Namespace;
use odyn_tests::process::Process;

use super::Running;
use super::between::{Between, Link};
use super::ours::{UP, host_ports};
use crate::stage::{HTTP, PORTS, SINK, Stage, until};

/// A port that a pair carries: from a listener to a place on the link, and from there to a destination.
pub(crate) struct Leg {
    pub(crate) listen: String,
    pub(crate) between: Between,
    pub(crate) target: String,
}

/// All ports that a pair carries.
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    /// A listens and B dials.
    pub(crate) out: Vec<Leg>,
    /// B listens and A dials.
    pub(crate) into: Vec<Leg>,
    pub(crate) guest: Namespace,
    http: [String; 2],
}

/// Either side of one proxy: where it listens, and what it dials.
pub(crate) enum End<'a> {
    Tcp(&'a str),
    Link(&'a Between),
}

impl Plan {
    /// The guest's namespace with its rules, and the list of ports.
    pub(crate) fn new(stage: &Stage, name: &str, number: u16, link: Link) -> anyhow::Result<Self> {
        let dir = stage.dir(name)?;
        let guest = stage.guest()?;
        capture(&guest)?;
        let mut index = 0;
        let mut between = |socket: String| {
            index += 1;
            Between::new(link, dir.join(socket), number, index)
        };
        let out = PORTS.map(|port| Leg {
            listen: format!("127.0.0.1:{}", redirected(port)),
            between: between(format!("out-{port}")),
            target: format!("{SINK}:{port}"),
        });
        let http = host_ports(number);
        let into = HTTP.iter().zip(&http).map(|(port, host)| Leg {
            listen: host.clone(),
            between: between(format!("in-{port}")),
            target: format!("127.0.0.1:{port}"),
        });
        Ok(Self {
            out: out.into(),
            into: into.collect(),
            dir,
            guest,
            http,
        })
    }

    /// Every listener with what it leads to, of proxy A.
    pub(crate) fn guest_ends(&self) -> Vec<(End<'_>, End<'_>)> {
        let out = self.out.iter().map(Leg::near);
        out.chain(self.into.iter().map(Leg::far)).collect()
    }

    /// The same of proxy B.
    pub(crate) fn host_ends(&self) -> Vec<(End<'_>, End<'_>)> {
        let out = self.out.iter().map(Leg::far);
        out.chain(self.into.iter().map(Leg::near)).collect()
    }

    /// Waits until everything listens.
    pub(crate) fn run(
        self,
        stage: &Stage,
        guest_half: Vec<Process>,
        host_half: Vec<Process>,
    ) -> anyhow::Result<Running> {
        let mut running = Running {
            guest_half,
            host_half,
            app: None,
            guest: None,
            http: self.http,
            resolver: None,
            udp: false,
            files_per_flow: 2,
        };
        for leg in self.out.iter().chain(&self.into) {
            until(UP, &leg.between.url(), || {
                leg.between.is_up() || ended(&mut running).is_some()
            })?;
        }
        for (namespace, legs) in [(&self.guest, &self.out), (stage.world.host(), &self.into)] {
            for leg in legs {
                until(UP, &leg.listen, || {
                    let address: std::net::SocketAddr = match leg.listen.parse() {
                        Ok(address) => address,
                        Err(_) => return false,
                    };
                    let connect = || std::net::TcpStream::connect(address).is_ok();
                    namespace.enter(connect) || ended(&mut running).is_some()
                })?;
            }
        }
        if let Some(said) = ended(&mut running) {
            anyhow::bail!("a proxy ended: {said}");
        }
        running.guest = Some(self.guest);
        Ok(running)
    }
}

fn ended(running: &mut Running) -> Option<String> {
    let halves = running.guest_half.iter_mut().chain(&mut running.host_half);
    for process in halves {
        if process.ended().is_some() {
            return Some(String::from_utf8_lossy(&process.stderr()).into_owned());
        }
    }
    None
}

impl Leg {
    fn near(&self) -> (End<'_>, End<'_>) {
        (End::Tcp(&self.listen), End::Link(&self.between))
    }

    fn far(&self) -> (End<'_>, End<'_>) {
        (End::Link(&self.between), End::Tcp(&self.target))
    }
}

fn redirected(port: u16) -> u16 {
    port + 4000
}

/// Makes every destination routable in a namespace with only `lo`, and redirects the server's.
fn capture(guest: &Namespace) -> anyhow::Result<()> {
    guest.ip("link set lo up\naddress add 198.51.100.1/32 dev lo\nroute add default dev lo\n");
    let mut rules = String::from(
        "table ip bench {\n chain out {\n  type nat hook output priority -100; policy accept;\n",
    );
    for port in PORTS {
        let to = redirected(port);
        rules.push_str(&format!(
            "  ip daddr {SINK} tcp dport {port} redirect to :{to}\n"
        ));
    }
    rules.push_str(" }\n}\n");
    let mut child = guest
        .command()
        .args(["nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("nft")?;
    let mut stdin = child.stdin.take().context("piped")?;
    stdin.write_all(rules.as_bytes())?;
    drop(stdin);
    ensure!(child.wait()?.success(), "nft refused:\n{rules}");
    Ok(())
}
