//! Requests for what the host half does itself, beside dialling what the guest's policy lets through:
//! a way to KMS, by name, and the credentials of the machine.
//!
//! `CONNECT kms.eu-west-1.amazonaws.com:443` with [`SERVICE`] is a TCP flow to KMS: the host half
//! looks the name up and decides whether it is KMS. `POST /credentials` is answered with JSON.

/// Header of a CONNECT that is for a service of the host half, and its one value.
pub const SERVICE: &str = "odyn-service";
/// The value for KMS.
pub const KMS: &str = "kms";
/// Path of the request for credentials.
pub const CREDENTIALS_PATH: &str = "/credentials";
/// Media type of the answer.
pub const CREDENTIALS_TYPE: &str = "application/json";
/// Longest answer, in bytes. Session tokens have one or two thousand.
pub const MAX_CREDENTIALS: usize = 32 * 1024;

/// Longest name, in bytes.
const MAX_NAME: usize = 253;
/// Longest label of it.
const MAX_LABEL: usize = 63;

/// An endpoint of KMS, as a guest names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A DNS name in lower case, without a dot at the end.
    pub name: String,
    /// Port, not 0.
    pub port: u16,
}

/// A name or port that cannot be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint is no DNS name and port")]
pub struct BadEndpoint;

impl Endpoint {
    /// Checks a name and a port.
    ///
    /// # Errors
    /// The name is none or an address, or the port is 0.
    pub fn new(name: &str, port: u16) -> Result<Self, BadEndpoint> {
        let is_label = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        };
        // An address ends in a label of digits; a name of the internet never does.
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_address = last.bytes().all(|b| b.is_ascii_digit());
        if port == 0 || name.len() > MAX_NAME || is_address || !name.split('.').all(is_label) {
            return Err(BadEndpoint);
        }
        Ok(Self {
            name: name.to_owned(),
            port,
        })
    }

    /// Reads the authority of a request.
    ///
    /// # Errors
    /// As [`Endpoint::new`].
    pub fn parse(authority: &str) -> Result<Self, BadEndpoint> {
        let (name, port) = authority.split_once(':').ok_or(BadEndpoint)?;
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadEndpoint);
        }
        Self::new(name, port.parse().map_err(|_| BadEndpoint)?)
    }

    /// The authority of a request.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.name, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (name, port) in [("kms.eu-west-1.amazonaws.com", 443), ("localhost", 1)] {
            let endpoint = Endpoint::new(name, port).unwrap();
            assert_eq!(Endpoint::parse(&endpoint.authority()), Ok(endpoint));
        }
    }

    #[test]
    fn addresses_and_nonsense_are_refused() {
        for authority in [
            "",
            "kms",
            "kms:",
            "kms:0",
            "kms:+1",
            "kms:65536",
            "169.254.169.254:80",
            "1:80",
            "[::1]:80",
            "a..b:1",
            "KMS:443",
            "kms.example.:443",
            "a b:1",
        ] {
            assert_eq!(Endpoint::parse(authority), Err(BadEndpoint), "{authority}");
        }
    }
}
