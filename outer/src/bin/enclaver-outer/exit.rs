//! Why the program could not do its work, and the exit code that says so (sysexits.h).

use std::io;
use std::process::ExitCode;

use odyn_link::ListenError;
use odyn_settings::Error as SettingsError;

use crate::admin::StatusError;

/// A failure, with an exit code of its own class.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error("{0}")]
    Settings(SettingsError),
    #[error("{0}")]
    Listen(ListenError),
    #[error("{0}")]
    Output(io::Error),
    #[error("{0}")]
    Status(StatusError),
    #[error("can't start: {0}")]
    Runtime(io::Error),
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

    /// Another process is in the way (EX_UNAVAILABLE).
    const UNAVAILABLE: Sysexit = Sysexit(69);

    /// The system refused (EX_OSERR).
    const SYSTEM: Sysexit = Sysexit(71);

    /// The settings file is wrong (EX_CONFIG).
    const CONFIG: Sysexit = Sysexit(78);
    /// A file of ours can't be written (EX_CANTCREAT).
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
