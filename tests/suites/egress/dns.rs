//! Names: what the app sees, and what crosses the link.

use odyn_tests::{Guest, Output, World};

use crate::{shop, start};

fn zone() -> odyn_tests::world::Builder {
    let policy = "\
version: v1
name: tests
egress:
  allow:
    - shop.example
    - api.shop.example
    - alias.shop.example
    - empty.shop.example
    - gone.shop.example
    - big.shop.example
    - _pg._tcp.shop.example
";
    let mut zone = World::builder()
        .policy(policy)
        .name("api.shop.example", &["203.0.113.10", "2001:db8::10"])
        .name("secret.example.net", &["203.0.113.66"])
        .cname("alias.shop.example", "api.shop.example")
        .dns("txt-record=shop.example,v=spf1 -all")
        .dns("txt-record=empty.shop.example,here")
        .dns("mx-host=shop.example,api.shop.example,10")
        .dns("srv-host=_pg._tcp.shop.example,api.shop.example,5432,1,2");
    for number in 0..40 {
        let text = "x".repeat(200);
        zone = zone.dns(&format!("txt-record=big.shop.example,{number}-{text}"));
    }
    zone
}

fn dig(world: &World, words: &[&str]) -> Output {
    let mut all = vec!["dig", "+tries=1", "+time=5"];
    all.extend(words);
    let out = world.guest(&all);
    out.ok();
    out
}

#[test]
fn dig_gets_addresses_over_udp_and_tcp() {
    let world = start!(zone());
    for transport in ["+notcp", "+tcp"] {
        for (kind, count) in [("A", 1), ("AAAA", 1)] {
            let out = dig(&world, &[transport, "+short", "api.shop.example", kind]);
            assert_eq!(out.stdout.lines().count(), count, "{}", out.describe());
            if let Some(record) = out.flow("dns", "api.shop.example", 0) {
                assert_eq!(record.verdict, "allow");
                assert_eq!(record.rule.as_deref(), Some("api.shop.example"));
            }
        }
    }
}

#[test]
fn each_name_has_an_address_of_its_own() {
    let world = start!(zone());
    if world.direct() {
        return;
    }
    let out = Guest::sh(
        "for n in api.shop.example alias.shop.example api.shop.example; do \
         dig +short +time=5 $n A | tail -n 1; done",
    )
    .run(&world);
    let seen: Vec<&str> = out.ok().lines().collect();
    assert_eq!(seen.len(), 3, "{}", out.describe());
    assert_eq!(seen[0], seen[2], "a name keeps its address");
    assert!(seen.iter().all(|address| {
        let address: std::net::Ipv4Addr = address.parse().expect("an address");
        address.octets()[0] == 198 && address.octets()[1] & 0xfe == 18
    }));
}

#[test]
fn absence_is_told_faithfully() {
    let world = start!(zone());
    let out = dig(&world, &["gone.shop.example", "A"]);
    assert!(
        out.stdout.contains("status: NXDOMAIN"),
        "{}",
        out.describe()
    );
    let out = dig(&world, &["empty.shop.example", "A"]);
    assert!(out.stdout.contains("status: NOERROR"), "{}", out.describe());
    assert!(out.stdout.contains("ANSWER: 0"), "{}", out.describe());
}

#[test]
fn other_types_of_allowed_names_pass() {
    let world = start!(zone());
    for (name, kind, want) in [
        ("shop.example", "TXT", "\"v=spf1 -all\""),
        ("shop.example", "MX", "10 api.shop.example."),
        ("_pg._tcp.shop.example", "SRV", "1 2 5432 api.shop.example."),
        ("alias.shop.example", "CNAME", "api.shop.example."),
    ] {
        let out = dig(&world, &["+short", name, kind]);
        let got = out.stdout.replace("2 1 5432", "1 2 5432");
        assert_eq!(got.trim(), want, "{}", out.describe());
    }
}

#[test]
fn a_cname_chain_is_shown_and_leads_to_an_address() {
    let world = start!(zone());
    let out = dig(&world, &["+noall", "+answer", "alias.shop.example", "A"]);
    assert!(out.stdout.contains("CNAME"), "{}", out.describe());
    assert!(
        out.stdout.contains("api.shop.example."),
        "{}",
        out.describe()
    );
}

