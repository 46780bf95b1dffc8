//! The resolver: a query in, an answer out.

mod decide;
mod outcome;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use odyn_proto::DnsName;

use crate::bindings::{Binding, Bindings, Lease, SharedBindings};
use crate::cache::CacheKey;
use crate::clock::now;
use crate::config::Config;
use crate::ede::Ede;
use crate::filter::{FilterRefusal, filter};
use crate::name_policy::{NamePolicy, NameVerdict, QueryDenial, QueryTransport};
use crate::pool::Family;
use crate::query::ParsedQuery;
use crate::reply::DnsReply;
use crate::singleflight::{AnswerReceiver, Lookup, Singleflight};
use crate::upstream::Upstream;
use crate::{query, singleflight};
use outcome::{NameAdmission, PendingQuery};

/// The resolver. Clones share its state.
#[derive(Debug)]
pub struct Resolver<P, U> {
    inner: Arc<Inner<P, U>>,
}

impl<P, U> Clone for Resolver<P, U> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

#[derive(Debug)]
struct Inner<P, U> {
    config: Config,
    policy: P,
    bindings: SharedBindings,
    queries: Arc<Singleflight<U>>,
}

/// Why there are no addresses for a flow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The policy denies the name, an alias on the way, or every address.
    #[error("denied: {}", .0.reason)]
    Denied(QueryDenial),
    /// The name is the alias of the host's loopback, which has no address to dial.
    #[error("the host alias has no addresses")]
    HostAlias,
    /// The name does not exist (NXDOMAIN).
    #[error("the name does not exist")]
    NotFound,
    /// The name has no address in this family (NODATA).
    #[error("the name has no address in this family")]
    NoAddress,
    /// The upstream failed. The text is for people.
    #[error("the lookup failed: {0}")]
    Failed(String),
}

/// The state of a query that was answered as far as possible without waiting.
#[derive(Debug)]
pub enum QueryStep<P, U> {
    /// There is no answer: the message was not a query.
    Drop,
    /// The answer.
    Reply(Vec<u8>),
    /// The query waits for the upstream.
    Wait(Box<Waiting<P, U>>),
}

/// A query that waits for the upstream.
#[derive(Debug)]
pub struct Waiting<P, U> {
    resolver: Resolver<P, U>,
    asking: PendingQuery,
    key: CacheKey,
    admission: NameAdmission,
    answer: AnswerReceiver,
}

impl<P: NamePolicy, U: Upstream> Waiting<P, U> {
    /// Waits for the answer.
    pub async fn answer(self) -> Vec<u8> {
        let answer = singleflight::received(self.answer).await;
        let ttl = answer.ttl;
        self.resolver
            .conclude(&self.asking, &self.key.0, self.admission, &answer, ttl)
    }

    /// SERVFAIL, for a server that cannot let another query wait.
    #[must_use]
    pub fn give_up(self) -> Vec<u8> {
        let reply = DnsReply::failure(Ede::new(Ede::OTHER, "too many queries"));
        self.resolver
            .report(&self.asking, &self.key.0, self.admission, reply)
    }
}

impl<P: NamePolicy, U: Upstream> Resolver<P, U> {
    /// A resolver that checks names against `policy` and looks them up by `upstream`.
    pub fn new(config: Config, policy: P, upstream: U) -> Self {
        let bindings = Bindings::new(config.names, config.ttl + config.grace);
        Self {
            inner: Arc::new(Inner {
                bindings: SharedBindings::new(bindings),
                queries: Arc::new(Singleflight::new(upstream, config.clone())),
                policy,
                config,
            }),
        }
    }

    /// Answers one message; `None` if the message is not a query and must be dropped.
    ///
    /// Must run inside a tokio runtime with time enabled.
    pub async fn answer(
        &self,
        query: &[u8],
        client: SocketAddr,
        transport: QueryTransport,
    ) -> Option<Vec<u8>> {
        match self.step(query, client, transport) {
            QueryStep::Drop => None,
            QueryStep::Reply(reply) => Some(reply),
            QueryStep::Wait(waiting) => Some(waiting.answer().await),
        }
    }

    /// As [`Resolver::answer`], but returns instead of waiting, so that a server needs a task only
    /// for the queries that wait.
    pub fn step(
        &self,
        query: &[u8],
        client: SocketAddr,
        transport: QueryTransport,
    ) -> QueryStep<P, U> {
        let asking = |query| PendingQuery {
            query,
            client,
            transport,
            started: now(),
        };
        match query::parse(query) {
            ParsedQuery::Drop => QueryStep::Drop,
            ParsedQuery::Bare(reply) => QueryStep::Reply(reply),
            ParsedQuery::Reject(query, rcode) => {
                QueryStep::Reply(self.encode(&asking(query), DnsReply::code(rcode)))
            }
            ParsedQuery::Ask(query) => self.decide(asking(query)),
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

    /// The real addresses for a flow to `name`, each one allowed by the policy now.
    ///
    /// They come from the cache, or from the upstream once they have expired there. Nothing is
    /// recorded with [`NamePolicy::denied`]: the flow has its own record.
    ///
    /// # Errors
    /// There is no address. The list is never empty.
    pub async fn addresses(
        &self,
        name: &DnsName,
        family: Family,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        let policy = &self.inner.policy;
        if let NameVerdict::Deny(denial) = policy.name(name) {
            return Err(ResolveError::Denied(denial));
        }
        if name.is_host_alias() {
            return Err(ResolveError::HostAlias);
        }
        let qtype = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let key = (name.clone(), qtype);
        let answer = match self.inner.queries.look_up(&key) {
            Lookup::Known(answer, _) => answer,
            Lookup::Waiting(answer) => singleflight::received(answer).await,
        };
        let usable = match filter(policy, name, &answer).usable {
            Ok(usable) => usable,
            Err(FilterRefusal::Chain(objection) | FilterRefusal::Addresses(objection)) => {
                return Err(ResolveError::Denied(objection.denial));
            }
        };
        match answer.rcode {
            ResponseCode::NoError if usable.is_empty() => Err(ResolveError::NoAddress),
            ResponseCode::NoError => Ok(usable),
            ResponseCode::NXDomain => Err(ResolveError::NotFound),
            other => {
                let error = answer.errors.first();
                let text = error.map_or_else(|| other.to_string(), |error| error.text.clone());
                Err(ResolveError::Failed(text))
            }
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }
}
