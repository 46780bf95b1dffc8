//! The answer to a well-formed question.

use std::net::{IpAddr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, PTR};
use hickory_proto::rr::{RData, Record, RecordType};
use odyn_proto::{DnsName, synthetic};

use super::outcome::{NameAdmission, PendingQuery};
use super::{QueryStep, Resolver, Waiting};
use crate::clock::now;
use crate::ede::Ede;
use crate::filter::{FilterRefusal, Objection, filter};
use crate::name::{canonical, wire};
use crate::name_policy::{NamePolicy, NameVerdict, QueryDenial};
use crate::pool::Family;
use crate::reply::DnsReply;
use crate::singleflight::Lookup;
use crate::upstream::Upstream;
use crate::upstream_answer::UpstreamAnswer;
use crate::{pool, special_use};

/// How a type is answered for a name that is allowed.
enum TypePlan {
    /// Ask the upstream; A and AAAA are answered with synthetic addresses, others as they are.
    Ask,
    /// Say that there is no such record. Address hints of HTTPS and SVCB would bypass the synthetic
    /// addresses; apps do not need the other types, which could carry data out and in.
    Empty,
    /// Answer with one HINFO record (RFC 8482).
    Any,
}

impl TypePlan {
    fn of(qtype: RecordType) -> Self {
        match qtype {
            RecordType::A
            | RecordType::AAAA
            | RecordType::CAA
            | RecordType::CNAME
            | RecordType::MX
            | RecordType::NS
            | RecordType::PTR
            | RecordType::SOA
            | RecordType::SRV
            | RecordType::TXT => Self::Ask,
            RecordType::ANY => Self::Any,
            _ => Self::Empty,
        }
    }
}

