//! Faults of TLS files.

use std::io;

use odyn_policy::{Diagnostic, FilePath};

/// A fault of a file that the policy names.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", file.path)]
#[non_exhaustive]
pub struct Fault {
    /// The file, and the place in the policy that names it.
    pub file: FilePath,
    /// The fault.
    #[source]
    pub reason: FaultReason,
}

/// A kind of fault. No message repeats a byte of the file, which may be a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaultReason {
    /// The file cannot be read.
    #[error("can't be read: {0}")]
    Unreadable(io::Error),
    /// The file is larger than any such file.
    #[error("is larger than {max} bytes", max = crate::MAX_FILE)]
    TooLarge,
    /// The file has a PEM header with invalid content.
    #[error("is not PEM")]
    NotPem,
    /// The file has no certificate.
    #[error("has no certificate")]
    NoCertificate,
    /// The file has no private key.
    #[error("has no private key that can be used")]
    NoKey,
    /// The key is protected with a password.
    #[error("has a private key with a password")]
    EncryptedKey,
    /// A certificate cannot be parsed.
    #[error("has a certificate that can't be parsed")]
    BadCertificate,
    /// The key has an algorithm or a size that TLS does not use.
    #[error("has a private key of a kind that TLS does not use")]
    UnknownKey,
    /// Key and certificate do not belong together.
    #[error("is not the key of the certificate in {certificate}")]
    WrongKey {
        /// The certificate's file.
        certificate: String,
    },
    /// A certificate cannot be an authority.
    #[error("has an authority that can't be used")]
    BadAuthority,
}

impl FaultReason {
    /// The remedy.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => {
                "put the file into the image, or correct the path"
            }
            Self::Unreadable(_) => "make it a plain file that odyn-net may read",
            Self::TooLarge | Self::NotPem | Self::NoCertificate | Self::BadCertificate => {
                "the file must be PEM: the certificate first, then the ones that it was signed with, each between BEGIN CERTIFICATE and END CERTIFICATE"
            }
            Self::NoKey | Self::UnknownKey => {
                "the file must be PEM with one private key: PKCS#8, PKCS#1 or SEC1; ECDSA P-256, P-384, Ed25519 or RSA from 2048 bits"
            }
            Self::EncryptedKey => "take the password off: openssl pkey -in FILE -out FILE.plain",
            Self::WrongKey { .. } => "name the key that the certificate was made with",
            Self::BadAuthority => "the file must be PEM with certificates of authorities",
        }
    }
}

impl Fault {
    /// The fault as a finding about the policy.
    #[must_use]
    pub fn diagnostic(&self, file_name: &str) -> Diagnostic {
        let help = self.reason.help().to_owned();
        Diagnostic::tls_file(file_name, &self.file, self.to_string(), help)
    }
}
