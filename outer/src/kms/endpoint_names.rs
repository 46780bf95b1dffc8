//! The DNS names of KMS endpoints.

/// The domains of AWS' partitions.
const DOMAINS: [&str; 8] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "api.aws",
    "c2s.ic.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
    "sc2s.sgov.gov",
];

/// Whether a name is an endpoint of KMS.
///
/// `kms.REGION.DOMAIN`, `kms-fips.REGION.DOMAIN`, or of a VPC `vpce-….kms.REGION.vpce.DOMAIN`.
pub(super) fn is_kms(name: &str) -> bool {
    let domain = DOMAINS
        .iter()
        .filter_map(|domain| name.strip_suffix(domain)?.strip_suffix('.'))
        .min_by_key(|rest| rest.len());
    let labels: Vec<&str> = domain.unwrap_or_default().split('.').collect();
    let is_service = |label: &str| label == "kms" || label == "kms-fips";
    match labels.as_slice() {
        [service, region] => is_service(service) && is_region(region),
        [endpoint, service, region, "vpce"] => {
            endpoint.starts_with("vpce-") && is_service(service) && is_region(region)
        }
        _ => false,
    }
}

fn is_region(label: &str) -> bool {
    label.contains('-') && label.ends_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_kms_are_known() {
        for name in [
            "kms.eu-west-1.amazonaws.com",
            "kms-fips.us-gov-west-1.amazonaws.com",
            "kms.cn-north-1.amazonaws.com.cn",
            "kms.eu-west-1.api.aws",
            "vpce-0a1b-2c3d.kms.us-east-1.vpce.amazonaws.com",
        ] {
            assert!(is_kms(name), "{name}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for name in [
            "",
            "amazonaws.com",
            "kms.amazonaws.com",
            "s3.eu-west-1.amazonaws.com",
            "kms.eu-west-1.amazonaws.com.evil.example",
            "kms.eu-west-1.evilamazonaws.com",
            "kms.s3.amazonaws.com",
            "kms.bucket-1.s3.eu-west-1.amazonaws.com",
            "evil.kms.eu-west-1.vpce.amazonaws.com",
            "vpce-1.kms.eu-west-1.amazonaws.com",
            "localhost",
        ] {
            assert!(!is_kms(name), "{name}");
        }
    }
}
