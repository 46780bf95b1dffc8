//! Addresses of the link: `vsock://CID:PORT`, `unix:///path`, `hybrid:///path:PORT`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The CID for listening on every address of this machine.
const CID_ANY: u32 = u32::MAX;

/// Longest path of a Unix socket: `sockaddr_un` has 108 bytes, the last is 0.
const MAX_PATH: usize = 107;

/// An address of the link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// AF_VSOCK, by CID and port.
    ///
    /// The parent instance of a Nitro enclave has CID 3; the host of other virtual machines has
    /// CID 2. `any` (for listening) is `u32::MAX`.
    Vsock {
        /// Context identifier of the machine.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// A Unix stream socket.
    Unix {
        /// Absolute path of the socket.
        path: PathBuf,
    },
    /// The Unix socket of a virtual machine monitor for a guest's vsock, on the host.
    ///
    /// A dial reaches a port in the guest; a listener gets the guest's connections to that port.
    Hybrid {
        /// Absolute path of the monitor's socket.
        path: PathBuf,
        /// vsock port.
        port: u32,
    },
}

/// A URL that is not an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The text has no `://`.
    #[error("{0:?} is not a URL: expected vsock://CID:PORT, unix:///path or hybrid:///path:PORT")]
    NotAUrl(String),
    /// The scheme is not known.
    #[error("unknown scheme {0:?}: expected vsock, unix or hybrid")]
    Scheme(String),
    /// The scheme is `tcp`, which is not supported yet.
    #[error("tcp:// is not supported yet: needs mutual TLS")]
    Tcp,
    /// The port is missing.
    #[error("{0:?} has no port: expected {1}")]
    NoPort(String, &'static str),
    /// The port is not a number, or 0, or too large.
    #[error("{0:?} is not a vsock port (1 to 4294967294)")]
    Port(String),
    /// The CID is not a number.
    #[error("{0:?} is not a CID: expected a number, or any for listening")]
    Cid(String),
    /// The path is not absolute.
    #[error("{0:?} is not an absolute path: note the three slashes, as in unix:///run/odyn.sock")]
    Path(String),
    /// The path is longer than the kernel accepts.
    #[error("the socket's path has {0} bytes, the kernel takes {MAX_PATH}")]
    PathTooLong(usize),
    /// `any` can't be dialled.
    #[error("vsock://any is for listening only")]
    AnyIsForListening,
}

impl Endpoint {
    /// The path on which a guest's connections to the host arrive: `path_PORT`.
    pub fn hybrid_listen_path(path: &Path, port: u32) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("_{port}"));
        name.into()
    }

    /// Checks that the endpoint can be dialled.
    pub fn check_dialable(&self) -> Result<(), EndpointError> {
        match self {
            Self::Vsock { cid: CID_ANY, .. } => Err(EndpointError::AnyIsForListening),
            _ => Ok(()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Self, EndpointError> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| EndpointError::NotAUrl(url.to_owned()))?;
        match scheme {
            "vsock" => {
                let (cid, port) = rest
                    .split_once(':')
                    .ok_or_else(|| EndpointError::NoPort(url.to_owned(), "vsock://CID:PORT"))?;
                let cid = match cid {
                    "any" => CID_ANY,
                    number => number_of(number)
                        .filter(|&cid| cid != CID_ANY)
                        .ok_or_else(|| EndpointError::Cid(cid.to_owned()))?,
                };
                Ok(Self::Vsock {
                    cid,
                    port: port_of(port)?,
                })
            }
            "unix" => Ok(Self::Unix {
                path: path_of(rest, 0)?,
            }),
            "hybrid" => {
                let (path, port) = rest
                    .rsplit_once(':')
                    .ok_or_else(|| EndpointError::NoPort(url.to_owned(), "hybrid:///path:PORT"))?;
                // The listening path is longer by `_PORT`.
                Ok(Self::Hybrid {
                    path: path_of(path, 1 + port.len())?,
                    port: port_of(port)?,
                })
            }
            "tcp" => Err(EndpointError::Tcp),
            other => Err(EndpointError::Scheme(other.to_owned())),
        }
    }
}

/// A decimal number without a sign.
fn number_of(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn port_of(text: &str) -> Result<u32, EndpointError> {
    number_of(text)
        .filter(|&port| port != 0 && port != u32::MAX)
        .ok_or_else(|| EndpointError::Port(text.to_owned()))
}

fn path_of(text: &str, suffix: usize) -> Result<PathBuf, EndpointError> {
    if !text.starts_with('/') || text.ends_with('/') || text.contains('\0') {
        return Err(EndpointError::Path(text.to_owned()));
    }
    if text.len() + suffix > MAX_PATH {
        return Err(EndpointError::PathTooLong(text.len() + suffix));
    }
    Ok(text.into())
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid: CID_ANY, port } => write!(f, "vsock://any:{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
            Self::Hybrid { path, port } => write!(f, "hybrid://{}:{port}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        for (url, endpoint) in [
            ("vsock://2:5000", Endpoint::Vsock { cid: 2, port: 5000 }),
            (
                "vsock://any:1",
                Endpoint::Vsock {
                    cid: CID_ANY,
                    port: 1,
                },
            ),
            (
                "unix:///run/odyn.sock",
                Endpoint::Unix {
                    path: "/run/odyn.sock".into(),
                },
            ),
            (
                "hybrid:///run/v:s:5000",
                Endpoint::Hybrid {
                    path: "/run/v:s".into(),
                    port: 5000,
                },
            ),
        ] {
            assert_eq!(url.parse(), Ok(endpoint.clone()), "{url}");
            assert_eq!(endpoint.to_string(), url);
        }
        assert_eq!(
            Endpoint::hybrid_listen_path(Path::new("/run/v.sock"), 5000),
            Path::new("/run/v.sock_5000")
        );
    }

    #[test]
    fn errors_say_what_to_do() {
        for (url, part) in [
            ("/run/odyn.sock", "expected vsock://"),
            ("http://x", "unknown scheme \"http\""),
            ("tcp://1.2.3.4:5", "not supported yet: needs mutual TLS"),
            ("vsock://2", "has no port"),
            ("vsock://2:", "not a vsock port"),
            ("vsock://2:0", "not a vsock port"),
            ("vsock://2:+1", "not a vsock port"),
            ("vsock://host:1", "not a CID"),
            ("vsock://4294967295:1", "not a CID"),
            ("unix://run/odyn.sock", "three slashes"),
            ("unix://", "three slashes"),
            ("unix:///run/", "three slashes"),
            ("hybrid:///run/v.sock", "has no port"),
            ("hybrid:///run/v.sock:x", "not a vsock port"),
        ] {
            let error = url.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
        let long = format!("unix:///{}", "x".repeat(107));
        assert_eq!(
            long.parse::<Endpoint>(),
            Err(EndpointError::PathTooLong(108))
        );
    }

    #[test]
    fn any_is_for_listening() {
        let any: Endpoint = "vsock://any:1".parse().unwrap();
        assert_eq!(any.check_dialable(), Err(EndpointError::AnyIsForListening));
    }
}
