//! The endpoints of KMS by region.

use std::collections::BTreeMap;

use odyn_proto::{DnsName, KmsEndpoint};

/// The start of the regions, and the domain, of partitions other than the main one.
const PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-iso-", "c2s.ic.gov"),
];

/// The endpoints by region.
#[derive(Debug, Clone, Default)]
pub struct Endpoints(BTreeMap<String, KmsEndpoint>);

impl Endpoints {
    /// AWS' own endpoints, except for the regions that are given here.
    #[must_use]
    pub fn new(others: BTreeMap<String, KmsEndpoint>) -> Self {
        Self(others)
    }

    /// The endpoint of a region, and the region as it is signed for: `fips-us-east-1` and
    /// `us-east-1-fips` are old names for the FIPS endpoint of us-east-1.
    ///
    /// `None` when no name can be made of the region.
    #[must_use]
    pub fn of<'a>(&self, region: &'a str) -> Option<(KmsEndpoint, &'a str)> {
        let plain = region
            .strip_prefix("fips-")
            .or_else(|| region.strip_suffix("-fips"));
        let signed = plain.unwrap_or(region);
        if let Some(endpoint) = self.0.get(region) {
            return Some((endpoint.clone(), signed));
        }
        let service = if plain.is_some() { "kms-fips" } else { "kms" };
        let partition = PARTITIONS
            .iter()
            .find(|(start, _)| signed.starts_with(start));
        let domain = partition.map_or("amazonaws.com", |(_, domain)| *domain);
        let name = DnsName::parse(&format!("{service}.{signed}.{domain}")).ok()?;
        Some((KmsEndpoint::new(name, KmsEndpoint::HTTPS), signed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_their_usual_endpoints_and_others_when_told() {
        let other = [
            ("eu-west-1".to_owned(), "https://vpce-1.kms.example:8443/"),
            ("us-east-2".to_owned(), "kms-fips.us-east-2.amazonaws.com"),
        ];
        let read = |(region, text): (String, &str)| {
            (region, KmsEndpoint::parse(text).expect("an endpoint"))
        };
        let endpoints = Endpoints::new(other.into_iter().map(read).collect());
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
            let (endpoint, as_signed) = endpoints.of(region).expect("an endpoint");
            assert_eq!(
                (endpoint.https_authority().as_str(), as_signed),
                (authority, signed)
            );
        }
    }

    #[test]
    fn a_region_that_makes_no_name_has_no_endpoint() {
        assert!(Endpoints::default().of("xn--").is_none());
    }
}
