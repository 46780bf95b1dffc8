//! Every reason why the app was not started, with its exit code.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::capture::CaptureError;
use crate::exit::Failure;
use crate::ingress::IngressFilesError;
use crate::init::InitError;
use crate::policy_file::PolicyFileError;
use crate::services::ServiceError;
use crate::supervisor::launch::LaunchError;
use crate::supervisor::user::UserError;
use crate::telemetry::logging::LogError;

/// The reason why odyn-net did not start the app.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings file is wrong.
    #[error(transparent)]
    Settings(#[from] odyn_settings::SettingsError),
    /// The policy file cannot be read or is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
    /// `--user` names no user.
    #[error(transparent)]
    User(#[from] UserError),
    /// The log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The audit file cannot be opened.
    #[error("--audit {}: {source}", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A first process could not prepare the machine.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The network cannot be captured.
    #[error(
        "cannot capture the network, so the app is not started: {0}\n\
         `enclaver doctor` lists what this kernel lacks"
    )]
    Capture(#[from] CaptureError),
    /// A file of the policy's `ingress` is missing or wrong.
    #[error(transparent)]
    IngressFiles(#[from] IngressFilesError),
    /// A service for the app cannot be started.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The process did not become the app.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The kernel refused something that every run needs.
    #[error("cannot {what}: {source}")]
    Os {
        /// The step of odyn-net that failed.
        what: &'static str,
        /// The kernel's answer.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StartError {
    /// Adds what odyn-net was about to do to the kernel's error.
    pub fn os<E: Into<Box<dyn Error + Send + Sync>>>(
        what: &'static str,
    ) -> impl FnOnce(E) -> StartError {
        move |error| Self::Os {
            what,
            source: error.into(),
        }
    }

    /// The class of the failure, which has the exit code.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Settings(_) | Self::Policy(_) | Self::User(_) | Self::Service(_) => {
                Failure::Config
            }
            Self::Log(LogError::Level { .. }) => Failure::Usage,
            Self::Log(LogError::Open { .. }) | Self::Audit { .. } => Failure::Output,
            Self::IngressFiles(_) => Failure::Files,
            Self::Init(_) | Self::Capture(_) | Self::Os { .. } => Failure::Os,
            Self::Launch(error) => match error {
                LaunchError::Rights(_) => Failure::Os,
                LaunchError::NoCommand => Failure::Usage,
                LaunchError::NotFound { .. } => Failure::NotFound,
                LaunchError::NotExecutable { .. } => Failure::NotExecutable,
            },
        }
    }
}
