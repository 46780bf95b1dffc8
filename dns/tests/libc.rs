//! getaddrinfo of glibc and of musl against the resolver, search lists included.
//!
//! The test runs itself again inside namespaces of its own: a network with nothing but loopback,
//! so that the resolver can have 127.0.0.1 port 53, and mounts with a test's /etc/resolv.conf.
//! Where namespaces cannot be made, the test prints a warning and passes;
//! `ODYN_REQUIRE_ROOT=1` makes that a failure.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use odyn_dns::test_util::{FakePolicy, FakeUpstream};
use odyn_dns::{Config, Resolver, serve_tcp, serve_udp};
use tokio::net::{TcpListener, UdpSocket};

/// Prints the addresses of its argument, or the error's number.
const MUSL_CLIENT: &str = r#"
#include <stdio.h>
#include <netdb.h>
#include <arpa/inet.h>
int main(int argc, char **argv) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *a;
    int error = getaddrinfo(argv[1], 0, &hints, &list);
    if (error) { printf("error %s\n", gai_strerror(error)); return 1; }
    for (a = list; a; a = a->ai_next) {
        char text[INET6_ADDRSTRLEN];
        void *address = a->ai_family == AF_INET
            ? (void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr
            : (void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
        puts(inet_ntop(a->ai_family, address, text, sizeof text));
    }
    return 0;
}
"#;

/// A time-out would take a minute and end in "try again", which no case expects.
const PATIENCE: &str = "options timeout:30 attempts:2";

const IN_NAMESPACE: &str = "ODYN_DNS_LIBC_DIRECTORY";

#[test]
fn search_lists_work_for_glibc_and_musl() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path();
    for (file, content) in [
        ("resolv.conf", ""),
        ("hosts", "127.0.0.1 localhost\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ] {
        fs::write(path.join(file), content).expect("write");
    }
    let Some(mut unshare) = unshare() else {
        let loud = b"\nSKIPPED search_lists_work_for_glibc_and_musl: no namespaces here\n\n";
        std::io::stderr().write_all(loud).expect("stderr");
        assert!(
            std::env::var_os("ODYN_REQUIRE_ROOT").is_none(),
            "namespaces are required"
        );
        return;
    };
    let script = "set -e; ip link set lo up
        for file in resolv.conf hosts nsswitch.conf; do
            mount --bind \"$DIRECTORY/$file\" /etc/$file
        done
        exec \"$0\" --ignored --exact inside_the_namespaces --nocapture";
    let output = unshare
        .args(["sh", "-c", script])
        .arg(std::env::current_exe().expect("own path"))
        .env("DIRECTORY", path)
        .env(IN_NAMESPACE, path)
        .output()
        .expect("sh starts");
    assert!(
        output.status.success() && text(&output.stdout).contains("1 passed"),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// The command `unshare` with this user's flags for namespaces, if they can be made.
fn unshare() -> Option<Command> {
    [&["-m", "-n"][..], &["-r", "-m", "-n"]]
        .into_iter()
        .find(|flags| {
            let tried = Command::new("unshare").args(*flags).arg("true").output();
            tried.is_ok_and(|output| output.status.success())
        })
        .map(|flags| {
            let mut command = Command::new("unshare");
            command.args(flags);
            command
        })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Compiles the musl client, unless there is no musl.
fn musl_client(directory: &Path) -> Option<PathBuf> {
    let (source, program) = (directory.join("client.c"), directory.join("client"));
    fs::write(&source, MUSL_CLIENT).expect("write");
    let mut compiler = Command::new("musl-gcc");
    compiler.arg("-static").arg("-o").arg(&program).arg(&source);
    match compiler.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", text(&output.stderr));
            Some(program)
        }
        Err(_) => {
            let loud = b"\nSKIPPED the musl half: no musl-gcc here\n\n";
            std::io::stderr().write_all(loud).expect("stderr");
            assert!(
                std::env::var_os("ODYN_REQUIRE_ROOT").is_none(),
                "musl is required: install musl-tools"
            );
            None
        }
    }
}

/// The answer of a libc about a name: its addresses in order, or none.
fn outcome(output: &Output) -> Vec<String> {
    let mut lines: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

struct Client {
    what: &'static str,
    program: PathBuf,
    arguments: Vec<&'static str>,
}

const PYTHON: &str = "
import socket, sys
try:
    for found in socket.getaddrinfo(sys.argv[1], None, type=socket.SOCK_STREAM):
        print(found[4][0])
except socket.gaierror as error:
    print('error', error.strerror)
";

/// The names, the search list, and which candidate must have been found.
const CASES: [(&str, &str, Option<&str>); 13] = [
    // The first candidate of the list is denied, the second allowed, the name itself denied.
    (
        "db",
        "search denied.test corp.example",
        Some("db.corp.example"),
    ),
    // As in a cluster: the name itself comes last.
    (
        "api.corp.example",
        "search denied.test other.test\noptions ndots:5",
        Some("api.corp.example"),
    ),
    // Denied with the first suffix, found with the second. (Without ndots musl searches nothing for
    // a name with a dot.)
    (
        "a.b",
        "search denied.test corp.example\noptions ndots:2",
        Some("a.b.corp.example"),
    ),
    // Denied everywhere.
    ("db", "search denied.test", None),
    ("db.denied.test", "", None),
    ("db.denied.test.", "search corp.example", None),
    // A deny rule beats the allow rule for everything in the zone.
    ("ads", "search corp.example", None),
    // Allowed and does not exist.
    ("nothing", "search corp.example", None),
    ("nothing.corp.example", "", None),
    // One family only; the other is empty, or denied for its addresses.
    ("v4.corp.example", "", Some("v4.corp.example")),
    ("meta6.corp.example", "", Some("meta6.corp.example")),
    // Only addresses that are denied.
    ("meta.corp.example", "", None),
    // More than 512 bytes: a chain of aliases.
    ("long.corp.example", "", Some("long.corp.example")),
];

#[test]
#[ignore = "run by the other test, in namespaces"]
fn inside_the_namespaces() {
    let Some(directory) = std::env::var_os(IN_NAMESPACE).map(PathBuf::from) else {
        return;
    };
    let mut clients = vec![Client {
        what: "glibc",
        program: "python3".into(),
        arguments: vec!["-c", PYTHON],
    }];
    clients.extend(musl_client(&directory).map(|program| Client {
        what: "musl",
        program,
        arguments: Vec::new(),
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    let policy = FakePolicy::allowing(&[".corp.example"]);
    policy.deny("ads.corp.example");
    policy.deny_address("169.254.169.254");
    policy.deny_address("fe80::1");
    let upstream = upstream();
    let resolver = Resolver::new(Config::default(), policy.clone(), upstream.clone());
    runtime.block_on(async {
        let udp = UdpSocket::bind("127.0.0.1:53").await.expect("bind");
        let tcp = TcpListener::bind("127.0.0.1:53").await.expect("bind");
        tokio::spawn(serve_udp(udp, resolver.clone()));
        tokio::spawn(serve_tcp(tcp, resolver.clone()));
    });
    for (name, search, found) in CASES {
        let conf = format!("nameserver 127.0.0.1\n{PATIENCE}\n{search}\n");
        fs::write("/etc/resolv.conf", conf).expect("write");
        for client in &clients {
            let output = Command::new(&client.program)
                .args(&client.arguments)
                .arg(name)
                .output()
                .expect("client starts");
            let lines = outcome(&output);
            let case = format!("{} {name} [{search}] -> {lines:?}", client.what);
            match found {
                Some(found) => {
                    assert!(!lines.is_empty(), "{case}");
                    for line in &lines {
                        let address = line.parse().unwrap_or_else(|_| panic!("{case}"));
                        let owner = resolver.owner(address).unwrap_or_else(|| panic!("{case}"));
                        assert_eq!(owner.name.as_str(), found, "{case}");
                    }
                }
                None => {
                    let [line] = &lines[..] else { panic!("{case}") };
                    assert!(line.starts_with("error "), "{case}");
                    assert!(!line.contains("failure"), "a time-out or SERVFAIL: {case}");
                    assert!(!line.contains("ry again"), "a time-out or SERVFAIL: {case}");
                }
            }
        }
    }
    let asked = upstream.take_asked();
    let outside = asked
        .iter()
        .find(|(name, _)| !name.ends_with(".corp.example."));
    assert_eq!(outside, None, "left the guest");
    assert!(asked.iter().all(|(name, _)| !name.starts_with("ads.")));
    assert!(!policy.take_records().is_empty());
}

fn upstream() -> FakeUpstream {
    let upstream = FakeUpstream::default();
    upstream.add("corp.example. 300 SOA ns.corp.example. admin.corp.example. 1 2 3 4 60");
    for name in ["db", "api", "a.b", "ads"] {
        upstream.add(&format!("{name}.corp.example. 60 A 203.0.113.1"));
        upstream.add(&format!("{name}.corp.example. 60 AAAA 2001:db8::1"));
    }
    upstream.add("v4.corp.example. 60 A 203.0.113.1");
    upstream.add("meta6.corp.example. 60 A 203.0.113.1");
    upstream.add("meta6.corp.example. 60 AAAA fe80::1");
    upstream.add("meta.corp.example. 60 A 169.254.169.254");
    upstream.add("meta.corp.example. 60 AAAA fe80::1");
    let label = "x".repeat(60);
    let mut owner = "long.corp.example.".to_owned();
    for index in 0..12 {
        let target = format!("{label}{index}.n{index}.corp.example.");
        upstream.add(&format!("{owner} 60 CNAME {target}"));
        owner = target;
    }
    upstream.add(&format!("{owner} 60 A 203.0.113.1"));
    upstream
}
