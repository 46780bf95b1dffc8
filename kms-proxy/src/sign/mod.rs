//! AWS Signature Version 4, computed by the AWS SDK's own crate.
//!
//! A request of the app is signed with credentials that odyn-net gave to the app alone and that are
//! worthless at AWS. The proxy [checks](SignedRequest::verify) this signature, so that no other
//! process can have requests signed, and then [replaces](sign) it, for the body and the host
//! change.

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;
mod text;

pub use incoming::{SignatureRefused, SignedRequest};
pub use outgoing::sign;

use std::time::SystemTime;

use aws_credential_types::Credentials as AwsCredentials;
use aws_sigv4::http_request::{SigningParams, SigningSettings};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;

use crate::credentials::Credentials;

/// The scope of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The region, such as `eu-west-1`.
    pub region: String,
    /// The service: `kms`.
    pub service: String,
}

fn identity(credentials: &Credentials) -> Identity {
    let token = credentials.token.as_ref().map(|token| token.to_string());
    AwsCredentials::new(
        credentials.access_key_id.clone(),
        credentials.secret.to_string(),
        token,
        None,
        "odyn",
    )
    .into()
}

/// `None` does not happen, since every part is given.
fn params<'a>(
    identity: &'a Identity,
    scope: &'a Scope,
    time: SystemTime,
    settings: SigningSettings,
) -> Option<SigningParams<'a>> {
    let params = v4::SigningParams::builder()
        .identity(identity)
        .region(&scope.region)
        .name(&scope.service)
        .time(time)
        .settings(settings)
        .build();
    params.ok().map(Into::into)
}
