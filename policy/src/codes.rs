//! The identifiers of all diagnostics: stable, since people filter and suppress by them.

use crate::diagnostic::Severity;

/// What is known of a kind of diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The identifier.
    pub id: &'static str,
    /// How much such a finding matters.
    pub severity: Severity,
    /// What it is about, in one sentence.
    pub summary: &'static str,
}

macro_rules! codes {
    ($($constant:ident $id:literal $severity:ident $summary:literal)*) => {
        $(pub(crate) const $constant: &str = $id;)*

        /// Every kind of diagnostic there is.
        pub const ALL: &[Code] = &[
            $(Code { id: $id, severity: Severity::$severity, summary: $summary },)*
        ];
    };
}

codes! {
    NOT_UTF8 "not-utf8" Error "The file is not UTF-8 text."
    TOO_LARGE "too-large" Error "The file is longer, deeper or more repetitive than a policy can be."
    YAML "yaml" Error "The file is not YAML of the kind that policies use."
    HIDDEN_CHARACTER "hidden-character" Error "The file has an invisible character that makes it look like something else."
    EMPTY "empty" Error "The file has no content."
    DUPLICATE_KEY "duplicate-key" Error "A key stands twice in the same mapping."
    UNKNOWN_KEY "unknown-key" Error "A key is not part of the format."
    MISSING_KEY "missing-key" Error "A key that is needed is not there."
    WRONG_TYPE "wrong-type" Error "A value is of the wrong kind."
    BAD_VALUE "bad-value" Error "A value is of the right kind and makes no sense."
    BAD_VERSION "bad-version" Error "The format version is not one that this program reads."
    BAD_ADDRESS "bad-address" Error "A destination looks like an address or network and is none."
    HOST_BITS "host-bits" Error "A network has bits set beyond its prefix."
    BAD_NAME "bad-name" Error "A destination is not a DNS name or a pattern of names."
    BAD_DESTINATION "bad-destination" Error "A destination is written in a form that rules do not have, such as a URL."
    BAD_PORT "bad-port" Error "A port or range of ports makes no sense."
    BAD_SNI "bad-sni" Error "SNI is required of a rule whose flows can't have it."
    TLS_FILE "tls-file" Error "A file of an ingress port's TLS is missing, unreadable, or not what it should be."
    TLS_FILES_UNCHECKED "tls-files-unchecked" Note "The files of an ingress port's TLS were not looked at."
    PORT_ZERO "port-zero" Warning "A rule names port 0, which no protocol uses."
    DUPLICATE_RULE "duplicate-rule" Warning "The same rule stands twice."
    SHADOWED_RULE "shadowed-rule" Warning "Another rule of the same list does all that this one does."
    UNREACHABLE_RULE "unreachable-rule" Warning "An allow rule can't allow anything."
    USELESS_DENY "useless-deny" Warning "A deny rule can't deny anything that would be allowed without it."
    ANY_NAME "any-name" Warning "An allow rule covers every name there is."
    ANY_ADDRESS "any-address" Warning "An allow rule covers every address of a family."
    PUBLIC_SUFFIX "public-suffix" Warning "An allow rule covers a domain under which anyone can have a name."
    METADATA_ADDRESS "metadata-address" Warning "An allow rule reaches the instance metadata or credential service."
    PORT_COLLISION "port-collision" Warning "Two things are to listen on the same port."
    FOREIGN_KEY "foreign-key" Note "A key belongs to another tool and is ignored."
    ALLOWS_NOTHING "allows-nothing" Note "The policy allows no outbound flow."
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
