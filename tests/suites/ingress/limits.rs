//! Limits of clients at the host: the newest is refused, and those that are there live on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use odyn_tests::World;
use odyn_tests::guest::Running;
use odyn_tests::process::until;

use super::tls_worlds::policy_world;
use super::{ADDRESS, MAPPING, SOON, connect, listening, outer_log};
use crate::program;

/// A server that echoes, in a world with these flags of the host.
fn echo(words: &[&str]) -> Option<(World, Running)> {
    let mut world = policy_world("").outer(words).start()?;
    if world.direct() {
        return None;
    }
    let server = odyn_tests::Guest::python(program!("echo_server"), &["127.0.0.1", "8080"]);
    let mut running = server.spawn(&world);
    running.process.wait_for("ready", SOON);
    listening(&mut world, MAPPING);
    Some((world, running))
}

/// Whether the server echoes a line.
fn answers(stream: &mut TcpStream) -> Result<(), ErrorKind> {
    let mut got = [0; 6];
    let done = stream
        .write_all(b"hello\n")
        .and_then(|()| stream.read_exact(&mut got));
    done.map_err(|error| error.kind())
}

#[test]
fn one_source_has_its_share_and_the_others_theirs() {
    let words = ["--max-clients-per-source", "5", "--max-clients", "8"];
    let Some((world, _running)) = echo(&words) else {
        return;
    };
    // A reset may be there before the socket is.
    let ask = || {
        let mut stream = connect(&world, ADDRESS).map_err(|error| error.kind())?;
        answers(&mut stream)
    };
    let come = || connect(&world, ADDRESS).expect("room");
    let mut held: Vec<TcpStream> = (0..5).map(|_| come()).collect();
    for stream in &mut held {
        assert_eq!(answers(stream), Ok(()));
    }
    for _ in 0..3 {
        let end = ask();
        assert!(
            matches!(end, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)),
            "{end:?}"
        );
    }
    for stream in &mut held {
        assert_eq!(answers(stream), Ok(()), "who is there lives on");
    }
    drop(held.pop());
    until(SOON, "room", || ask().is_ok());
}

#[test]
fn a_second_has_so_many_new_clients() {
    let Some((world, _running)) = echo(&["--client-rate", "1"]) else {
        return;
    };
    let start = Instant::now();
    let served = (0..30)
        // A reset may be there before the socket is.
        .filter(|_| connect(&world, ADDRESS).is_ok_and(|mut stream| answers(&mut stream).is_ok()))
        .count();
    let most = usize::try_from(start.elapsed().as_secs()).expect("short") + 2;
    assert!((1..=most).contains(&served), "{served} of at most {most}");
}

#[test]
fn slow_clients_are_given_up_and_harm_no_other() {
    // Longer than a busy machine takes from a connection to its first byte.
    let words = ["--first-byte-timeout", "3s", "--client-idle-timeout", "6s"];
    let Some((mut world, running)) = echo(&words) else {
        return;
    };
    let mut busy = connect(&world, ADDRESS).expect("a listener");
    let silent: Vec<TcpStream> = (0..100)
        .map(|at| {
            let mut stream = connect(&world, ADDRESS).expect("a listener");
            if at % 2 == 0 {
                // A head that never ends.
                stream
                    .write_all(b"GET / HTTP/1.1\r\nX: ")
                    .expect("a socket");
            }
            // The one that speaks is served all the while.
            assert_eq!(answers(&mut busy), Ok(()));
            stream
        })
        .collect();
    let mut waiting: Vec<TcpStream> = silent;
    for stream in &waiting {
        stream.set_nonblocking(true).expect("a socket");
    }
    until(SOON, "their ends", || {
        assert_eq!(answers(&mut busy), Ok(()));
        waiting.retain_mut(|stream| match stream.read(&mut [0; 64]) {
            Ok(0) => panic!("a plain end"),
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        waiting.is_empty()
    });
    let log = outer_log(&mut world);
    let count = |why: &str| log.lines().filter(|line| line.contains(why)).count();
    assert_eq!(count("no first byte in time"), 50);
    assert_eq!(count("idle for too long"), 50);
    until(SOON, "the records", || running.audit().len() == 100);
    assert!(running.audit().iter().all(|r| r.end == "reset-by-peer"));
}

#[test]
fn ten_thousand_idle_clients_and_one_that_works() {
    const MANY: usize = 10_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("own limits");
    assert!(
        hard > MANY as u64 + 500,
        "the limit of open files is too low: {hard}"
    );
    let Some((world, _running)) = echo(&[]) else {
        return;
    };
    let mut idle = Vec::with_capacity(MANY);
    // In the namespace once, not for each.
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let address = ADDRESS.parse().expect("an address");
                    world.internet().enter(|| {
                        (0..MANY / 8)
                            .map(|_| {
                                let mut stream =
                                    TcpStream::connect_timeout(&address, SOON).expect("room");
                                stream.set_read_timeout(Some(SOON)).expect("a socket");
                                assert_eq!(answers(&mut stream), Ok(()));
                                stream
                            })
                            .collect::<Vec<_>>()
                    })
                })
            })
            .collect();
        for thread in threads {
            idle.extend(thread.join().expect("all fine"));
        }
    });
    assert_eq!(idle.len(), MANY);
    assert_eq!(
        answers(&mut connect(&world, ADDRESS).expect("room")),
        Ok(())
    );
    for stream in idle.iter_mut().step_by(500) {
        assert_eq!(answers(stream), Ok(()));
    }
}

/// SYNs from addresses where nothing answers, which stay half open.
const FLOOD: &str = r#"
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
target = socket.inet_aton("192.0.2.2")
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for number in range(int(sys.argv[1])):
    source = bytes([192, 0, 2, 100 + number % 100])
    port = 1024 + number % 60000
    tcp = struct.pack("!HHIIBBHHH", port, 8000, number, 0, 5 << 4, 2, 65535, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, number & 0xFFFF, 0, 64, 6, 0, source, target)
    try:
        raw.sendto(ip + tcp, ("192.0.2.2", 0))
    except OSError:
        pass
print("sent")
"#;

#[test]
fn half_open_connections_keep_no_client_out() {
    let Some((world, _running)) = echo(&[]) else {
        return;
    };
    let mut before = connect(&world, ADDRESS).expect("a listener");
    assert_eq!(answers(&mut before), Ok(()));
    let mut flood = world.internet_spawn("flood", &["python3", "-c", FLOOD, "20000"]);
    flood.wait_for("sent", Duration::from_secs(60));
    let half_open = world.host().enter(|| {
        std::fs::read_to_string("/proc/thread-self/net/tcp")
            .expect("proc")
            .lines()
            .filter(|line| line.split_whitespace().nth(3) == Some("03"))
            .count()
    });
    assert!(half_open > 100, "only {half_open} are half open");
    assert_eq!(answers(&mut before), Ok(()));
    for _ in 0..20 {
        assert_eq!(
            answers(&mut connect(&world, ADDRESS).expect("room")),
            Ok(())
        );
    }
}
