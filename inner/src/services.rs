//! What the guest itself serves to its program, on loopback: KMS and the API.

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

/// How long a request that is being answered at the end of the program is waited for: whoever asked is
/// gone, or a process that it left behind.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// Why a service for the app cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The port of the attestation API is taken.
    #[error("api: port {port}: {source}")]
    Api {
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// The KMS proxy.
    #[error(transparent)]
    Kms(#[from] kms::KmsStartError),
}

/// The running services; dropped, they end.
pub struct Services {
    stop: CancellationToken,
    tasks: TaskTracker,
    environment: kms::Changes,
}

/// Starts what the policy wants. Must be called in a tokio runtime.
///
/// # Errors
/// A port is taken, or the policy's section cannot be followed.
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
    /// What changes in the program's environment.
    pub fn environment(&self) -> &kms::Changes {
        &self.environment
    }

    /// The program is gone: connections to KMS end, so that no drain waits for them.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(LAST_ANSWER, self.tasks.wait()).await.is_err() {
            // Its connection to KMS counts as a flow: the drain has a deadline for it.
            tracing::warn!("somebody still waits for an answer of KMS");
        }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
