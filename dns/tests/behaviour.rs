//! The resolver's answers and its queries to the upstream, case by case.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use odyn_dns::test_util::{FakePolicy, FakeUpstream, Recorded, client, fqdn, query};
use odyn_dns::{
    Config, DeniedReply, Family, QueryTransport, ResolveError, Resolver, UpstreamError,
};
use odyn_proto::{DnsName, synthetic};

struct World {
    policy: FakePolicy,
    upstream: FakeUpstream,
    resolver: Resolver<FakePolicy, FakeUpstream>,
}

impl World {
    fn new(allowed: &[&str]) -> Self {
        Self::with(Config::default(), allowed)
    }

    fn with(config: Config, allowed: &[&str]) -> Self {
        let policy = FakePolicy::allowing(allowed);
        let upstream = FakeUpstream::default();
        upstream.add("example. 300 SOA ns.example. admin.example. 1 2 3 4 60");
        Self {
            resolver: Resolver::new(config, policy.clone(), upstream.clone()),
            policy,
            upstream,
        }
    }

    async fn send(&self, message: &Message) -> Message {
        let bytes = message.to_vec().expect("query");
        let answer = self
            .resolver
            .answer(&bytes, client(), QueryTransport::Udp)
            .await;
        let answer = Message::from_vec(&answer.expect("an answer")).expect("readable");
        assert_eq!(answer.metadata.id, message.metadata.id);
        assert!(answer.metadata.recursion_available && !answer.metadata.authentic_data);
        answer
    }

    async fn ask(&self, name: &str, qtype: RecordType) -> Message {
        self.send(&query(name, qtype)).await
    }

    fn asked(&self) -> Vec<String> {
        let asked = self.upstream.take_asked().into_iter();
        asked
            .map(|(name, qtype)| format!("{name} {qtype}"))
            .collect()
    }

    /// The only record.
    fn one_record(&self) -> Recorded {
        let mut records = self.policy.take_records();
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }
}

