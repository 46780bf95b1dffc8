//! Against dnsmasq, and against servers that misbehave in ways no real one does on demand.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn fqdn(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a test's name");
    name.set_fqdn(true);
    name
}

/// A query as a guest sends it.
pub(super) fn query(name: &str, qtype: RecordType) -> Bytes {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(fqdn(name), qtype));
    message.set_edns(Edns::new());
    message.to_vec().expect("query").into()
}

async fn ask(resolver: &SystemResolver, name: &str, qtype: RecordType) -> Message {
    let answer = resolver
        .exchange(query(name, qtype), &LookupShare::default())
        .await;
    let answer = Message::from_vec(&answer.expect("a proper query")).expect("readable");
    assert_eq!(answer.metadata.id, 4711);
    assert_eq!(answer.queries, [Query::query(fqdn(name), qtype)]);
    answer
}

fn error_codes(message: &Message) -> Vec<u16> {
    let options = message.edns.as_ref().map(|edns| edns.options().as_ref());
    let options = options.unwrap_or_default().iter();
    let errors = options.filter(|(code, _)| *code == EdnsCode::Unknown(15));
    errors
        .filter_map(|(_, option)| match option {
            EdnsOption::Unknown(_, data) => Some(u16::from_be_bytes([data[0], data[1]])),
            _ => None,
        })
        .collect()
}

