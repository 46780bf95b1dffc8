//! DNS messages.
#![allow(missing_docs)]

mod common;

use bytes::Bytes;
use odyn_link::{HostLinkConfig, OpenError, ServerConfig};
use odyn_proto::Refusal;

use common::{World, soon};

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_every_size_are_answered() {
    let world = World::new().await;
    for size in [0, 1, 512, 65_535] {
        let query: Bytes = (0..size).map(|i| (i % 250 + 2) as u8).collect();
        let answer = soon("answer", world.client.dns(query.clone()))
            .await
            .unwrap();
        assert!(answer.iter().eq(query.iter().rev()), "{size}");
    }
    let long = world.client.dns(vec![2; 65_536].into()).await;
    assert!(matches!(long, Err(OpenError::TooLong(65_536))), "{long:?}");
    assert_eq!(world.client.flows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_that_fails_is_told_from_one_that_is_silent() {
    let mut config = HostLinkConfig::default();
    config.dns_timeout = std::time::Duration::from_millis(50);
    let world = World::with(config, ServerConfig::default()).await;
    let failed = soon("refusal", world.client.dns(Bytes::from_static(&[0]))).await;
    assert!(
        matches!(failed, Err(OpenError::Refused(Refusal::DnsTimeout))),
        "{failed:?}"
    );
    let silent = soon("time-out", world.client.dns(Bytes::from_static(&[1]))).await;
    assert!(matches!(silent, Err(OpenError::Timeout(_))), "{silent:?}");
}
