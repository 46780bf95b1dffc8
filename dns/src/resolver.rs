//! The resolver: a query in, an answer out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::bindings::{Binding, Bindings, Lease, SharedBindings};
use crate::cache::Key;
use crate::config::{Config, DeniedReply};
use crate::ede::Ede;
use crate::facts::Facts;
use crate::flight::{self, Flights, Lookup};
use crate::gate::{AnsweredQuery, Denial, DeniedQuery, Gate, Transport, Verdict};
use crate::judge::{Objection, Refusal, judge};
use crate::name::{canonical, canonical_text};
use crate::pool::{self, Family};
use crate::query::{self, ClientQuery, Parsed};
use crate::reply::Reply;
use crate::special;
use crate::upstream::Upstream;

/// The time, from the runtime's clock, so that tests can stop it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The resolver. Clones share everything.
#[derive(Debug)]
pub struct Resolver<G, U> {
    inner: Arc<Inner<G, U>>,
}

impl<G, U> Clone for Resolver<G, U> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

#[derive(Debug)]
struct Inner<G, U> {
    config: Config,
    gate: G,
    bindings: SharedBindings,
    flights: Arc<Flights<U>>,
}

/// Why there are no addresses for a flow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Not a name that can be judged.
    #[error("not a host name")]
    BadName,
    /// The gate denies the name, an alias on the way, or every address.
    #[error("denied: {}", .0.reason)]
    Denied(Denial),
    /// The name is the alias of the host's loopback, which has no address to dial.
    #[error("the host alias has no addresses")]
    HostAlias,
    /// NXDOMAIN.
    #[error("the name does not exist")]
    NotFound,
    /// NODATA: nothing in this family.
    #[error("the name has no address in this family")]
    NoAddress,
    /// The upstream could not say. The text is for people.
    #[error("the lookup failed: {0}")]
    Failed(String),
}

/// How far a query could be answered without waiting.
#[derive(Debug)]
pub enum Step<G, U> {
    /// Not a query: no answer.
    Drop,
    /// The answer.
    Reply(Vec<u8>),
    /// The upstream has to be waited for.
    Wait(Box<Waiting<G, U>>),
}

/// A query whose answer is under way.
#[derive(Debug)]
pub struct Waiting<G, U> {
    resolver: Resolver<G, U>,
    asking: Asking,
    key: Key,
    reported: Option<Objection>,
    landing: tokio::sync::watch::Receiver<Option<Arc<Facts>>>,
}

impl<G: Gate, U: Upstream> Waiting<G, U> {
    /// Waits for the answer.
    pub async fn answer(self) -> Vec<u8> {
        let facts = flight::landed(self.landing).await;
        let ttl = facts.ttl;
        self.resolver
            .conclude(&self.asking, &self.key.0, self.reported, &facts, ttl)
    }

    /// SERVFAIL, for a server that has no room for one more that waits.
    #[must_use]
    pub fn give_up(self) -> Vec<u8> {
        let reply = Reply::failure(Ede::new(Ede::OTHER, "too many queries"));
        self.resolver
            .report(&self.asking, &self.key.0, self.reported, reply)
    }
}

/// A query and where it came from.
#[derive(Debug)]
struct Asking {
    query: ClientQuery,
    client: SocketAddr,
    transport: Transport,
    started: Instant,
}

impl Asking {
    fn qtype(&self) -> RecordType {
        self.query.question.query_type()
    }

