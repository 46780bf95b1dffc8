//! What the guest reads from an app besides DNS: the headers of
//! Rejected packets, and the first bytes of a connection under `sni: required`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use odyn_net::capture::nflog;
use odyn_net::egress::conditions::sni;
use odyn_net::egress::conditions::sni::Hello;

fuzz_target!(|bytes: &[u8]| {
    if let Some(packet) = nflog::parse(bytes) {
        assert!(!packet.protocol_name().is_empty());
        assert!(
            packet
                .destination_text()
                .contains(&packet.destination.ip().to_string())
        );
    }
    if let Some(hello) = sni::parse(bytes) {
        // What was decided stays decided when more bytes come.
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(sni::parse(&longer), Some(hello.clone()));
        if let Hello::Name(name) = hello {
            assert_eq!(name, name.to_ascii_lowercase());
        }
    }
});
