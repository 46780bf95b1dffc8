//! Every reason why a command failed, with its exit code.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use enclaver_outer::Mapping;
use odyn_net::exit::Failure;
use odyn_net::policy_file::PolicyFileError;
use odyn_net::start_error::StartError;
use odyn_net::supervisor::launch::LaunchError;

use crate::doctor::KernelConfigError;
use crate::simulate::NamespaceError;

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The guest says why.
    #[error(transparent)]
    Guest(#[from] StartError),
    /// The policy file cannot be read or is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
    /// The process did not become the app.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// `--ingress` names a port that the policy does not have.
    #[error(
        "--ingress {0}: the policy has no `ingress` with `listen_port: {port}`",
        port = .0.port
    )]
    NotInPolicy(Box<Mapping>),
    /// An address for clients is taken or not allowed.
    #[error(
        "cannot listen at {address} for clients of port {port}: {source}\n\
         give another address: --ingress {port}=127.0.0.1:PORT"
    )]
    Listen {
        /// The address of `--ingress`.
        address: SocketAddr,
        /// The policy's port.
        port: u16,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The simulated guest has no namespaces of its own.
    #[error(transparent)]
    Namespaces(#[from] NamespaceError),
    /// The kernel refused something that every simulation needs.
    #[error("cannot {what}: {source}")]
    Os {
        /// The step of enclaver that failed.
        what: &'static str,
        /// The kernel's answer.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file of `--kernel-config` cannot be checked.
    #[error("--kernel-config {0}")]
    KernelConfig(#[from] KernelConfigError),
    /// The report cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl CliError {
    /// Adds what enclaver was about to do to the kernel's error.
    pub fn os<E: Into<Box<dyn Error + Send + Sync>>>(
        what: &'static str,
    ) -> impl FnOnce(E) -> CliError {
        move |error| Self::Os {
            what,
            source: error.into(),
        }
    }

    /// The class of the failure, which has the exit code.
    pub fn failure(self) -> Failure {
        match self {
            Self::Guest(error) => error.failure(),
            Self::Policy(error) => StartError::from(error).failure(),
            Self::Launch(error) => StartError::from(error).failure(),
            Self::NotInPolicy(_) => Failure::Config,
            Self::Listen { .. } => Failure::Unavailable,
            Self::Namespaces(_) | Self::Os { .. } => Failure::Os,
            Self::KernelConfig(KernelConfigError::Read(..)) => Failure::NoInput,
            Self::KernelConfig(KernelConfigError::Content(..)) => Failure::Data,
            Self::Json(_) => Failure::Output,
        }
    }
}
