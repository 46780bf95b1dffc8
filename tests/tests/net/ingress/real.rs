//! Real servers in the guest and their own clients.

use std::time::Duration;

use odyn_tests::{Guest, World, servers};

use super::{MAPPING, SOON, listening, stop, world};
use crate::start;

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
