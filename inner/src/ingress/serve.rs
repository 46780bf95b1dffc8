//! One client after the other: is its port wanted, is the program there, and then the relay.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use odyn_link::reverse::{Gone, Ingress, Pending};
use odyn_link::wire::ingress::Incoming;
use odyn_link::{Refusal as Answer, relay};

use super::denials::Denials;
use super::program::Program;
use crate::audit::{Audit, End, Record, Refusal};
use crate::egress::finish;

/// Reason of a denial: the port is not in the policy's `ingress`.
const NOT_WANTED: &str = "no-ingress";

/// Serves the clients that the host half has.
pub(super) struct Clients {
    ports: HashMap<NonZeroU16, Program>,
    audit: Audit,
    patience: Duration,
    denials: Denials,
    open: AtomicUsize,
}

impl Clients {
    /// Clients of these ports go to those of the program.
    pub(super) fn new(
        ports: HashMap<NonZeroU16, NonZeroU16>,
        audit: Audit,
        patience: Duration,
    ) -> Self {
        Self {
            ports: ports
                .into_iter()
                .map(|(listen, target)| (listen, Program::new(target)))
                .collect(),
            audit,
            patience,
            denials: Denials::default(),
            open: AtomicUsize::new(0),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    async fn connect(&self, program: &Program, mut client: Pending, mut record: Record) {
        let connected = tokio::select! {
            biased;
            gone = client.gone() => {
                return record.ended(match gone {
                    Gone::Client => End::ResetByPeer,
                    Gone::Program => {
                        client.refuse(Answer::ConnectionRefused);
                        End::Refused
                    }
                });
            }
            connected = program.connect(self.patience) => connected,
        };
        let socket = match connected {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(flow = record.id(), %error, "the program took no connection");
                let answer = Answer::from_io(&error);
                client.refuse(answer);
                return record.ended(match answer {
                    Answer::ConnectionRefused => End::Refused,
                    Answer::LimitReached => End::Exhausted,
                    _ => End::Unreachable,
                });
            }
        };
        record.dialled(Some(program.address()));
        let Some(stream) = client.accept() else {
            return record.ended(End::ResetByPeer);
        };
        let end = relay(socket, stream, record.counters()).await;
        finish(record, end);
    }
}

impl Ingress for Clients {
    async fn serve(&self, incoming: Incoming, client: Pending) {
        let Incoming {
            port,
            client: address,
            local,
            ..
        } = incoming;
        let Some(program) = self.ports.get(&port) else {
            client.refuse(Answer::Prohibited);
            if self.denials.is_due(port, Instant::now()) {
                tracing::warn!(
                    port,
                    "the host half has a client for a port that is not in the policy"
                );
                let record = self.audit.incoming(address, format_args!("ingress:{port}"));
                record.denied(Refusal::of(NOT_WANTED));
            }
            return;
        };
        let _open = Open::new(&self.open);
        let mut record = self.audit.incoming(address, program.address());
        record.allowed(None, None);
        tracing::debug!(flow = record.id(), client = %address, %local, port, "client");
        self.connect(program, client, record).await;
    }
}

/// One client's place in the count.
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
