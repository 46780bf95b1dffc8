//! Several ways to one name, and several flows at once.

use std::io::{Read as _, Write as _};

use odyn_tests::{Guest, serve, servers};

use crate::{program, shop, start};

#[test]
fn a_host_without_ipv6_reaches_a_name_that_has_both() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    world.host().ip("route del default via 2001:db8:1::1\n");
    for tool in [
        &["curl", "-sS", "-m", "20"][..],
        &["busybox", "wget", "-q", "-O", "-"],
    ] {
        let out = world.guest(&[tool, &["http://api.shop.example/whoami"]].concat());
        if world.direct() && tool[0] == "busybox" {
            continue; // It tries the first address only.
        }
        assert_eq!(out.ok(), "HTTP/1.1 api.shop.example 203.0.113.10\n");
    }
    let source = "import socket\n\
        s = socket.create_connection(('api.shop.example', 80), timeout=20)\n\
        s.sendall(b'GET /whoami HTTP/1.0\\r\\n\\r\\n')\n\
        print(s.recv(5))\n";
    assert_eq!(world.python(source, &[]).ok(), "b'HTTP/'\n");
}

#[test]
fn a_name_with_one_dead_address_reaches_the_other() {
    let world = start!(
        odyn_tests::World::builder()
            .policy("version: v1\nname: t\negress:\n  allow:\n    - api.shop.example\n")
            .name("api.shop.example", &["203.0.113.30", "203.0.113.31"])
    );
    serve::banner(world.internet().listen("203.0.113.31:7000"), "alive");
    let words = ["tcp", "api.shop.example", "7000"];
    for _ in 0..4 {
        let out = world.python(program!("connect"), &words);
        if world.direct() {
            continue; // The probe tries one address only.
        }
        assert_eq!(out.ok(), "ok alive\n", "{}", out.describe());
        let flow = out.flow("tcp", "api.shop.example", 7000).expect("a record");
        assert_eq!(flow.dialled.as_deref(), Some("203.0.113.31:7000"));
    }
}

#[test]
fn both_directions_of_a_flow_are_busy_at_once() {
    let world = start!(shop());
    serve::tcp(world.internet().listen("203.0.113.11:9000"), |stream| {
        let mut reading = stream.try_clone().expect("a socket");
        let mut writing = stream;
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = reading.read(&mut buffer) {
            if writing.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    });
    let source = r#"
import hashlib, os, socket, sys, threading
s = socket.create_connection((sys.argv[1], 9000))
block = os.urandom(1 << 20)
def write():
    for _ in range(100): s.sendall(block)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=write).start()
sent, got, total = hashlib.sha256(), hashlib.sha256(), 0
for _ in range(100): sent.update(block)
while part := s.recv(1 << 16):
    got.update(part)
    total += len(part)
print(total, sent.digest() == got.digest())
"#;
    let out = world.python(source, &["v4.shop.example"]);
    assert_eq!(out.ok(), "104857600 True\n");
}

#[test]
fn sixteen_transfers_side_by_side() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    let body: Vec<u8> = (0..40_000_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(servers::www(&world).join("body"), body).expect("own file");
    let out = Guest::sh(
        "for n in $(seq 16); do \
           (curl -sS https://v4.shop.example/body | sha256sum >sum$n) & \
         done; wait; sort -u sum* | wc -l; ls sum* | wc -l; sha256sum <\"$0\" | cmp - sum1 && echo same",
    );
    let path = servers::www(&world).join("body").display().to_string();
    let out = out.word(&path).run(&world);
    assert_eq!(out.ok(), "1\n16\nsame\n");
    if !world.direct() {
        assert_eq!(out.flows("tcp", "v4.shop.example", 443).len(), 16);
    }
}

#[test]
fn one_question_may_have_many_answers() {
    let world = start!(shop());
    let socket = world.internet().udp("203.0.113.20:7");
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            for number in 0..200_u32 {
                let _ = socket.send_to(&number.to_be_bytes().repeat(100), from);
            }
        }
    });
    let source = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.settimeout(5)
s.sendto(b"go", ("203.0.113.20", 7))
got = []
try:
    while len(got) < 200: got.append(int.from_bytes(s.recv(1000)[:4], "big"))
except TimeoutError:
    pass
print(len(got), got == sorted(got))
"#;
    let out = world.python(source, &[]);
    // Datagrams may be lost; a burst as small as this one should not be.
    assert_eq!(out.ok(), "200 True\n", "{}", out.describe());
}

#[test]
fn a_server_that_refuses_an_upload_in_the_middle_is_heard() {
    let world = start!(shop());
    serve::tcp(world.internet().listen("203.0.113.11:80"), |mut stream| {
        let mut buffer = [0; 10_000];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(
            b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbig\n",
        );
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // As servers do: read on for a while, so that the answer is not lost.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let file = world.file("upload", vec![b'x'; 30_000_000]);
    let out = world.guest(&[
        "curl",
        "-sS",
        "-H",
        "Expect:",
        "-T",
        &file.display().to_string(),
        "http://v4.shop.example/x",
    ]);
    assert!(out.stdout.contains("big"), "{}", out.describe());
}
