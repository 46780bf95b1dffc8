//! Hostile DNS on both sides: any bytes as the app's query, and any bytes
//! as the host's answer. No panic, no reply that can't be read, and no address
//! but our own in it.

#![no_main]

use std::cell::LazyCell;
use std::net::IpAddr;

use bytes::Bytes;
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{RData, RecordType};
use libfuzzer_sys::fuzz_target;
use odyn_dns::test_util::{FakePolicy, FakeUpstream, client, query};
use odyn_dns::{Config, QueryTransport, Resolver};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: LazyCell<Runtime> = LazyCell::new(|| {
        Builder::new_current_thread().enable_time().build().expect("a runtime")
    });
}

/// What the app gets for its bytes, when the host answers by `hook`.
fn ask(question: &[u8], answer: Option<Vec<u8>>, transport: QueryTransport) -> Option<Vec<u8>> {
    let upstream = FakeUpstream::default();
    upstream.add("api.example. 60 A 203.0.113.1");
    upstream.add("api.example. 60 AAAA 2001:db8::1");
    upstream.add("www.example. 60 CNAME api.example.");
    if let Some(answer) = answer {
        upstream.hook(move |query| {
            // With the id of the query in front, more of it is looked at.
            let mut bytes = query.metadata.id.to_be_bytes().to_vec();
            bytes.extend_from_slice(&answer);
            Ok(Bytes::from(bytes))
        });
    }
    let policy = FakePolicy::allowing(&["api.example", "www.example", ".example"]);
    let resolver = Resolver::new(Config::default(), policy, upstream);
    RUNTIME.with(|runtime| runtime.block_on(resolver.answer(question, client(), transport)))
}

fn is_ours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] == 198 && v4.octets()[1] & 0xfe == 18,
        IpAddr::V6(v6) => v6.segments()[0] & 0xfe00 == 0xfc00,
    }
}

fn check(question: &[u8], reply: &[u8], transport: QueryTransport) {
    assert_eq!(reply.get(..2), question.get(..2), "another id");
    assert!(reply.len() <= 65_535);
    if transport == QueryTransport::Udp {
        assert!(
            reply.len() <= 4096,
            "a reply of {} bytes over UDP",
            reply.len()
        );
    }
    let message = Message::from_vec(reply).expect("a reply that can be read");
    assert_eq!(message.metadata.message_type, MessageType::Response);
    for record in &message.answers {
        let address = match &record.data {
            RData::A(a) => IpAddr::V4(a.0),
            RData::AAAA(aaaa) => IpAddr::V6(aaaa.0),
            _ => continue,
        };
        assert!(
            is_ours(address),
            "an address of the host's choice: {address}"
        );
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else {
        return;
    };
    let transport = if kind & 1 == 0 {
        QueryTransport::Udp
    } else {
        QueryTransport::Tcp
    };
    let (question, answer) = if kind & 2 == 0 {
        (rest.to_vec(), None)
    } else {
        let types = [
            RecordType::A,
            RecordType::AAAA,
            RecordType::TXT,
            RecordType::MX,
        ];
        let qtype = types[usize::from(kind >> 2) % types.len()];
        (
            query("api.example.", qtype).to_vec().expect("a query"),
            Some(rest.to_vec()),
        )
    };
    if let Some(reply) = ask(&question, answer, transport) {
        check(&question, &reply, transport);
    }
});
