//! Exit codes: one per class of failure, from sysexits.h where that has one.

use std::process::ExitCode;

/// The classes of failure that have an exit code of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The command line is wrong (EX_USAGE).
    Usage,
    /// A file to check is no kernel configuration (EX_DATAERR).
    Data,
    /// A file to check cannot be read (EX_NOINPUT).
    NoInput,
    /// An address for clients of a simulated guest is taken or not allowed (EX_UNAVAILABLE).
    Unavailable,
    /// The kernel lacks or refused something: capture, namespaces, rights (EX_OSERR).
    Os,
    /// A file that the policy names is missing or wrong (EX_OSFILE).
    Files,
    /// The log or the audit file could not be opened (EX_CANTCREAT).
    Output,
    /// The policy or another setting is wrong (EX_CONFIG).
    Config,
    /// The app exists and cannot be executed.
    NotExecutable,
    /// The app was not found.
    NotFound,
}

impl Failure {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Failure::Usage => 64,
            Failure::Data => 65,
            Failure::NoInput => 66,
            Failure::Unavailable => 69,
            Failure::Os => 71,
            Failure::Files => 72,
            Failure::Output => 73,
            Failure::Config => 78,
            Failure::NotExecutable => 126,
            Failure::NotFound => 127,
        }
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        ExitCode::from(failure.code())
    }
}
