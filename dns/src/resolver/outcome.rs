//! The end of a query: its one record, and the answer's bytes.

use std::net::SocketAddr;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};

use super::Resolver;
use crate::clock::now;
use crate::config::DeniedReply;
use crate::ede::Ede;
use crate::gate::{AnsweredQuery, DeniedQuery, Gate, Transport};
use crate::judge::Objection;
use crate::query::ClientQuery;
use crate::reply::Reply;
use crate::upstream::Upstream;

/// A query and where it came from.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) query: ClientQuery,
    pub(super) client: SocketAddr,
    pub(super) transport: Transport,
    pub(super) started: Instant,
}

impl Asking {
    pub(super) fn qtype(&self) -> RecordType {
        self.query.question.query_type()
    }

    /// The name as the client wrote it.
    pub(super) fn name(&self) -> &Name {
        self.query.question.name()
    }
}

impl<G: Gate, U: Upstream> Resolver<G, U> {
    pub(super) fn encode(&self, asking: &Asking, reply: Reply) -> Vec<u8> {
        reply.encode(
            &asking.query,
            asking.transport,
            self.inner.config.udp_payload,
        )
    }

    /// Denies, with the one record of it.
    pub(super) fn deny(&self, asking: &Asking, name: &str, objection: &Objection) -> Vec<u8> {
        let rcode = match self.inner.config.denied {
            // The root exists, whatever is denied of it.
            DeniedReply::NxDomain if !asking.name().is_root() => ResponseCode::NXDomain,
            DeniedReply::NxDomain | DeniedReply::Refused => ResponseCode::Refused,
        };
        let reply = Reply {
            errors: vec![Ede::denial(&objection.denial)],
            ..Reply::code(rcode)
        };
        self.record(asking, name, objection, true);
        self.encode(asking, reply)
    }

    /// Answers, with the one record of what would have been denied if there is such a thing.
    pub(super) fn report(
        &self,
        asking: &Asking,
        name: &str,
        reported: Option<Objection>,
        reply: Reply,
    ) -> Vec<u8> {
        match reported {
            Some(objection) => {
                self.record(asking, name, &objection, false);
                self.encode(asking, reply)
            }
            None => self.finish(asking, name, reply),
        }
    }

    pub(super) fn record(
        &self,
        asking: &Asking,
        name: &str,
        objection: &Objection,
        enforced: bool,
    ) {
        self.inner.gate.denied(DeniedQuery {
            name,
            qtype: asking.qtype(),
            denial: &objection.denial,
            enforced,
            target: objection.target.as_deref(),
            address: objection.address,
            client: asking.client,
            transport: asking.transport,
            duration: now().saturating_duration_since(asking.started),
        });
    }

    pub(super) fn finish(&self, asking: &Asking, name: &str, reply: Reply) -> Vec<u8> {
        self.inner.gate.answered(AnsweredQuery {
            name,
            qtype: asking.qtype(),
            rcode: reply.rcode.into(),
            client: asking.client,
            transport: asking.transport,
            duration: now().saturating_duration_since(asking.started),
        });
        self.encode(asking, reply)
    }
}
