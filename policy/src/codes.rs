//! The identifiers of all findings. They are stable: people filter and suppress by them.

use crate::diagnostic::Severity;

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FindingCode {
    /// The identifier.
    pub id: &'static str,
    /// The severity of such findings.
    pub severity: Severity,
    /// The meaning, in one sentence.
    pub summary: &'static str,
}

macro_rules! codes {
    ($($constant:ident $id:literal $severity:ident $summary:literal)*) => {
        $(pub(crate) const $constant: &str = $id;)*

        /// Every kind of finding.
        pub const ALL: &[FindingCode] = &[
            $(FindingCode { id: $id, severity: Severity::$severity, summary: $summary },)*
        ];
    };
}

codes! {
    NOT_UTF8 "not-utf8" Error "The file is not UTF-8 text."
    TOO_LARGE "too-large" Error "The file exceeds a limit: length, depth, number of values."
    YAML "yaml" Error "The file is not YAML of the kind that policies use."
    HIDDEN_CHARACTER "hidden-character" Error "An invisible character makes the file look like something else."
    EMPTY "empty" Error "The file has no content."
    DUPLICATE_KEY "duplicate-key" Error "A key stands twice in the same mapping."
    UNKNOWN_KEY "unknown-key" Error "A key is not part of the format."
    MISSING_KEY "missing-key" Error "A required key is missing."
    WRONG_TYPE "wrong-type" Error "A value has the wrong type."
    BAD_VALUE "bad-value" Error "A value has the right type and is not allowed."
    BAD_VERSION "bad-version" Error "The version of the format is not supported."
    BAD_ADDRESS "bad-address" Error "A destination looks like an address or network and is none."
    HOST_BITS "host-bits" Error "A network has bits set beyond its prefix."
    BAD_NAME "bad-name" Error "A destination is neither a DNS name nor a pattern of names."
    BAD_DESTINATION "bad-destination" Error "A destination has a form that rules do not have, such as a URL."
    BAD_PORT "bad-port" Error "A port or a range of ports is not valid."
    BAD_SNI "bad-sni" Error "A rule requires SNI for flows that cannot have it."
    TLS_FILE "tls-file" Error "A file of an ingress port's TLS is missing, unreadable or not valid."
    TLS_FILES_UNCHECKED "tls-files-unchecked" Note "The files of an ingress port's TLS were not checked."
    PORT_ZERO "port-zero" Warning "A rule names port 0, which no protocol uses."
    DUPLICATE_RULE "duplicate-rule" Warning "The same rule stands twice."
    SHADOWED_RULE "shadowed-rule" Warning "Another rule of the same list covers this one."
    UNREACHABLE_RULE "unreachable-rule" Warning "An allow rule cannot allow anything."
    USELESS_DENY "useless-deny" Warning "A deny rule denies nothing that would be allowed without it."
    ANY_NAME "any-name" Warning "An allow rule covers every name."
    ANY_ADDRESS "any-address" Warning "An allow rule covers every address of a family."
    PUBLIC_SUFFIX "public-suffix" Warning "An allow rule covers a domain under which anyone can register a name."
    METADATA_ADDRESS "metadata-address" Warning "An allow rule reaches the instance metadata or credential service."
    PORT_COLLISION "port-collision" Warning "Two listeners use the same port."
    FOREIGN_KEY "foreign-key" Note "A key belongs to another tool and is ignored."
    ALLOWS_NOTHING "allows-nothing" Note "The policy has no allow rule."
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn identifiers_are_unique_and_kebab_case() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ALL {
            assert!(seen.insert(code.id), "{} twice", code.id);
            assert!(
                code.id
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{}",
                code.id
            );
            assert!(code.summary.ends_with('.'), "{}", code.id);
        }
    }
}
