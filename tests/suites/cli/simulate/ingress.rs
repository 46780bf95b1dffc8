//! `enclaver simulate` with ingress: a developer's app has clients on the developer's machine.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::tls_client::Authority;
use odyn_tests::{Process, World, audit, process, servers};

use super::Developer;
use crate::ingress::{SOON, connect, exchange, expected, policy};
use crate::{program, start};

const LIMIT: Duration = Duration::from_secs(60);

/// A client on the developer's machine.
fn local(world: &World, address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().expect("an address");
    world.host().enter(move || {
        let stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(stream)
    })
}

/// Runs curl on the developer's machine; what it writes.
#[track_caller]
fn curl(world: &World, words: &[&str]) -> Vec<u8> {
    let words = [&["curl", "-sSf", "-m", "40"], words].concat();
    let mut curl = world.host_spawn("curl", &words);
    let status = curl.wait(LIMIT);
    let said = String::from_utf8_lossy(&curl.stderr()).into_owned();
    assert!(status.success(), "{words:?}: {said}");
    curl.stdout()
}

/// Ends a simulation as a developer does.
fn interrupt(mut process: Process) {
    process.signal(Signal::SIGINT);
    process.wait(LIMIT);
}

#[test]
fn an_unprivileged_users_nginx_is_reached_by_curl_plain_and_by_tls() {
    let world = start!(World::builder());
    if world.direct() {
        return;
    }
    let authority = Authority::default();
    authority.issue(&["localhost"]).write(world.dir(), "a");
    let ca = world.file("authority.pem", &authority.pem);
    let dir = world.dir().display();
    // The file of every run in this world, here of an unprivileged user who may read it.
    world.file(
        "policy.yaml",
        format!(
            "{}  - listen_port: 8443\n    target_port: 8080\n    tls: {{ cert_file: {dir}/a.pem, key_file: {dir}/a.key }}\n",
            policy("shop", 8000, 8080)
        ),
    );
    let nginx = servers::guest_nginx(&world, "");
    let script = ["sh", "-c", "echo started; exec \"$@\"", "sh"];
    let words: Vec<&str> = script
        .into_iter()
        .chain(nginx.iter().map(String::as_str))
        .collect();
    let file = world.scratch().join("audit");
    let developer = Developer::new(&world);
    let mut process = developer.spawn(&["--audit", &file.display().to_string()], &words);
    process.wait_for("started", SOON);
    let source = servers::www(&world).join("blob").display().to_string();
    let blob = std::fs::read(&source).expect("a file");
    let ca = ca.display().to_string();
    // One is reached before nginx listens: it waits.
    for base in ["http://127.0.0.1:8000", "https://localhost:8443"] {
        let tls = ["--cacert", &ca];
        let get = format!("{base}/blob");
        assert!(
            curl(&world, &[&tls[..], &[&get]].concat()) == blob,
            "{base}"
        );
        let put = format!("{base}/up/blob");
        curl(&world, &[&tls[..], &["-T", &source, &put]].concat());
        let up = std::fs::read(world.scratch().join("up/blob")).expect("a file");
        assert!(up == blob, "{base}");
    }
    // On this machine only.
    let elsewhere = connect(&world, "192.0.2.2:8000").map_err(|error| error.kind());
    assert_eq!(elsewhere.err(), Some(ErrorKind::ConnectionRefused));
    interrupt(process);
    let gone = local(&world, "127.0.0.1:8000").map_err(|error| error.kind());
    assert_eq!(gone.err(), Some(ErrorKind::ConnectionRefused));
    let records = audit::read(&file);
    assert_eq!(records.len(), 4, "{records:?}");
    for record in records {
        assert_eq!(record.direction, "ingress");
        assert_eq!(record.verdict, "allow");
        assert_eq!(record.destination, "127.0.0.1:8080");
        let client = record.client.expect("a client");
        assert!(client.starts_with("127.0.0.1:"), "{client}");
    }
}

#[test]
fn clients_come_in_where_the_flag_says() {
    let world = start!(World::builder().policy(&policy("shop", 80, 8080)));
    if world.direct() {
        return;
    }
    let developer = Developer::new(&world);
    let flags = ["--ingress", "80=127.0.0.1:8001,80=[::1]:8001"];
    let words = ["python3", "-c", program!("app"), "after-end", "8080"];
    let mut process = developer.spawn(&flags, &words);
    process.wait_for("ready", SOON);
    for address in ["127.0.0.1:8001", "[::1]:8001"] {
        let stream = local(&world, address).expect("a listener");
        let got = exchange(stream, b"hello").expect("an answer");
        assert_eq!(got, expected(b"hello"));
    }
    interrupt(process);
}

#[test]
fn what_the_app_wrote_last_reaches_its_client() {
    const SIZE: usize = 64 << 20;
    let world = start!(World::builder().policy(&policy("shop", 8000, 8080)));
    if world.direct() {
        return;
    }
    let developer = Developer::new(&world);
    let words = [
        "python3",
        "-c",
        program!("app"),
        "one",
        "8080",
        &SIZE.to_string(),
    ];
    let mut process = developer.spawn(&[], &words);
    process.wait_for("ready", SOON);
    let got = curl(&world, &["--limit-rate", "40M", "http://127.0.0.1:8000/"]);
    assert_eq!(got.len(), SIZE);
    assert_eq!(process::code(process.wait(LIMIT)), 7);
}

#[test]
fn an_address_that_cannot_be_had_starts_nothing_and_says_what_to_do() {
    let world = start!(World::builder());
    if world.direct() {
        return;
    }
    let developer = Developer::new(&world);
    let _taken = world.host().listen("127.0.0.1:8000");
    for (port, flags, code, parts) in [
        (
            8000,
            &[][..],
            69,
            &[
                "enclaver: cannot listen at 127.0.0.1:8000 for clients of port 8000: Address",
                "--ingress 8000=127.0.0.1:PORT",
            ][..],
        ),
        (80, &[], 69, &["127.0.0.1:80 for", "Permission denied"]),
        (
            80,
            &["--ingress", "80=192.0.2.99:8000"],
            69,
            &["192.0.2.99:8000 for", "port 80"],
        ),
        (
            80,
            &["--ingress", "81=127.0.0.1:8001"],
            78,
            &["no `ingress` with `listen_port: 81`"],
        ),
        (80, &["--ingress", "shop:80=127.0.0.1:8001"], 64, &["shop:"]),
    ] {
        world.file("policy.yaml", policy("shop", port, 8080));
        let mut process = developer.spawn(flags, &["echo", "started"]);
        let said = process::code(process.wait(LIMIT));
        let stderr = String::from_utf8_lossy(&process.stderr()).into_owned();
        assert_eq!(said, code, "{flags:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
        assert_eq!(process.stdout(), b"");
    }
}
