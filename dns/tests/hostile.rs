//! The upstream is the untrusted host. Whatever it sends, nothing panics or grows, and no answer
//! counts that was not asked for.

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use odyn_dns::test_util::{FakePolicy, FakeUpstream, client, fqdn, fuzz_answer, query};
use odyn_dns::{Config, QueryTransport, Resolver};

/// The client's answer for `name` after `bend` has changed the upstream's honest answer.
async fn answer(bend: impl Fn(Message) -> Vec<u8> + Send + Sync + 'static) -> Message {
    let upstream = FakeUpstream::default();
    upstream.add("api.example. 60 A 203.0.113.1");
    let honest = upstream.clone();
    upstream.hook(move |query| Ok(bend(honest.honest(query)).into()));
    let policy = FakePolicy::allowing(&["api.example"]);
    let resolver = Resolver::new(Config::default(), policy, upstream);
    let bytes = query("api.example.", RecordType::A)
        .to_vec()
        .expect("query");
    let answer = resolver.answer(&bytes, client(), QueryTransport::Udp).await;
    Message::from_vec(&answer.expect("an answer")).expect("readable")
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("answer")
}

#[tokio::test]
async fn answers_to_other_queries_do_not_count() {
    type Bend = Box<dyn Fn(&mut Message) + Send + Sync>;
    let bends: [(&str, Bend); 9] = [
        (
            "id",
            Box::new(|m| m.metadata.id = m.metadata.id.wrapping_add(1)),
        ),
        (
            "qr",
            Box::new(|m| m.metadata.message_type = MessageType::Query),
        ),
        ("opcode", Box::new(|m| m.metadata.op_code = OpCode::Notify)),
        (
            "name",
            Box::new(|m| m.queries[0].name = fqdn("other.example.")),
        ),
        (
            "type",
            Box::new(|m| m.queries[0].query_type = RecordType::AAAA),
        ),
        (
            "class",
            Box::new(|m| m.queries[0].query_class = DNSClass::CH),
        ),
        ("none", Box::new(|m| m.queries.clear())),
        ("two", Box::new(|m| m.queries.extend(m.queries.clone()))),
        ("tc", Box::new(|m| m.metadata.truncation = true)),
    ];
    for (what, bend) in bends {
        let answer = answer(move |mut message| {
            bend(&mut message);
            bytes(&message)
        })
        .await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::ServFail,
            "{what}"
        );
        assert!(answer.answers.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn records_that_do_not_belong_are_left_out() {
    let answer = answer(|mut message| {
        let data = RData::A("203.0.113.66".parse().expect("address"));
        message.answers.clear();
        message.add_answer(Record::from_rdata(
            fqdn("victim.example."),
            60,
            data.clone(),
        ));
        let mut chaos = Record::from_rdata(fqdn("api.example."), 60, data);
        chaos.dns_class = DNSClass::CH;
        message.add_answer(chaos);
        bytes(&message)
    })
    .await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty());
}

#[tokio::test]
async fn endless_chains_end() {
    for length in [1, 2, 15, 16, 17, 1000] {
        for looped in [false, true] {
            let answer = answer(move |mut message| {
                message.answers.clear();
                let mut owner = fqdn("api.example.");
                for index in 0..length {
                    let target = match (looped, index + 1 == length) {
                        (true, true) => fqdn("api.example."),
                        _ => fqdn(&format!("n{index}.example.")),
                    };
                    let data = RData::CNAME(CNAME(target.clone()));
                    message.add_answer(Record::from_rdata(owner, 60, data));
                    owner = target;
                }
                let data = RData::A("203.0.113.1".parse().expect("address"));
                message.add_answer(Record::from_rdata(owner, 60, data));
                bytes(&message)
            })
            .await;
            let fine = !looped && length <= 16;
            let code = answer.metadata.response_code;
            assert_eq!(code == ResponseCode::NoError, fine, "{length} {looped}");
            if fine && !answer.metadata.truncation {
                assert_eq!(answer.answers.len(), length + 1);
            }
        }
    }
}

#[tokio::test]
async fn cut_and_broken_answers_are_servfail_or_sound() {
    for position in 0..44 {
        let cut = answer(move |message| bytes(&message)[..position].to_vec()).await;
        assert_eq!(
            cut.metadata.response_code,
            ResponseCode::ServFail,
            "{position}"
        );
        for flip in [0x01, 0x80, 0xff] {
            let _ = answer(move |message| {
                let mut bytes = bytes(&message);
                bytes[position] ^= flip;
                bytes
            })
            .await;
        }
    }
    for length in [0, 12, 65_535, 65_536, 1 << 20] {
        let junk = answer(move |_| vec![0xff; length]).await;
        assert_eq!(junk.metadata.response_code, ResponseCode::ServFail);
    }
}

#[tokio::test]
async fn a_flood_of_addresses_is_cut() {
    let answer = answer(|mut message| {
        message.answers.clear();
        for index in 0..1000_u32 {
            let address = std::net::Ipv4Addr::from_bits(0xcb00_7100 + index);
            let data = RData::A(address.into());
            message.add_answer(Record::from_rdata(fqdn("api.example."), 60, data));
        }
        bytes(&message)
    })
    .await;
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn the_upstream_sees_only_the_canonical_question() {
    let upstream = FakeUpstream::default();
    upstream.hook(|query| {
        assert!(query.metadata.recursion_desired);
        assert!(!query.metadata.checking_disabled && !query.metadata.authentic_data);
        assert_eq!(query.queries[0].name().to_ascii(), "api.example.");
        let edns = query.edns.as_ref().expect("EDNS");
        assert!(!edns.flags().dnssec_ok && edns.options().as_ref().is_empty());
        assert_ne!(query.metadata.id, 4711 + 1);
        Ok(bytes(query).into())
    });
    let policy = FakePolicy::allowing(&["api.example"]);
    let resolver = Resolver::new(Config::default(), policy, upstream.clone());
    let mut message = query("API.eXample.", RecordType::A);
    message.metadata.id = 4712;
    message.metadata.checking_disabled = true;
    message.metadata.authentic_data = true;
    if let Some(edns) = &mut message.edns {
        edns.set_dnssec_ok(true);
        let secret = hickory_proto::rr::rdata::opt::EdnsOption::Unknown(65_001, vec![1, 2, 3]);
        edns.options_mut().insert(secret);
    }
    let answer = resolver
        .answer(&bytes(&message), client(), QueryTransport::Udp)
        .await;
    assert!(answer.is_some());
    assert_eq!(upstream.take_asked().len(), 1);
}

#[test]
fn junk_from_both_sides_keeps_the_promises() {
    let queries: Vec<_> = [
        ("api.example.", RecordType::A),
        ("api.example.", RecordType::TXT),
        ("denied.example.", RecordType::AAAA),
        ("1.1.18.198.in-addr.arpa.", RecordType::PTR),
    ]
    .map(|(name, qtype)| bytes(&query(name, qtype)))
    .to_vec();
    let upstream = FakeUpstream::default();
    upstream.add("api.example. 60 CNAME b.example.");
    upstream.add("b.example. 60 A 203.0.113.1");
    upstream.add("b.example. 60 TXT hello");
    let mut state = 99_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 12) as usize
    };
    let mut junk = |message: &[u8], flips: usize| {
        let mut message = message.to_vec();
        for _ in 0..random() % (flips + 1) {
            let index = random() % message.len();
            message[index] = random() as u8;
        }
        if random().is_multiple_of(4) {
            message.truncate(random() % (message.len() + 1));
        }
        message
    };
    for round in 0..4000 {
        let question = &queries[round % queries.len()];
        let honest = upstream.honest(&Message::from_vec(question).expect("query"));
        let transport = if round % 2 == 0 {
            QueryTransport::Udp
        } else {
            QueryTransport::Tcp
        };
        fuzz_answer(&junk(question, 2), &junk(&bytes(&honest), 3), transport);
    }
}
