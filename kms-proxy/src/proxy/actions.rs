//! The actions of KMS that the proxy treats specially.

use super::fields::JsonFields;

/// The actions that take `Recipient`, each with the member that KMS then leaves empty.
const ATTESTING: [(&str, &str); 5] = [
    ("Decrypt", "Plaintext"),
    ("DeriveSharedSecret", "SharedSecret"),
    ("GenerateDataKey", "Plaintext"),
    ("GenerateDataKeyPair", "PrivateKeyPlaintext"),
    ("GenerateRandom", "Plaintext"),
];
/// The actions that take `EncryptionContext`.
const WITH_CONTEXT: [&str; 6] = [
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateDataKeyWithoutPlaintext",
];

/// The name in `X-Amz-Target`, which is `TrentService.Decrypt` for Decrypt.
pub(super) fn name(target: &str) -> Option<&str> {
    target.strip_prefix("TrentService.")
}

/// The member that an attesting action fills; none for the other actions.
pub(super) fn secret_member(action: &str) -> Option<&'static str> {
    let found = ATTESTING.iter().find(|(name, _)| *name == action);
    found.map(|(_, member)| *member)
}

/// The demands of the policy on requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demands {
    /// `kms_proxy.require_key_id`: Decrypt names the expected key, so that a ciphertext of another
    /// key cannot be substituted.
    pub key_id: bool,
    /// `kms_proxy.require_encryption_context`: requests that can have a context have one.
    pub encryption_context: bool,
}

impl Demands {
    /// The demand that a request does not meet.
    pub(super) fn missing(self, action: &str, request: &JsonFields<'_>) -> Option<&'static str> {
        if self.key_id && action == "Decrypt" && !request.has("KeyId") {
            return Some("the policy of this enclave demands KeyId (kms_proxy.require_key_id)");
        }
        let has_context = request.has_members("EncryptionContext");
        if self.encryption_context && WITH_CONTEXT.contains(&action) && !has_context {
            return Some(
                "the policy of this enclave demands an EncryptionContext \
                 (kms_proxy.require_encryption_context)",
            );
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_actions_are_attested() {
        assert_eq!(name("TrentService.Decrypt"), Some("Decrypt"));
        assert_eq!(name("Decrypt"), None);
        assert_eq!(
            secret_member("GenerateDataKeyPair"),
            Some("PrivateKeyPlaintext")
        );
        assert_eq!(secret_member("DeriveSharedSecret"), Some("SharedSecret"));
        for other in [
            "Encrypt",
            "ReEncrypt",
            "GenerateDataKeyWithoutPlaintext",
            "Sign",
        ] {
            assert_eq!(secret_member(other), None);
        }
    }

    #[test]
    fn demands_are_made_of_the_actions_that_can_meet_them() {
        let all = Demands {
            key_id: true,
            encryption_context: true,
        };
        let missing = |action, json: &str| {
            let fields = JsonFields::parse(json.as_bytes()).expect("an object");
            all.missing(action, &fields)
        };
        assert!(missing("Decrypt", "{}").is_some_and(|text| text.contains("KeyId")));
        assert!(
            missing("Decrypt", r#"{"KeyId":"a"}"#).is_some_and(|text| text.contains("Context"))
        );
        assert!(missing("Encrypt", r#"{"EncryptionContext":{}}"#).is_some());
        let whole = r#"{"KeyId":"a","EncryptionContext":{"a":"b"}}"#;
        assert_eq!(missing("Decrypt", whole), None);
        assert_eq!(missing("Sign", "{}"), None);
        let fields = JsonFields::parse(b"{}").expect("an object");
        assert_eq!(Demands::default().missing("Decrypt", &fields), None);
    }
}
