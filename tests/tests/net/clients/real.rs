//! Real servers in the guest and real clients of them, plain and by TLS.

use std::io::{Read, Write};
use std::path::Path;

use odyn_tests::{Guest, World, servers};

use super::{certificate, each_way, fine, tls_world};
use crate::ingress::{MAPPING, SOON, listening, stop};
use crate::{program, start};

const V6: &str = "80=[2001:db8:1::2]:8000";

/// The files of a guest with TLS, and that of the authority; the path of the latter.
fn files(dir: &Path) -> String {
    let (authority, _) = certificate(dir);
    let ca = dir.join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("own directory");
    ca.display().to_string()
}

/// nginx with some files, on the port of the guest, with these words behind `listen`.
fn nginx(world: &World, words: &str) -> Guest {
    let words = servers::guest_nginx(world, words);
    Guest::new(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn nginx_serves_http_1_and_2_by_tls_over_both_families() {
    for (words, alpn, wanted) in [("http2", "h2", "2"), ("", "http/1.1", "1.1")] {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = files(dir.path());
        let more = format!(", alpn: [{alpn}]");
        let mut world = start!(tls_world(dir.path(), &more).outer(&["--ingress", V6]));
        if world.direct() {
            return;
        }
        let running = nginx(&world, words).spawn(&world);
        listening(&mut world, MAPPING);
        listening(&mut world, V6);
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
    each_way("", |world, way| {
        let running = nginx(world, "").spawn(world);
        listening(world, MAPPING);
        pipeline(&mut way.connect(world));
        stop(running);
    });
}

#[test]
fn redis_is_spoken_to_by_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = files(dir.path());
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
    each_way("", |world, way| {
        let mut running = Guest::python(program!("websocket"), &["8080"]).spawn(world);
        running.process.wait_for("ready", SOON);
        listening(world, MAPPING);
        websocket(&mut way.connect(world));
        stop(running);
    });
}
