//! Ingress: clients on the internet, programs in guests.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use odyn_tests::cut::Wire;
use odyn_tests::guest::Running;
use odyn_tests::process::until;
use odyn_tests::{Guest, World};

use crate::{program, start};

/// For whatever takes a moment, on a machine that is slow.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// Where the host listens in most tests, for port 80 of any guest.
pub(crate) const ADDRESS: &str = "192.0.2.2:8000";
pub(crate) const MAPPING: &str = "80=192.0.2.2:8000";

pub(crate) fn world(mappings: &[&str]) -> odyn_tests::world::Builder {
    let words: Vec<&str> = mappings.iter().flat_map(|m| ["--ingress", m]).collect();
    World::builder()
        .policy(&policy("shop", 80, 8080))
        .outer(&words)
}

pub(crate) fn policy(name: &str, listen: u16, target: u16) -> String {
    format!(
        "version: v1\nname: {name}\ningress:\n  - listen_port: {listen}\n    target_port: {target}\n"
    )
}

/// What the host half has logged.
pub(crate) fn outer_log(world: &mut World) -> String {
    String::from_utf8_lossy(&world.outer().stderr()).into_owned()
}

/// Waits for a line of the host half's log with all these words.
#[track_caller]
pub(crate) fn outer_says(world: &mut World, words: &[&str]) {
    until(SOON, &format!("a line with {words:?}"), || {
        outer_log(world)
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    });
}

/// Waits until clients of this mapping have a guest to go to.
#[track_caller]
pub(crate) fn listening(world: &mut World, mapping: &str) {
    outer_says(world, &["listening for clients", mapping]);
}

/// A client on the internet.
pub(crate) fn connect(world: &World, address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().expect("an address");
    world.internet().enter(move || {
        let stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        Ok(stream)
    })
}

/// Starts a server and waits until it and the host half listen.
pub(crate) fn app(world: &mut World, words: &[&str]) -> Running {
    let mut running = Guest::python(program!("app"), words).spawn(world);
    running.process.wait_for("ready", SOON);
    listening(world, MAPPING);
    running
}

/// What a server that answers at the end of input says to `sent`.
pub(crate) fn exchange(mut stream: TcpStream, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut writer = stream.try_clone()?;
    let bytes = sent.to_vec();
    let write = std::thread::spawn(move || {
        writer.write_all(&bytes)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    write.join().expect("the writer")?;
    Ok(got)
}

pub(crate) fn expected(sent: &[u8]) -> Vec<u8> {
    [format!("{}\n", sent.len()).as_bytes(), sent].concat()
}

pub(crate) fn stop(running: Running) -> odyn_tests::Output {
    running.process.signal(Signal::SIGTERM);
    running.finish()
}

#[test]
fn each_direction_ends_by_itself_and_the_record_names_the_client() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["after-end", "8080"]);
    let stream = connect(&world, ADDRESS).expect("a listener");
    let client = stream.local_addr().expect("a socket").to_string();
    let sent: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    assert!(exchange(stream, &sent).expect("an answer") == expected(&sent));
    until(SOON, "the record", || running.audit().len() == 1);
    let record = &running.audit()[0];
    assert_eq!(record.direction, "ingress");
    assert_eq!(record.verdict, "allow");
    assert_eq!(record.protocol, "tcp");
    assert_eq!(record.client.as_deref(), Some(client.as_str()));
    assert_eq!(record.destination, "127.0.0.1:8080");
    assert_eq!(record.bytes_received, 4_000_000);
    assert_eq!(record.bytes_sent, 4_000_008);
    assert_eq!(record.end, "closed");
    stop(running);
}

#[test]
fn resets_go_both_ways() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["reset", "8080"]);
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    stream.write_all(b"x").expect("a connection");
    let read = stream.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::ConnectionReset));
    until(SOON, "the record", || running.audit().len() == 1);
    assert_eq!(running.audit()[0].end, "reset-by-app");
    stop(running);

    let mut world = start!(self::world(&[MAPPING]));
    let mut running = app(&mut world, &["hold", "8080"]);
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    stream.write_all(b"x").expect("a connection");
    running.process.wait_for("first x", SOON);
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger)
        .expect("a socket");
    drop(stream);
    until(SOON, "the record", || running.audit().len() == 1);
    assert_eq!(running.audit()[0].end, "reset-by-peer");
    stop(running);
}

