//! Answers the requests of guests: dial, resolve, credentials, feeds.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use odyn_link::{End, FeedSink, FlowReport, Handler, Peer};
use odyn_proto::wire::feed::Opening;
use odyn_proto::{KmsEndpoint, Refusal, Target};
use tokio::net::{TcpStream, UdpSocket};
use tracing::{debug, warn};

use crate::dial;
use crate::guests::Guests;
use crate::kms::Kms;
use crate::resolver::BadQuery;
use crate::runtime_config::RuntimeConfig;

/// Serves the requests that come over the link.
pub(crate) struct GuestRequestHandler {
    pub(crate) runtime_config: RuntimeConfig,
    pub(crate) guests: Guests,
    pub(crate) kms: Kms,
}

impl Handler for GuestRequestHandler {
    async fn connect_tcp(
        &self,
        target: Target,
        peer: &Peer,
    ) -> Result<(TcpStream, SocketAddr), Refusal> {
        let rules = self.runtime_config.rules();
        let dialled = match dial::candidates(&target, &rules.limits) {
            Ok(list) => dial::tcp(&list, rules.connect_timeout).await,
            Err(refusal) => Err(refusal),
        };
        log(&dialled, &target, peer, "TCP");
        dialled
    }

    async fn connect_udp(
        &self,
        target: Target,
        peer: &Peer,
    ) -> Result<(UdpSocket, SocketAddr), Refusal> {
        let dialled = match dial::candidates(&target, &self.runtime_config.rules().limits) {
            Ok(list) => dial::udp(&list).await,
            Err(refusal) => Err(refusal),
        };
        log(&dialled, &target, peer, "UDP");
        dialled
    }

    async fn connect_kms(
        &self,
        endpoint: KmsEndpoint,
        peer: &Peer,
    ) -> Result<(TcpStream, SocketAddr), Refusal> {
        let share = self.runtime_config.connected_guests().lookups(peer);
        let rules = self.runtime_config.rules();
        let dialled = self.kms.connect(&endpoint, &rules, &share).await;
        log(&dialled, &endpoint.authority(), peer, "KMS");
        dialled
    }

    async fn credentials(&self, peer: &Peer) -> Result<Bytes, Refusal> {
        let given = self.kms.credentials().await;
        debug!(%peer, given = given.is_ok(), "credentials for KMS");
        given
    }

    async fn dns(&self, query: Bytes, peer: &Peer) -> Result<Bytes, Refusal> {
        let share = self.runtime_config.connected_guests().lookups(peer);
        let resolver = Arc::clone(&self.runtime_config.rules().resolver);
        resolver.exchange(query, &share).await.map_err(|error| {
            debug!(%peer, %error, "resolver failed");
            refusal(&error)
        })
    }

    async fn feed(&self, opening: Opening, peer: &Peer) -> Result<Box<dyn FeedSink>, Refusal> {
        let (guest, feed) = (opening.guest.name.clone(), opening.name.clone());
        let opened = self.guests.open(opening, *peer).await;
        if let Err(refusal) = &opened {
            debug!(%peer, %guest, feed, %refusal, "feed refused");
        }
        opened
    }

    fn ended(&self, report: &FlowReport) {
        let FlowReport {
            kind,
            peer,
            dialled,
            sent,
            received,
            duration,
            end,
            ..
        } = report;
        if let End::Cut { undelivered } = end {
            let bytes_undelivered = undelivered;
            warn!(%peer, ?kind, %dialled, sent, received, bytes_undelivered, "flow cut");
        } else {
            debug!(%peer, ?kind, %dialled, sent, received, ?duration, ?end, "flow ended");
        }
    }
}

fn log<T>(
    result: &Result<(T, SocketAddr), Refusal>,
    target: &dyn std::fmt::Display,
    peer: &Peer,
    kind: &str,
) {
    match result {
        Ok((_, dialled)) => debug!(%peer, kind, %target, %dialled, "flow opened"),
        Err(refusal) => debug!(%peer, kind, %target, %refusal, "flow refused"),
    }
}

/// A failed lookup is an answer (SERVFAIL); only a message that is no query is refused.
fn refusal(error: &BadQuery) -> Refusal {
    match error {
        BadQuery::BadQuery => Refusal::BadRequest,
    }
}
