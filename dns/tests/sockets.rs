//! The resolver on real sockets: datagrams, streams, and their limits.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use odyn_dns::test_util::{FakePolicy, FakeUpstream, query};
use odyn_dns::{Config, Resolver, serve_tcp, serve_udp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const LOOPBACK: (std::net::Ipv4Addr, u16) = (std::net::Ipv4Addr::LOCALHOST, 0);

async fn server(config: Config) -> (SocketAddr, SocketAddr, FakeUpstream) {
    let upstream = FakeUpstream::default();
    for index in 0..100 {
        upstream.add(&format!("n{index}.example. 60 A 203.0.113.{index}"));
        upstream.add(&format!("n{index}.example. 60 TXT {}", "x".repeat(240)));
    }
    let policy = FakePolicy::allowing(&[".example"]);
    let resolver = Resolver::new(config, policy, upstream.clone());
    let udp = UdpSocket::bind(LOOPBACK).await.expect("bind");
    let tcp = TcpListener::bind(LOOPBACK).await.expect("bind");
    let addresses = (
        udp.local_addr().expect("bound"),
        tcp.local_addr().expect("bound"),
    );
    tokio::spawn(serve_udp(udp, resolver.clone()));
    tokio::spawn(serve_tcp(tcp, resolver));
    (addresses.0, addresses.1, upstream)
}

fn question(id: u16, name: &str, qtype: RecordType) -> Vec<u8> {
    let mut message = query(name, qtype);
    message.metadata.id = id;
    message.to_vec().expect("query")
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("short");
    [&length.to_be_bytes(), message].concat()
}

async fn next(stream: &mut TcpStream) -> Option<Message> {
    let length = stream.read_u16().await.ok()?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(Message::from_vec(&bytes).expect("readable"))
}

#[tokio::test]
async fn datagrams_in_datagrams_out() {
    let (udp, _, upstream) = server(Config::default()).await;
    let socket = UdpSocket::bind(LOOPBACK).await.expect("bind");
    socket.connect(udp).await.expect("connect");
    let mut buffer = [0; 2048];
    // Junk is not answered and does no harm.
    socket.send(&[]).await.expect("send");
    socket.send(&[0xff; 1500]).await.expect("send");
    upstream.close();
    for id in 0..50 {
        let bytes = question(id, &format!("n{id}.example."), RecordType::A);
        socket.send(&bytes).await.expect("send");
    }
    for _ in 0..50 {
        upstream.open();
    }
    let mut seen = vec![false; 50];
    for _ in 0..50 {
        let length = socket.recv(&mut buffer).await.expect("answer");
        let answer = Message::from_vec(&buffer[..length]).expect("readable");
        let name = format!("n{}.example.", answer.metadata.id);
        assert_eq!(answer.queries[0].name().to_ascii(), name);
        assert_eq!(answer.answers.len(), 1);
        seen[usize::from(answer.metadata.id)] = true;
    }
    assert!(seen.into_iter().all(|seen| seen));
}

/// Clients with many queries at once: each gets its own answers, those from the cache in order.
#[tokio::test]
async fn answers_that_go_together_reach_those_who_asked() {
    let (udp, _, _) = server(Config::default()).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let socket = UdpSocket::bind(LOOPBACK).await.expect("bind");
        socket.connect(udp).await.expect("connect");
        clients.push(socket);
    }
    let mut buffer = [0; 2048];
    for id in 0..10 {
        let bytes = question(id, &format!("n{id}.example."), RecordType::A);
        clients[0].send(&bytes).await.expect("send");
        clients[0].recv(&mut buffer).await.expect("answer");
    }
    // Answers of two lengths, and junk that has none.
    for id in 0..50 {
        for (number, client) in clients.iter().enumerate() {
            let name = match id % 3 {
                0 => "localhost.".to_owned(),
                _ => format!("n{}.example.", id % 10),
            };
            let id = id + 1000 * u16::try_from(number).expect("few");
            let bytes = question(id, &name, RecordType::A);
            client.send(&bytes).await.expect("send");
            client.send(&[0xff; 20]).await.expect("send");
        }
    }
    for (number, client) in clients.iter().enumerate() {
        for id in 0..50 {
            let length = client.recv(&mut buffer).await.expect("answer");
            let answer = Message::from_vec(&buffer[..length]).expect("readable");
            let expected = id + 1000 * u16::try_from(number).expect("few");
            assert_eq!(answer.metadata.id, expected);
            assert_eq!(answer.answers.len(), 1);
        }
    }
}

