//! The guest: captures an app's traffic, judges it by the policy, carries it to the host.
//!
//! [`capture`] is the only module that knows nftables, routes and original destinations. [`egress`]
//! turns captured flows into permits and link flows. [`ingress`] brings clients to the app. [`kms`]
//! and [`api`] are services for the app. [`supervisor`] starts and watches the app. [`run`] wires
//! all of them together.
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
