//! How flows end: half-close, reset, refusal, stall, and the last bytes.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use odyn_tests::process::until;
use odyn_tests::{Guest, serve, servers};

use crate::{program, shop, start};

#[test]
fn a_server_may_answer_after_the_end_of_input() {
    let world = start!(shop());
    serve::answer_after_end(world.internet().listen("203.0.113.11:9000"));
    let out = world.python(
        program!("half_close"),
        &["v4.shop.example", "9000", "4194304"],
    );
    assert_eq!(out.ok(), "sent 4194304 server counted 4194304 back True\n");
    if let Some(flow) = out.flow("tcp", "v4.shop.example", 9000) {
        assert_eq!(flow.bytes_sent, 4_194_304);
        assert_eq!(flow.bytes_received, 4_194_304 + 8);
        assert_eq!(flow.end, "closed");
    }
}

#[test]
fn a_reset_arrives_as_a_reset() {
    let world = start!(shop());
    serve::reset(world.internet().listen("203.0.113.11:9000"));
    let out = world.python(program!("reset"), &["v4.shop.example", "9000"]);
    assert_eq!(out.ok(), "ECONNRESET\n");
    if let Some(flow) = out.flow("tcp", "v4.shop.example", 9000) {
        assert_eq!(flow.end, "reset-by-peer");
    }
}

#[test]
fn an_apps_reset_reaches_the_server() {
    let world = start!(shop());
    let listener = world.internet().listen("203.0.113.11:9000");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a socket");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map_err(|error| error.kind())
    });
    let source = "import socket, sys\n\
        s = socket.create_connection((sys.argv[1], 9000))\n\
        s.sendall(b'x')\n\
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')\n\
        s.close()\n";
    let out = world.python(source, &["v4.shop.example"]);
    out.ok();
    assert_eq!(
        server.join().expect("the server"),
        Err(std::io::ErrorKind::ConnectionReset),
        "{}",
        out.describe()
    );
    if let Some(flow) = out.flow("tcp", "v4.shop.example", 9000) {
        assert_eq!(flow.end, "reset-by-app");
    }
}

#[test]
fn a_closed_port_is_refused_honestly() {
    let world = start!(shop());
    let out = world.python(program!("connect"), &["tcp", "v4.shop.example", "9000"]);
    let said = out.ok();
    assert!(
        ["failed ECONNREFUSED\n", "failed ECONNRESET\n"].contains(&said),
        "{}",
        out.describe()
    );
    if let Some(flow) = out.flow("tcp", "v4.shop.example", 9000) {
        assert_eq!(
            (flow.verdict.as_str(), flow.end.as_str()),
            ("allow", "refused")
        );
    }
}

#[test]
fn a_peer_that_never_reads_stalls_its_own_flow_only() {
    let mut world = start!(shop());
    let _nginx = servers::nginx(&world);
    let held = serve::never_read(world.internet().listen("203.0.113.11:9000"));
    std::fs::write(servers::www(&world).join("fast"), vec![7; 50_000_000]).expect("own file");
    let out = world.python(
        program!("stalled"),
        &["v4.shop.example", "9000", "http://v4.shop.example/fast"],
    );
    let said = out.ok().to_owned();
    assert!(said.ends_with("downloaded 50000000\n"), "{said}");
    let taken: u64 = said
        .split_whitespace()
        .nth(2)
        .and_then(|word| word.parse().ok())
        .expect("a number");
    assert!(taken < 64 << 20, "no back-pressure: {taken} bytes taken");
    drop(held);
    if !world.direct() {
        assert!(world.outer().ended().is_none(), "the host died");
    }
}

#[test]
fn what_was_written_before_the_apps_exit_arrives() {
    let world = start!(shop());
    let listener = world.internet().listen("203.0.113.11:9000");
    // The app has written and gone before the server reads a byte.
    let source = "import socket, sys\n\
        s = socket.create_connection((sys.argv[1], 9000))\n\
        s.sendall(b'z' * 200000)\n\
        print('written', flush=True)\n";
    let mut running = Guest::python(source, &["v4.shop.example"]).spawn(&world);
    let (mut stream, _) = listener.accept().expect("a connection");
    running.process.wait_for("written", Duration::from_secs(20));
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    assert_eq!(all.len(), 200_000);
    drop(stream);
    let out = running.finish();
    out.ok();
    if let Some(flow) = out.flow("tcp", "v4.shop.example", 9000) {
        assert_eq!(flow.bytes_sent, 200_000);
        assert_eq!(flow.end, "closed");
    }
}

