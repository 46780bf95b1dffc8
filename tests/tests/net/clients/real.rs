//! Real servers in the guest and real clients of them, plain and by TLS.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::tls_client::{Authority, Client};
use odyn_tests::{Guest, Process, World};

use super::{certificate, policy_world, tls_world};
use crate::ingress::{ADDRESS, MAPPING, SOON, connect, listening, stop};
use crate::{program, start};

const LONG: Duration = Duration::from_secs(120);
const V6: &str = "80=[2001:db8:1::2]:8000";

/// Waits for the end of a client, which must be a good one.
#[track_caller]
fn fine(mut client: Process) -> String {
    let status = client.wait(LONG);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    assert!(status.success(), "{}", text(client.stderr()));
    text(client.stdout())
}

/// An authority and its files, `ca.pem` too.
fn files(dir: &Path) -> Authority {
    let (authority, _) = certificate(dir);
    std::fs::write(dir.join("ca.pem"), &authority.pem).expect("own directory");
    authority
}

/// nginx with some files, on the port of the guest, with these words behind `listen`.
fn nginx(world: &World, words: &str) -> Guest {
    let www = world.dir().join("www");
    std::fs::create_dir_all(&www).expect("own directory");
    let blob: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 253) as u8).collect();
    std::fs::write(www.join("blob"), blob).expect("own directory");
    for number in 0..10 {
        std::fs::write(www.join(format!("{number}")), format!("this is {number}\n"))
            .expect("own directory");
    }
    let dir = world.scratch().display().to_string();
    let config = format!(
        "daemon off; worker_processes 1; pid {dir}/pid; error_log stderr warn;
events {{ worker_connections 512; }}
http {{ access_log off; client_max_body_size 0; keepalive_requests 100000;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:8080 {words}; root {};
    location /up/ {{ root {dir}; dav_methods PUT; create_full_put_path on; }} }} }}
",
        www.display()
    );
    let config = world.file("real.conf", config).display().to_string();
    Guest::new(&["nginx", "-e", "stderr", "-c", &config])
}

#[test]
fn nginx_serves_http_1_and_2_by_tls_over_both_families() {
    for (words, alpn, wanted) in [("http2", "h2", "2"), ("", "http/1.1", "1.1")] {
        let dir = tempfile::tempdir().expect("a directory");
        files(dir.path());
        let more = format!(", alpn: [{alpn}]");
        let mut world = start!(tls_world(dir.path(), &more).outer(&["--ingress", V6]));
        if world.direct() {
            return;
        }
        let running = nginx(&world, words).spawn(&world);
        listening(&mut world, MAPPING);
        listening(&mut world, V6);
        let ca = dir.path().join("ca.pem").display().to_string();
        let back = world.dir().join("back").display().to_string();
        let blob = world.dir().join("www/blob");
        for host in ["192.0.2.2", "2001:db8:1::2"] {
            let to = format!("shop.example:8000:{host}");
            let base = ["curl", "-sSf", "--cacert", &ca, "--resolve", &to];
            let get = [
                "-w",
                "%{http_version}",
                "-o",
                &back,
                "https://shop.example:8000/blob",
            ];
            let said = fine(world.internet_spawn("curl", &[&base[..], &get].concat()));
            assert_eq!(said, wanted);
            let same = std::fs::read(&back).expect("a file") == std::fs::read(&blob).expect("one");
            assert!(same, "{host} {alpn}");
            let source = blob.display().to_string();
            let put = ["-T", &source, "https://shop.example:8000/up/blob"];
            fine(world.internet_spawn("curl", &[&base[..], &put].concat()));
            let up = std::fs::read(world.scratch().join("up/blob")).expect("a file");
            assert!(up == std::fs::read(&blob).expect("one"), "{host} {alpn}");
        }
        stop(running);
    }
}

/// Sends many requests at once, and expects the answers in their order.
fn pipeline(stream: &mut (impl Read + Write)) {
    const COUNT: usize = 300;
    let requests: String = (0..COUNT)
        .map(|at| {
            let close = if at + 1 == COUNT {
                "Connection: close\r\n"
            } else {
                ""
            };
            format!(
                "GET /{} HTTP/1.1\r\nHost: shop.example\r\n{close}\r\n",
                at % 10
            )
        })
        .collect();
    stream.write_all(requests.as_bytes()).expect("a connection");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the answers");
    let bodies: Vec<&str> = text
        .split("\n")
        .filter_map(|line| line.strip_prefix("this is "))
        .map(|rest| &rest[..1])
        .collect();
    let wanted: Vec<String> = (0..COUNT).map(|at| (at % 10).to_string()).collect();
    assert_eq!(bodies, wanted);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = files(dir.path());
    for tls in [false, true] {
        let builder = match tls {
            false => policy_world(""),
            true => tls_world(dir.path(), ""),
        };
        let mut world = start!(builder);
        if world.direct() {
            return;
        }
        let running = nginx(&world, "").spawn(&world);
        listening(&mut world, MAPPING);
        let mut socket = connect(&world, ADDRESS).expect("a listener");
        if tls {
            let session = Client::default().connect(socket, &authority, "shop.example");
            pipeline(&mut session.expect("a handshake"));
        } else {
            pipeline(&mut socket);
        }
        stop(running);
    }
}

