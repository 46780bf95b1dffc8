//! The command for people: `enclaver`.
//!
//! [`simulate`] runs a guest and a host on one machine, so that a policy can be tried without an
//! enclave. [`doctor`] says what a kernel has of what the guest needs. Both use the guest
//! (`odyn_net`) and the host (`enclaver_outer`) as libraries; neither of these knows this crate.
#![deny(unsafe_code)]

pub mod args;
pub mod doctor;
pub mod error;
pub mod simulate;
