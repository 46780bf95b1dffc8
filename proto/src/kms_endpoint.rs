//! Endpoints of KMS, as people write them and as requests name them.

use std::num::NonZeroU16;

use crate::dns_name::{DnsName, DnsNameError};

/// An HTTPS endpoint of KMS: a name and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KmsEndpoint {
    name: DnsName,
    port: NonZeroU16,
}

/// Why a text is not an endpoint.
///
/// The `Display` of none of these repeats the text, which may have a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KmsEndpointError {
    /// A user name, and perhaps a password.
    #[error("an endpoint has no user and no password in it")]
    UserInfo,
    /// White space before or after the endpoint.
    #[error("the endpoint has spaces around it")]
    Spaces,
    /// Plain HTTP, which would show requests and plaintext to the host.
    #[error("an endpoint is reached by HTTPS: plain HTTP would show everything to the host")]
    PlainHttp,
    /// A scheme other than `https`, in lower case.
    #[error("an endpoint is reached by HTTPS, and has no other scheme")]
    Scheme,
    /// A path, a query or a fragment.
    #[error("the endpoint has more than a name and a port")]
    Path,
    /// An IPv6 address, with or without brackets.
    #[error("the endpoint is an address: certificates have names")]
    Address,
    /// The port is no number from 1 to 65535.
    #[error("the port of the endpoint is not 1 to 65535")]
    Port,
    /// A name with a final dot or in Unicode; the name as certificates have it is given.
    #[error("the endpoint is not written as certificates have it: write {0}")]
    Spelling(DnsName),
    /// The name is no DNS name.
    #[error("the endpoint is no name: {0}")]
    Name(DnsNameError),
    /// An authority of a request in a form other than the one that [`KmsEndpoint::authority`] has.
    #[error("the authority is not written as NAME:PORT in lower case")]
    Authority,
}

impl KmsEndpoint {
    /// The port of HTTPS.
    pub const HTTPS: NonZeroU16 = NonZeroU16::MIN.saturating_add(442);

    /// An endpoint at a name and port.
    #[must_use]
    pub fn new(name: DnsName, port: NonZeroU16) -> Self {
        Self { name, port }
    }