fn family(qtype: RecordType) -> Option<Family> {
    match qtype {
        RecordType::A => Some(Family::V4),
        RecordType::AAAA => Some(Family::V6),
        _ => None,
    }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

impl<P: NamePolicy, U: Upstream> Resolver<P, U> {
    /// Decides about a query, and answers it if the upstream is not needed.
    pub(super) fn decide(&self, asking: PendingQuery) -> QueryStep<P, U> {
        let Ok(name) = canonical(asking.name()) else {
            let objection = QueryDenial::new("bad-name").into();
            let name = asking.name().to_ascii();
            return QueryStep::Reply(self.deny(&asking, &name, &objection));
        };
        if let Some(reply) = self.local(&asking, &name) {
            return QueryStep::Reply(self.finish(&asking, &name, None, reply));
        }
        let verdict = self.inner.policy.name(&name);
        let is_allowed = matches!(verdict, NameVerdict::Allow(_));
        if !is_allowed && special_use::local_zone(&name).is_some() {
            let reply = self.local_zone(&name);
            return QueryStep::Reply(self.finish(&asking, &name, None, reply));
        }
        let admission = match verdict {
            NameVerdict::Allow(rule) => NameAdmission {
                rule,
                reported: None,
            },
            NameVerdict::Report(denial) => NameAdmission {
                rule: None,
                reported: Some(Objection::from(denial)),
            },
            NameVerdict::Deny(denial) => {
                return QueryStep::Reply(self.deny(&asking, name.as_str(), &denial.into()));
            }
        };
        let reply = match TypePlan::of(asking.qtype()) {
            TypePlan::Ask if name.is_host_alias() => self.host_alias(&asking, &name),
            TypePlan::Ask => {
                let key = (name, asking.qtype());
                return match self.inner.queries.look_up(&key) {
                    Lookup::Known(answer, ttl) => {
                        QueryStep::Reply(self.conclude(&asking, &key.0, admission, &answer, ttl))
                    }
                    Lookup::Waiting(answer) => QueryStep::Wait(Box::new(Waiting {
                        resolver: self.clone(),
                        asking,
                        key,
                        admission,
                        answer,
                    })),
                };
            }
            TypePlan::Empty => DnsReply {
                errors: vec![Ede::new(
                    Ede::NOT_SUPPORTED,
                    "this type is not resolved here",
                )],
                ..DnsReply::default()
            },
            TypePlan::Any => {
                let data = HINFO::new("RFC8482".to_owned(), String::new());
                self.one(&asking, RData::HINFO(data))
            }
        };
        QueryStep::Reply(self.report(&asking, &name, admission, reply))
    }

    /// Answers the client by an upstream answer that has `ttl` seconds of life left.
    pub(super) fn conclude(
        &self,
        asking: &PendingQuery,
        name: &DnsName,
        mut admission: NameAdmission,
        upstream: &UpstreamAnswer,
        ttl: u32,
    ) -> Vec<u8> {
        let filtered = filter(&self.inner.policy, name, upstream);
        admission.reported = admission.reported.or(filtered.reported);
        let usable = match filtered.usable {
            Ok(usable) => usable,
            Err(FilterRefusal::Chain(objection)) => {
                return self.deny(asking, name.as_str(), &objection);
            }
            Err(FilterRefusal::Addresses(objection)) => {
                // The name itself is allowed, and may have addresses in the other family: musl
                // takes NXDOMAIN in one family for both.
                let reply = DnsReply {
                    errors: vec![Ede::denial(&objection.denial)],
                    ..DnsReply::default()
                };
                self.record(asking, name.as_str(), &objection, true);
                return self.encode(asking, reply);
            }
        };
        let family = family(asking.qtype()).filter(|_| !usable.is_empty());
        let ttl = match family {
            Some(_) => ttl.min(self.synthetic_ttl()),
            None => ttl,
        };
        let mut reply = DnsReply {
            rcode: upstream.rcode,
            answers: Vec::with_capacity(upstream.chain.len() + upstream.records.len() + 1),
            errors: upstream.errors.clone(),
            ..DnsReply::default()
        };
        // The first owner is spelled as the client spelled it, so that it compresses to the
        // question.
        let mut owner = asking.name();
        for alias in &upstream.chain {
            if let RData::CNAME(CNAME(target)) = &alias.record.data {
                let data = alias.record.data.clone();
                reply
                    .answers
                    .push(Record::from_rdata(owner.clone(), ttl, data));
                owner = target;
            }
        }
        if let Some(family) = family {
            match self.inner.bindings.lock().bind(name, now()) {
                Ok(slot) => {
                    let data = address_data(pool::address(slot, family));
                    if !upstream.chain.is_empty() {
                        let name = asking.name().clone();
                        reply.short = Some(Record::from_rdata(name, ttl, data.clone()));
                    }
                    reply
                        .answers
                        .push(Record::from_rdata(owner.clone(), ttl, data));
                }
                Err(exhausted) => {
                    tracing::warn!(%name, "{exhausted}");
                    reply = DnsReply::failure(Ede::new(Ede::OTHER, exhausted.to_string()));
                }
            }
        }
        for record in &upstream.records {
            let data = record.data.clone();
            reply
                .answers
                .push(Record::from_rdata(owner.clone(), ttl, data));
        }
        reply
            .authorities
            .extend(upstream.soa.clone().map(|mut soa| {
                soa.ttl = ttl;
                soa
            }));
        self.report(asking, name, admission, reply)
    }

    /// Answers special-use names, before the policy is asked.
    fn local(&self, asking: &PendingQuery, name: &DnsName) -> Option<DnsReply> {
        if name.is_localhost() {
            return Some(match asking.qtype() {
                RecordType::A => self.one(asking, RData::A(A::new(127, 0, 0, 1))),
                RecordType::AAAA => self.one(asking, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))),
                _ => DnsReply::default(),
            });
        }
        let address = special_use::reversed(name)?;
        let owner = if address.is_loopback() {
            special_use::localhost()
        } else if synthetic::contains(address) {
            self.owner(address).and_then(|binding| wire(&binding.name))
        } else {
            return None;
        };
        Some(match owner {
            Some(owner) if asking.qtype() == RecordType::PTR => {
                self.one(asking, RData::PTR(PTR(owner)))
            }
            Some(_) => DnsReply::default(),
            None => self.local_zone(name),
        })
    }

    /// The answer for a name in an empty reverse zone.
    fn local_zone(&self, name: &DnsName) -> DnsReply {
        let soa = special_use::local_zone(name)
            .and_then(|zone| special_use::local_soa(zone, self.synthetic_ttl()));
        DnsReply {
            rcode: ResponseCode::NXDomain,
            authorities: soa.into_iter().collect(),
            ..DnsReply::default()
        }
    }

    /// The host alias has addresses of both families and no other records.
    fn host_alias(&self, asking: &PendingQuery, name: &DnsName) -> DnsReply {
        let Some(family) = family(asking.qtype()) else {
            return DnsReply::default();
        };
        match self.inner.bindings.lock().bind(name, now()) {
            Ok(slot) => self.one(asking, address_data(pool::address(slot, family))),
            Err(exhausted) => DnsReply::failure(Ede::new(Ede::OTHER, exhausted.to_string())),
        }
    }

    /// An answer of one record that this resolver made.
    fn one(&self, asking: &PendingQuery, data: RData) -> DnsReply {
        let owner = asking.name().clone();
        DnsReply::answer(Record::from_rdata(owner, self.synthetic_ttl(), data))
    }

    fn synthetic_ttl(&self) -> u32 {
        u32::try_from(self.inner.config.ttl.as_secs()).unwrap_or(u32::MAX)
    }
}
