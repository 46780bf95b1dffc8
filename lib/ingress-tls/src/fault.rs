//! What can be wrong with a file.

use std::io;

use odyn_policy::{Diagnostic, FilePath};

/// A file that the policy names is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", file.path)]
#[non_exhaustive]
pub struct Fault {
    /// Which, and where the policy names it.
    pub file: FilePath,
    /// What is wrong with it.
    #[source]
    pub reason: FaultReason,
}

/// What is wrong with a file. No message has a byte of the file in it: it may be a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaultReason {
    /// It can't be read.
    #[error("can't be read: {0}")]
    Unreadable(io::Error),
    /// It is larger than any such file.
    #[error("is larger than {max} bytes", max = crate::MAX_FILE)]
    TooLarge,
    /// It has a PEM header and is broken behind it.
    #[error("is not PEM")]
    NotPem,
    /// No certificate in it.
    #[error("has no certificate")]
    NoCertificate,
    /// No private key in it.
    #[error("has no private key that can be used")]
    NoKey,
    /// The key is protected with a password.
    #[error("has a private key with a password")]
    EncryptedKey,
    /// A certificate that is none.
    #[error("has a certificate that can't be parsed")]
    BadCertificate,
    /// The key is of an algorithm or a size that is not spoken.
    #[error("has a private key of a kind that TLS does not use")]
    UnknownKey,
    /// Key and certificate are not of one pair.
    #[error("is not the key of the certificate in {certificate}")]
    WrongKey {
        /// The certificate's file.
        certificate: String,
    },
    /// An authority that can't be one.
    #[error("has an authority that can't be used")]
    BadAuthority,
}

impl FaultReason {
    /// How to put it right.
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
    /// For the person who wrote the policy.
    #[must_use]
    pub fn diagnostic(&self, file_name: &str) -> Diagnostic {
        let help = self.reason.help().to_owned();
        Diagnostic::tls_file(file_name, &self.file, self.to_string(), help)
    }
}
