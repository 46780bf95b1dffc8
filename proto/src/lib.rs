//! The protocol between guest and host, as pure functions over bytes and text.
//!
//! No I/O, no clock, no async runtime: a parser here can be fuzzed without any of them, and both
//! halves share each fact instead of holding a copy of it.
//!
//! - [`wire`]: what crosses the link outside HTTP/2 itself.
//! - [`Endpoint`]: the URLs of the link.
//! - [`Identity`], [`GuestState`]: who a guest says it is, and what it says it is doing.
//! - [`Target`], [`Refusal`]: what a guest asks the host to reach, and why the host did not.
//! - [`DnsName`], [`KmsEndpoint`], [`synthetic`]: names and addresses that every crate reads alike.
//! - [`proxy_header`]: the PROXY protocol's header.

#![forbid(unsafe_code)]

pub mod dns_name;
mod endpoint;
mod guest_state;
pub mod identity;
mod kms_endpoint;
pub mod proxy_header;
mod refusal;
pub mod synthetic;
mod target;
pub mod wire;

pub use dns_name::{DnsName, DnsNameError, HOST_ALIAS};
pub use endpoint::{Endpoint, EndpointError};
pub use guest_state::GuestState;
pub use identity::{GuestName, Identity, RunId};
pub use kms_endpoint::{KmsEndpoint, KmsEndpointError};
pub use refusal::Refusal;
pub use target::{Target, TargetHost};
