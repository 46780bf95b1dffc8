//! Serves clients: checks the port, connects the app and runs the relay.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use odyn_link::{Abandoned, End as Relayed, IngressHandler, PendingClient, relay};
use odyn_proto::wire::ingress::Incoming;
use odyn_proto::{ClientAddr, Dialled, Refusal as Answer};

use crate::audit::{Audit, End, Record, Refusal};
use crate::egress::finish;
use crate::ingress::denials::Denials;
use crate::ingress::ports::Port;
use crate::ingress::proxy_header::ClientHeader;
use crate::ingress::tls::{Tls, TlsApp, TlsFailure};

/// Reason of a denial: the port is not in the policy's `ingress`.
const NOT_WANTED: &str = "no-ingress";

/// Serves the clients that the host brings.
pub(super) struct ClientHandler {
    ports: HashMap<NonZeroU16, Arc<Port>>,
    audit: Audit,
    handshake: Duration,
    denials: Denials,
    open: AtomicUsize,
}

impl ClientHandler {
    /// Makes a handler for these ports.
    pub(super) fn new(ports: HashMap<NonZeroU16, Port>, audit: Audit, handshake: Duration) -> Self {
        Self {
            ports: ports
                .into_iter()
                .map(|(number, port)| (number, Arc::new(port)))
                .collect(),
            audit,
            handshake,
            denials: Denials::default(),
            open: AtomicUsize::new(0),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    async fn connect(
        &self,
        port: &Port,
        greeting: ClientHeader,
        mut client: PendingClient,
        mut record: Record,
    ) {
        let connected = tokio::select! {
            biased;
            gone = client.gone() => {
                return record.ended(match gone {
                    Abandoned::Client => End::ResetByPeer,
                    Abandoned::App => {
                        client.refuse(Answer::ConnectionRefused);
                        End::Refused
                    }
                });
            }
            connected = port.connect(greeting, None, None) => connected,
        };
        let socket = match connected {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(flow = record.id(), %error, "the app accepted no connection");
                client.refuse(odyn_link::refusal_from_io(&error));
                return record.ended(end_of_connect(&error));
            }
        };
        record.dialled(Some(Dialled(port.app.address())));
        let Some(stream) = client.accept() else {
            return record.ended(End::ResetByPeer);
        };
        let end = relay(socket, stream, record.counters()).await;
        finish(record, end);
    }

    /// Serves a client over TLS; see [`ClientHandler::connect`]. The record counts ciphertext.
    async fn secure(
        &self,
        port: &Arc<Port>,
        tls: &Tls,
        greeting: ClientHeader,
        client: PendingClient,
        mut record: Record,
    ) {
        let session = TlsApp::new(tls.config(), self.handshake, Arc::clone(port), greeting);
        let (app, report) = match session {
            Ok(session) => session,
            Err(error) => {
                tracing::warn!(%error, "cannot start a TLS session with this configuration");
                client.refuse(Answer::Internal);
                return record.ended(End::TlsFailed);
            }
        };
        let Some(stream) = client.accept() else {
            return record.ended(End::ResetByPeer);
        };
        let end = relay(app, stream, record.counters()).await;
        let dialled = report.is_connected().then(|| Dialled(port.app.address()));
        record.dialled(dialled);
        match (end, report.failure()) {
            // The reset came from this side of the session.
            (Relayed::ResetBySocket, Some(TlsFailure::Handshake(error))) => {
                tracing::debug!(flow = record.id(), %error, "the TLS handshake failed");
                record.ended(End::TlsFailed);
            }
            (Relayed::ResetBySocket, Some(TlsFailure::NoApp(error))) => {
                tracing::debug!(flow = record.id(), %error, "the app accepted no connection");
                record.ended(end_of_connect(error));
            }
            (Relayed::ResetBySocket, Some(TlsFailure::Truncated)) => record.ended(End::Truncated),
            (end, _) => finish(record, end),
        }
    }
}

fn end_of_connect(error: &std::io::Error) -> End {
    match odyn_link::refusal_from_io(error) {
        Answer::ConnectionRefused => End::Refused,
        Answer::LimitReached => End::Exhausted,
        _ => End::Unreachable,
    }
}

impl IngressHandler for ClientHandler {
    fn computes(&self, port: NonZeroU16) -> bool {
        self.ports.get(&port).is_some_and(|port| port.tls.is_some())
    }

    async fn serve(&self, incoming: Incoming, client: PendingClient) {
        let Incoming {
            port,
            client: address,
            local,
            ..
        } = incoming;
        let Some(target) = self.ports.get(&port) else {
            client.refuse(Answer::Prohibited);
            if self.denials.is_due(port, Instant::now()) {
                tracing::warn!(
                    port,
                    "the host has a client for a port that is not in the policy"
                );
                let record = self
                    .audit
                    .incoming(ClientAddr(address), format_args!("ingress:{port}"));
                record.denied(Refusal::of(NOT_WANTED));
            }
            return;
        };
        let _open = Open::new(&self.open);
        let mut record = self
            .audit
            .incoming(ClientAddr(address), target.app.address());
        record.allowed(None, None);
        tracing::debug!(flow = record.id(), client = %address, %local, port, "client");
        let greeting = ClientHeader {
            version: target.proxy_protocol,
            client: address,
            local,
        };
        match &target.tls {
            Some(tls) => self.secure(target, tls, greeting, client, record).await,
            None => self.connect(target, greeting, client, record).await,
        }
    }
}

/// One open client in the count.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
