//! Mappings of the operator: which guest gets the clients of which address.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use odyn_link::Peer;
use odyn_proto::GuestName;

/// Prefix of a guest that is named by its CID.
const CID: &str = "cid=";

/// Prefix of the name of a socket.
const NAMED: &str = "fd:";

/// A port of a guest's policy, and where to listen for it: `[GUEST:]PORT=ADDRESS:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The guest. Any guest may have the clients when absent.
    pub guest: Option<GuestSelector>,
    /// The `listen_port` in the guest's policy.
    pub port: NonZeroU16,
    /// Where to listen on this host.
    pub bind: Bind,
}

/// Where clients come in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// At an address. A socket of the service manager that listens there already is used.
    Address(SocketAddr),
    /// At the socket of the service manager with this name (`FileDescriptorName=`).
    Named(String),
}

/// How a mapping names a guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GuestSelector {
    /// By the name that a guest gives itself. Any guest can give itself any name.
    Name(GuestName),
    /// By the context identifier, which the kernel vouches for.
    Cid(u32),
}

/// A text that is not a [`Mapping`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// There is no `=`, or nothing before or after it.
    #[error("expected [GUEST:]PORT=ADDRESS:PORT, such as 443=0.0.0.0:8443 or shop:443=[::]:443")]
    Shape,
    /// The text before `=` does not end with a port.
    #[error("{0:?} is not a port (1 to 65535) of the guest's policy")]
    Port(String),
    /// The guest is neither a name nor a CID.
    #[error("{0:?} is no guest: expected its name (letters, digits, '.', '_', '-') or cid=N")]
    Guest(String),
    /// The text after `=` is no address with a port.
    #[error(
        "{0:?} is not where to listen: expected ADDRESS:PORT, such as 0.0.0.0:443 or [::]:443, or fd:NAME"
    )]
    Bind(String),
}

impl Mapping {
    /// Whether the mapping gives this port to this guest.
    pub(crate) fn is_for(&self, name: &GuestName, peer: &Peer, port: NonZeroU16) -> bool {
        self.port == port
            && match (&self.guest, peer) {
                (None, _) => true,
                (Some(GuestSelector::Name(wanted)), _) => wanted == name,
                (Some(GuestSelector::Cid(wanted)), Peer::Vsock { cid }) => wanted == cid,
                (Some(GuestSelector::Cid(_)), _) => false,
            }
    }
}

impl FromStr for Mapping {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let (asked, bind) = text.rsplit_once('=').ok_or(MappingError::Shape)?;
        if asked.is_empty() || bind.is_empty() || asked.ends_with("cid") {
            return Err(MappingError::Shape);
        }
        let (guest, port) = match asked.rsplit_once(':') {
            Some((guest, port)) => (Some(guest.parse()?), port),
            None => (None, asked),
        };
        let port = Some(port)
            .filter(|port| port.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| MappingError::Port(port.to_owned()))?;
        let bind = bind.parse()?;
        Ok(Self { guest, port, bind })
    }
}

impl FromStr for Bind {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let wrong = || MappingError::Bind(text.to_owned());
        if let Some(name) = text.strip_prefix(NAMED) {
            // The characters that FileDescriptorName= takes.
            let is_name = |b: u8| b.is_ascii_graphic() && b != b':';
            return match !name.is_empty() && name.len() <= 255 && name.bytes().all(is_name) {
                true => Ok(Self::Named(name.to_owned())),
                false => Err(wrong()),
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| wrong())?;
        match address.port() {
            0 => Err(wrong()),
            _ => Ok(Self::Address(address)),
        }
    }
}

impl FromStr for GuestSelector {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let wrong = || MappingError::Guest(text.to_owned());
        match text.strip_prefix(CID) {
            Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => {
                number.parse().map(Self::Cid).map_err(|_| wrong())
            }
            Some(_) => Err(wrong()),
            None => text.parse().map(Self::Name).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(guest) = &self.guest {
            write!(f, "{guest}:")?;
        }
        write!(f, "{}={}", self.port, self.bind)
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Named(name) => write!(f, "{NAMED}{name}"),
        }
    }
}

impl fmt::Display for GuestSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Cid(cid) => write!(f, "{CID}{cid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read_and_written() {
        for text in [
            "443=0.0.0.0:8443",
            "443=[::]:443",
            "shop:443=192.0.2.1:443",
            "shop.eu-1_a:1=[2001:db8::1]:65535",
            "cid=16:443=0.0.0.0:443",
            "shop:443=fd:web-1",
        ] {
            let mapping: Mapping = text.parse().unwrap();
            assert_eq!(mapping.to_string(), text);
        }
        let mapping: Mapping = "cid=16:443=0.0.0.0:8443".parse().unwrap();
        assert_eq!(mapping.guest, Some(GuestSelector::Cid(16)));
        assert_eq!(mapping.port.get(), 443);
        let address = "0.0.0.0:8443".parse().unwrap();
        assert_eq!(mapping.bind, Bind::Address(address));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, part) in [
            ("", "expected [GUEST:]PORT="),
            ("443", "expected [GUEST:]PORT="),
            ("443=", "expected [GUEST:]PORT="),
            ("=0.0.0.0:1", "expected [GUEST:]PORT="),
            ("cid=16:443", "expected [GUEST:]PORT="),
            ("0=0.0.0.0:1", "\"0\" is not a port"),
            ("+1=0.0.0.0:1", "\"+1\" is not a port"),
            ("shop=0.0.0.0:1", "\"shop\" is not a port"),
            ("a b:1=0.0.0.0:1", "\"a b\" is no guest"),
            (":1=0.0.0.0:1", "\"\" is no guest"),
            ("cid=x:1=0.0.0.0:1", "\"cid=x\" is no guest"),
            ("cid=:1=0.0.0.0:1", "\"cid=\" is no guest"),
            ("cid=4294967296:1=0.0.0.0:1", "is no guest"),
            ("1=0.0.0.0", "\"0.0.0.0\" is not where to listen"),
            ("1=0.0.0.0:0", "is not where to listen"),
            ("1=fd:", "is not where to listen"),
            ("1=fd:a b", "is not where to listen"),
            ("1=::1:80", "is not where to listen"),
            ("1=host.example:80", "is not where to listen"),
        ] {
            let error = text.parse::<Mapping>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