#[test]
fn redis_is_spoken_to_by_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    files(dir.path());
    let mut world = start!(tls_world(dir.path(), ""));
    if world.direct() {
        return;
    }
    let redis = "exec redis-server --port 8080 --bind 127.0.0.1 --save '' --appendonly no >&2";
    let running = Guest::sh(redis).spawn(&world);
    listening(&mut world, MAPPING);
    let script = r#"set -e
tls="--tls --cacert $1 --sni shop.example -h 192.0.2.2 -p 8000"
redis-cli $tls PING
redis-cli $tls SET key value
redis-benchmark $tls -t set,get -n 5000 -c 20 -q >/dev/null
redis-cli $tls GET key
"#;
    let ca = dir.path().join("ca.pem").display().to_string();
    let client = world.internet_spawn("redis", &["sh", "-c", script, "sh", &ca]);
    assert_eq!(fine(client), "PONG\nOK\nvalue\n");
    stop(running);
}

/// One masked message of text.
fn message(text: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let length = u16::try_from(text.len()).expect("short").to_be_bytes();
    let masked = text.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
    [&[0x81, 0xfe][..], &length, &mask]
        .concat()
        .into_iter()
        .chain(masked)
        .collect()
}

fn websocket(stream: &mut (impl Read + Write)) {
    let request = "GET / HTTP/1.1\r\nHost: shop.example\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    // The example of RFC 6455.
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    for round in 0..50_u8 {
        let text = vec![b'a' + round % 26; 300];
        stream.write_all(&message(&text)).expect("a connection");
        let mut back = vec![0; 4 + text.len()];
        stream.read_exact(&mut back).expect("an echo");
        assert_eq!(back[..2], [0x81, 0x7e]);
        assert_eq!(back[4..], text);
    }
}

#[test]
fn websockets_echo() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = files(dir.path());
    for tls in [false, true] {
        let builder = match tls {
            false => policy_world(""),
            true => tls_world(dir.path(), ""),
        };
        let mut world = start!(builder);
        if world.direct() {
            return;
        }
        let mut running = Guest::python(program!("websocket"), &["8080"]).spawn(&world);
        running.process.wait_for("ready", SOON);
        listening(&mut world, MAPPING);
        let mut socket = connect(&world, ADDRESS).expect("a listener");
        if tls {
            let session = Client::default().connect(socket, &authority, "shop.example");
            websocket(&mut session.expect("a handshake"));
        } else {
            websocket(&mut socket);
        }
        stop(running);
    }
}

#[test]
fn grpc_calls_of_every_kind_and_a_graceful_end() {
    let dir = tempfile::tempdir().expect("a directory");
    files(dir.path());
    let ca = dir.path().join("ca.pem").display().to_string();
    for ca in ["", &ca] {
        let builder = match ca {
            "" => policy_world(""),
            _ => tls_world(dir.path(), ", alpn: [h2]"),
        };
        let mut world = start!(builder);
        if world.direct() {
            return;
        }
        let source = program!("grpc_calls");
        let python = "/usr/bin/python3";
        let mut running = Guest::new(&[python, "-c", source, "serve", "8080"]).spawn(&world);
        running.process.wait_for("ready", SOON);
        listening(&mut world, MAPPING);
        let go = world.dir().join("go");
        let path = go.display().to_string();
        let words = [python, "-c", source, "call", ADDRESS, ca, &path];
        let mut client = world.internet_spawn("grpc", &words);
        client.wait_for("midway", LONG);
        // The server says GOAWAY, and the call that is open goes on to its end.
        running.process.signal(Signal::SIGTERM);
        running.process.wait_for("stopping", SOON);
        std::fs::write(&go, "").expect("own directory");
        assert_eq!(fine(client), "unary\ndown\nup\ndeadline\nmidway\nboth\n");
        let out = running.finish();
        assert_eq!(out.code, 0, "{}", out.describe());
    }
}