/// A running dnsmasq, ended when dropped.
struct Dnsmasq {
    child: Child,
    address: SocketAddr,
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dnsmasq {
    /// Starts one with `arguments`, and waits until it answers. `None`, loudly, without dnsmasq.
    async fn start(arguments: &[&str]) -> Option<Self> {
        // Between the two binds another process may take the port; then another is tried.
        for _ in 0..10 {
            let port = {
                let socket = UdpSocket::bind(LOOPBACK).await.expect("bind");
                socket.local_addr().expect("bound").port()
            };
            let mut command = Command::new("dnsmasq");
            command
                .args([
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--no-resolv",
                ])
                .args([
                    "--no-hosts",
                    "--bind-interfaces",
                    "--listen-address=127.0.0.1",
                ])
                .args(["--user=", "--group=", "--pid-file=", "--log-facility=-"])
                .args(["--local=/test/", "--edns-packet-max=1232"])
                .arg(format!("--port={port}"))
                .args(arguments)
                .stderr(Stdio::null());
            let Ok(child) = command.spawn() else {
                let loud = b"\nSKIPPED: no dnsmasq here\n\n";
                std::io::stderr().write_all(loud).expect("stderr");
                return None;
            };
            let mut started = Self {
                child,
                address: (Ipv4Addr::LOCALHOST, port).into(),
            };
            for _ in 0..500 {
                if tokio::net::TcpStream::connect(started.address)
                    .await
                    .is_ok()
                {
                    return Some(started);
                }
                if matches!(started.child.try_wait(), Ok(Some(_))) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("dnsmasq does not start");
    }
}

#[tokio::test]
async fn answers_are_faithful() {
    let long = "x".repeat(250);
    let texts: Vec<_> = (0..12)
        .map(|i| format!("--txt-record=long.test,{i}{long}"))
        .collect();
    let mut arguments = vec![
        "--host-record=www.test,203.0.113.1,2001:db8::1",
        "--host-record=v4.test,203.0.113.4",
        "--cname=alias.test,www.test",
        "--txt-record=short.test,hello",
        "--srv-host=_ldap._tcp.test,www.test,389,1,2",
        "--mx-host=mail.test,www.test,10",
        "--caa-record=www.test,0,issue,ca.example",
    ];
    arguments.extend(texts.iter().map(String::as_str));
    let Some(server) = Dnsmasq::start(&arguments).await else {
        return;
    };
    let resolver = SystemResolver::fixed(vec![server.address]);
    for (name, qtype, rcode, types) in [
        (
            "www.test.",
            RecordType::A,
            ResponseCode::NoError,
            &[RecordType::A][..],
        ),
        (
            "www.test.",
            RecordType::AAAA,
            ResponseCode::NoError,
            &[RecordType::AAAA],
        ),
        (
            "alias.test.",
            RecordType::A,
            ResponseCode::NoError,
            &[RecordType::CNAME, RecordType::A],
        ),
        (
            "short.test.",
            RecordType::TXT,
            ResponseCode::NoError,
            &[RecordType::TXT],
        ),
        (
            "long.test.",
            RecordType::TXT,
            ResponseCode::NoError,
            &[RecordType::TXT; 12],
        ),
        (
            "_ldap._tcp.test.",
            RecordType::SRV,
            ResponseCode::NoError,
            &[RecordType::SRV],
        ),
        (
            "mail.test.",
            RecordType::MX,
            ResponseCode::NoError,
            &[RecordType::MX],
        ),
        (
            "www.test.",
            RecordType::CAA,
            ResponseCode::NoError,
            &[RecordType::CAA],
        ),
        ("v4.test.", RecordType::AAAA, ResponseCode::NoError, &[]),
        ("none.test.", RecordType::A, ResponseCode::NXDomain, &[]),
    ] {
        let answer = ask(&resolver, name, qtype).await;
        assert_eq!(answer.metadata.response_code, rcode, "{name} {qtype}");
        let found: Vec<_> = answer
            .answers
            .iter()
            .map(|record| record.record_type())
            .collect();
        assert_eq!(found, types, "{name} {qtype}");
        assert!(!answer.metadata.truncation, "{name} {qtype}");
    }
    // dnsmasq has no server to forward this to, and refuses.
    let answer = ask(&resolver, "www.example.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn the_files_are_read_and_read_again() {
    let Some(server) = Dnsmasq::start(&["--host-record=www.test,203.0.113.1"]).await else {
        return;
    };
    let directory = tempfile::tempdir().expect("temporary directory");
    let hosts = directory.path().join("hosts");
    let resolver = SystemResolver::with_source(ResolverSource::Files {
        hosts: WatchedFile::new(&hosts, HostsFile::parse),
        // The port of a resolv.conf is always 53, so the server's is put in.
        conf: WatchedFile::new(Path::new("/nonexistent"), ResolvConf::parse),
    });
    fs::write(&hosts, "203.0.113.9 www.test only.test\n").expect("write");
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(
        answer.answers[0].data.ip_addr(),
        Some(Ipv4Addr::new(203, 0, 113, 9).into())
    );
    let answer = ask(&resolver, "only.test.", RecordType::AAAA).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty());
    fs::write(&hosts, "203.0.113.10 www.test\n").expect("write");
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(
        answer.answers[0].data.ip_addr(),
        Some(Ipv4Addr::new(203, 0, 113, 10).into())
    );
    // Fixed servers are asked for everything.
    let fixed = SystemResolver::fixed(vec![server.address]);
    let answer = ask(&fixed, "www.test.", RecordType::A).await;
    assert_eq!(
        answer.answers[0].data.ip_addr(),
        Some(Ipv4Addr::new(203, 0, 113, 1).into())
    );
}

/// An address where nothing listens.
async fn closed_server() -> SocketAddr {
    let socket = UdpSocket::bind(LOOPBACK).await.expect("bind");
    socket.local_addr().expect("bound")
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_a_failure_at_once() {
    let start = Instant::now();
    let resolver = SystemResolver::fixed(vec![closed_server().await, closed_server().await]);
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(error_codes(&answer), [23]);
    let resolver = SystemResolver::fixed(Vec::new());
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(error_codes(&answer), [22]);
    // The clock is stopped: only a wait could move it.
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// A server over UDP that answers each query with what `bend` makes of the honest answer: an
/// address record that carries the number of the query.
pub(super) async fn server(
    bend: impl Fn(Message) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddr, std::sync::Arc<AtomicUsize>) {
    server_on(UdpSocket::bind(LOOPBACK).await.expect("bind"), bend)
}

/// UDP and TCP with the same port. Another test may hold one of them: then the next port.
async fn both_transports() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind(LOOPBACK).await.expect("bind");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("bound")).await {
            return (udp, tcp);
        }
    }
}

fn server_on(
    socket: UdpSocket,
    bend: impl Fn(Message) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddr, std::sync::Arc<AtomicUsize>) {
    let address = socket.local_addr().expect("bound");
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            counter.fetch_add(1, Ordering::Relaxed);
            let query = Message::from_vec(&buffer[..length]).expect("a proper query");
            assert!(query.metadata.recursion_desired && !query.metadata.checking_disabled);
            let mut answer = query.clone().into_response();
            let data = RData::A("203.0.113.1".parse().expect("address"));
            answer.add_answer(Record::from_rdata(
                query.queries[0].name().clone(),
                60,
                data,
            ));
            for datagram in bend(answer) {
                let _ = socket.send_to(&datagram, client).await;
            }
        }
    });
    (address, asked)
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("answer")
}

pub(super) fn honest(message: Message) -> Vec<Vec<u8>> {
    vec![bytes(&message)]
}

fn with_code(code: ResponseCode) -> impl Fn(Message) -> Vec<Vec<u8>> + Send + 'static {
    move |mut message| {
        message.answers.clear();
        message.metadata.response_code = code;
        vec![bytes(&message)]
    }
}

