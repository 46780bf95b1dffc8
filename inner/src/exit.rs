//! Exit codes: one for each class of failure, after sysexits.h where it has one.

use std::process::ExitCode;

/// Why odyn-net ends with a code of its own instead of the program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The command line is wrong (EX_USAGE).
    Usage,
    /// A file to judge is not what it should be (EX_DATAERR).
    Data,
    /// A file to judge cannot be read (EX_NOINPUT).
    NoInput,
    /// Another process listens where clients of a simulated guest shall come in, or nobody may
    /// (EX_UNAVAILABLE).
    Unavailable,
    /// Namespaces or capture could not be set up (EX_OSERR).
    Capture,
    /// A file that the policy names is missing or is not what it should be (EX_OSFILE).
    Files,
    /// A file of ours, such as the audit file, could not be opened (EX_CANTCREAT).
    Output,
    /// The policy or another setting is wrong (EX_CONFIG).
    Config,
    /// The program exists and cannot be executed.
    NotExecutable,
    /// The program was not found.
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
            Failure::Capture => 71,
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

/// A failure with the words for the person who started us.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// Its class.
    pub failure: Failure,
    /// One or more lines.
    pub message: String,
    /// Whether the person has been told already.
    pub told: bool,
}

impl StartError {
    /// A failure of a class with its words.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self {
            failure,
            message: message.into(),
            told: false,
        }
    }
}
