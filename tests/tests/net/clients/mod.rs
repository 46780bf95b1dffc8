//! Clients of a program with everything that stands between them: TLS that ends in the guest, the
//! PROXY protocol, limits, and listeners that outlive the host half.

mod activation;
mod limits;
mod listeners;
mod proxy;
mod real;
mod tls;
mod tls_certificates;

use std::path::Path;

use odyn_tests::World;
use odyn_tests::tls_client::{Authority, Issued};

use crate::ingress::MAPPING;

/// A world whose guest has TLS on the port, with these further lines of `tls`.
fn tls_world(dir: &Path, more: &str) -> odyn_tests::world::Builder {
    let dir = dir.display();
    policy_world(&format!(
        "tls: {{ cert_file: {dir}/a.pem, key_file: {dir}/a.key{more} }}"
    ))
}

/// A world whose guest has a port with these further keys.
fn policy_world(keys: &str) -> odyn_tests::world::Builder {
    World::builder()
        .policy(&format!(
            "version: v1\nname: shop\ningress:\n  - listen_port: 80\n    target_port: 8080\n    {keys}\n"
        ))
        .outer(&["--ingress", MAPPING])
}

/// An authority, and its certificate for `shop.example` in the files of [`tls_world`].
fn certificate(dir: &Path) -> (Authority, Issued) {
    let authority = Authority::default();
    let issued = authority.issue(&["shop.example"]);
    issued.write(dir, "a");
    (authority, issued)
}
