//! AWS Signature Version 4, computed by the AWS SDK's own crate.
//!
//! A request of the program is signed with the credentials that odyn-net gave to the program alone.
//! They open nothing at AWS. Their signature is [checked](Incoming::verify), so that nobody else who
//! can reach the port has requests signed, and then [replaced](sign): the body and the host change.

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;
mod text;

pub use incoming::{Incoming, Refused};
pub use outgoing::sign;

use std::time::SystemTime;

use aws_credential_types::Credentials as AwsCredentials;
use aws_sigv4::http_request::{SigningParams, SigningSettings};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;

use crate::credentials::Credentials;

/// What a signature is for.
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

/// `None` never, as every part is given; the builder cannot know that.
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