    /// The name as the client wrote it.
    fn name(&self) -> &Name {
        self.query.question.name()
    }
}

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
    /// A resolver that asks `gate` what it may do and `upstream` what there is.
    pub fn new(config: Config, gate: G, upstream: U) -> Self {
        let bindings = Bindings::new(config.names, config.ttl + config.grace);
        Self {
            inner: Arc::new(Inner {
                bindings: SharedBindings::new(bindings),
                flights: Arc::new(Flights::new(upstream, config.clone())),
                gate,
                config,
            }),
        }
    }

    /// Answers one message; `None` if it is not a query and is to be dropped.
    ///
    /// Must run inside a tokio runtime with time enabled.
    pub async fn answer(
        &self,
        query: &[u8],
        client: SocketAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        match self.step(query, client, transport) {
            Step::Drop => None,
            Step::Reply(reply) => Some(reply),
            Step::Wait(waiting) => Some(waiting.answer().await),
        }
    }

    /// As [`Resolver::answer`], but comes back when it would have to wait, so that a server needs
    /// a task only for the queries that do.
    pub fn step(&self, query: &[u8], client: SocketAddr, transport: Transport) -> Step<G, U> {
        let asking = |query| Asking {
            query,
            client,
            transport,
            started: now(),
        };
        match query::parse(query) {
            Parsed::Drop => Step::Drop,
            Parsed::Bare(reply) => Step::Reply(reply),
            Parsed::Reject(query, rcode) => {
                Step::Reply(self.encode(&asking(query), Reply::code(rcode)))
            }
            Parsed::Ask(query) => self.decide(asking(query)),
        }
    }

    /// The name that a synthetic address belongs to.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<Binding> {
        self.inner.bindings.owner(address)
    }

    /// As [`Resolver::owner`], and keeps the address with its name until the lease is dropped.
    #[must_use]
    pub fn hold(&self, address: IpAddr) -> Option<Lease> {
        self.inner.bindings.hold(address)
    }

    /// The real addresses for a flow to `name`, each one allowed by the gate now.
    ///
    /// They come from the cache, or from the upstream once they have expired there. Nothing is
    /// recorded with [`Gate::denied`]: the flow has a record of its own.
    ///
    /// # Errors
    /// [`ResolveError`] says why there is none; never an empty list.
    pub async fn addresses(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, ResolveError> {
        let gate = &self.inner.gate;
        let (name, _) = canonical_text(name).map_err(|_| ResolveError::BadName)?;
        if let Verdict::Deny(denial) = gate.name(&name) {
            return Err(ResolveError::Denied(denial));
        }
        if gate.host_alias(&name) {
            return Err(ResolveError::HostAlias);
        }
        let qtype = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let key = (name, qtype);
        let facts = match self.inner.flights.look_up(&key) {
            Lookup::Known(facts, _) => facts,
            Lookup::Waiting(landing) => flight::landed(landing).await,
        };
        let usable = match judge(gate, &key.0, &facts).usable {
            Ok(usable) => usable,
            Err(Refusal::Chain(objection) | Refusal::Addresses(objection)) => {
                return Err(ResolveError::Denied(objection.denial));
            }
        };
        match facts.rcode {
            ResponseCode::NoError if usable.is_empty() => Err(ResolveError::NoAddress),
            ResponseCode::NoError => Ok(usable),
            ResponseCode::NXDomain => Err(ResolveError::NotFound),
            other => {
                let error = facts.errors.first();
                let text = error.map_or_else(|| other.to_string(), |error| error.text.clone());
                Err(ResolveError::Failed(text))
            }
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Everything up to the point where the upstream is needed.
    fn decide(&self, asking: Asking) -> Step<G, U> {
        let Ok(name) = canonical(asking.name()) else {
            let objection = Denial::new("bad-name").into();
            let name = asking.name().to_ascii();
            return Step::Reply(self.deny(&asking, &name, &objection));
        };
        if let Some(reply) = self.local(&asking, &name) {
            return Step::Reply(self.finish(&asking, &name, reply));
        }
        let reported = match self.inner.gate.name(&name) {
            Verdict::Allow => None,
            Verdict::Report(denial) | Verdict::Deny(denial)
                if special::local_zone(&name).is_some() =>
            {
                let _ = denial;
                let reply = self.local_zone(&name);
                return Step::Reply(self.finish(&asking, &name, reply));
            }
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
    fn conclude(
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
                RecordType::AAAA => {
                    self.one(asking, RData::AAAA(AAAA(std::net::Ipv6Addr::LOCALHOST)))
                }
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

    fn encode(&self, asking: &Asking, reply: Reply) -> Vec<u8> {
        reply.encode(
            &asking.query,
            asking.transport,
            self.inner.config.udp_payload,
        )
    }

    /// Denies, with the one record of it.
    fn deny(&self, asking: &Asking, name: &str, objection: &Objection) -> Vec<u8> {
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
    fn report(
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

    fn record(&self, asking: &Asking, name: &str, objection: &Objection, enforced: bool) {
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

    fn finish(&self, asking: &Asking, name: &str, reply: Reply) -> Vec<u8> {
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
