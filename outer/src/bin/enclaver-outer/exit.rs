//! Failures of `enclaver-outer`, and their exit codes (sysexits.h).

use std::io;
use std::process::ExitCode;

use odyn_link::ListenError;
use odyn_settings::SettingsError;

use crate::admin::StatusError;

/// Why `enclaver-outer` ended without doing its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error("{0}")]
    Settings(SettingsError),
    #[error("{0}")]
    Listen(ListenError),
    #[error("can't open the guests' logs: {0}")]
    Output(#[source] io::Error),
    #[error("{0}")]
    Status(StatusError),
    #[error("can't start: {0}")]
    Runtime(#[source] io::Error),
}

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sysexit(u8);

impl From<Sysexit> for ExitCode {
    fn from(code: Sysexit) -> Self {
        Self::from(code.0)
    }
}

impl DaemonError {
    /// The command line is wrong (EX_USAGE).
    const USAGE: Sysexit = Sysexit(64);

    /// Another process listens there, or no daemon answers (EX_UNAVAILABLE).
    const UNAVAILABLE: Sysexit = Sysexit(69);

    /// The system refused (EX_OSERR).
    const SYSTEM: Sysexit = Sysexit(71);

    /// The settings file is wrong (EX_CONFIG).
    const CONFIG: Sysexit = Sysexit(78);
    /// An output can't be written (EX_CANTCREAT).
    const OUTPUT: Sysexit = Sysexit(73);

    pub(crate) fn code(&self) -> Sysexit {
        match self {
            Self::Settings(SettingsError::Usage(_)) => Self::USAGE,
            Self::Settings(_) => Self::CONFIG,
            Self::Listen(ListenError::InUse(_)) => Self::UNAVAILABLE,
            Self::Listen(ListenError::NoDirectory(_) | ListenError::NotASocket(_)) => Self::SYSTEM,
            Self::Listen(ListenError::Io { source, .. }) => match source.kind() {
                io::ErrorKind::AddrInUse => Self::UNAVAILABLE,
                _ => Self::SYSTEM,
            },
            Self::Output(_) | Self::Status(StatusError::Print(_)) => Self::OUTPUT,
            Self::Status(_) => Self::UNAVAILABLE,
            // `ListenError` may grow.
            Self::Listen(_) | Self::Runtime(_) => Self::SYSTEM,
        }
    }
}
