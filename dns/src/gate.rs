//! The questions this crate asks about names and addresses. The policy answers them elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::RecordType;

/// Decides what may be resolved, and is told what was not.
///
/// Every method is called on the path of a query: answer from memory, never block.
pub trait Gate: Send + Sync + 'static {
    /// May `name` be resolved at all? `name` is canonical: lower case, no trailing dot, only
    /// letters, digits, `-` and `_`, at most 253 bytes, its last label not all digits.
    fn name(&self, name: &str) -> Verdict;

    /// May `target` stand in the CNAME chain of an allowed name? Only explicit deny rules count
    /// here: what a name is an alias of needs no allow rule of its own.
    fn cname_target(&self, target: &str) -> Verdict;

    /// May `name` be reached at `address`, which the upstream gave for it?
    fn address(&self, name: &str, address: IpAddr) -> Verdict;

    /// Is `name` the alias of the host's loopback? It is asked after [`Gate::name`] allowed the
    /// name; such a name gets synthetic addresses and the upstream is not asked.
    fn host_alias(&self, name: &str) -> bool;

    /// Called exactly once for each query that was denied, or would have been.
    fn denied(&self, record: DeniedQuery<'_>);

    /// Called exactly once for each other query that was answered, failures included.
    fn answered(&self, record: AnsweredQuery<'_>) {
        let _ = record;
    }
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Go on, and report what would have been denied.
    Report(Denial),
    /// Stop.
    Deny(Denial),
}

/// Why something is denied, for the audit record and the Extended DNS Error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// A word of the audit record's list, such as `no-rule` or `deny-rule`.
    pub reason: &'static str,
    /// The rule's text, when one matched.
    pub rule: Option<Arc<str>>,
    /// The rule's line in the policy file, counted from 1.
    pub line: Option<u32>,
    /// Which Extended DNS Error says it best.
    pub block: Block,
}

impl Denial {
    /// A denial without a rule, with EDE 15.
    #[must_use]
    pub fn new(reason: &'static str) -> Self {
        Self {
            reason,
            rule: None,
            line: None,
            block: Block::Blocked,
        }
    }
}

/// The two Extended DNS Errors (RFC 8914) that a denial may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// 15: nothing allows it, or the guard of special addresses stopped it.
    Blocked,
    /// 17: a deny rule that the owner of the program wrote.
    Filtered,
}

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
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
    /// Why.
    pub denial: &'a Denial,
    /// False if it was only reported and then answered all the same.
    pub enforced: bool,
    /// The name in the CNAME chain that the denial is about, if it is not `name`.
    pub target: Option<&'a str>,
    /// The first real address that the denial is about, if it is about addresses.
    pub address: Option<IpAddr>,
    /// Who asked.
    pub client: SocketAddr,
    /// How it was asked.
    pub transport: Transport,
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
    /// The response code, as in RFC 6895 section 2.3.
    pub rcode: u16,
    /// Who asked.
    pub client: SocketAddr,
    /// How it was asked.
    pub transport: Transport,
    /// From the query's arrival to its answer.
    pub duration: Duration,
}
