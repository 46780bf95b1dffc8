//! The keys of the policy file.
//!
//! The loader accepts these keys and no others; a test compares them with `docs/policy.md`.

/// The keys of one mapping of the file.
pub struct MappingKeys {
    /// The mapping's place, such as `ingress[].tls`; empty for the file itself.
    pub path: &'static str,
    /// The keys of the format.
    pub known: &'static [&'static str],
    /// Keys of other tools, which are ignored.
    pub foreign: &'static [&'static str],
}

impl MappingKeys {
    const fn new(path: &'static str, known: &'static [&'static str]) -> Self {
        Self {
            path,
            known,
            foreign: &[],
        }
    }
}

/// The file.
pub(super) const POLICY: MappingKeys = MappingKeys {
    path: "",
    known: &[
        "version",
        "name",
        "egress",
        "dns",
        "ingress",
        "kms_proxy",
        "api",
        "shutdown",
    ],
    // Keys of Enclaver's manifest.
    foreign: &["target", "sources", "signature", "defaults", "spire"],
};
pub(super) const EGRESS: MappingKeys = MappingKeys {
    path: "egress",
    known: &["mode", "allow", "deny"],
    // The port of Enclaver's proxy.
    foreign: &["proxy_port"],
};
/// A rule of `egress.allow` or `egress.deny`.
pub(super) const RULE: MappingKeys =
    MappingKeys::new("egress.allow[]", &["to", "ports", "protocol", "sni"]);
pub(super) const DNS: MappingKeys = MappingKeys::new("dns", &["ttl"]);
pub(super) const INGRESS: MappingKeys = MappingKeys::new(
    "ingress[]",
    &[
        "listen_port",
        "target_port",
        "wait_timeout",
        "tls",
        "proxy_protocol",
    ],
);
pub(super) const TLS: MappingKeys = MappingKeys::new(
    "ingress[].tls",
    &[
        "cert_file",
        "key_file",
        "certificates",
        "client_ca_file",
        "client_certificates",
        "alpn",
        "min_version",
        "attested",
    ],
);
pub(super) const CERTIFICATE: MappingKeys =
    MappingKeys::new("ingress[].tls.certificates[]", &["cert_file", "key_file"]);
pub(super) const KMS_PROXY: MappingKeys = MappingKeys::new(
    "kms_proxy",
    &[
        "listen_port",
        "endpoints",
        "ca_file",
        "require_key_id",
        "require_encryption_context",
    ],
);
pub(super) const API: MappingKeys = MappingKeys::new("api", &["listen_port"]);
pub(super) const SHUTDOWN: MappingKeys = MappingKeys::new("shutdown", &["drain_timeout"]);

/// Every mapping whose keys are fixed. `kms_proxy.endpoints` has regions as keys.
pub const KEYS: [&MappingKeys; 10] = [
    &POLICY,
    &EGRESS,
    &RULE,
    &DNS,
    &INGRESS,
    &TLS,
    &CERTIFICATE,
    &KMS_PROXY,
    &API,
    &SHUTDOWN,
];
