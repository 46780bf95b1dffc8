//! The types of a diagnosis: verdicts, needs and findings.

use serde::{Deserialize, Serialize};

/// The verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The check passed, and ran where it changes nothing.
    Present,
    /// This process has no right to check it.
    Unknown,
    /// The check failed.
    Missing,
}

impl Verdict {
    /// The name in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Present => "present",
            Verdict::Unknown => "unknown",
            Verdict::Missing => "missing",
        }
    }
}

/// A part of odyn-net that needs a check to pass.
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
    /// Running an app at all, whatever the capture.
    #[serde(rename = "program")]
    App,
    /// `enclaver simulate`.
    #[serde(rename = "simulate")]
    Simulate,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// Details of the result; may be empty.
    pub detail: String,
}

impl Finding {
    /// The check passed.
    pub fn present(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Present, detail)
    }

    /// The check failed.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Missing, detail)
    }

    /// The check could not run.
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
