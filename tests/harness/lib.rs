//! Worlds of namespaces with real servers and unmodified clients.
//!
//! A [`World`] is an *internet* (name server and servers on documentation
//! addresses), a *host* that can reach it and runs `enclaver-outer`, and as
//! many *guests* as a test asks for, each with nothing but a loopback device
//! and `odyn-net run`. Everything lives in one PID namespace that dies with
//! the thread that made the world, so a test leaves nothing behind, however
//! it ends.
//!
//! Harness faults and unexpected outcomes panic, with the logs of all parts:
//! that is what a test wants. With `ODYN_TEST_DIRECT=1` the app runs on
//! the host without `odyn-net`: a control that shows that the servers, the
//! clients and the bypass probes themselves do what they should.

#![forbid(unsafe_code)]

pub mod audit;
pub mod cut;
pub mod deliver;
pub mod dist;
pub mod ethernet;
pub mod guest;
pub mod kms;
pub mod namespace;
pub mod process;
pub mod serve;
pub mod servers;
pub mod systemd;
pub mod third_party;
pub mod tls;
pub mod tls_client;
pub mod vm;
pub mod world;

pub use audit::AuditRecord;
pub use guest::{Guest, Output};
pub use namespace::Namespace;
pub use process::Process;
pub use world::World;
