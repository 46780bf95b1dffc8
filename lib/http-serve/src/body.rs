//! The body of a request, read within limits.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::Limits;

/// All of a request's body, or why it did not come.
pub type RequestBody = Result<Bytes, BodyError>;

/// Why a body was not read. The connection is closed after the answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It is longer than the limit, in bytes.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// It took longer than the limit.
    #[error("the body has not come in {0:?}")]
    Timeout(Duration),
    /// The connection failed, or the body is no HTTP.
    #[error("the body is broken: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads a body to its end.
pub(crate) async fn read(body: Incoming, limits: Limits) -> RequestBody {
    let whole = Limited::new(body, limits.max_body).collect();
    match timeout(limits.body_timeout, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(BodyError::TooLong(limits.max_body))
        }
        Ok(Err(error)) => Err(BodyError::Broken(error)),
        Err(_) => Err(BodyError::Timeout(limits.body_timeout)),
    }
}