#[test]
fn a_thousand_short_connections_each_with_its_record() {
    const THREADS: usize = 20;
    const EACH: usize = 50;
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["after-end", "8080"]);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let world = &world;
            scope.spawn(move || {
                for number in 0..EACH {
                    let sent = format!("{thread} {number}").repeat(100);
                    let stream = connect(world, ADDRESS).expect("a listener");
                    let got = exchange(stream, sent.as_bytes()).expect("an answer");
                    assert!(got == expected(sent.as_bytes()));
                }
            });
        }
    });
    until(SOON, "the records", || {
        running.audit().len() == THREADS * EACH
    });
    let records = running.audit();
    assert!(records.iter().all(|record| record.end == "closed"));
    assert!(records.iter().all(|record| record.direction == "ingress"));
    stop(running);
}

#[test]
fn nginx_serves_over_ipv4_and_ipv6() {
    let v6 = "80=[2001:db8:1::2]:8000";
    let mut world = start!(world(&[MAPPING, v6]));
    if world.direct() {
        return;
    }
    let www = world.dir().join("www");
    std::fs::create_dir(&www).expect("own directory");
    let blob: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 253) as u8).collect();
    std::fs::write(www.join("blob"), &blob).expect("own directory");
    let dir = world.scratch().display().to_string();
    let config = format!(
        "daemon off; worker_processes 1; pid {dir}/pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{ access_log off; client_max_body_size 0; sendfile on;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:8080; root {};
    location /up/ {{ root {dir}; dav_methods PUT; create_full_put_path on; }} }} }}
",
        www.display()
    );
    let config = world.file("guest-nginx.conf", config);
    let running =
        Guest::new(&["nginx", "-e", "stderr", "-c", &config.display().to_string()]).spawn(&world);
    listening(&mut world, MAPPING);
    listening(&mut world, v6);
    for base in ["http://192.0.2.2:8000", "http://[2001:db8:1::2]:8000"] {
        let back = world.dir().join("back");
        let blob_url = format!("{base}/blob");
        let up_url = format!("{base}/up/blob");
        let source = www.join("blob").display().to_string();
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

#[test]
fn a_client_waits_for_a_program_that_listens_late() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let go = world.scratch().join("go");
    let script = "while [ ! -e go ]; do sleep 0.05; done; exec python3 -c \"$0\" after-end 8080";
    let running = Guest::new(&["sh", "-c", script, program!("app")]).spawn(&world);
    listening(&mut world, MAPPING);
    let streams: Vec<TcpStream> = (0..20)
        .map(|_| connect(&world, ADDRESS).expect("a listener"))
        .collect();
    std::fs::write(&go, "").expect("own directory");
    for stream in streams {
        let got = exchange(stream, b"patience").expect("an answer");
        assert_eq!(got, expected(b"patience"));
    }
    stop(running);
}

#[test]
fn a_client_of_a_program_that_never_listens_is_reset() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let running = Guest::new(&["sleep", "infinity"]).spawn(&world);
    listening(&mut world, MAPPING);
    let start = Instant::now();
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    let read = stream.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::ConnectionReset));
    assert!(
        start.elapsed() > Duration::from_secs(8),
        "it had not waited"
    );
    until(SOON, "the record", || running.audit().len() == 1);
    assert_eq!(running.audit()[0].end, "refused");
    stop(running);
}

#[test]
fn a_port_that_the_operator_does_not_allow_is_not_listened_on() {
    let mut world = start!(
        World::builder()
            .policy("version: v1\nname: shop\ningress:\n  - listen_port: 80\n  - listen_port: 81\n")
            .outer(&["--ingress", MAPPING, "--ingress", "bank:81=192.0.2.2:8001"])
    );
    if world.direct() {
        return;
    }
    let running = Guest::new(&["sleep", "infinity"]).spawn(&world);
    listening(&mut world, MAPPING);
    outer_says(
        &mut world,
        &["no --ingress gives it", "shop", "ports=\"81\""],
    );
    let refused = connect(&world, "192.0.2.2:8001").map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
    assert!(
        !outer_log(&mut world).contains(
            "guest wants clients on ports that no --ingress gives it: not listening more=1"
        )
    );
    stop(running);
}

#[test]
fn an_address_that_is_taken_is_listened_on_when_it_is_free() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let taken = world.host().listen(ADDRESS);
    let running = Guest::python(program!("app"), &["after-end", "8080"]).spawn(&world);
    outer_says(&mut world, &["can't listen for clients", MAPPING, "in use"]);
    drop(taken);
    listening(&mut world, MAPPING);
    let stream = connect(&world, ADDRESS).expect("a listener");
    assert_eq!(exchange(stream, b"x").expect("an answer"), expected(b"x"));
    stop(running);
}

