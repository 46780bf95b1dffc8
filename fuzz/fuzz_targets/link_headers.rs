//! Request and response headers of the link, and the hybrid handshake: no
//! panic, and what is read is written the same way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use odyn_proto::wire::authority::{parse_connect, parse_udp_path, write_connect, write_udp_path};
use odyn_proto::wire::{flush, hybrid, ingress, lane, proxy_status};

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else {
        return;
    };
    // A zero byte stands between the two headers.
    let mut parts = rest.splitn(2, |&byte| byte == 0);
    let first = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let second = parts.next();
    match kind % 7 {
        0 => {
            if let Ok(target) = parse_connect(&first, second) {
                assert_ne!(target.port, 0);
                let (authority, candidates) = write_connect(&target).expect("it was read");
                let candidates = candidates.as_deref().map(str::as_bytes);
                assert_eq!(parse_connect(&authority, candidates), Ok(target));
            }
        }
        1 => {
            if let Ok(target) = parse_udp_path(&first, second) {
                assert_ne!(target.port, 0);
                let (path, candidates) = write_udp_path(&target).expect("it was read");
                let candidates = candidates.as_deref().map(str::as_bytes);
                assert_eq!(parse_udp_path(&path, candidates), Ok(target));
            }
        }
        2 => {
            if let Some(status) = proxy_status::parse(rest) {
                if let Some(address) = status.next_hop {
                    let again =
                        proxy_status::parse(proxy_status::write_next_hop(address).as_bytes());
                    assert_eq!(again.and_then(|status| status.next_hop), Some(address));
                }
                if let Some(refusal) = status.error {
                    let again = proxy_status::parse(proxy_status::write_error(refusal).as_bytes());
                    assert_eq!(again.and_then(|status| status.error), Some(refusal));
                }
            }
        }
        3 => {
            // What was refused is not accepted when more comes. The reader
            // stops at the longest reply.
            let rest = &rest[..rest.len().min(hybrid::MAX_REPLY)];
            for end in 0..rest.len() {
                if hybrid::parse_reply(&rest[..end]).is_err() {
                    assert!(hybrid::parse_reply(rest).is_err());
                    break;
                }
            }
        }
        4 => {
            if let Ok(hello) = ingress::parse_hello(Some(b"g"), Some(&[b'0'; 32]), Some(rest)) {
                assert!(hello.ports.len() <= ingress::MAX_PORTS);
                assert!(hello.ports.is_sorted());
                let ports = ingress::write_ports(&hello.ports);
                let again =
                    ingress::parse_hello(Some(b"g"), Some(&[b'0'; 32]), Some(ports.as_bytes()));
                assert_eq!(again, Ok(hello));
            }
            if let Ok(hello) = ingress::parse_hello(Some(first.as_bytes()), second, Some(b"")) {
                assert_eq!(hello.identity.name.as_str(), first);
                assert_eq!(Some(hello.identity.run.to_string().as_bytes()), second);
            }
        }
        5 => {
            let local = Some(b"192.0.2.1:1".as_slice());
            if let Ok(incoming) = ingress::parse_incoming(&first, second, local) {
                let authority = ingress::write_authority(incoming.port);
                assert_eq!(
                    ingress::parse_incoming(&authority, second, local),
                    Ok(incoming)
                );
                let client = incoming.client.to_string();
                let again = ingress::parse_incoming(&first, Some(client.as_bytes()), local);
                assert_eq!(again, Ok(incoming));
            }
        }
        _ => {
            if let Some(name) = lane::Name::parse(rest) {
                assert_eq!(name.write().as_bytes(), rest);
            }
            if let Some(key) = rest.first_chunk() {
                assert_eq!(lane::LaneKey::parse(key).write(), *key);
            }
            if let Some(list) = flush::parse_answer(rest) {
                assert!(list.len() <= flush::MAX_LINES);
                let again = flush::write_answer(&list);
                assert_eq!(flush::parse_answer(again.as_bytes()), Some(list));
            }
            if let Some(wait) = flush::parse_wait(rest) {
                assert!(wait <= flush::MAX_WAIT);
                let again = flush::write_wait(wait);
                assert_eq!(flush::parse_wait(again.as_bytes()), Some(wait));
            }
        }
    }
});
