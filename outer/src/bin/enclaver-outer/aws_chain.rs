//! Credentials from the AWS SDK's chain.
//!
//! In this order: environment, profile, web identity, container, instance profile (IMDSv2).

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use enclaver_outer::kms::HostCredentials;
use tokio::sync::OnceCell;

/// The chain. It is built at the first request, so that hosts without KMS do not pay for it.
#[derive(Debug, Default)]
pub(crate) struct AwsChain(OnceCell<SdkConfig>);

impl HostCredentials for AwsChain {
    fn credentials(&self) -> future::ProvideCredentials<'_> {
        future::ProvideCredentials::new(self.find())
    }

    fn region(&self) -> Option<String> {
        let region = self.0.get()?.region()?;
        Some(Region::as_ref(region).to_owned())
    }
}

impl AwsChain {
    async fn find(&self) -> Result<Credentials, CredentialsError> {
        let config = self.0.get_or_init(load).await;
        let provider = config.credentials_provider();
        let provider = provider.ok_or_else(|| CredentialsError::not_loaded("no provider"))?;
        provider.provide_credentials().await
    }
}

async fn load() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .load()
        .await
}
