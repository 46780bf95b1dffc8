//! Real servers in the guest and real clients of them, plain and by TLS.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use odyn_tests::{Guest, World, servers};

use super::tls_worlds::{certificate, each_way, fine, tls_world};
use super::{MAPPING, SOON, listening, stop, world};
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

/// A masked text message of a WebSocket.
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

#[test]
fn nginx_serves_over_ipv4_and_ipv6() {
    let v6 = "80=[2001:db8:1::2]:8000";
    let mut world = start!(world(&[MAPPING, v6]));
    if world.direct() {
        return;
    }
    let words = servers::guest_nginx(&world, "");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let running = Guest::new(&words).spawn(&world);
    let source = servers::www(&world).join("blob");
    let blob = std::fs::read(&source).expect("a file");
    let source = source.display().to_string();
    listening(&mut world, MAPPING);
    listening(&mut world, v6);
    for base in ["http://192.0.2.2:8000", "http://[2001:db8:1::2]:8000"] {
        let back = world.dir().join("back");
        let blob_url = format!("{base}/blob");
        let up_url = format!("{base}/up/blob");
        let mut curl = world.internet_spawn(
            "curl",
            &[
                "curl",
                "-sSf",
                "-o",
                &back.display().to_string(),
                &blob_url,
                "--next",
                "-sSf",
                "-T",
                &source,
                &up_url,
            ],
        );
        let status = curl.wait(SOON);
        assert!(
            status.success(),
            "{}",
            String::from_utf8_lossy(&curl.stderr())
        );
        assert!(std::fs::read(&back).expect("a file") == blob, "{base}");
        let up = world.scratch().join("up/blob");
        assert!(std::fs::read(&up).expect("a file") == blob, "{base}");
    }
    stop(running);
}

#[test]
fn postgres_and_redis_serve_their_own_clients() {
    let mut world = start!(
        World::builder()
            .policy(
                "version: v1\nname: stores\ningress:\n  - listen_port: 5432\n  - listen_port: 6379\n"
            )
            .outer(&["--ingress", "5432=192.0.2.2:5432,stores:6379=192.0.2.2:6379"])
    );
    if world.direct() {
        return;
    }
    let script = r#"set -e
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
redis-server --port 6379 --bind 127.0.0.1 --save '' --appendonly no >&2 &
"$bin/initdb" --no-sync -A trust -D pg -E UTF8 --locale=C >/dev/null
exec "$bin/postgres" -D pg -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off
"#;
    let running = Guest::sh(script).spawn(&world);
    listening(&mut world, "5432=");
    listening(&mut world, "6379=");
    let script = r#"set -e
until redis-cli -h 192.0.2.2 PING | grep -q PONG; do sleep 0.1; done
redis-benchmark -h 192.0.2.2 -t set,get -n 20000 -c 20 -q >/dev/null
redis-cli -h 192.0.2.2 SET key value
redis-cli -h 192.0.2.2 GET key
url="host=192.0.2.2 user=nobody dbname=postgres"
until psql -qX "$url" -c 'SELECT 1' >/dev/null 2>&1; do sleep 0.1; done
awk 'BEGIN { for (i = 0; i < 100000; i++) printf "%d\trow number %d\n", i, i * 7 }' >"$1/rows"
psql -qX -v ON_ERROR_STOP=1 "$url" -c 'CREATE TABLE t (id int, word text)' \
    -c "\copy t FROM $1/rows" -c "\copy (SELECT * FROM t ORDER BY id) TO $1/back" \
    -Atc 'SELECT count(*), sum(id) FROM t'
cmp "$1/rows" "$1/back"
"#;
    let dir = world.dir().display().to_string();
    let mut client = world.internet_spawn("clients", &["sh", "-c", script, "sh", &dir]);
    let status = client.wait(Duration::from_secs(120));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    assert!(status.success(), "{}", text(client.stderr()));
    assert_eq!(text(client.stdout()), "OK\nvalue\n100000|4999950000\n");
    stop(running);
}
