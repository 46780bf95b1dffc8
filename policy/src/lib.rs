//! The policy of a guest: which flows may leave it.
//!
//! Bytes in, decision out. No input or output, no clock, no threads: the callers bring the text
//! of the policy file and the flows, and take away permits and denials. [`load`] reads a file,
//! [`check`] looks at it more closely for a person who edits it, [`Policy::decide`] judges a flow.
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
#[cfg(feature = "reference")]
pub mod reference;
mod render;
mod rule;
mod settings;
mod special;
mod yaml;

pub use condition::Condition;
pub use decision::{Decision, Destination, Flow, NameDecision};
pub use denial::{Denial, Reason};
pub use diagnostic::{Diagnostic, Related, Severity, Span};
pub use explain::{Considered, Explanation, Outcome, Stage, Verdict};
pub use lint::{check, check_bytes};
pub use load::{Loaded, load, load_bytes};
pub use permit::{MAX_ADDRESSES, NamePermit, Permit, Target};
pub use policy::Policy;
pub use ports::Protocol;
pub use render::{Renderer, render};
pub use rule::{Effect, RuleRef};
pub use settings::{
    Api, CertificateFiles, ClientCertificates, Dns, FilePath, Ingress, IngressTls, KmsProxy, Mode,
    ProxyProtocol, Settings, Shutdown, TlsFiles, TlsVersion,
};
pub use special::{Special, special};
