//! Addresses that cannot be swapped: each role of a socket address is a type.

use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

macro_rules! address {
    ($(#[doc = $doc:literal])* $name:ident) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub SocketAddr);

        impl Deref for $name {
            type Target = SocketAddr;

            fn deref(&self) -> &SocketAddr {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = AddrParseError;

            fn from_str(text: &str) -> Result<Self, AddrParseError> {
                text.parse().map(Self)
            }
        }
    };
}

address! {
    /// The destination that the app addressed, before capture turned the flow to odyn-net.
    OrigDst
}

address! {
    /// The socket that began a flow: the app's for egress, a client's for ingress.
    ClientAddr
}

address! {
    /// The address that the host reached for a flow.
    Dialled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_as_a_socket_address() {
        let original: OrigDst = "[2001:db8::1]:443".parse().unwrap();
        assert_eq!(original.to_string(), "[2001:db8::1]:443");
        assert_eq!(original.port(), 443);
    }
}
