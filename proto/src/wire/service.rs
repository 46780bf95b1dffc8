//! Requests for what the host does itself, beside dialling what the guest's policy lets through:
//! a way to KMS, by name, and the credentials of the host's machine.
//!
//! `CONNECT kms.eu-west-1.amazonaws.com:443` with [`SERVICE`] is a TCP flow to an
//! [endpoint of KMS](crate::KmsEndpoint): the host looks the name up and decides whether it is KMS.
//! `POST /credentials` is answered with JSON.

/// Header of a CONNECT that is for a service of the host.
pub const SERVICE: &str = "odyn-service";
/// The value for KMS.
pub const KMS: &str = "kms";
/// Path of the request for credentials.
pub const CREDENTIALS_PATH: &str = "/credentials";
/// Media type of the answer.
pub const CREDENTIALS_TYPE: &str = "application/json";
/// Longest answer, in bytes. Session tokens have one or two thousand.
pub const MAX_CREDENTIALS: usize = 32 * 1024;