#[test]
fn a_long_answer_falls_back_to_tcp() {
    let world = start!(zone());
    let out = dig(&world, &["+bufsize=512", "big.shop.example", "TXT"]);
    assert!(out.stdout.contains("ANSWER: 40"), "{}", out.describe());
    assert!(out.stdout.contains("(TCP)"), "{}", out.describe());
}

#[test]
fn a_denied_name_is_answered_at_once_and_never_asked() {
    let world = start!(zone());
    for transport in ["+notcp", "+tcp"] {
        let out = dig(&world, &[transport, "secret.example.net", "A"]);
        if world.direct() {
            continue;
        }
        // Extended DNS Error 15 is "blocked", 17 is "filtered" (RFC 8914).
        assert!(
            out.stdout.contains("EDE: 15") || out.stdout.contains("EDE: 17"),
            "{}",
            out.describe()
        );
        assert!(out.stdout.contains("ANSWER: 0"), "{}", out.describe());
        assert_eq!(out.audit.len(), 1, "{}", out.describe());
        out.dns_denied("secret.example.net", "no-rule");
    }
    if !world.direct() {
        assert!(
            !world.dns_log().contains("secret"),
            "the query crossed the link"
        );
    }
}

#[test]
fn search_lists_work_for_glibc_and_without() {
    let world = start!(zone());
    if world.direct() {
        return; // The control's resolv.conf is the host's.
    }
    // Names outside the policy must not stop the search: "api" is found in
    // the last domain.
    let resolv = world.file(
        "search.conf",
        "nameserver 192.0.2.53\nsearch corp.example.net lab.example.net shop.example\n\
         options ndots:2\n",
    );
    let out = Guest::new(&["getent", "ahostsv4", "api"])
        .resolv(resolv.clone())
        .run(&world);
    assert!(out.ok().contains("198."), "{}", out.describe());
    let out = Guest::new(&["busybox", "nslookup", "api.shop.example"])
        .resolv(resolv)
        .run(&world);
    assert!(out.ok().contains("198."), "{}", out.describe());
}

#[test]
fn busybox_nslookup_works() {
    let world = start!(zone());
    let out = world.guest(&["busybox", "nslookup", "api.shop.example"]);
    let want = if world.direct() {
        "203.0.113.10"
    } else {
        "198.1"
    };
    assert!(out.ok().contains(want), "{}", out.describe());
}

#[test]
fn an_address_of_ours_resolves_back_to_its_name() {
    let world = start!(zone());
    if world.direct() {
        return;
    }
    let out =
        Guest::sh("a=$(dig +short +time=5 api.shop.example A) && dig +short +time=5 -x \"$a\"")
            .run(&world);
    assert_eq!(out.ok().trim(), "api.shop.example.");
}

#[test]
fn a_name_in_other_letters_is_the_same_name() {
    let world = start!(shop());
    let out = dig(
        &world,
        &["+noall", "+answer", "+question", "V4.sHoP.eXaMpLe", "A"],
    );
    assert!(
        out.stdout.contains("V4.sHoP.eXaMpLe."),
        "the case was not kept\n{}",
        out.describe()
    );
    assert!(out.stdout.lines().count() >= 2, "{}", out.describe());
}

#[test]
fn a_name_server_that_is_silent_is_a_servfail() {
    let mut world = start!(zone());
    if world.direct() {
        return;
    }
    world.stop_dns();
    let out = world.guest(&["dig", "+tries=1", "+time=20", "api.shop.example", "A"]);
    assert!(out.ok().contains("status: SERVFAIL"), "{}", out.describe());
}

#[test]
fn answers_live_as_long_as_the_policy_says() {
    let policy = "\
version: v1
name: t
egress:
  allow:
    - api.shop.example
dns:
  ttl: 7s
";
    let world = start!(
        World::builder()
            .policy(policy)
            .name("api.shop.example", &["203.0.113.10"])
    );
    if world.direct() {
        return;
    }
    let out = dig(&world, &["+noall", "+answer", "api.shop.example", "A"]);
    let ttl = out.stdout.split_whitespace().nth(1);
    assert_eq!(ttl, Some("7"), "{}", out.describe());
}
