//! The end of the app: an exit code or a signal.

use std::process::ExitCode;

use nix::libc;
use nix::sys::signal::Signal;

/// The way in which the app ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppExit {
    /// The app exited with this code.
    Exited(u8),
    /// The signal with this number killed the app. A number, as real-time signals have no names.
    Signaled(i32),
}

impl AppExit {
    /// The exit code of odyn-net: the app's, or 128 plus the number of the signal.
    pub fn code(self) -> u8 {
        match self {
            AppExit::Exited(code) => code,
            AppExit::Signaled(signal) => 128u8.saturating_add(signal as u8),
        }
    }

    /// The name of the signal that killed the app, such as SIGTERM or SIGRTMIN+2.
    pub fn signal_name(self) -> Option<String> {
        match self {
            AppExit::Exited(_) => None,
            AppExit::Signaled(number) => Some(match Signal::try_from(number) {
                Ok(signal) => signal.as_str().to_owned(),
                Err(_) => format!("SIGRTMIN+{}", number - libc::SIGRTMIN()),
            }),
        }
    }
}

impl From<AppExit> for ExitCode {
    fn from(ending: AppExit) -> Self {
        ExitCode::from(ending.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_shell() {
        assert_eq!(AppExit::Exited(7).code(), 7);
        assert_eq!(AppExit::Signaled(libc::SIGTERM).code(), 143);
        assert_eq!(AppExit::Signaled(libc::SIGKILL).code(), 137);
        assert_eq!(AppExit::Signaled(libc::SIGRTMAX()).code(), 192);
    }

    #[test]
    fn signals_have_names() {
        let name = |signal| AppExit::Signaled(signal).signal_name().unwrap();
        assert_eq!(name(libc::SIGSEGV), "SIGSEGV");
        assert_eq!(name(libc::SIGRTMIN() + 3), "SIGRTMIN+3");
        assert_eq!(AppExit::Exited(0).signal_name(), None);
    }
}
