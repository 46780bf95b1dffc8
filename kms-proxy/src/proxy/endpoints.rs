//! Where KMS is.

use std::collections::BTreeMap;

/// Partitions other than the main one: what their regions begin with, and their domain.
const PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-iso-", "c2s.ic.gov"),
];

/// An HTTPS server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// An endpoint that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no endpoint such as vpce-1.kms.eu-west-1.vpce.amazonaws.com or https://kms.example:8443"
)]
pub struct BadEndpoint(pub String);

impl Endpoint {
    /// Reads `name`, `name:port` or `https://name:port/`.
    ///
    /// # Errors
    /// It is none of these; plain HTTP is refused too: it would show the host everything.
    pub fn parse(text: &str) -> Result<Self, BadEndpoint> {
        let bad = || BadEndpoint(text.to_owned());
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.split_once(':') {
            // Rust's parser of numbers takes a sign, which no authority has.
            Some((_, port)) if port.starts_with('+') => return Err(bad()),
            Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
            None => (rest, 443),
        };
        // An address: there are no certificates for those, and the host half dials names only.
        let last = host.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if host.len() > 253 || port == 0 || !host.split('.').all(is_label) {
            return Err(bad());
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// As a request names it.
    pub fn authority(&self) -> String {
        match self.port {
            443 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }
}

/// The endpoints by region.
#[derive(Debug, Clone, Default)]
pub struct Endpoints(BTreeMap<String, Endpoint>);

impl Endpoints {
    /// The usual ones, but for the regions that are given here.
    ///
    /// # Errors
    /// An entry is no endpoint.
    pub fn new<'a>(
        others: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, BadEndpoint> {
        let read =
            |(region, text): (&String, &String)| Ok((region.clone(), Endpoint::parse(text)?));
        Ok(Self(
            others.into_iter().map(read).collect::<Result<_, _>>()?,
        ))
    }

    /// The endpoint of a region, and the region as it is signed for: `fips-us-east-1` and
    /// `us-east-1-fips` are old names for the FIPS endpoint of us-east-1.
    pub fn of<'a>(&self, region: &'a str) -> (Endpoint, &'a str) {
        let plain = region
            .strip_prefix("fips-")
            .or_else(|| region.strip_suffix("-fips"));
        let found = self.0.get(region);
        let signed = plain.unwrap_or(region);
        if let Some(endpoint) = found {
            return (endpoint.clone(), signed);
        }
        let service = if plain.is_some() { "kms-fips" } else { "kms" };
        let partition = PARTITIONS
            .iter()
            .find(|(start, _)| signed.starts_with(start));
        let domain = partition.map_or("amazonaws.com", |(_, domain)| *domain);
        let host = format!("{service}.{signed}.{domain}");
        (Endpoint { host, port: 443 }, signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_their_usual_endpoints_and_others_when_told() {
        let other = [
            (
                "eu-west-1".to_owned(),
                "https://vpce-1.kms.example:8443/".to_owned(),
            ),
            (
                "us-east-2".to_owned(),
                "kms-fips.us-east-2.amazonaws.com".to_owned(),
            ),
        ];
        let endpoints = Endpoints::new(other.iter().map(|(a, b)| (a, b))).expect("endpoints");
        for (region, authority, signed) in [
            ("us-east-1", "kms.us-east-1.amazonaws.com", "us-east-1"),
            (
                "cn-north-1",
                "kms.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
            ),
            (
                "us-gov-west-1",
                "kms.us-gov-west-1.amazonaws.com",
                "us-gov-west-1",
            ),
            (
                "fips-us-east-1",
                "kms-fips.us-east-1.amazonaws.com",
                "us-east-1",
            ),
            (
                "us-east-1-fips",
                "kms-fips.us-east-1.amazonaws.com",
                "us-east-1",
            ),
            (
                "us-iso-east-1",
                "kms.us-iso-east-1.c2s.ic.gov",
                "us-iso-east-1",
            ),
            ("eu-west-1", "vpce-1.kms.example:8443", "eu-west-1"),
            ("us-east-2", "kms-fips.us-east-2.amazonaws.com", "us-east-2"),
        ] {
            let (endpoint, as_signed) = endpoints.of(region);
            assert_eq!(
                (endpoint.authority().as_str(), as_signed),
                (authority, signed)
            );
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "http://kms.example",
            "kms.example/path",
            "a b",
            "kms:0",
            "kms:99999",
            "kms:+1",
            "[::1]:1",
            "192.0.2.1",
            "192.0.2.1:443",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
