//! Sockets that systemd holds: a restart of the host refuses no client.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use odyn_tests::process::until;
use odyn_tests::systemd::Systemd;
use odyn_tests::{Guest, World};

use super::{SOON, expected};
use crate::{program, shop, start};

const UNIT: &str = "enclaver-outer.service";
const SOCKET: &str = "enclaver-outer.socket";
const SETTINGS: &str = "\
listen: unix:///run/enclaver-outer/link.sock
ingress: ['443=fd:https', '80=192.0.2.2:8000']
";
const POLICY: &str = "\
version: v1
name: web
ingress:
  - listen_port: 443
    target_port: 8080
";

/// The answer to a client; an error where it is refused or reset.
fn ask(world: &World, address: &str, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = world
        .internet()
        .enter(|| TcpStream::connect_timeout(&address, SOON))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(sent)?;
    stream.shutdown(Shutdown::Write)?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    Ok(got)
}

#[test]
fn a_restart_of_the_service_refuses_no_client() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let systemd = Systemd::boot(&world, &[("outer.yaml", SETTINGS)]);
    systemd.drop_in(SOCKET, "[Unit]\nDefaultDependencies=no\n");
    systemd.systemctl(&["start", SOCKET, UNIT]);
    let policy = world.file("web.yaml", POLICY);
    let link = systemd.run_path("enclaver-outer/link.sock");
    let _running = Guest::python(program!("app"), &["after-end", "8080"])
        .policy(policy)
        .flag("--link")
        .flag(&format!("unix://{}", link.display()))
        .spawn(&world);
    // Without a capability, at a low port, for both families.
    for address in ["192.0.2.2:443", "[2001:db8:1::2]:443"] {
        let mut got = ask(&world, address, b"hello");
        until(SOON, "an answer", || {
            if got.is_err() {
                got = ask(&world, address, b"hello");
            }
            got.is_ok()
        });
        assert_eq!(got.expect("an answer"), expected(b"hello"));
    }
    let over = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while !over.load(Ordering::Relaxed) {
                        let got = ask(&world, "192.0.2.2:443", b"again");
                        assert_eq!(got.expect("an answer"), expected(b"again"));
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        for _ in 0..3 {
            let before = systemd.property(UNIT, "MainPID");
            systemd.systemctl(&["restart", UNIT]);
            assert_ne!(systemd.property(UNIT, "MainPID"), before);
            // The new one serves.
            let got = ask(&world, "192.0.2.2:443", b"between");
            assert_eq!(got.expect("an answer"), expected(b"between"));
        }
        over.store(true, Ordering::Relaxed);
        let served = clients.into_iter().map(|client| client.join());
        served.map(|served| served.expect("all fine")).sum::<u32>()
    });
    assert!(served > 0);
    let journal = systemd.journal();
    assert!(journal.contains("listening at a socket of the service manager"));
}
