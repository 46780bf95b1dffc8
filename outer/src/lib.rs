//! The host half: does for its guests what they cannot do themselves.
//!
//! It listens for guests ([`odyn_link::Listener`]), dials the addresses that they have resolved
//! and checked, and asks the system's resolver for them. The policy is the guest's; what the
//! operator of the host adds ([`Limits`]) can only narrow it.

#![forbid(unsafe_code)]

mod control;
mod dial;
mod guests;
mod handler;
pub mod ingress;
pub mod kms;
mod limits;
mod logs;
mod outer;
mod presence;
pub mod resolver;

pub use control::{Control, Counts, Rules};
pub use guests::{FeedView, GuestView, Guests, Snapshot, States};
pub use kms::Kms;
pub use limits::Limits;
pub use logs::GuestLogs;
pub use odyn_proto::GuestState;
pub use outer::{Builder, Outer, Summary};
