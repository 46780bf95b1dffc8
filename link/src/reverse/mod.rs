//! Reversed connections: the guest dials them too, but the host opens the streams.
//!
//! ```text
//!   guest                                    host
//!   dials, sends the preamble ─────────────▶ reads it instead of HTTP/2's preface
//!   is the HTTP/2 server  ◀───────────────── is the HTTP/2 client
//!   who I am, ports wanted ◀── GET /ingress
//!   connects to its program ◀── CONNECT ingress:PORT, for each client
//! ```
//!
//! So the host needs to know no address of a guest, and whichever half is restarted, the guest
//! dials again and all is as before. [`Reverse`] is the guest's side; the host's is [`opening`],
//! [`greet`] and [`Client::adopt`](crate::Client::adopt).

mod arrival;
mod greet;
mod offer;
mod opening;

pub use arrival::{Arrival, Ending};
pub(crate) use greet::request;
pub use greet::{Greeted, greet};
pub use offer::{Gone, Ingress, Pending, Reverse, ReverseConfig};
pub use opening::{Opening, opening};
