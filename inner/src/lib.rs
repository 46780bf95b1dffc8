//! The guest half: captures an unmodified program's traffic, judges it by the policy, and carries
//! what is allowed to the host half.
//!
//! [`capture`] is the only part that knows nftables, routes and original destinations; [`egress`]
//! turns captured flows into permits and link flows; [`ingress`] brings clients to the program;
//! [`kms`] and [`api`] serve the program itself;
//! [`supervisor`] starts and watches the app; [`run`] wires them together.
#![deny(unsafe_code)]

pub mod api;
pub mod attestation;
pub mod audit;
pub mod capture;
pub mod cli;
pub mod egress;
pub mod exit;
pub mod guest_id;
pub mod ingress;
pub mod init;
pub mod kms;
pub mod policy_file;
pub mod run;
pub mod services;
pub mod settings;
pub mod shutdown;
pub mod start_error;
pub mod supervisor;
pub mod telemetry;