    /// Reads `NAME`, `NAME:PORT` or `https://NAME:PORT/`.
    ///
    /// # Errors
    /// The text is none of these. IP addresses are refused: no certificate vouches for them, and
    /// the host dials KMS by name.
    pub fn parse(text: &str) -> Result<Self, KmsEndpointError> {
        use KmsEndpointError as E;
        // First: for every other error, callers may show the text.
        if text.contains('@') {
            return Err(E::UserInfo);
        }
        if text.trim() != text {
            return Err(E::Spaces);
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        if scheme != "https" {
            return Err(match scheme.eq_ignore_ascii_case("http") {
                true => E::PlainHttp,
                false => E::Scheme,
            });
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(E::Path);
        }
        if rest.starts_with('[') || rest.bytes().filter(|b| *b == b':').count() > 1 {
            return Err(E::Address);
        }
        let (host, port) = match rest.split_once(':') {
            // Rust's parser of numbers takes a sign, which no authority has.
            Some((_, port)) if !port.bytes().all(|b| b.is_ascii_digit()) => return Err(E::Port),
            Some((host, port)) => (host, port.parse().map_err(|_| E::Port)?),
            None => (rest, Self::HTTPS),
        };
        let name = DnsName::parse(host).map_err(E::Name)?;
        // A final dot and letters of other scripts: TLS would look for another name.
        if !name.as_str().eq_ignore_ascii_case(host) {
            return Err(E::Spelling(name));
        }
        Ok(Self { name, port })
    }

    /// Reads the authority of a request on the link.
    ///
    /// # Errors
    /// It is not what [`KmsEndpoint::authority`] writes.
    pub fn from_authority(authority: &str) -> Result<Self, KmsEndpointError> {
        let endpoint = Self::parse(authority)?;
        match endpoint.authority() == authority {
            true => Ok(endpoint),
            false => Err(KmsEndpointError::Authority),
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &DnsName {
        &self.name
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> NonZeroU16 {
        self.port
    }

    /// The authority of a request on the link: `NAME:PORT`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.name, self.port)
    }

    /// The authority of an HTTPS URL and the value of the `Host` header: without port 443.
    #[must_use]
    pub fn https_authority(&self) -> String {
        match self.port == Self::HTTPS {
            true => self.name.to_string(),
            false => self.authority(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use KmsEndpointError as E;

    #[test]
    fn names_with_or_without_a_port() {
        for (text, wanted) in [
            ("kms", "kms:443"),
            (
                "KMS-fips.eu-west-1.amazonaws.com",
                "kms-fips.eu-west-1.amazonaws.com:443",
            ),
            (
                "vpce-1.kms.eu-west-1.vpce.amazonaws.com",
                "vpce-1.kms.eu-west-1.vpce.amazonaws.com:443",
            ),
            ("kms.example:8443", "kms.example:8443"),
            ("https://kms.example", "kms.example:443"),
            ("https://KMS.example:8443/", "kms.example:8443"),
            ("kms.example/", "kms.example:443"),
            ("a_b.example:1", "a_b.example:1"),
        ] {
            let endpoint = KmsEndpoint::parse(text);
            assert_eq!(endpoint.map(|e| e.authority()).as_deref(), Ok(wanted));
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_for_what_it_is() {
        for (wrong, error) in [
            ("", E::Name(DnsNameError::Empty)),
            ("https://", E::Name(DnsNameError::Empty)),
            (" kms.example", E::Spaces),
            ("http://kms.example:1", E::PlainHttp),
            ("HTTPS://kms.example", E::Scheme),
            ("tls://kms.example", E::Scheme),
            ("https://kms.example/path", E::Path),
            ("kms.example?x", E::Path),
            ("https://me:secret@kms.example/path", E::UserInfo),
            ("kms.example:", E::Port),
            ("kms.example:0", E::Port),
            ("kms.example:+1", E::Port),
            ("kms.example:65536", E::Port),
            ("[::1]:443", E::Address),
            ("2001:db8::1", E::Address),
            ("192.0.2.1", E::Name(DnsNameError::LooksLikeAddress)),
            ("192.0.2.1:443", E::Name(DnsNameError::LooksLikeAddress)),
            ("kms example", E::Name(DnsNameError::BadCharacter(' '))),
            ("*.example", E::Name(DnsNameError::BadCharacter('*'))),
            ("kms..example", E::Name(DnsNameError::EmptyLabel)),
        ] {
            assert_eq!(KmsEndpoint::parse(wrong), Err(error), "{wrong}");
        }
        for wrong in ["kms.example.", "kms.exämple"] {
            let read = KmsEndpoint::parse(wrong);
            assert!(matches!(read, Err(E::Spelling(_))), "{wrong}");
        }
    }

    #[test]
    fn authorities_are_read_back_and_have_one_form() {
        for text in ["kms.eu-west-1.amazonaws.com", "localhost:1"] {
            let endpoint = KmsEndpoint::parse(text).expect("an endpoint");
            let read = KmsEndpoint::from_authority(&endpoint.authority());
            assert_eq!(read, Ok(endpoint), "{text}");
        }
        for authority in [
            "",
            "kms",
            "kms:",
            "kms:0",
            "kms:+1",
            "kms:0443",
            "kms:65536",
            "169.254.169.254:80",
            "1:80",
            "[::1]:80",
            "a..b:1",
            "KMS:443",
            "kms.example.:443",
            "https://kms.example:443",
            "kms.example:443/",
            "a b:1",
        ] {
            let read = KmsEndpoint::from_authority(authority);
            assert!(read.is_err(), "{authority}");
        }
    }
}
