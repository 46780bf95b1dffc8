//! The DNS resolver inside the guest.
//!
//! The app asks it for names as it would ask any name server. Each name that the policy allows
//! gets *synthetic addresses* of its own, one per family, so that the destination of a later flow
//! stands for exactly one name, however many sites share the real address. A query for a name that
//! is not allowed is answered at once and never leaves the guest.
//!
//! ```text
//! query ─▶ query::parse ─▶ special_use (localhost, PTR …) ─▶ NamePolicy::name ─┬─▶ denied
//!                                                                             ▼
//!                           cache ◀── upstream_answer ◀── singleflight ─▶ Upstream (the host)
//!                             ▼
//! reply ◀── reply::encode ◀── bindings ◀── filter: NamePolicy::cname_target, NamePolicy::address
//! ```
//!
//! `query`, `upstream_answer`, `cache`, `bindings`, `filter` and `reply` do no I/O, and time is
//! passed in. `resolver` and `singleflight` connect them to the upstream, `serve` to sockets. The
//! cache keeps upstream answers as they came. Each use of one is checked against the policy again,
//! so that a decision never outlives the policy it came from.
//!
//! # What is answered
//!
//! | question | answer |
//! |---|---|
//! | A, AAAA of an allowed name | the alias chain, and at its end one synthetic address of the name asked for, if the upstream has an address of that family that may be used |
//! | CAA, CNAME, MX, NS, PTR, SOA, SRV, TXT of an allowed name | the upstream's records without glue |
//! | HTTPS, SVCB and all other data types of an allowed name | NODATA with EDE 21: address hints would bypass the synthetic addresses |
//! | ANY | one HINFO record (RFC 8482) |
//! | a name that is denied, or has a denied name in its alias chain | NXDOMAIN with EDE 15 or 17, no SOA, see [`DeniedReply`] |
//! | an allowed name whose addresses are all denied | NODATA with EDE 15 |
//! | a name that is no [`DnsName`](odyn_proto::DnsName): with bytes other than letters, digits, `-`, `_`, or with a number as last label | as denied; the policy is not asked |
//! | `localhost` and below | loopback (RFC 6761) |
//! | the host alias | synthetic addresses; the upstream is not asked |
//! | PTR of a synthetic address | the name; NXDOMAIN if it is not bound |
//! | PTR in the private zones of RFC 6303 that the policy does not allow | NXDOMAIN with SOA, not recorded as denied |
//! | upstream NXDOMAIN, NODATA | the same, with its SOA and its errors |
//! | upstream failure of any kind | SERVFAIL with the upstream's errors, or with EDE 22 (no answer in time), 23 (upstream not reachable), 24 (invalid answer) |
//!
//! The table in `query.rs` says how malformed messages are answered.

#![forbid(unsafe_code)]

mod bindings;
mod cache;
mod clock;
mod config;
mod ede;
mod filter;
mod lru;
mod name;
mod name_policy;
pub mod pool;
mod query;
mod reply;
mod resolver;
mod serve;
mod singleflight;
mod special_use;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;
mod upstream;
mod upstream_answer;

pub use bindings::{Binding, Lease};
pub use config::{Config, DeniedReply};
pub use name_policy::{
    AnsweredQuery, BlockKind, DeniedQuery, MatchedRule, NamePolicy, NameVerdict, QueryDenial,
    QueryTransport,
};
pub use pool::Family;
pub use resolver::{QueryStep, ResolveError, Resolver};
pub use serve::{serve_tcp, serve_udp};
pub use upstream::{Upstream, UpstreamError};
