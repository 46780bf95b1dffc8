//! What the policy allows and denies.

mod report_mode;
mod resolved_addresses;
mod rules;
mod sni;
