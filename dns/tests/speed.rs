//! How fast cached answers are. A measurement, not a test: run it with
//! `cargo test --release -p odyn-dns --test speed -- --ignored --nocapture`.

use std::net::IpAddr;
use std::time::Instant;

use hickory_proto::rr::RecordType;
use odyn_dns::test_util::{FakeUpstream, client, query};
use odyn_dns::{
    Config, DeniedQuery, MatchedRule, NamePolicy, NameVerdict, QueryDenial, QueryTransport,
    Resolver, serve_udp,
};
use odyn_proto::DnsName;
use tokio::net::UdpSocket;

/// A policy that costs nothing.
struct Open;

impl NamePolicy for Open {
    fn name(&self, name: &DnsName) -> NameVerdict<Option<MatchedRule>> {
        match name.as_str() {
            "denied.test" => NameVerdict::Deny(QueryDenial::new("no-rule")),
            _ => NameVerdict::Allow(None),
        }
    }
    fn cname_target(&self, _: &DnsName) -> NameVerdict {
        NameVerdict::Allow(())
    }
    fn address(&self, _: &DnsName, _: IpAddr) -> NameVerdict {
        NameVerdict::Allow(())
    }
    fn denied(&self, _: DeniedQuery<'_>) {}
}

fn world() -> Resolver<Open, FakeUpstream> {
    let upstream = FakeUpstream::default();
    upstream.add("api.example. 3600 A 203.0.113.1");
    upstream.add("www.example. 3600 CNAME edge.example.");
    upstream.add("edge.example. 3600 A 203.0.113.2");
    Resolver::new(Config::default(), Open, upstream)
}

#[tokio::test]
#[ignore = "a measurement"]
async fn in_memory() {
    let resolver = world();
    for name in ["api.example.", "www.example.", "denied.test."] {
        let bytes = query(name, RecordType::A).to_vec().expect("query");
        let _ = resolver.answer(&bytes, client(), QueryTransport::Udp).await;
        let count = 200_000;
        let start = Instant::now();
        for _ in 0..count {
            let answer = resolver.answer(&bytes, client(), QueryTransport::Udp).await;
            assert!(answer.is_some());
        }
        println!("{name} {:?} per cached answer", start.elapsed() / count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn over_udp() {
    let server = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let address = server.local_addr().expect("bound");
    tokio::spawn(serve_udp(server, world()));
    let bytes = query("api.example.", RecordType::A)
        .to_vec()
        .expect("query");
    let (count, window) = (300_000, 64);
    // A plain thread: the client's own cost should not be tokio's.
    let rate = tokio::task::spawn_blocking(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.connect(address).expect("connect");
        let mut buffer = [0; 2048];
        let start = Instant::now();
        for _ in 0..window {
            socket.send(&bytes).expect("send");
        }
        for done in 0..count {
            socket.recv(&mut buffer).expect("answer");
            if done + window < count {
                socket.send(&bytes).expect("send");
            }
        }
        f64::from(count) / start.elapsed().as_secs_f64()
    });
    println!(
        "{:.0} answers per second, {window} at once",
        rate.await.expect("client")
    );
}
