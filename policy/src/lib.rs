//! The policy of a guest: which flows may leave it.
//!
//! Bytes in, decision out, without I/O, clock or threads: callers bring the text of the policy file
//! and the flows, and get permits and denials. [`load()`] compiles a file, [`check`] adds warnings
//! for the person who edits it, and [`Policy::decide`] decides a flow.
//!
//! ```
//! use odyn_policy::{Decision, Destination, Flow, Protocol, load};
//! use odyn_proto::DnsName;
//!
//! let loaded = load("policy.yaml", "version: v1\negress:\n  allow:\n    - '*.example.com'\n");
//! let policy = loaded.policy.expect("no errors");
//! let name = DnsName::parse("api.example.com").expect("a name");
//! let flow = Flow {
//!     destination: Destination::Name { name: &name, resolved: &["203.0.113.9".parse().unwrap()] },
//!     port: 443,
//!     protocol: Protocol::Tcp,
//! };
//! match policy.decide(&flow) {
//!     Decision::Allow(permit) => assert_eq!(permit.rule().map(|r| r.line()), Some(4)),
//!     Decision::Deny(denial) => panic!("{denial}"),
//! }
//! ```

#![forbid(unsafe_code)]

pub mod codes;
mod condition;
mod decision;
mod denial;
mod diagnostic;
mod explain;
mod index;
mod lint;
mod load;
mod pattern;
mod permit;
mod policy;
mod ports;
mod render;
mod rule;
mod settings;
mod special;
mod yaml;

pub use condition::Condition;
pub use decision::{Decision, Destination, Flow, NameDecision};
pub use denial::{Denial, Reason};
pub use diagnostic::{Diagnostic, Related, Severity, Span};
pub use explain::{Considered, ExplainedDecision, Explanation, RuleOutcome, Stage};
pub use lint::{check, check_bytes};
pub use load::keys::{KEYS, MappingKeys};
pub use load::{LoadedPolicy, load, load_bytes};
pub use permit::{MAX_ADDRESSES, NamePermit, Permit, PermitTarget};
pub use policy::Policy;
pub use ports::Protocol;
pub use render::{Renderer, render};
pub use rule::{Effect, RuleRef};
pub use settings::{
    ApiSettings, CertificateFiles, ClientCertificates, DnsSettings, FilePath, IngressSettings,
    IngressTls, KmsProxySettings, Mode, PolicySettings, ProxyProtocol, ShutdownSettings, TlsFiles,
    TlsVersion,
};
pub use special::{Special, special};
