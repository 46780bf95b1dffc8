//! The DNS resolver inside the guest.
//!
//! A program asks it for names as it would ask any name server. Each name that the policy allows
//! gets *synthetic addresses* of its own, one per family, so that the destination of a later flow
//! names exactly one name, however many sites share the real address. A name that is not allowed
//! is answered at once and never leaves the guest.
//!
//! ```text
//!            ┌───────────────────────── Resolver ─────────────────────────┐
//! query ──▶ query::parse ─▶ special (localhost, PTR …) ─▶ Gate::name ─┬─▶ denied, at once
//!                                                                      ▼
//!                                            cache ◀── facts ◀── flight ─▶ Upstream (the host)
//!                                              ▼
//! reply ◀── reply::encode ◀── bindings ◀── judge: Gate::cname_target, Gate::address
//! ```
//!
//! The parts to the left and below (`query`, `facts`, `cache`, `bindings`, `judge`, `reply`)
//! do no I/O and are told the time; `resolver` and `flight` wire them to the upstream, `serve` to
//! sockets. The cache keeps *facts* (what the upstream said) and every use of a fact is judged
//! again, so that a decision never outlives the policy it came from.
//!
//! # What is answered
//!
//! | question | answer |
//! |---|---|
//! | A, AAAA of an allowed name | the alias chain as it is, at its end one synthetic address that belongs to the name asked for, if the upstream has an address of that family that may be used |
//! | CAA, CNAME, MX, NS, PTR, SOA, SRV, TXT of an allowed name | the upstream's records without glue |
//! | HTTPS, SVCB and all other data types of an allowed name | NODATA with EDE 21: address hints would lead round the synthetic addresses |
//! | ANY | one HINFO record (RFC 8482) |
//! | a name that is denied, or has a denied name in its alias chain | NXDOMAIN with EDE 15 or 17, no SOA, see [`DeniedReply`] |
//! | a name that may be reached at none of its addresses | NODATA with EDE 15 |
//! | a name with bytes other than letters, digits, `-`, `_`, or with a last label of digits | as denied; the policy is not asked |
//! | `localhost` and below | loopback (RFC 6761) |
//! | the host alias | synthetic addresses, nobody is asked |
//! | PTR of a synthetic address | the name; NXDOMAIN if it is not bound |
//! | PTR in the private zones of RFC 6303 that the policy does not allow | NXDOMAIN with SOA, not recorded as denied |
//! | upstream NXDOMAIN, NODATA | the same, with its SOA and its errors |
//! | upstream failure of any kind | SERVFAIL with the upstream's errors, or with EDE 22 (no answer), 23 (no way), 24 (nonsense) |
//!
//! What is wrong with a message itself is answered as the table in `query.rs` says.

#![forbid(unsafe_code)]

mod bindings;
mod cache;
mod clock;
mod config;
mod ede;
mod facts;
mod flight;
mod gate;
mod judge;
mod lru;
mod name;
pub mod pool;
mod query;
mod reply;
mod resolver;
mod serve;
mod special;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;
mod upstream;

pub use bindings::{Binding, Lease};
pub use config::{Config, DeniedReply};
pub use gate::{AnsweredQuery, Block, Denial, DeniedQuery, Gate, Transport, Verdict};
pub use pool::Family;
pub use resolver::{ResolveError, Resolver, Step};
pub use serve::{serve_tcp, serve_udp};
pub use upstream::{Upstream, UpstreamError};
