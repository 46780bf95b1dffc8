//! What is answered to a well-formed question.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, PTR};
use hickory_proto::rr::{RData, Record, RecordType};

use super::outcome::Asking;
use super::{Resolver, Step, Waiting};
use crate::clock::now;
use crate::ede::Ede;
use crate::facts::Facts;
use crate::flight::Lookup;
use crate::gate::{Denial, Gate, Verdict};
use crate::judge::{Objection, Refusal, judge};
use crate::name::{canonical, canonical_text};
use crate::pool::Family;
use crate::reply::Reply;
use crate::upstream::Upstream;
use crate::{pool, special};

/// What is done with a type for a name that is allowed.
enum Plan {
    /// Ask the upstream; A and AAAA are answered with synthetic addresses, others as they are.
    Ask,
    /// Say that there is no such record. HTTPS and SVCB hints would lead round the synthetic
    /// addresses; the other types are not needed by programs and could carry data out and in.
    Empty,
    /// RFC 8482.
    Any,
}

impl Plan {
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

impl<G: Gate, U: Upstream> Resolver<G, U> {
    /// Everything up to the point where the upstream is needed.
    pub(super) fn decide(&self, asking: Asking) -> Step<G, U> {
        let Ok(name) = canonical(asking.name()) else {
            let objection = Denial::new("bad-name").into();
            let name = asking.name().to_ascii();
            return Step::Reply(self.deny(&asking, &name, &objection));
        };
        if let Some(reply) = self.local(&asking, &name) {
            return Step::Reply(self.finish(&asking, &name, reply));
        }
        let verdict = self.inner.gate.name(&name);
        if verdict != Verdict::Allow && special::local_zone(&name).is_some() {
            let reply = self.local_zone(&name);
            return Step::Reply(self.finish(&asking, &name, reply));
        }
        let reported = match verdict {
            Verdict::Allow => None,
            Verdict::Report(denial) => Some(Objection::from(denial)),
            Verdict::Deny(denial) => {
                return Step::Reply(self.deny(&asking, &name, &denial.into()));
            }
        };
        let reply = match Plan::of(asking.qtype()) {
            Plan::Ask if self.inner.gate.host_alias(&name) => self.host_alias(&asking, &name),
            Plan::Ask => {
                let key = (name, asking.qtype());
                return match self.inner.flights.look_up(&key) {
                    Lookup::Known(facts, ttl) => {
                        Step::Reply(self.conclude(&asking, &key.0, reported, &facts, ttl))
                    }
                    Lookup::Waiting(landing) => Step::Wait(Box::new(Waiting {
                        resolver: self.clone(),
                        asking,
                        key,
                        reported,
                        landing,
                    })),
                };
            }
            Plan::Empty => Reply {
                errors: vec![Ede::new(
                    Ede::NOT_SUPPORTED,
                    "this type is not resolved here",
                )],
                ..Reply::default()
            },
            Plan::Any => {
                let data = HINFO::new("RFC8482".to_owned(), String::new());
                self.one(&asking, RData::HINFO(data))
            }
        };
        Step::Reply(self.report(&asking, &name, reported, reply))
    }

