//! The KMS variables of the app's environment.

use std::ffi::OsString;
use std::time::Duration;

use odyn_kms::credentials::Credentials;

use crate::egress::KmsLink;

/// Changes to the environment: a variable with its value, or `None` to remove it.
pub type Changes = Vec<(&'static str, Option<OsString>)>;

/// How long the app's start waits for the host to report its region.
const REGION_TIMEOUT: Duration = Duration::from_secs(3);
/// Characters of an access key's identifier at AWS.
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Characters of the secret.
const SECRET_ALPHABET: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The credentials that the app signs with.
pub(super) struct Given {
    id: String,
    secret: zeroize::Zeroizing<String>,
    /// Whether they come from the app's environment. The app then uses them for other services of
    /// AWS, too, and they stay there.
    are_its_own: bool,
    has_region: bool,
}

impl Given {
    /// The credentials of the environment, or random ones, which no service accepts.
    pub(super) fn new(variable: impl Fn(&str) -> Option<String>) -> Result<Self, getrandom::Error> {
        let set = |name: &str| variable(name).filter(|text| !text.is_empty());
        let has_region = set("AWS_REGION").is_some();
        if let (Some(id), Some(secret)) = (set("AWS_ACCESS_KEY_ID"), set("AWS_SECRET_ACCESS_KEY")) {
            return Ok(Self {
                id,
                secret: secret.into(),
                are_its_own: true,
                has_region,
            });
        }
        let mut random = zeroize::Zeroizing::new([0; 56]);
        getrandom::fill(random.as_mut_slice())?;
        let (id, secret) = random.split_at(16);
        let pick = |alphabet: &[u8], byte: &u8| {
            let place = usize::from(*byte) % alphabet.len();
            alphabet.get(place).copied().map_or('A', char::from)
        };
        let id: String = id.iter().map(|byte| pick(ID_ALPHABET, byte)).collect();
        let secret: String = secret
            .iter()
            .map(|byte| pick(SECRET_ALPHABET, byte))
            .collect();
        Ok(Self {
            id: format!("ODYN{id}"),
            secret: secret.into(),
            are_its_own: false,
            has_region,
        })
    }

    pub(super) fn credentials(&self) -> Credentials {
        Credentials::new(self.id.clone(), self.secret.as_str())
    }

    /// The changes for a proxy at this port in this region.
    pub(super) fn changes(&self, port: u16, region: Option<String>) -> Changes {
        let url = OsString::from(format!("http://127.0.0.1:{port}"));
        // The AWS SDKs read the first variable, Enclaver's tools the second.
        let mut changes = vec![
            ("AWS_ENDPOINT_URL_KMS", Some(url.clone())),
            ("AWS_KMS_ENDPOINT", Some(url)),
        ];
        if !self.are_its_own {
            changes.push(("AWS_ACCESS_KEY_ID", Some(self.id.clone().into())));
            changes.push(("AWS_SECRET_ACCESS_KEY", Some(self.secret.as_str().into())));
            changes.push(("AWS_SESSION_TOKEN", None));
        }
        if let Some(region) = region.filter(|_| !self.has_region) {
            changes.push(("AWS_REGION", Some(region.clone().into())));
            changes.push(("AWS_DEFAULT_REGION", Some(region.into())));
        }
        changes
    }
}

/// The region of the host's instance, if the host knows it.
pub(super) async fn region(link: &KmsLink) -> Option<String> {
    let answer = tokio::time::timeout(REGION_TIMEOUT, link.credentials()).await;
    let answer = answer.ok()?.ok()?;
    Credentials::from_json(&answer).ok()?.region
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(changes: &Changes) -> Vec<&str> {
        changes.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn an_app_without_credentials_gets_some_that_open_nothing() {
        let given = Given::new(|_| None).unwrap();
        assert_eq!((given.id.len(), given.secret.len()), (20, 40));
        assert!(given.id.starts_with("ODYN"));
        let other = Given::new(|_| None).unwrap();
        assert!(given.id != other.id && *given.secret != *other.secret);
        let changes = given.changes(9999, Some("eu-west-1".into()));
        assert_eq!(changes[0].1, Some("http://127.0.0.1:9999".into()));
        assert_eq!(
            names(&changes)[2..],
            [
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
                "AWS_SESSION_TOKEN",
                "AWS_REGION",
                "AWS_DEFAULT_REGION"
            ]
        );
    }

    #[test]
    fn an_app_with_its_own_keeps_them() {
        let given = Given::new(|name| Some(format!("its {name}"))).unwrap();
        let changes = given.changes(1, Some("eu-west-1".into()));
        assert_eq!(
            names(&changes),
            ["AWS_ENDPOINT_URL_KMS", "AWS_KMS_ENDPOINT"]
        );
        assert_eq!(given.credentials().access_key_id, "its AWS_ACCESS_KEY_ID");
    }
}
