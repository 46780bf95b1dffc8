//! What the product promises, each promise with its test, on real input.
//!
//! See `odyn_tests` for the worlds. `ODYN_TEST_DIRECT=1` is the control run:
//! no `odyn-net`, so that what is expected of servers, clients and probes is
//! known to hold, and what must be stopped is known to get out otherwise.

#![forbid(unsafe_code)]

mod cli;
mod egress;
mod escape;
mod host;
mod ingress;
mod kms;
mod lifecycle;
mod policy;
mod resilience;

use odyn_tests::World;
use odyn_tests::world::Builder;

/// A Python program of `tests/programs`.
macro_rules! program {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/programs/",
            $name,
            ".py"
        ))
    };
}
pub(crate) use program;

/// Begins a test: a running world, or the end of the test without root.
macro_rules! start {
    ($builder:expr) => {
        match $builder.start() {
            Some(world) => world,
            None => return,
        }
    };
}
pub(crate) use start;

/// Whether this run is for a way of capture that the test is not about; says so. A TUN device is
/// for guests with nothing but `lo`, and `tun::another_interface_is_refused` shows that it starts
/// in no other.
pub(crate) fn skipped_by_tun(why: &str) -> bool {
    let skipped = std::env::var_os("ODYN_TEST_CAPTURE").is_some_and(|method| method == "tun");
    if skipped {
        eprintln!("skipped with ODYN_TEST_CAPTURE=tun: {why}");
    }
    skipped
}

/// The policy that most tests need: a few names and literal addresses.
pub(crate) const SHOP: &str = "\
version: v1
name: tests
egress:
  allow:
    - api.shop.example
    - v4.shop.example
    - v6.shop.example
    - 203.0.113.20
    - 2001:db8::12
";

/// A world with that policy and its names, and `evil.example.net`, which
/// exists and which no rule allows.
pub(crate) fn shop() -> Builder {
    World::builder()
        .policy(SHOP)
        .name("api.shop.example", &["203.0.113.10", "2001:db8::10"])
        .name("v4.shop.example", &["203.0.113.11"])
        .name("v6.shop.example", &["2001:db8::11"])
        .name("evil.example.net", &["203.0.113.66", "2001:db8::66"])
}
