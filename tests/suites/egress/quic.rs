//! QUIC by quinn: segmentation offload, ECN, many streams.

use std::path::Path;

use odyn_tests::{Guest, servers};

use crate::{shop, start};

#[test]
fn quic_moves_streams_and_datagrams() {
    let world = start!(shop());
    let executable = world.install(Path::new(env!("CARGO_BIN_EXE_odyn-quic")));
    let ca = world.dir().join("ca.pem").display().to_string();
    for (address, name) in [
        ("203.0.113.11:4433", "v4.shop.example"),
        ("[2001:db8::11]:4433", "v6.shop.example"),
    ] {
        let _server = servers::quic(&world, &executable, address);
        let peer = format!("{name}:4433");
        let app = executable.display().to_string();
        let out = Guest::new(&[&app, "fetch", &peer, name, &ca, "8388608"]).run(&world);
        assert_eq!(out.ok(), "quic ok 8388608\n");
        out.allowed("udp", name, 4433, name);
    }
}

#[test]
fn quic_to_a_denied_address_gets_no_answer() {
    let world = start!(shop());
    let executable = world.install(Path::new(env!("CARGO_BIN_EXE_odyn-quic")));
    let ca = world.dir().join("ca.pem").display().to_string();
    let _server = servers::quic(&world, &executable, "203.0.113.66:4433");
    let app = executable.display().to_string();
    let words = [
        &app,
        "fetch",
        "203.0.113.66:4433",
        "x.shop.example",
        &ca,
        "8000",
    ];
    let out = Guest::new(&words).run(&world);
    if world.direct() {
        out.ok();
        return;
    }
    out.failed().denied("udp", "203.0.113.66", 4433, "no-rule");
}
