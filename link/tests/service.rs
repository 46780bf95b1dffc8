//! What the host does itself: a way to KMS, and credentials.
#![allow(missing_docs)]

mod common;

use odyn_link::OpenError;
use odyn_proto::{KmsEndpoint, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use common::{World, soon};

fn kms(port: u16) -> KmsEndpoint {
    KmsEndpoint::parse(&format!("kms.test:{port}")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_ends_go_both_ways() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // More than any window, so that both sides wait for the other.
    let sent: Vec<u8> = (0..8 << 20).map(|i: u32| (i % 251) as u8).collect();
    let flow = soon("a flow", world.client.connect_kms(&kms(port))).await;
    let (mut read, mut write) = tokio::io::split(flow.unwrap());
    let (mut socket, _) = listener.accept().await.unwrap();
    let server = tokio::spawn(async move {
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await.unwrap();
        // After the end of what came.
        socket.write_all(&all).await.unwrap();
    });
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
        assert!(write.write_all(b"more").await.is_err());
        write
    });
    let mut came = Vec::new();
    soon("the answer", read.read_to_end(&mut came))
        .await
        .unwrap();
    assert!(came == expected, "{} bytes", came.len());
    soon("the server", server).await.unwrap();
    drop((soon("the writer", writer).await.unwrap(), read));
    soon("no flow is left", async {
        while world.client.flows() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_reset_is_an_error() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut flow = soon("a flow", world.client.connect_kms(&kms(port)))
        .await
        .unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    socket2::SockRef::from(&socket)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(socket);
    let error = soon("the reset", flow.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_half_refuses_is_refused() {
    let world = World::new().await;
    let other = KmsEndpoint::parse("other.test").unwrap();
    let refused = soon("refusal", world.client.connect_kms(&other)).await;
    assert!(
        matches!(refused, Err(OpenError::Refused(Refusal::Prohibited))),
        "{refused:?}"
    );
    assert_eq!(
        soon("JSON", world.client.credentials()).await.unwrap(),
        "{}"
    );
}
