//! pasta: the guest has a TAP device, and a process on the host speaks TCP/IP with it.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

use super::ours::host_ports;
use super::{Contender, Family, Running, lacks, text};
use crate::procs::inner_pid;
use crate::stage::{HTTP, PORT, SINK, Stage, until};

const UP: Duration = Duration::from_secs(20);

/// Binds a namespace to a file, then becomes the rest of its words.
const BECOME: &str = r#"touch "$2" && mount --bind "$1" "$2" && shift 2 && exec "$@""#;

pub(crate) struct Pasta;

impl Contender for Pasta {
    fn name(&self) -> &str {
        "pasta"
    }

    fn family(&self) -> Family {
        Family::UserMode
    }

    fn missing(&self) -> Option<String> {
        lacks("pasta", "passt")
    }

    fn start(&self, stage: &Stage, number: u16) -> anyhow::Result<Running> {
        let guest = stage.guest()?;
        let http = host_ports(number);
        let forwards: Vec<String> = http
            .iter()
            .zip(HTTP)
            .map(|(host, to)| {
                let port = host.rsplit(':').next().unwrap_or_default();
                format!("{port}:{to}")
            })
            .collect();
        let pid = inner_pid(guest.pid()).context("the guest's process")?;
        // It gives up the right to look into /proc/PID/ns before it does: a file of its own mount
        // namespace stands for the guest.
        let netns = text(&stage.dir(self.name())?.join("netns"));
        let source = format!("/proc/{pid}/ns/net");
        let mut words = vec!["unshare", "--mount", "--propagation", "private", "--"];
        words.extend(["sh", "-c", BECOME, "sh", &source, &netns]);
        words.extend(["pasta", "--foreground", "--quiet", "--stderr"]);
        words.extend(["--config-net", "--ipv4-only", "--runas", "0"]);
        for forward in &forwards {
            words.extend(["--tcp-ports", forward]);
        }
        words.extend([
            "--udp-ports",
            "none",
            "--tcp-ns",
            "none",
            "--udp-ns",
            "none",
        ]);
        words.extend(["--netns-only", "--netns", &netns]);
        let mut pasta = stage.spawn(stage.world.host(), "pasta", &words, &[]);
        let address: SocketAddr = format!("{SINK}:{PORT}").parse()?;
        until(UP, "pasta to reach the server", || {
            let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
            pasta.ended().is_some() || guest.enter(connect)
        })?;
        if let Some(status) = pasta.ended() {
            let said = pasta.stderr();
            bail!("ended with {status}: {}", String::from_utf8_lossy(&said));
        }
        Ok(Running {
            guest_half: Vec::new(),
            host_half: vec![pasta],
            app: None,
            guest: Some(guest),
            http,
            resolver: None,
            udp: true,
            files_per_flow: 2,
        })
    }
}
