//! The state of a guest, as its status feed reports it: one JSON object in each record.

use serde::{Deserialize, Serialize};

/// Longest reason that is kept, in bytes.
const MAX_REASON: usize = 4096;

/// The state of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum GuestState {
    /// The link is up; the app has not been started.
    Starting,
    /// The app runs.
    Running,
    /// The app has exited; its flows and its output are being delivered.
    Draining,
    /// Final: the app exited.
    Exited {
        /// The exit code of the app.
        code: u8,
    },
    /// Final: a signal killed the app.
    Signaled {
        /// The signal's name without SIG.
        signal: String,
    },
    /// Final: odyn-net itself failed.
    Fatal {
        /// The reason.
        reason: String,
    },
}

impl GuestState {
    /// The record for the status feed.
    pub fn to_record(&self) -> Vec<u8> {
        let mut record = serde_json::to_vec(self).unwrap_or_default();
        record.push(b'\n');
        record
    }

    /// Reads a record; `None` if this version does not know it.
    pub fn from_record(record: &[u8]) -> Option<Self> {
        let mut state = serde_json::from_slice(record).ok()?;
        if let Self::Fatal { reason: text } | Self::Signaled { signal: text } = &mut state {
            let mut end = text.len().min(MAX_REASON);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        Some(state)
    }
}

/// Shows the state as in `exited(3)`.
impl std::fmt::Display for GuestState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Running => f.write_str("running"),
            Self::Draining => f.write_str("draining"),
            Self::Exited { code } => write!(f, "exited({code})"),
            // Control characters of a guest must not reach the terminal.
            Self::Signaled { signal } => write!(f, "signaled({})", signal.escape_debug()),
            Self::Fatal { reason } => write!(f, "fatal({})", reason.escape_debug()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_and_anything_else_is_nothing() {
        for state in [
            GuestState::Starting,
            GuestState::Exited { code: 3 },
            GuestState::Signaled {
                signal: "KILL".into(),
            },
            GuestState::Fatal {
                reason: "no".into(),
            },
        ] {
            assert_eq!(GuestState::from_record(&state.to_record()), Some(state));
        }
        assert_eq!(
            GuestState::Exited { code: 3 }.to_record(),
            b"{\"state\":\"exited\",\"code\":3}\n"
        );
        for other in [&b""[..], b"{}", b"{\"state\":\"happy\"}", b"\xff"] {
            assert_eq!(GuestState::from_record(other), None);
        }
    }

    #[test]
    fn a_long_reason_is_cut_and_a_wild_one_is_tame() {
        let reason = "ä\u{1b}[2J\n".repeat(4000);
        let record = GuestState::Fatal { reason }.to_record();
        let state = GuestState::from_record(&record).unwrap();
        let text = state.to_string();
        assert!(!text.contains(['\n', '\u{1b}']));
        assert!(matches!(state, GuestState::Fatal { reason } if reason.len() <= MAX_REASON));
    }
}
