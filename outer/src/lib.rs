//! The host of odyn: gives guests the network that they do not have.
//!
//! It listens for guests ([`odyn_link::Listener`]), dials the addresses that they have resolved
//! and checked, and asks the system's resolver for them. The guest decides by its policy; the
//! operator's limits on this host ([`AddressLimits`]) can only narrow that.

#![forbid(unsafe_code)]

mod connected_guests;
mod dial;
mod guests;
mod handler;
pub mod ingress;
pub mod kms;
mod logs;
pub mod resolver;
mod rules;
mod runtime_config;
mod server;

pub use guests::{FeedView, GuestView, Guests, States};
pub use kms::Kms;
pub use logs::{GuestLogs, GuestLogsError};
pub use odyn_proto::GuestState;
pub use rules::{
    AddressLimits, Bind, ClientRules, GuestSelector, Mapping, MappingError, ProxyFrom,
    ProxyFromError,
};
pub use runtime_config::{Counts, Rules, RuntimeConfig};
pub use server::{Builder, Outer, Summary};
