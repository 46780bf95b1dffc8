//! The end of a query: its one record, and the answer's bytes.

use std::net::SocketAddr;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use odyn_proto::DnsName;

use super::Resolver;
use crate::clock::now;
use crate::config::DeniedReply;
use crate::ede::Ede;
use crate::filter::Objection;
use crate::name_policy::{AnsweredQuery, DeniedQuery, MatchedRule, NamePolicy, QueryTransport};
use crate::query::ClientQuery;
use crate::reply::DnsReply;
use crate::upstream::Upstream;

/// A query and its origin.
#[derive(Debug)]
pub(super) struct PendingQuery {
    pub(super) query: ClientQuery,
    pub(super) client: SocketAddr,
    pub(super) transport: QueryTransport,
    pub(super) started: Instant,
}

/// The policy's permission to answer a query, for the query's record.
#[derive(Debug, Default)]
pub(super) struct NameAdmission {
    /// The rule that allows the name.
    pub(super) rule: Option<MatchedRule>,
    /// What would have been denied, had the policy been enforced.
    pub(super) reported: Option<Objection>,
}

impl PendingQuery {
    pub(super) fn qtype(&self) -> RecordType {
        self.query.question.query_type()
    }

    /// The name as the client wrote it.
    pub(super) fn name(&self) -> &Name {
        self.query.question.name()
    }
}

impl<P: NamePolicy, U: Upstream> Resolver<P, U> {
    pub(super) fn encode(&self, asking: &PendingQuery, reply: DnsReply) -> Vec<u8> {
        reply.encode(
            &asking.query,
            asking.transport,
            self.inner.config.udp_payload,
        )
    }

    /// Denies a query, with its one record.
    pub(super) fn deny(&self, asking: &PendingQuery, name: &str, objection: &Objection) -> Vec<u8> {
        let rcode = match self.inner.config.denied {
            // NXDOMAIN for the root would be false: it exists.
            DeniedReply::NxDomain if !asking.name().is_root() => ResponseCode::NXDomain,
            DeniedReply::NxDomain | DeniedReply::Refused => ResponseCode::Refused,
        };
        let reply = DnsReply {
            errors: vec![Ede::denial(&objection.denial)],
            ..DnsReply::code(rcode)
        };
        self.record(asking, name, objection, true);
        self.encode(asking, reply)
    }

    /// Answers a query, with its one record: of the answer, or of what would have been denied.
    pub(super) fn report(
        &self,
        asking: &PendingQuery,
        name: &DnsName,
        admission: NameAdmission,
        reply: DnsReply,
    ) -> Vec<u8> {
        match admission.reported {
            Some(objection) => {
                self.record(asking, name.as_str(), &objection, false);
                self.encode(asking, reply)
            }
            None => self.finish(asking, name, admission.rule, reply),
        }
    }

    pub(super) fn record(
        &self,
        asking: &PendingQuery,
        name: &str,
        objection: &Objection,
        enforced: bool,
    ) {
        self.inner.policy.denied(DeniedQuery {
            name,
            qtype: asking.qtype(),
            denial: &objection.denial,
            enforced,
            target: objection.target.as_ref(),
            address: objection.address,
            client: asking.client,
            transport: asking.transport,
            duration: now().saturating_duration_since(asking.started),
        });
    }

    /// Answers a query, with its one record.
    pub(super) fn finish(
        &self,
        asking: &PendingQuery,
        name: &DnsName,
        rule: Option<MatchedRule>,
        reply: DnsReply,
    ) -> Vec<u8> {
        self.inner.policy.answered(AnsweredQuery {
            name: name.as_str(),
            qtype: asking.qtype(),
            rule: rule.as_ref(),
            rcode: reply.rcode.into(),
            client: asking.client,
            transport: asking.transport,
            duration: now().saturating_duration_since(asking.started),
        });
        self.encode(asking, reply)
    }
}
