//! The services that the guest offers to its app on loopback: KMS and the API.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use odyn_kms::attest::Module;
use odyn_policy::PolicySettings;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attestation::Nsm;
use crate::egress::PermittedLink;
use crate::{api, attestation, kms};

/// How long a request in progress may take after the end of the app. Its client is gone, or is a
/// process that the app left behind.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The reason why a service for the app cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The port of the attestation API is taken.
    #[error("api: port {port}: {source}")]
    Api {
        /// The port.
        port: u16,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The KMS proxy cannot be started.
    #[error(transparent)]
    Kms(#[from] kms::KmsStartError),
}

/// The running services. Dropping this ends them.
pub struct Services {
    stop: CancellationToken,
    tasks: TaskTracker,
    environment: kms::Changes,
}

/// Starts the services of the policy. Must be called in a tokio runtime.
///
/// # Errors
/// A port is taken, or a setting of the policy cannot be used.
pub async fn start(
    settings: &PolicySettings,
    link: &PermittedLink,
    nsm: Nsm,
) -> Result<Services, ServiceError> {
    let mut services = Services {
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
        environment: Vec::new(),
    };
    if settings.kms_proxy.is_none() && settings.api.is_none() {
        return Ok(services);
    }
    let module: Arc<dyn Module> = attestation::module(nsm);
    let (stop, tasks) = (&services.stop, &services.tasks);
    if let Some(api) = &settings.api {
        let listener = kms::listen(api.listen_port.get()).map_err(|source| ServiceError::Api {
            port: api.listen_port.get(),
            source,
        })?;
        tasks.spawn(api::serve(listener, Arc::clone(&module), stop.clone()));
    }
    if let Some(wanted) = &settings.kms_proxy {
        let prepared = kms::prepare(wanted, link.kms(wanted), module)?;
        prepared.start(stop, tasks);
        services.environment = prepared.environment().await;
        prepared.serve(stop, tasks);
    }
    Ok(services)
}

impl Services {
    /// The changes to the app's environment.
    pub fn environment(&self) -> &kms::Changes {
        &self.environment
    }

    /// Ends the services after the app, and with them their connections to KMS. A drain would
    /// otherwise wait for those.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(LAST_ANSWER_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            // The connection to KMS counts as a flow, and the drain's deadline ends it.
            tracing::warn!("a client still waits for an answer of KMS");
        }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
