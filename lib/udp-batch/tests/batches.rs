//! Batches over loopback: datagrams arrive one by one and in order.
#![allow(missing_docs)]

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use odyn_udp_batch::{Batched, MAX_DATAGRAM, MAX_RECEIVED, Segments, Taken};
use tokio::net::UdpSocket;

async fn pair() -> (UdpSocket, UdpSocket) {
    let one = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    one.connect(other.local_addr().unwrap()).await.unwrap();
    other.connect(one.local_addr().unwrap()).await.unwrap();
    (one, other)
}

/// Datagrams that carry their number, if they are long enough.
fn datagrams(sizes: &[usize]) -> Vec<Vec<u8>> {
    let byte = |number: usize, at: usize| (number * 7 + at % 251) as u8;
    let of = |(number, size): (usize, &usize)| (0..*size).map(|at| byte(number, at)).collect();
    sizes.iter().enumerate().map(of).collect()
}

/// Batches that fit a socket's buffer.
fn batches() -> Vec<Vec<usize>> {
    vec![
        vec![0],
        vec![200; 64],
        vec![200; 130],
        vec![1; 200],
        vec![200, 200, 0, 200, 200],
        vec![0, 0, 0],
        vec![200, 200, 100, 200, 200],
        vec![100, 200, 300, 300, 300, 1],
        vec![1472, 1472, 1473, 1473, 9000, 9000, 9000],
        vec![30_000, 30_000, 30_000],
        vec![MAX_DATAGRAM],
        vec![MAX_DATAGRAM - 1, 1, 1],
    ]
}

#[tokio::test]
async fn what_is_sent_together_arrives_one_by_one() {
    let (one, other) = pair().await;
    let address = other.local_addr().unwrap();
    let batched = Batched::new(one);
    let alone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let segments = Segments::of(&alone);
    let anyone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = anyone.local_addr().unwrap();
    assert_ne!(address, to);
    let mut buffer = vec![0; 1 << 16];
    for sizes in batches() {
        let sent = datagrams(&sizes);
        for by_address in [false, true] {
            let (mut rest, mut calls) = (&sent[..], 0);
            while !rest.is_empty() {
                let taken = if by_address {
                    alone.writable().await.unwrap();
                    segments.try_send(&alone, rest, Some(to)).unwrap()
                } else {
                    batched.socket().writable().await.unwrap();
                    batched.try_send(rest).unwrap()
                };
                let expected: Taken = rest[..taken.datagrams].iter().map(|one| &**one).collect();
                assert_eq!(taken, expected);
                rest = &rest[taken.datagrams..];
                calls += 1;
                // Before the receiver's buffer is full.
                for datagram in
                    &sent[sent.len() - rest.len() - taken.datagrams..][..taken.datagrams]
                {
                    let receiver = if by_address { &anyone } else { &other };
                    let length = receiver.recv(&mut buffer).await.unwrap();
                    assert!(buffer[..length] == *datagram, "{sizes:?}");
                }
            }
            if sizes.len() == 64 {
                assert_eq!(calls, 1, "this kernel knows no segments");
            }
        }
    }
    assert_eq!(batched.try_send(&[[0; 0]; 0]).unwrap(), Taken::default());
}

#[tokio::test]
async fn what_came_one_by_one_is_received_together_and_nothing_is_forgotten() {
    let (one, other) = pair().await;
    let batched = Batched::new(one);
    for sizes in batches() {
        let sent = datagrams(&sizes);
        for round in sent.chunks(2 * MAX_RECEIVED + 3) {
            for datagram in round {
                other.send(datagram).await.unwrap();
            }
            let mut received: Vec<Vec<u8>> = Vec::new();
            while received.len() < round.len() {
                batched.socket().readable().await.unwrap();
                let together = batched.try_receive(|datagrams| {
                    assert!(datagrams.clone().count() <= MAX_RECEIVED);
                    received.extend(datagrams.map(<[u8]>::to_vec));
                });
                assert!(together.is_ok() || together.unwrap_err().kind() == ErrorKind::WouldBlock);
            }
            assert!(received == round, "{sizes:?}");
        }
    }
    let nothing = batched.try_receive(|_| ()).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    other.send(b"one more").await.unwrap();
    batched.socket().readable().await.unwrap();
    let last = batched.try_receive(|mut datagrams| datagrams.next().map(<[u8]>::to_vec));
    assert_eq!(last.unwrap().unwrap(), b"one more");
}

#[tokio::test]
async fn nobody_at_the_other_end_is_told_to_whoever_sends() {
    let (one, other) = pair().await;
    let batched = Batched::new(one);
    drop(other);
    let sent = vec![vec![1; 200]; 10];
    batched.socket().writable().await.unwrap();
    assert_eq!(batched.try_send(&sent).unwrap().datagrams, 10);
    let refused = batched.try_send(&sent).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
