//! The resolver: a query in, an answer out.

mod decide;
mod outcome;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::sync::watch;

use crate::bindings::{Binding, Bindings, Lease, SharedBindings};
use crate::cache::Key;
use crate::clock::now;
use crate::config::Config;
use crate::ede::Ede;
use crate::facts::Facts;
use crate::flight::{Flights, Lookup};
use crate::gate::{Denial, Gate, Transport, Verdict};
use crate::judge::{Objection, Refusal, judge};
use crate::name::canonical_text;
use crate::pool::Family;
use crate::query::Parsed;
use crate::reply::Reply;
use crate::upstream::Upstream;
use crate::{flight, query};
use outcome::Asking;

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
    landing: watch::Receiver<Option<Arc<Facts>>>,
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
}
