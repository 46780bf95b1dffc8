//! PostgreSQL and Redis by their own clients.

use std::fmt::Write as _;

use odyn_tests::{Guest, servers};

use crate::{shop, start};

#[test]
fn psql_copies_in_and_out_over_verified_tls() {
    let world = start!(shop());
    let _postgres = servers::postgres(&world);
    let ca = world.dir().join("ca.pem");
    let connection = format!(
        "host=api.shop.example user=postgres dbname=postgres sslmode=verify-full sslrootcert={}",
        ca.display()
    );
    let script = r#"set -e
awk 'BEGIN { for (i = 0; i < 200000; i++) printf "%d\trow number %d\n", i, i * 7 }' >rows
psql -qX -v ON_ERROR_STOP=1 "$0" -c 'CREATE TABLE t (id int, word text)' \
    -c '\copy t FROM rows' -c '\copy (SELECT * FROM t ORDER BY id) TO back' \
    -Atc 'SELECT count(*), sum(id) FROM t'
cmp rows back"#;
    let out = Guest::new(&["sh", "-c", script, &connection]).run(&world);
    assert_eq!(out.ok(), "200000|19999900000\n");
    out.allowed("tcp", "api.shop.example", 5432, "api.shop.example");
}

#[test]
fn redis_takes_a_pipeline() {
    let world = start!(shop());
    let _redis = servers::redis(&world);
    let mut commands = String::new();
    for number in 0..100_000 {
        let value = format!("value{number}");
        let key = format!("key{number}");
        let _ = write!(
            commands,
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
            key.len(),
            value.len()
        );
    }
    let pipeline = world.file("pipeline", commands);
    let out = Guest::new(&["redis-cli", "-h", "v4.shop.example", "--pipe"])
        .stdin(pipeline)
        .run(&world);
    assert!(
        out.ok().contains("errors: 0, replies: 100000"),
        "{}",
        out.describe()
    );
    out.allowed("tcp", "v4.shop.example", 6379, "v4.shop.example");
    let out = world.guest(&["redis-cli", "-h", "v4.shop.example", "GET", "key99999"]);
    assert_eq!(out.ok(), "value99999\n");
}