    /// From facts to the answer. `ttl` is what the facts have left, in seconds.
    pub(super) fn conclude(
        &self,
        asking: &Asking,
        name: &Arc<str>,
        reported: Option<Objection>,
        facts: &Facts,
        ttl: u32,
    ) -> Vec<u8> {
        let judged = judge(&self.inner.gate, name, facts);
        let reported = reported.or(judged.reported);
        let usable = match judged.usable {
            Ok(usable) => usable,
            Err(Refusal::Chain(objection)) => return self.deny(asking, name, &objection),
            Err(Refusal::Addresses(objection)) => {
                // The name itself is allowed, and may have addresses in the other family: musl
                // takes NXDOMAIN in one family for the end of both.
                let reply = Reply {
                    errors: vec![Ede::denial(&objection.denial)],
                    ..Reply::default()
                };
                self.record(asking, name, &objection, true);
                return self.encode(asking, reply);
            }
        };
        let family = family(asking.qtype()).filter(|_| !usable.is_empty());
        let ttl = match family {
            Some(_) => ttl.min(self.synthetic_ttl()),
            None => ttl,
        };
        let mut reply = Reply {
            rcode: facts.rcode,
            answers: Vec::with_capacity(facts.chain.len() + facts.records.len() + 1),
            errors: facts.errors.clone(),
            ..Reply::default()
        };
        // The first owner in the client's spelling, so that it compresses to the question.
        let mut owner = asking.name();
        for link in &facts.chain {
            if let RData::CNAME(CNAME(target)) = &link.record.data {
                let data = link.record.data.clone();
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
                    if !facts.chain.is_empty() {
                        let name = asking.name().clone();
                        reply.short = Some(Record::from_rdata(name, ttl, data.clone()));
                    }
                    reply
                        .answers
                        .push(Record::from_rdata(owner.clone(), ttl, data));
                }
                Err(exhausted) => {
                    tracing::warn!(%name, "{exhausted}");
                    reply = Reply::failure(Ede::new(Ede::OTHER, exhausted.to_string()));
                }
            }
        }
        for record in &facts.records {
            let data = record.data.clone();
            reply
                .answers
                .push(Record::from_rdata(owner.clone(), ttl, data));
        }
        reply.authorities.extend(facts.soa.clone().map(|mut soa| {
            soa.ttl = ttl;
            soa
        }));
        self.report(asking, name, reported, reply)
    }

    /// Names that are ours to answer, before the gate is asked.
    fn local(&self, asking: &Asking, name: &str) -> Option<Reply> {
        if special::is_localhost(name) {
            return Some(match asking.qtype() {
                RecordType::A => self.one(asking, RData::A(A::new(127, 0, 0, 1))),
                RecordType::AAAA => self.one(asking, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))),
                _ => Reply::default(),
            });
        }
        let address = special::reversed(name)?;
        let owner = if address.is_loopback() {
            special::localhost()
        } else if pool::is_synthetic(address) {
            let binding = self.owner(address);
            binding.and_then(|binding| canonical_text(&binding.name).ok().map(|(_, name)| name))
        } else {
            return None;
        };
        Some(match owner {
            Some(owner) if asking.qtype() == RecordType::PTR => {
                self.one(asking, RData::PTR(PTR(owner)))
            }
            Some(_) => Reply::default(),
            None => self.local_zone(name),
        })
    }

    /// A name in a reverse zone that is empty here.
    fn local_zone(&self, name: &str) -> Reply {
        let soa = special::local_zone(name)
            .and_then(|zone| special::local_soa(zone, self.synthetic_ttl()));
        Reply {
            rcode: ResponseCode::NXDomain,
            authorities: soa.into_iter().collect(),
            ..Reply::default()
        }
    }

    /// The alias of the host has both families and nothing else.
    fn host_alias(&self, asking: &Asking, name: &Arc<str>) -> Reply {
        let Some(family) = family(asking.qtype()) else {
            return Reply::default();
        };
        match self.inner.bindings.lock().bind(name, now()) {
            Ok(slot) => self.one(asking, address_data(pool::address(slot, family))),
            Err(exhausted) => Reply::failure(Ede::new(Ede::OTHER, exhausted.to_string())),
        }
    }

    /// An answer of one record that we made ourselves.
    fn one(&self, asking: &Asking, data: RData) -> Reply {
        let owner = asking.name().clone();
        Reply::answer(Record::from_rdata(owner, self.synthetic_ttl(), data))
    }

    fn synthetic_ttl(&self) -> u32 {
        u32::try_from(self.inner.config.ttl.as_secs()).unwrap_or(u32::MAX)
    }
}
