//! The questions of the resolver to the policy, about names and addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use odyn_proto::DnsName;

/// Decides what may be resolved, and records each query.
///
/// Every method is called while a query is answered: it must answer from memory and never block.
pub trait NamePolicy: Send + Sync + 'static {
    /// Decides whether `name` may be resolved at all, and by which rule.
    fn name(&self, name: &DnsName) -> NameVerdict<Option<MatchedRule>>;

    /// Decides whether `target` may stand in the CNAME chain of an allowed name.
    ///
    /// Only explicit deny rules count: the target of an alias needs no allow rule of its own.
    fn cname_target(&self, target: &DnsName) -> NameVerdict;

    /// Decides whether `name` may be reached at `address`, which the upstream gave for it.
    fn address(&self, name: &DnsName, address: IpAddr) -> NameVerdict;

    /// Called exactly once for each query that was denied, or would have been.
    fn denied(&self, record: DeniedQuery<'_>);

    /// Called exactly once for each other query that was answered, failures included.
    fn answered(&self, record: AnsweredQuery<'_>) {
        let _ = record;
    }
}

/// The policy's answer to one question about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameVerdict<T = ()> {
    /// Go on.
    Allow(T),
    /// Go on, and record what would have been denied.
    Report(QueryDenial),
    /// Stop.
    Deny(QueryDenial),
}

/// A rule of the policy, as records show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedRule {
    /// The rule's destination as it is written in the policy file.
    pub text: Arc<str>,
    /// The rule's line in the policy file, counted from 1.
    pub line: u32,
}

/// Why a query is denied, for its record and its Extended DNS Error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryDenial {
    /// A reason of the audit record's list, such as `no-rule` or `deny-rule`.
    pub reason: &'static str,
    /// The rule that matched, if one did.
    pub rule: Option<MatchedRule>,
    /// The kind of Extended DNS Error.
    pub block: BlockKind,
}

impl QueryDenial {
    /// A denial without a rule, with EDE 15.
    #[must_use]
    pub fn new(reason: &'static str) -> Self {
        Self {
            reason,
            rule: None,
            block: BlockKind::Blocked,
        }
    }
}

/// The two Extended DNS Errors (RFC 8914) that a denial may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// 15: no rule allows the name, or its addresses are special.
    Blocked,
    /// 17: a deny rule matches.
    Filtered,
}

/// The transport of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryTransport {
    /// One datagram; the answer must fit what the client can take.
    Udp,
    /// A message on a stream.
    Tcp,
}

/// A query that was denied.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DeniedQuery<'a> {
    /// The name asked for: canonical, or with backslash escapes if it is a bad one.
    pub name: &'a str,
    /// The type asked for.
    pub qtype: RecordType,
    /// The reason.
    pub denial: &'a QueryDenial,
    /// False if the denial was only reported and the query answered all the same.
    pub enforced: bool,
    /// The name in the CNAME chain that the denial is about, if it is not `name`.
    pub target: Option<&'a DnsName>,
    /// The first real address that the denial is about, if it is about addresses.
    pub address: Option<IpAddr>,
    /// The address that the query came from.
    pub client: SocketAddr,
    /// The transport that the query came by.
    pub transport: QueryTransport,
    /// From the query's arrival to its answer.
    pub duration: Duration,
}

/// A query that was answered.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AnsweredQuery<'a> {
    /// The canonical name asked for.
    pub name: &'a str,
    /// The type asked for.
    pub qtype: RecordType,
    /// The rule that allows the name; `None` if the resolver answered without the policy.
    pub rule: Option<&'a MatchedRule>,
    /// The response code, as in RFC 6895 section 2.3.
    pub rcode: u16,
    /// The address that the query came from.
    pub client: SocketAddr,
    /// The transport that the query came by.
    pub transport: QueryTransport,
    /// From the query's arrival to its answer.
    pub duration: Duration,
}