fn rcode(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

fn name(text: &str) -> DnsName {
    DnsName::parse(text).expect("a test's name")
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let data = message.answers.iter().map(|record| &record.data);
    data.filter_map(RData::ip_addr).collect()
}

fn errors(message: &Message) -> Vec<u16> {
    let edns = message.edns.as_ref().expect("EDNS");
    let options = edns.options().get_all(EdnsCode::Unknown(15));
    options
        .into_iter()
        .map(|option| match option {
            EdnsOption::Unknown(_, data) => u16::from_be_bytes([data[0], data[1]]),
            other => panic!("not unknown: {other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn an_allowed_name_gets_one_synthetic_address_per_family() {
    let world = World::new(&["api.example", "web.example"]);
    for name in ["api.example.", "web.example."] {
        world.upstream.add(&format!("{name} 300 A 203.0.113.1"));
        world.upstream.add(&format!("{name} 300 A 203.0.113.2"));
        world.upstream.add(&format!("{name} 300 AAAA 2001:db8::1"));
    }
    let mut seen = Vec::new();
    for name in ["api.example.", "web.example."] {
        for (qtype, family) in [(RecordType::A, Family::V4), (RecordType::AAAA, Family::V6)] {
            let answer = world.ask(name, qtype).await;
            let [address] = addresses(&answer)[..] else {
                panic!("not one address: {answer}");
            };
            assert!(synthetic::contains(address));
            let owner = world.resolver.owner(address).expect("bound");
            assert_eq!(
                (owner.name.as_str(), owner.family),
                (name.trim_end_matches('.'), family)
            );
            assert_eq!(world.one_record().reason, None);
            seen.push(address);
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 4);
    let real = world
        .resolver
        .addresses(&name("API.example"), Family::V4)
        .await;
    let expected: Vec<IpAddr> = ["203.0.113.1", "203.0.113.2"]
        .map(|text| text.parse().expect("address"))
        .to_vec();
    assert_eq!(real, Ok(expected));
}

#[tokio::test]
async fn a_name_without_a_rule_is_never_asked_upstream() {
    let world = World::new(&["api.example"]);
    let secret = "c2VjcmV0.tunnel.example.";
    world.upstream.add(&format!("{secret} 60 TXT data"));
    for qtype in [
        RecordType::A,
        RecordType::AAAA,
        RecordType::TXT,
        RecordType::ANY,
        RecordType::HTTPS,
        RecordType::Unknown(4242),
    ] {
        let answer = world.ask(secret, qtype).await;
        assert_eq!(rcode(&answer), ResponseCode::NXDomain);
        assert_eq!(errors(&answer), [15]);
        // No SOA: nothing may be concluded about the names below.
        assert!(answer.answers.is_empty() && answer.authorities.is_empty());
        let record = world.one_record();
        assert_eq!(record.reason, Some("no-rule"));
        assert_eq!((record.enforced, record.qtype), (true, qtype));
        assert_eq!(record.name, "c2vjcmv0.tunnel.example");
    }
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn a_deny_rule_is_told_apart_and_no_edns_gets_no_edns() {
    let world = World::new(&[".example"]);
    world.policy.deny("ads.example");
    let answer = world.ask("ads.example.", RecordType::A).await;
    assert_eq!(
        (rcode(&answer), errors(&answer)),
        (ResponseCode::NXDomain, vec![17])
    );
    let mut plain = query("ads.example.", RecordType::A);
    plain.edns = None;
    let answer = world.send(&plain).await;
    assert_eq!(rcode(&answer), ResponseCode::NXDomain);
    assert!(answer.edns.is_none());
    assert_eq!(world.policy.take_records().len(), 2);
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn denied_names_can_be_refused_instead() {
    let mut config = Config::default();
    config.denied = DeniedReply::Refused;
    let world = World::with(config, &[]);
    let answer = world.ask("api.example.", RecordType::A).await;
    assert_eq!(
        (rcode(&answer), errors(&answer)),
        (ResponseCode::Refused, vec![15])
    );
}

#[tokio::test]
async fn report_mode_answers_and_records_once() {
    let world = World::new(&[]);
    world.policy.report_only();
    world.upstream.add("api.example. 60 CNAME edge.example.");
    world.upstream.add("edge.example. 60 A 127.0.0.1");
    world.policy.deny("edge.example");
    let answer = world.ask("api.example.", RecordType::A).await;
    assert_eq!(addresses(&answer).len(), 1);
    let record = world.one_record();
    assert_eq!((record.reason, record.enforced), (Some("no-rule"), false));
}

#[tokio::test]
async fn negative_answers_are_faithful() {
    let world = World::new(&[".example"]);
    world.upstream.add("v4.example. 60 A 203.0.113.1");
    let answer = world.ask("none.example.", RecordType::A).await;
    assert_eq!(rcode(&answer), ResponseCode::NXDomain);
    assert!(
        matches!(&answer.authorities[..], [soa] if soa.name == fqdn("example.") && soa.ttl == 60)
    );
    let answer = world.ask("v4.example.", RecordType::AAAA).await;
    assert_eq!(rcode(&answer), ResponseCode::NoError);
    assert_eq!((answer.answers.len(), answer.authorities.len()), (0, 1));
    assert!(
        world
            .policy
            .take_records()
            .iter()
            .all(|record| record.reason.is_none())
    );
    let real = world
        .resolver
        .addresses(&name("none.example"), Family::V4)
        .await;
    assert_eq!(real, Err(ResolveError::NotFound));
    let real = world
        .resolver
        .addresses(&name("v4.example"), Family::V6)
        .await;
    assert_eq!(real, Err(ResolveError::NoAddress));
}

#[tokio::test]
async fn upstream_errors_become_servfail_with_their_reasons() {
    let world = World::new(&[".example"]);
    for code in [
        ResponseCode::ServFail,
        ResponseCode::Refused,
        ResponseCode::NotImp,
    ] {
        let honest = world.upstream.clone();
        world.upstream.hook(move |query| {
            let mut answer = honest.honest(query);
            answer.metadata.response_code = code;
            let mut edns = Edns::new();
            let text = [&[0, 9], "DNSKEY missing".as_bytes()].concat();
            edns.options_mut().insert(EdnsOption::Unknown(15, text));
            answer.set_edns(edns);
            Ok(answer.to_vec().expect("answer").into())
        });
        let answer = world
            .ask(&format!("{}.example.", code.low()), RecordType::A)
            .await;
        assert_eq!(rcode(&answer), ResponseCode::ServFail);
        assert_eq!(errors(&answer)[0], 9);
    }
}

#[tokio::test]
async fn a_cname_chain_is_kept_and_ends_in_the_synthetic_address_of_the_asked_name() {
    let world = World::new(&["www.example"]);
    world.upstream.add("www.example. 300 CNAME a.cdn.example.");
    world.upstream.add("a.cdn.example. 20 CNAME b.cdn.example.");
    world.upstream.add("b.cdn.example. 300 A 203.0.113.9");
    let mut message = query("wWw.eXample.", RecordType::A);
    message.metadata.checking_disabled = true;
    let answer = world.send(&message).await;
    assert!(answer.metadata.checking_disabled);
    let owners: Vec<_> = answer.answers.iter().map(|r| r.name.to_ascii()).collect();
    assert_eq!(owners, ["wWw.eXample.", "a.cdn.example.", "b.cdn.example."]);
    assert_eq!(answer.queries[0].name().to_ascii(), "wWw.eXample.");
    assert!(answer.answers.iter().all(|record| record.ttl == 20));
    let owner = world.resolver.owner(addresses(&answer)[0]).expect("bound");
    assert_eq!(owner.name.as_str(), "www.example");
    assert_eq!(world.asked(), ["www.example. A"]);
}

#[tokio::test]
async fn a_denied_name_in_the_chain_denies_whatever_the_answer() {
    let world = World::new(&[".example"]);
    world.policy.deny("t.tracker.test");
    world.upstream.add("www.example. 300 CNAME mid.test.");
    world.upstream.add("mid.test. 300 CNAME t.tracker.test.");
    world.upstream.add("t.tracker.test. 300 A 203.0.113.9");
    world
        .upstream
        .add("gone.example. 300 CNAME t.tracker.test.");
    world.upstream.add("odd.example. 300 CNAME 203.0.113.7.");
    for (name, qtype, target, reason) in [
        (
            "www.example.",
            RecordType::A,
            Some("t.tracker.test"),
            "deny-rule",
        ),
        (
            "www.example.",
            RecordType::MX,
            Some("t.tracker.test"),
            "deny-rule",
        ),
        (
            "gone.example.",
            RecordType::AAAA,
            Some("t.tracker.test"),
            "deny-rule",
        ),
        ("odd.example.", RecordType::A, None, "bad-name"),
    ] {
        let answer = world.ask(name, qtype).await;
        assert_eq!(rcode(&answer), ResponseCode::NXDomain, "{name} {qtype}");
        assert!(answer.answers.is_empty() && answer.authorities.is_empty());
        let record = world.one_record();
        assert_eq!(
            (record.reason, record.target.as_deref()),
            (Some(reason), target)
        );
    }
    let real = world
        .resolver
        .addresses(&name("www.example"), Family::V4)
        .await;
    assert!(
        matches!(real, Err(ResolveError::Denied(denial)) if denial.rule.as_ref().is_some_and(|rule| rule.line == 7))
    );
    assert!(
        world.policy.take_records().is_empty(),
        "the flow records that"
    );
}

#[tokio::test]
async fn addresses_are_held_against_the_gate() {
    let world = World::new(&[".example"]);
    world.policy.deny_address("169.254.169.254");
    world.upstream.add("mixed.example. 60 A 169.254.169.254");
    world.upstream.add("mixed.example. 60 A 203.0.113.1");
    world.upstream.add("meta.example. 60 A 169.254.169.254");
    world
        .upstream
        .add("mapped.example. 60 AAAA ::ffff:127.0.0.1");
    let answer = world.ask("mixed.example.", RecordType::A).await;
    assert_eq!(addresses(&answer).len(), 1);
    assert_eq!(world.one_record().reason, None);
    let real = world
        .resolver
        .addresses(&name("mixed.example"), Family::V4)
        .await;
    assert_eq!(real, Ok(vec!["203.0.113.1".parse().expect("address")]));
    for (name, qtype, address) in [
        ("meta.example.", RecordType::A, "169.254.169.254"),
        ("mapped.example.", RecordType::AAAA, "127.0.0.1"),
    ] {
        let answer = world.ask(name, qtype).await;
        assert_eq!(
            (rcode(&answer), errors(&answer)),
            (ResponseCode::NoError, vec![15])
        );
        assert!(answer.answers.is_empty());
        let record = world.one_record();
        assert_eq!(record.reason, Some("special-address"));
        assert_eq!(record.address, Some(address.parse().expect("address")));
    }
    let real = world
        .resolver
        .addresses(&name("meta.example"), Family::V4)
        .await;
    assert!(matches!(real, Err(ResolveError::Denied(_))));
}

#[tokio::test]
async fn a_rule_added_later_counts_for_what_is_cached() {
    let world = World::new(&["api.example"]);
    world.upstream.add("api.example. 60 A 203.0.113.1");
    assert_eq!(
        addresses(&world.ask("api.example.", RecordType::A).await).len(),
        1
    );
    world.policy.deny_address("203.0.113.1");
    assert!(addresses(&world.ask("api.example.", RecordType::A).await).is_empty());
    world.policy.deny("api.example");
    let answer = world.ask("api.example.", RecordType::A).await;
    assert_eq!(rcode(&answer), ResponseCode::NXDomain);
    assert_eq!(world.asked().len(), 1);
}

#[tokio::test]
async fn other_types_pass_without_glue() {
    let world = World::new(&[".example", "alias.test"]);
    for line in [
        "s.example. 60 SRV 1 2 443 api.example.",
        "s.example. 60 MX 10 mail.example.",
        "s.example. 60 TXT hello",
        "s.example. 60 NS ns.example.",
        "s.example. 60 CAA 0 issue \"ca.test\"",
        "alias.test. 60 CNAME s.example.",
    ] {
        world.upstream.add(line);
    }
    let honest = world.upstream.clone();
    world.upstream.hook(move |query| {
        let mut answer = honest.honest(query);
        let glue = RData::A("203.0.113.5".parse().expect("address"));
        answer.add_additional(Record::from_rdata(fqdn("api.example."), 60, glue.clone()));
        answer.add_authority(Record::from_rdata(fqdn("example."), 60, glue));
        Ok(answer.to_vec().expect("answer").into())
    });
    for qtype in [
        RecordType::SRV,
        RecordType::MX,
        RecordType::TXT,
        RecordType::NS,
        RecordType::CAA,
    ] {
        let answer = world.ask("s.example.", qtype).await;
        assert_eq!(answer.answers.len(), 1, "{qtype}");
        assert_eq!(answer.answers[0].record_type(), qtype);
        assert!(answer.additionals.is_empty() && answer.authorities.is_empty());
        let answer = world.ask("alias.test.", qtype).await;
        let types: Vec<_> = answer.answers.iter().map(Record::record_type).collect();
        assert_eq!(types, [RecordType::CNAME, qtype]);
    }
    let answer = world.ask("alias.test.", RecordType::CNAME).await;
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn types_that_would_go_round_the_mapping_are_empty() {
    let world = World::new(&[".example"]);
    world.upstream.add("api.example. 60 A 203.0.113.1");
    for qtype in [
        RecordType::HTTPS,
        RecordType::SVCB,
        RecordType::TLSA,
        RecordType::NULL,
        RecordType::Unknown(4242),
    ] {
        let answer = world.ask("api.example.", qtype).await;
        assert_eq!(
            (rcode(&answer), errors(&answer)),
            (ResponseCode::NoError, vec![21])
        );
        assert!(answer.answers.is_empty());
    }
    let answer = world.ask("api.example.", RecordType::ANY).await;
    assert!(matches!(&answer.answers[..], [record] if record.record_type() == RecordType::HINFO));
    assert_eq!(world.asked(), [""; 0]);
}

/// No rule can match such a name, so none denies it: `xn--a` is no label that IDNA allows.
#[tokio::test]
async fn an_alias_that_no_rule_can_match_is_followed() {
    let world = World::new(&["www.example"]);
    world.upstream.hook(|query| {
        let target = Name::from_labels([&b"xn--a"[..], b"test"]).expect("labels");
        let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        answer.add_query(query.queries[0].clone());
        let alias = RData::CNAME(CNAME(target.clone()));
        answer.add_answer(Record::from_rdata(fqdn("www.example."), 60, alias));
        answer.add_answer(Record::from_rdata(
            target,
            60,
            RData::A(A::new(203, 0, 113, 1)),
        ));
        Ok(answer.to_vec().expect("bytes").into())
    });
    let answer = world.ask("www.example.", RecordType::A).await;
    assert!(synthetic::contains(addresses(&answer)[0]));
    assert_eq!(world.one_record().reason, None);
}

#[tokio::test]
async fn the_record_of_an_answer_names_the_rule_that_allows_it() {
    let world = World::new(&["api.example"]);
    world.upstream.add("api.example. 60 A 203.0.113.1");
    for _ in 0..2 {
        world.ask("api.example.", RecordType::A).await;
        assert_eq!(world.one_record().line, Some(3));
    }
    world.ask("localhost.", RecordType::A).await;
    assert_eq!(world.one_record().line, None);
}

#[tokio::test]
async fn bad_names_are_denied_unasked() {
    // The policy would allow all of them, were it asked.
    let world = World::new(&[".example", ".1", "."]);
    for labels in [
        &[&b"api.example"[..], b"example"][..],
        &[b"api\\046", b"example"],
        &[b"a b", b"example"],
        &[b"\0", b"example"],
        &["ä".as_bytes(), b"example"],
        &[b"*", b"example"],
        &[b"10", b"0", b"0", b"1"],
        &[b"xn--a", b"example"],
    ] {
        let mut message = query("x.", RecordType::A);
        message.queries[0].set_name(Name::from_labels(labels.iter().copied()).expect("labels"));
        let answer = world.send(&message).await;
        assert_eq!(rcode(&answer), ResponseCode::NXDomain);
        assert_eq!(world.one_record().reason, Some("bad-name"));
    }
    let answer = world.ask(".", RecordType::NS).await;
    assert_eq!(rcode(&answer), ResponseCode::Refused);
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn localhost_and_the_host_alias_stay_here() {
    let world = World::new(&["host"]);
    for (name, qtype, expected) in [
        ("localhost.", RecordType::A, "127.0.0.1"),
        ("LocalHost.", RecordType::AAAA, "::1"),
        ("a.localhost.", RecordType::A, "127.0.0.1"),
    ] {
        let expected: IpAddr = expected.parse().expect("address");
        assert_eq!(addresses(&world.ask(name, qtype).await), [expected]);
    }
    for (qtype, family) in [(RecordType::A, Family::V4), (RecordType::AAAA, Family::V6)] {
        let answer = world.ask("HOST.", qtype).await;
        let owner = world.resolver.owner(addresses(&answer)[0]).expect("bound");
        assert_eq!((owner.name.as_str(), owner.family), ("host", family));
        let real = world.resolver.addresses(&name("host"), family).await;
        assert_eq!(real, Err(ResolveError::HostAlias));
    }
    let answer = world.ask("host.", RecordType::MX).await;
    assert_eq!(
        (rcode(&answer), answer.answers.len()),
        (ResponseCode::NoError, 0)
    );
    assert_eq!(world.asked(), [""; 0]);
    let without = World::new(&[]);
    assert_eq!(
        rcode(&without.ask("host.", RecordType::A).await),
        ResponseCode::NXDomain
    );
}

#[tokio::test]
async fn reverse_names() {
    let world = World::new(&["api.example", "1.113.0.203.in-addr.arpa"]);
    world.upstream.add("api.example. 60 A 203.0.113.1");
    world
        .upstream
        .add("1.113.0.203.in-addr.arpa. 60 PTR api.example.");
    let synthetic = addresses(&world.ask("api.example.", RecordType::A).await)[0];
    let IpAddr::V4(v4) = synthetic else {
        panic!("not IPv4")
    };
    let ptr = |answer: &Message| match answer.answers.first().map(|record| &record.data) {
        Some(RData::PTR(name)) => name.0.to_ascii(),
        other => panic!("no PTR: {other:?}"),
    };
    let answer = world.ask(&Name::from(v4).to_ascii(), RecordType::PTR).await;
    assert_eq!(ptr(&answer), "api.example.");
    let answer = world.ask("1.0.0.127.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(ptr(&answer), "localhost.");
    let _ = (world.policy.take_records(), world.asked());
    // Unbound synthetic, the guest's own and private addresses: no such name, and no record.
    for name in [
        "9.9.19.198.in-addr.arpa.",
        "1.0.18.198.in-addr.arpa.",
        "1.0.0.10.in-addr.arpa.",
        "168.192.in-addr.arpa.",
    ] {
        let answer = world.ask(name, RecordType::PTR).await;
        assert_eq!(rcode(&answer), ResponseCode::NXDomain, "{name}");
        assert_eq!(answer.authorities.len(), 1);
        assert_eq!(world.one_record().reason, None);
    }
    let answer = world.ask("8.8.8.8.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(
        (rcode(&answer), errors(&answer)),
        (ResponseCode::NXDomain, vec![15])
    );
    assert_eq!(world.one_record().reason, Some("no-rule"));
    assert_eq!(world.asked(), [""; 0]);
    let answer = world
        .ask("1.113.0.203.in-addr.arpa.", RecordType::PTR)
        .await;
    assert_eq!(ptr(&answer), "api.example.");
}

#[tokio::test(start_paused = true)]
async fn answers_are_cached_and_count_down() {
    let world = World::new(&["api.example"]);
    world.upstream.add("api.example. 40 A 203.0.113.1");
    let first = world.ask("api.example.", RecordType::A).await;
    assert_eq!(first.answers[0].ttl, 30, "the configured one");
    tokio::time::advance(Duration::from_secs(25)).await;
    let second = world.ask("api.example.", RecordType::A).await;
    assert_eq!(second.answers[0].ttl, 15, "what is left of the upstream's");
    assert_eq!(addresses(&first), addresses(&second));
    assert_eq!(world.asked().len(), 1);
    tokio::time::advance(Duration::from_secs(16)).await;
    let third = world.ask("api.example.", RecordType::A).await;
    assert_eq!(addresses(&first), addresses(&third));
    assert_eq!(world.asked().len(), 1);
    tokio::time::advance(Duration::from_secs(41)).await;
    let real = world
        .resolver
        .addresses(&name("api.example"), Family::V4)
        .await;
    assert_eq!(
        (real.map(|list| list.len()), world.asked().len()),
        (Ok(1), 1)
    );
}

#[tokio::test(start_paused = true)]
async fn negative_answers_are_cached_by_their_soa() {
    let world = World::new(&[".example"]);
    for elapsed in [0, 59, 2] {
        tokio::time::advance(Duration::from_secs(elapsed)).await;
        let answer = world.ask("none.example.", RecordType::A).await;
        assert_eq!(rcode(&answer), ResponseCode::NXDomain);
    }
    assert_eq!(world.asked().len(), 2);
}

#[tokio::test]
async fn the_same_question_is_asked_once_however_many_wait() {
    let world = World::new(&["api.example"]);
    world.upstream.add("api.example. 60 A 203.0.113.1");
    world.upstream.close();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..50 {
        let resolver = world.resolver.clone();
        let name = if index % 2 == 0 {
            "api.example."
        } else {
            "API.example."
        };
        let bytes = query(name, RecordType::A).to_vec().expect("query");
        tasks.spawn(async move { resolver.answer(&bytes, client(), QueryTransport::Udp).await });
    }
    tokio::task::yield_now().await;
    world.upstream.open();
    while let Some(answer) = tasks.join_next().await {
        let answer = answer.expect("no panic").expect("an answer");
        assert_eq!(
            addresses(&Message::from_vec(&answer).expect("readable")).len(),
            1
        );
    }
    assert_eq!(world.asked().len(), 1);
    assert_eq!(world.policy.take_records().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_is_a_servfail_before_the_client_gives_up() {
    let world = World::new(&["api.example"]);
    world.upstream.close();
    let start = tokio::time::Instant::now();
    let answer = world.ask("api.example.", RecordType::A).await;
    assert_eq!(
        (rcode(&answer), errors(&answer)),
        (ResponseCode::ServFail, vec![22])
    );
    assert_eq!(start.elapsed(), Config::default().upstream_timeout);
    // The upstream is back. It is asked again after a second.
    world
        .upstream
        .hook(|_| Err(UpstreamError::Unavailable(None)));
    world.upstream.open();
    let _ = world.asked();
    assert_eq!(
        rcode(&world.ask("api.example.", RecordType::A).await),
        ResponseCode::ServFail
    );
    assert_eq!(world.asked().len(), 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    let answer = world.ask("api.example.", RecordType::A).await;
    assert_eq!(
        (rcode(&answer), errors(&answer)),
        (ResponseCode::ServFail, vec![23])
    );
    let real = world
        .resolver
        .addresses(&name("api.example"), Family::V4)
        .await;
    assert!(matches!(real, Err(ResolveError::Failed(_))));
}

#[tokio::test]
async fn too_many_questions_under_way_fail_at_once() {
    let mut config = Config::default();
    config.upstream_inflight = 2;
    let world = World::with(config, &[".example"]);
    world.upstream.close();
    let waiting: Vec<_> = (0..2)
        .map(|index| {
            let bytes = query(&format!("n{index}.example."), RecordType::A).to_vec();
            world
                .resolver
                .step(&bytes.expect("query"), client(), QueryTransport::Udp)
        })
        .collect();
    let answer = world.ask("n3.example.", RecordType::A).await;
    assert_eq!(
        (rcode(&answer), errors(&answer)),
        (ResponseCode::ServFail, vec![0])
    );
    drop(waiting);
}

#[tokio::test]
async fn exhaustion_is_a_servfail() {
    let mut config = Config::default();
    config.names = 1;
    let world = World::with(config, &[".example"]);
    world.upstream.add("a.example. 60 A 203.0.113.1");
    world.upstream.add("b.example. 60 A 203.0.113.1");
    assert_eq!(
        addresses(&world.ask("a.example.", RecordType::A).await).len(),
        1
    );
    let answer = world.ask("b.example.", RecordType::A).await;
    assert_eq!(
        (rcode(&answer), errors(&answer)),
        (ResponseCode::ServFail, vec![0])
    );
    assert!(answer.answers.is_empty());
    assert_eq!(
        addresses(&world.ask("a.example.", RecordType::A).await).len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_held_address_outlives_everything() {
    let mut config = Config::default();
    config.names = 1;
    let world = World::with(config, &[".example"]);
    world.upstream.add("a.example. 60 A 203.0.113.1");
    world.upstream.add("b.example. 60 A 203.0.113.1");
    let address = addresses(&world.ask("a.example.", RecordType::A).await)[0];
    let lease = world.resolver.hold(address).expect("bound");
    tokio::time::advance(Duration::from_secs(86_400)).await;
    assert!(addresses(&world.ask("b.example.", RecordType::A).await).is_empty());
    assert_eq!(
        world.resolver.owner(address).expect("bound").name.as_str(),
        "a.example"
    );
    drop(lease);
    tokio::time::advance(Duration::from_secs(91)).await;
    assert_eq!(
        addresses(&world.ask("b.example.", RecordType::A).await),
        [address]
    );
    assert_eq!(
        world.resolver.owner(address).expect("bound").name.as_str(),
        "b.example"
    );
}

#[tokio::test]
async fn a_long_answer_is_truncated_over_udp_and_whole_over_tcp() {
    let world = World::new(&["txt.example"]);
    for _ in 0..20 {
        world
            .upstream
            .add(&format!("txt.example. 60 TXT {}", "x".repeat(200)));
    }
    let answer = world.ask("txt.example.", RecordType::TXT).await;
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    let bytes = query("txt.example.", RecordType::TXT)
        .to_vec()
        .expect("query");
    let answer = world
        .resolver
        .answer(&bytes, client(), QueryTransport::Tcp)
        .await;
    let answer = Message::from_vec(&answer.expect("an answer")).expect("readable");
    assert_eq!(
        (answer.metadata.truncation, answer.answers.len()),
        (false, 20)
    );
}