#[test]
fn an_app_killed_in_the_middle_of_a_flow_leaves_its_record() {
    let world = start!(shop());
    let listener = world.internet().listen("203.0.113.11:9000");
    let source = "import os, socket, sys\n\
        s = socket.create_connection((sys.argv[1], 9000))\n\
        s.sendall(b'hello')\n\
        s.recv(1)\n\
        os.kill(os.getpid(), 9)\n";
    let running = Guest::python(source, &["v4.shop.example"]).spawn(&world);
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer).expect("hello");
    std::io::Write::write_all(&mut stream, b"x").expect("the app reads");
    let mut rest = Vec::new();
    // The server sees an end, orderly or not, instead of a hang.
    let _ = stream.read_to_end(&mut rest);
    drop(stream);
    let out = running.finish();
    assert_eq!(out.code, 137, "{}", out.describe());
    if let Some(flow) = out.flow("tcp", "v4.shop.example", 9000) {
        assert_eq!((flow.bytes_sent, flow.bytes_received), (5, 1));
    }
}

#[test]
fn a_flow_is_recorded_when_it_ends_not_when_the_app_does() {
    let world = start!(shop());
    serve::banner(world.internet().listen("203.0.113.11:9000"), "hi");
    let source = "import os, socket, sys, time\n\
        s = socket.create_connection((sys.argv[1], 9000))\n\
        s.recv(10)\n\
        s.close()\n\
        print('closed', flush=True)\n\
        while not os.path.exists('go'): time.sleep(0.01)\n";
    let mut running = Guest::python(source, &["v4.shop.example"]).spawn(&world);
    running.process.wait_for("closed", Duration::from_secs(20));
    if !world.direct() {
        until(
            Duration::from_secs(10),
            "the record of a closed flow",
            || {
                running
                    .audit()
                    .iter()
                    .any(|record| record.protocol == "tcp")
            },
        );
    }
    std::fs::write(world.scratch().join("go"), "").expect("own directory");
    running.finish().ok();
}

#[test]
fn an_unreachable_network_is_told_at_once() {
    let world = start!(shop());
    world.host().ip("route add unreachable 203.0.113.20/32\n");
    let out = world.python(program!("connect"), &["tcp", "203.0.113.20", "9000"]);
    assert!(out.ok().starts_with("failed E"), "{}", out.describe());
    assert_ne!(out.stdout, "failed EOF\n");
    if let Some(flow) = out.flow("tcp", "203.0.113.20", 9000) {
        assert_eq!(
            (flow.verdict.as_str(), flow.end.as_str()),
            ("allow", "unreachable")
        );
    }
    let out = world.python(program!("connect"), &["udp", "203.0.113.20", "9000"]);
    assert!(out.ok().starts_with("failed E"), "{}", out.describe());
    out.flow("udp", "203.0.113.20", 9000);
}

#[test]
fn a_reset_after_the_apps_close_ends_the_flow_at_once() {
    let world = start!(shop());
    // What PostgreSQL and many others do: the client says goodbye and closes,
    // the server says goodbye, too, and closes without having read it.
    let server = r#"
import select, socket
listener = socket.create_server(("203.0.113.11", 9000))
print("ready", flush=True)
s, _ = listener.accept()
s.recv(1)
s.sendall(b"answer")
p = select.poll()
p.register(s, select.POLLRDHUP)
p.poll()
s.sendall(b"bye")
s.close()
"#;
    let mut server = world.internet_spawn("server", &["python3", "-c", server]);
    server.wait_for("ready", Duration::from_secs(10));
    let client = "import socket, sys\n\
        s = socket.create_connection((sys.argv[1], 9000))\n\
        s.sendall(b'q')\n\
        s.recv(100)\n\
        s.sendall(b'goodbye')\n\
        s.close()\n";
    let out = world.python(client, &["v4.shop.example"]);
    out.ok();
    if let Some(flow) = out.flow("tcp", "v4.shop.example", 9000) {
        assert!(flow.duration_ms < 5_000.0, "it lingered: {flow:?}");
    }
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
