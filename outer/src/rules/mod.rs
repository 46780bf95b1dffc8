//! What the operator of the host sets: addresses that guests may reach, listeners, clients' limits.

mod clients;
mod limits;
mod mapping;

pub use clients::{ClientRules, ProxyFrom, ProxyFromError};
pub use limits::AddressLimits;
pub use mapping::{Bind, GuestSelector, Mapping, MappingError};
