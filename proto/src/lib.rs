//! The protocol between guest and host, as pure functions over bytes and text.
//!
//! There is no I/O, no clock and no async runtime, so fuzz targets of these parsers need none.
//! Guest and host share each fact instead of having a copy.
//!
//! - [`wire`]: what crosses the link outside HTTP/2 itself.
//! - [`Endpoint`]: the URLs of the link.
//! - [`Identity`], [`GuestState`]: the identity and the state that a guest claims.
//! - [`OrigDst`], [`ClientAddr`], [`Dialled`]: the roles of an address, as types.
//! - [`Target`], [`Refusal`]: the destination that a guest asks for, and why the host refused it.
//! - [`DnsName`], [`KmsEndpoint`], [`synthetic`]: names and addresses that every crate reads alike.
//! - [`proxy_header`]: the PROXY protocol's header.

#![forbid(unsafe_code)]

mod addrs;
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

pub use addrs::{ClientAddr, Dialled, OrigDst};
pub use dns_name::{DnsName, DnsNameError, HOST_ALIAS};
pub use endpoint::{Endpoint, EndpointError};
pub use guest_state::GuestState;
pub use identity::{GuestName, Identity, RunId};
pub use kms_endpoint::{KmsEndpoint, KmsEndpointError};
pub use refusal::Refusal;
pub use target::{Target, TargetHost};