#[tokio::test]
async fn queries_past_the_bound_fail_at_once_over_udp() {
    let mut config = Config::default();
    config.udp_inflight = 1;
    let (udp, _, upstream) = server(config).await;
    upstream.close();
    let socket = UdpSocket::bind(LOOPBACK).await.expect("bind");
    socket.connect(udp).await.expect("connect");
    for id in 0..2 {
        let bytes = question(id, &format!("n{id}.example."), RecordType::A);
        socket.send(&bytes).await.expect("send");
    }
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).await.expect("answer");
    let answer = Message::from_vec(&buffer[..length]).expect("readable");
    assert_eq!(answer.metadata.id, 1);
    assert_eq!(u16::from(answer.metadata.response_code), 2);
}

#[tokio::test]
async fn a_stream_carries_many_queries_and_answers_in_any_order() {
    let (_, tcp, upstream) = server(Config::default()).await;
    let mut stream = TcpStream::connect(tcp).await.expect("connect");
    upstream.close();
    let mut pipelined = framed(&question(0, "n0.example.", RecordType::TXT));
    // The second needs no upstream and overtakes the first.
    pipelined.extend(framed(&question(1, "localhost.", RecordType::A)));
    stream.write_all(&pipelined).await.expect("write");
    assert_eq!(next(&mut stream).await.expect("second").metadata.id, 1);
    upstream.open();
    assert_eq!(next(&mut stream).await.expect("first").metadata.id, 0);
    // Byte by byte is a message all the same.
    upstream.open();
    for byte in framed(&question(2, "n2.example.", RecordType::A)) {
        stream.write_all(&[byte]).await.expect("write");
    }
    assert_eq!(next(&mut stream).await.expect("third").metadata.id, 2);
}

#[tokio::test]
async fn answers_follow_a_half_close() {
    let (_, tcp, upstream) = server(Config::default()).await;
    let mut stream = TcpStream::connect(tcp).await.expect("connect");
    upstream.close();
    let bytes = framed(&question(9, "n9.example.", RecordType::A));
    stream.write_all(&bytes).await.expect("write");
    stream.shutdown().await.expect("shutdown");
    upstream.open();
    assert_eq!(next(&mut stream).await.expect("answer").metadata.id, 9);
    assert!(next(&mut stream).await.is_none());
}

#[tokio::test]
async fn no_more_is_read_than_may_wait() {
    let mut config = Config::default();
    config.tcp_pipeline = 3;
    let (_, tcp, upstream) = server(config).await;
    let mut stream = TcpStream::connect(tcp).await.expect("connect");
    upstream.close();
    for id in 0..20 {
        let bytes = framed(&question(id, &format!("n{id}.example."), RecordType::A));
        stream.write_all(&bytes).await.expect("write");
    }
    let mut asked = 0;
    for done in 0..20 {
        upstream.open();
        assert!(next(&mut stream).await.is_some());
        asked += upstream.take_asked().len();
        assert!(asked <= done + 1 + 3, "{asked} asked after {done} answers");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_and_stalled_connections_are_closed() {
    let (_, tcp, _) = server(Config::default()).await;
    for start in [&[][..], &[0, 40, 1, 2, 3], &[0xff, 0xff]] {
        let mut stream = TcpStream::connect(tcp).await.expect("connect");
        stream.write_all(start).await.expect("write");
        // The clock is stopped and runs ahead only while everything waits.
        let closed = tokio::time::timeout(Duration::from_secs(11), next(&mut stream)).await;
        assert!(matches!(closed, Ok(None)), "{start:?}");
    }
}

#[tokio::test]
async fn connections_past_the_bound_are_closed_at_once() {
    let mut config = Config::default();
    config.tcp_connections = 1;
    let (_, tcp, _) = server(config).await;
    let mut first = TcpStream::connect(tcp).await.expect("connect");
    let bytes = framed(&question(1, "localhost.", RecordType::A));
    first.write_all(&bytes).await.expect("write");
    assert!(next(&mut first).await.is_some());
    let mut second = TcpStream::connect(tcp).await.expect("connect");
    assert!(next(&mut second).await.is_none());
    first.write_all(&bytes).await.expect("write");
    assert!(next(&mut first).await.is_some());
    // Its place is free again once it has gone.
    drop(first);
    for attempt in 0.. {
        assert!(attempt < 1000, "never let in again");
        let mut third = TcpStream::connect(tcp).await.expect("connect");
        if third.write_all(&bytes).await.is_ok() && next(&mut third).await.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
}