/// A guest with a name of its own.
fn named(world: &World, name: &str, words: &[&str]) -> Running {
    let file: PathBuf = world.file(&format!("{name}.yaml"), policy(name, 80, 8080));
    let mut running = Guest::python(program!("app"), words)
        .policy(file)
        .spawn(world);
    running.process.wait_for("ready", SOON);
    running
}

#[test]
fn two_guests_have_the_same_port_on_different_addresses() {
    let (one, two) = ("one:80=192.0.2.2:8001", "two:80=192.0.2.2:8002");
    let mut world = start!(world(&[one, two]));
    if world.direct() {
        return;
    }
    let first = named(&world, "one", &["after-end", "8080"]);
    let second = named(&world, "two", &["after-end", "8080"]);
    listening(&mut world, one);
    listening(&mut world, two);
    for (address, count) in [("192.0.2.2:8001", 3), ("192.0.2.2:8002", 5)] {
        for _ in 0..count {
            let stream = connect(&world, address).expect("a listener");
            assert_eq!(exchange(stream, b"x").expect("an answer"), expected(b"x"));
        }
    }
    assert_eq!(stop(first).audit.len(), 3);
    assert_eq!(stop(second).audit.len(), 5);
}

#[test]
fn a_restarted_host_half_has_its_guests_and_their_clients_again() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["after-end", "8080"]);
    for _ in 0..3 {
        let mut cut = connect(&world, ADDRESS).expect("a listener");
        cut.write_all(b"x").expect("a connection");
        world.outer().kill();
        // Ends at once: that it is a reset is the relay's to see to.
        match cut.read(&mut [0; 1]) {
            Ok(0) => {}
            other => assert_eq!(
                other.map_err(|error| error.kind()),
                Err(ErrorKind::ConnectionReset)
            ),
        }
        let refused = connect(&world, ADDRESS).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
        world.start_outer();
        listening(&mut world, MAPPING);
        let stream = connect(&world, ADDRESS).expect("a listener");
        assert_eq!(exchange(stream, b"x").expect("an answer"), expected(b"x"));
    }
    stop(running);
}

#[test]
fn a_cut_link_refuses_no_client() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let path = world.dir().join("wire.sock");
    let wire = Wire::new(&path, &world.link_path());
    let mut running = Guest::python(program!("app"), &["after-end", "8080"])
        .flag("--link")
        .flag(&format!("unix://{}", path.display()))
        .spawn(&world);
    running.process.wait_for("ready", SOON);
    listening(&mut world, MAPPING);
    for _ in 0..10 {
        let start = Instant::now();
        for connection in wire.connections() {
            wire.cut(connection);
        }
        let stream = connect(&world, ADDRESS).expect("a listener");
        assert_eq!(exchange(stream, b"x").expect("an answer"), expected(b"x"));
        println!("served {:?} after the cut", start.elapsed());
    }
    let log = outer_log(&mut world);
    assert_eq!(log.matches("not listening for clients").count(), 0, "{log}");
    stop(running);
}