#[tokio::test]
async fn the_second_server_is_asked_when_the_first_is_down_or_cannot_say() {
    let (failing, _) = server(with_code(ResponseCode::ServFail)).await;
    let (refusing, _) = server(with_code(ResponseCode::Refused)).await;
    for first in [closed_server().await, failing, refusing] {
        let (second, asked) = server(honest).await;
        let resolver = SystemResolver::fixed(vec![first, second]);
        for _ in 0..3 {
            let answer = ask(&resolver, "www.test.", RecordType::A).await;
            assert_eq!(answer.answers.len(), 1);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }
    // What the only server says is the answer, an NXDOMAIN is final.
    let resolver = SystemResolver::fixed(vec![refusing]);
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    let (denying, _) = server(with_code(ResponseCode::NXDomain)).await;
    let (second, asked) = server(honest).await;
    let resolver = SystemResolver::fixed(vec![denying, second]);
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_closed_server_costs_a_moment_once() {
    let (silent, unheard) = server(|_| Vec::new()).await;
    let (second, _) = server(honest).await;
    let resolver = SystemResolver::fixed(vec![silent, second]);
    for _ in 0..3 {
        let answer = ask(&resolver, "www.test.", RecordType::A).await;
        assert_eq!(answer.answers.len(), 1);
    }
    assert_eq!(
        unheard.load(Ordering::Relaxed),
        1,
        "the second is preferred now"
    );
}

#[tokio::test]
async fn silence_ends_before_the_guest_gives_up() {
    let (silent, _) = server(|_| Vec::new()).await;
    let resolver = SystemResolver::fixed(vec![silent]);
    let start = Instant::now();
    tokio::time::pause();
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(error_codes(&answer), [22]);
    assert!(start.elapsed() <= LOOKUP_TIMEOUT + Duration::from_millis(10));
}

#[tokio::test]
async fn forged_answers_are_passed_over() {
    let (address, _) = server(|message| {
        let mut forged = Vec::new();
        let mut bend = |bend: fn(&mut Message)| {
            let mut message = message.clone();
            bend(&mut message);
            message.answers.clear();
            forged.push(bytes(&message));
        };
        bend(|m| m.metadata.id = m.metadata.id.wrapping_add(1));
        bend(|m| m.metadata.message_type = MessageType::Query);
        bend(|m| m.queries[0].name = fqdn("other.test."));
        bend(|m| m.queries[0].query_type = RecordType::AAAA);
        bend(|m| m.queries[0].query_class = DNSClass::CH);
        bend(|m| m.queries.clear());
        forged.push(Vec::new());
        forged.push(vec![0xff; 700]);
        forged.push(bytes(&message));
        forged
    })
    .await;
    let resolver = SystemResolver::fixed(vec![address]);
    let answer = ask(&resolver, "wWw.test.", RecordType::A).await;
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(answer.queries[0].name().to_ascii(), "wWw.test.");
}

#[tokio::test]
async fn errors_of_the_server_reach_the_guest() {
    let (address, _) = server(|mut message| {
        message.answers.clear();
        message.metadata.response_code = ResponseCode::NXDomain;
        let mut edns = Edns::new();
        edns.options_mut()
            .insert(EdnsOption::Unknown(15, vec![0, 17]));
        message.set_edns(edns);
        vec![bytes(&message)]
    })
    .await;
    let resolver = SystemResolver::fixed(vec![address]);
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(error_codes(&answer), [17]);
}

#[tokio::test]
async fn servers_from_before_edns_are_asked_without_it() {
    let (address, asked) = server(|mut message| {
        if message.edns.take().is_some() {
            message.answers.clear();
            message.queries.clear();
            message.metadata.response_code = ResponseCode::FormErr;
        }
        vec![bytes(&message)]
    })
    .await;
    let resolver = SystemResolver::fixed(vec![address]);
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

fn truncated(mut message: Message) -> Vec<Vec<u8>> {
    message.metadata.truncation = true;
    vec![bytes(&message)]
}

#[tokio::test]
async fn a_truncated_answer_without_tcp_is_a_failure() {
    let (udp, tcp) = both_transports().await;
    let (address, _) = server_on(udp, truncated);
    drop(tcp);
    let resolver = SystemResolver::fixed(vec![address]);
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(error_codes(&answer), [23]);
}

#[tokio::test]
async fn nonsense_over_tcp_is_not_taken_for_an_answer() {
    let (udp, listener) = both_transports().await;
    let (address, _) = server_on(udp, truncated);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            let _ = stream.write_all(&[0, 4, 1, 2, 3, 4]).await;
        }
    });
    let resolver = SystemResolver::fixed(vec![address]);
    let answer = ask(&resolver, "www.test.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn only_questions_are_asked() {
    let (address, asked) = server(honest).await;
    let resolver = SystemResolver::fixed(vec![address]);
    let proper = query("www.test.", RecordType::A);
    let mut wrong = vec![Bytes::new(), proper.slice(..20), vec![0; 5000].into()];
    for qtype in [
        RecordType::AXFR,
        RecordType::ANY,
        RecordType::OPT,
        RecordType::TSIG,
    ] {
        wrong.push(query("www.test.", qtype));
    }
    type Bend = fn(&mut Message);
    let bends: [Bend; 5] = [
        |m| m.metadata.message_type = MessageType::Response,
        |m| m.metadata.op_code = OpCode::Update,
        |m| m.queries[0].query_class = DNSClass::CH,
        |m| m.queries.extend(m.queries.clone()),
        |m| m.queries.clear(),
    ];
    for bend in bends {
        let mut message = Message::from_vec(&proper).expect("query");
        bend(&mut message);
        wrong.push(bytes(&message).into());
    }
    for query in wrong {
        let answer = resolver
            .exchange(query.clone(), &LookupShare::default())
            .await;
        assert_eq!(answer, Err(BadQuery::BadQuery), "{query:?}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}
