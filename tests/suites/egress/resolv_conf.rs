//! Whatever name server the image's resolv.conf names, ours answers.

use odyn_tests::{Guest, serve};

use crate::{shop, start};

#[test]
fn any_resolv_conf_leads_to_our_resolver() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.11:7000"), "hello");
    for (name, text) in [
        ("public", "nameserver 8.8.8.8\n"),
        ("public6", "nameserver 2001:4860:4860::8888\n"),
        ("docker", "nameserver 127.0.0.11\noptions ndots:0\n"),
        (
            "systemd",
            "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
        ),
        ("loopback", "nameserver 127.0.0.1\n"),
        ("loopback6", "nameserver ::1\n"),
        (
            "several",
            "nameserver 10.0.0.2\nnameserver 10.0.0.3\noptions rotate\n",
        ),
        ("tcp", "nameserver 10.0.0.2\noptions use-vc\n"),
        ("empty", ""),
    ] {
        let resolv = world.file(&format!("resolv-{name}"), text);
        let out = Guest::new(&[
            "curl",
            "-sS",
            "--http0.9",
            "-m",
            "20",
            "http://v4.shop.example:7000/",
        ])
        .resolv(resolv)
        .run(&world);
        assert_eq!(out.ok(), "hello\n", "{name}");
    }
}