#[test]
fn a_killed_guests_listener_ends_and_the_next_guest_gets_its_clients() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let mut first = app(&mut world, &["hold", "8080"]);
    let mut cut = connect(&world, ADDRESS).expect("a listener");
    cut.write_all(b"x").expect("a connection");
    first.process.wait_for("first x", SOON);
    first.process.kill();
    let read = cut.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::ConnectionReset));
    // The next one takes over, be it at once or later.
    let second = Guest::python(program!("app"), &["after-end", "8080"]).spawn(&world);
    until(SOON, "the next guest", || {
        connect(&world, ADDRESS)
            .and_then(|stream| exchange(stream, b"x"))
            .is_ok_and(|got| got == expected(b"x"))
    });
    // One that ends in good order says so: no client waits in vain.
    stop(second);
    outer_says(&mut world, &["not listening for clients any more", MAPPING]);
    let refused = connect(&world, ADDRESS).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
    let mut third = Guest::python(program!("app"), &["hold", "8080"]).spawn(&world);
    third.process.wait_for("ready", SOON);
    until(SOON, "the third guest", || connect(&world, ADDRESS).is_ok());
    third.process.kill();
    until(SOON, "the end of the listener", || {
        connect(&world, ADDRESS).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

#[test]
fn a_host_half_that_is_told_to_stop_takes_no_client_and_ends_none() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["after-end", "8080"]);
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    stream.write_all(b"before ").expect("a connection");
    outer_says(&mut world, &["client connected"]);
    world.outer().signal(Signal::SIGTERM);
    until(SOON, "the listener's end", || {
        connect(&world, ADDRESS).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    let got = exchange(stream, b"after").expect("an answer");
    assert_eq!(got, expected(b"before after"));
    let status = world.outer().wait(SOON);
    assert!(status.success(), "{status}");
    stop(running);
}

#[test]
fn a_response_whose_program_has_exited_arrives_whole() {
    const SIZE: usize = 256 << 20;
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["one", "8080", &SIZE.to_string()]);
    let back = world.dir().join("back").display().to_string();
    let url = format!("http://{ADDRESS}/");
    let mut curl = world.internet_spawn(
        "curl",
        &["curl", "-sSf", "--limit-rate", "20M", "-o", &back, &url],
    );
    let out = running.finish();
    // What is delivered needs nobody any more.
    world.outer().kill();
    assert_eq!(out.code, 7, "{}", out.describe());
    let status = curl.wait(SOON);
    assert!(
        status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&curl.stderr()),
        out.describe()
    );
    let block: Vec<u8> = (0..65536_u32).map(|at| (at * 31) as u8).collect();
    let got = std::fs::read(&back).expect("a file");
    assert_eq!(got.len(), SIZE);
    assert!(got.chunks(65536).all(|chunk| chunk == block));
    assert_eq!(out.audit.len(), 1);
    assert_eq!(out.audit[0].end, "closed");
}

#[test]
fn odyn_net_ends_only_when_a_slow_client_has_everything() {
    // Fits into the host half, and not into the client.
    const SIZE: usize = 448 << 10;
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let mut running = app(&mut world, &["one", "8080", &SIZE.to_string()]);
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::RcvBuf, &(16 << 10))
        .expect("a size");
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("a connection");
    until(SOON, "the question whether all is delivered", || {
        world.guest_log().contains("phase=Flushing")
    });
    // With nothing to wait for it ends in milliseconds.
    std::thread::sleep(Duration::from_secs(1));
    assert!(running.process.ended().is_none(), "it did not wait");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    assert!(all.len() > SIZE);
    let out = running.finish();
    assert_eq!(out.code, 7, "{}", out.describe());
    assert_eq!(out.audit[0].end, "closed");
}

#[test]
fn a_client_that_never_closes_does_not_hold_the_exit() {
    const SIZE: usize = 1 << 20;
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let running = Guest::python(program!("app"), &["one", "8080", &SIZE.to_string()])
        .flag("--drain-timeout")
        .flag("10min")
        .spawn(&world);
    listening(&mut world, MAPPING);
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("a connection");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    assert!(all.len() > SIZE);
    // The limit of a run is far below that of the drain.
    let out = running.finish();
    assert_eq!(out.code, 7, "{}", out.describe());
    assert_eq!(out.audit[0].end, "closed");
    drop(stream);
}

#[test]
fn a_client_that_never_reads_is_reported_at_the_deadline() {
    const SIZE: usize = 64 << 20;
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let source = "import socket, os, threading\n\
        s = socket.create_server(('127.0.0.1', 8080))\n\
        c, _ = s.accept()\n\
        c.setblocking(False)\n\
        c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)\n\
        import time\n\
        sent = 0\n\
        idle = 0\n\
        while idle < 20:\n\
        \x20   try:\n\
        \x20       sent += c.send(b'x' * 65536)\n\
        \x20       idle = 0\n\
        \x20   except BlockingIOError:\n\
        \x20       idle += 1\n\
        \x20       time.sleep(0.05)\n\
        print(sent, flush=True)\n\
        os._exit(7)\n";
    let running = Guest::python(source, &[])
        .flag("--drain-timeout")
        .flag("2s")
        .spawn(&world);
    listening(&mut world, MAPPING);
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    let out = running.finish();
    assert_eq!(out.code, 7, "{}", out.describe());
    let written: u64 = out.stdout.trim().parse().expect("a number");
    assert!(written < SIZE as u64, "{}", out.describe());
    let record = &out.audit[0];
    assert_eq!(record.end, "cut", "{}", out.describe());
    assert!(record.bytes_undelivered > Some(0), "{}", out.describe());
    // Half of a response must not look like all of it.
    let read = std::io::copy(&mut stream, &mut std::io::sink()).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::ConnectionReset));
}
