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
//! The parts to the left and below ([`query`](mod@query), `facts`, `cache`, `bindings`, `reply`)
//! do no I/O and are told the time; `resolver` and `flight` wire them to the upstream, `serve` to
//! sockets. The cache keeps *facts* (what the upstream said) and every use of a fact is judged
//! again, so that a decision never outlives the policy it came from.
//!
//! What is answered and why is written in the module docs of [`mod@query`], [`Gate`] and
//! `README`-level detail in `dns/BEHAVIOUR.md`.

#![forbid(unsafe_code)]

mod bindings;
mod cache;
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
