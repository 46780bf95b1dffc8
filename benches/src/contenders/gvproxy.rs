//! gvproxy (gvisor-tap-vsock): `gvforwarder` feeds the guest's TAP device to it.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::bail;

use super::{Contender, Family, Running, lacks, text};
use crate::stage::{PORT, SINK, Stage, until};

const UP: Duration = Duration::from_secs(30);

pub(crate) struct Gvproxy;

impl Contender for Gvproxy {
    fn name(&self) -> &str {
        "gvproxy"
    }

    fn family(&self) -> Family {
        Family::UserMode
    }

    fn missing(&self) -> Option<String> {
        // Not in Debian 12; newer suites have both in one package.
        let package =
            "golang-github-containers-gvisor-tap-vsock or podman, in suites after bookworm";
        lacks("gvproxy", package).or_else(|| lacks("gvforwarder", package))
    }

    fn start(&self, stage: &Stage, _number: u16) -> anyhow::Result<Running> {
        let guest = stage.guest()?;
        guest.ip("link set lo up\n");
        let dir = stage.dir(self.name())?;
        let socket = dir.join("net.sock");
        let url = format!("unix://{}", text(&socket));
        let words = [
            "gvproxy",
            "-listen",
            &url,
            "-mtu",
            "4000",
            "-ssh-port",
            "-1",
        ];
        let mut proxy = stage.spawn(stage.world.host(), "gvproxy", &words, &[]);
        until(UP, "gvproxy to listen", || {
            proxy.ended().is_some() || socket.exists()
        })?;
        let url = format!("unix://{}/connect", text(&socket));
        let words = ["gvforwarder", "-url", &url, "-preexisting=false"];
        let mut forwarder = stage.spawn(&guest, "gvforwarder", &words, &[]);
        let address: SocketAddr = format!("{SINK}:{PORT}").parse()?;
        until(UP, "gvproxy to reach the server", || {
            let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
            proxy.ended().is_some() || forwarder.ended().is_some() || guest.enter(connect)
        })?;
        for process in [&mut proxy, &mut forwarder] {
            if let Some(status) = process.ended() {
                let said = process.stderr();
                bail!("ended with {status}: {}", String::from_utf8_lossy(&said));
            }
        }
        Ok(Running {
            guest_half: vec![forwarder],
            host_half: vec![proxy],
            app: None,
            guest: Some(guest),
            http: Default::default(),
            resolver: None,
            udp: true,
            files_per_flow: 2,
        })
    }
}
