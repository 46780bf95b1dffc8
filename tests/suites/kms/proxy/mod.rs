//! The KMS proxy in front of a stand-in that does with `Recipient` what KMS does, in one process and
//! without root. With everything around it: `in_guest.rs`.

mod actions;
mod client;
mod faults;
mod measure;
mod moto;
mod presigned;
mod sdk;
