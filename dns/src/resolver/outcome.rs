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
use crate::name_policy::{AnsweredQuery, DeniedQuery, MatchedRule, NamePolicy, Transport};
use crate::query::ClientQuery;
use crate::reply::Reply;
use crate::upstream::Upstream;

/// A query and its origin.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) query: ClientQuery,
    pub(super) client: SocketAddr,
    pub(super) transport: Transport,
    pub(super) started: Instant,
}

/// The policy's permission to answer a query, for the query's record.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// The rule that allows the name.
    pub(super) rule: Option<MatchedRule>,
    /// What would have been denied, had the policy been enforced.
    pub(super) reported: Option<Objection>,
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

impl<P: NamePolicy, U: Upstream> Resolver<P, U> {
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
            // NXDOMAIN for the root would be false: it exists.
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

    /// Answers, with one record: of what would have been denied, or of the answer.
    pub(super) fn report(
        &self,
        asking: &Asking,
        name: &DnsName,
        admission: Admission,
        reply: Reply,
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
        asking: &Asking,
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

    /// Answers, with the one record of it.
    pub(super) fn finish(
        &self,
        asking: &Asking,
        name: &DnsName,
        rule: Option<MatchedRule>,
        reply: Reply,
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
