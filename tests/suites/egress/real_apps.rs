//! Ordinary apps run under the filter, without rights, as ordinary users: clients by name, and
//! servers with their workers for clients in the guest.

use std::process::Command;
use std::time::Duration;

use odyn_tests::process::run;
use odyn_tests::{Guest, Output, World, servers};

use crate::{shop, start};

/// Compilers and virtual machines take their time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(200);

/// The server's answer to a request by that name.
const WHOAMI: &str = "HTTP/1.1 v4.shop.example 203.0.113.11\n";
const URL: &str = "http://v4.shop.example/whoami";
const DENIED: &str = "http://evil.example.net/whoami";

/// Runs a client for a URL that is allowed and for one that is not.
#[track_caller]
fn fetches(world: &World, times: usize, client: impl Fn(&str) -> Guest) -> Output {
    let _nginx = servers::nginx(world);
    let out = client(URL).limit(PATIENCE).run(world);
    assert_eq!(out.ok(), WHOAMI.repeat(times), "{}", out.describe());
    if !world.direct() {
        let flows = out.flows("tcp", "v4.shop.example", 80);
        assert!(!flows.is_empty(), "{}", out.describe());
    }
    let denied = client(DENIED).limit(PATIENCE).run(world);
    if !world.direct() {
        denied.failed().dns_denied("evil.example.net", "no-rule");
        assert!(!denied.stdout.contains("HTTP/"), "{}", denied.describe());
    }
    out
}

#[test]
fn curl() {
    let world = start!(shop());
    fetches(&world, 1, |url| Guest::new(&["curl", "-sSf", url]));
}

#[test]
fn python() {
    let world = start!(shop());
    let source =
        "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode(), end='')";
    fetches(&world, 1, |url| Guest::python(source, &[url]));
}

#[test]
fn node() {
    let world = start!(shop());
    let source = "const http = require('http'), url = process.argv[1]; \
        http.get(url, a => a.pipe(process.stdout)); \
        fetch(url).then(a => a.text()).then(text => process.stdout.write(text))";
    fetches(&world, 2, |url| Guest::new(&["node", "-e", source, url]));
}

#[test]
fn java() {
    let world = start!(shop());
    let source = world.file(
        "Fetch.java",
        include_str!("../../programs/fetch/Fetch.java"),
    );
    let mut compile = Command::new("javac");
    compile.arg("-d").arg(world.dir()).arg(source);
    run(compile);
    let classes = world.dir().display().to_string();
    fetches(&world, 2, |url| {
        Guest::new(&["java", "-XX:-UsePerfData", "-cp", &classes, "Fetch", url])
    });
}

#[test]
fn a_static_go_app() {
    let world = start!(shop());
    let source = world.file("fetch.go", include_str!("../../programs/fetch/fetch.go"));
    let app = world.dir().join("bin/fetch");
    let mut compile = Command::new("go");
    compile
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", world.dir().join("go"))
        .env("HOME", world.dir())
        .args(["build", "-o"]);
    compile.arg(&app).arg(source);
    run(compile);
    let app = app.display().to_string();
    fetches(&world, 1, |url| Guest::new(&[&app, url]));
}

#[test]
fn a_static_busybox() {
    let world = start!(shop());
    fetches(&world, 1, |url| {
        Guest::new(&["busybox", "wget", "-q", "-O", "-", url])
    });
}

#[test]
fn nginx_with_workers_serves_clients_in_the_guest() {
    let world = start!(shop());
    // A client beside the server, which ends the server when it has seen enough.
    let script = r#"
mkdir www && echo served >www/page
cat >nginx.conf <<END
daemon off;
worker_processes 3;
pid $PWD/pid;
error_log stderr warn;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path $PWD/body; proxy_temp_path $PWD/proxy; fastcgi_temp_path $PWD/fast;
    uwsgi_temp_path $PWD/uwsgi; scgi_temp_path $PWD/scgi;
    server { listen 127.0.0.1:8080; listen [::1]:8080; root $PWD/www; }
}
END
server=$$
(
    until curl -sSf http://127.0.0.1:8080/page 2>/dev/null; do sleep 0.05; done
    for n in 1 2 3 4 5 6 7 8; do curl -sSf http://localhost:8080/page & done; wait
    echo "workers $(grep -lx 'Name:.nginx' /proc/[0-9]*/status 2>/dev/null | wc -l)"
    kill -QUIT $server
) &
exec nginx -p "$PWD" -c nginx.conf"#;
    let out = Guest::sh(script).limit(PATIENCE).run(&world);
    assert_eq!(
        out.ok().matches("served\n").count(),
        9,
        "{}",
        out.describe()
    );
    // The first process and its workers; this world has no other nginx.
    assert!(out.stdout.contains("workers 4\n"), "{}", out.describe());
}

#[test]
fn postgres_starts_answers_and_stops_by_a_signal() {
    let world = start!(shop());
    let script = r#"set -e
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
"$bin/initdb" --no-sync -A trust -U app -D "$PWD/data" -E UTF8 --locale=C >/dev/null
(
    ask() { psql -h "$1" -U app -d postgres -XAtq -v ON_ERROR_STOP=1 -c "$2"; }
    until ask 127.0.0.1 'select 1' >/dev/null 2>&1; do sleep 0.05; done
    ask 127.0.0.1 'create table t as select generate_series(1, 100000) as n'
    ask "$PWD" 'set max_parallel_workers_per_gather = 4; set min_parallel_table_scan_size = 0;
        set parallel_setup_cost = 0; select sum(n) from t'
    echo asked
    kill -INT "$(head -n 1 data/postmaster.pid)"
) &
exec "$bin/postgres" -D "$PWD/data" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$PWD" -c fsync=off
"#;
    let out = Guest::sh(script).limit(PATIENCE).run(&world);
    assert_eq!(out.ok(), "5000050000\nasked\n", "{}", out.describe());
    assert!(
        out.stderr.contains("database system is shut down"),
        "{}",
        out.describe()
    );
}
