//! The proxy's own answers, in the form of KMS's errors, so that SDKs raise their usual exceptions.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// An error of the proxy, in place of an answer of KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProxyFailure {
    pub(super) status: StatusCode,
    /// The type of the exception.
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl ProxyFailure {
    /// The app's request is not valid.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ValidationException", message)
    }

    /// KMS cannot be reached. SDKs retry such requests.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailableException",
            message,
        )
    }

    /// The answer is not as KMS makes them. A retry would not help.
    pub(super) fn bad_answer(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "EnclaveProxyException", message)
    }

    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({
            "__type": self.code,
            "message": format!("odyn: {}", self.message),
        });
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/x-amz-json-1.1");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert("x-amzn-errortype", HeaderValue::from_static(self.code));
        response
    }
}
