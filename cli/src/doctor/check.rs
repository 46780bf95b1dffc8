//! The words of a diagnosis: verdicts, what needs a thing, and one finding about it.

use serde::{Deserialize, Serialize};

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is there, and was tried where that changes nothing.
    Present,
    /// We may not look.
    Unknown,
    /// It is not there.
    Missing,
}

impl Verdict {
    /// The word in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Present => "present",
            Verdict::Unknown => "unknown",
            Verdict::Missing => "missing",
        }
    }
}

/// What needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Need {
    /// Capture by nftables.
    #[serde(rename = "capture nftables")]
    Nftables,
    /// Capture by a TUN device.
    #[serde(rename = "capture tun")]
    Tun,
    /// A link of the form vsock://CID:PORT.
    #[serde(rename = "link vsock")]
    Vsock,
    /// Attestation, and KMS with it.
    #[serde(rename = "kms")]
    Kms,
    /// Running a program at all, whatever the capture.
    #[serde(rename = "program")]
    App,
    /// `enclaver simulate`.
    #[serde(rename = "simulate")]
    Simulate,
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it is there.
    pub verdict: Verdict,
    /// What was seen; may be empty.
    pub detail: String,
}

impl Finding {
    /// It is there.
    pub fn present(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Present, detail)
    }

    /// It is not there.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Missing, detail)
    }

    /// We could not look.
    pub fn unknown(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Unknown, detail)
    }

    fn new(verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            verdict,
            detail: detail.into(),
        }
    }
}
