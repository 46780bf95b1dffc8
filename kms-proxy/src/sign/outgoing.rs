//! The signature for KMS.

use std::time::SystemTime;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use http::{HeaderMap, HeaderValue, Method};

use super::{Scope, identity, params};
use crate::credentials::Credentials;

/// Signs a request. The headers have `host` and nothing of the app's signature.
///
/// `uri` is absolute. Adds `x-amz-date`, `authorization` and, if there is one, the session token.
///
/// # Errors
/// The library refuses the request, for example for a header that is not text.
pub fn sign(
    method: &Method,
    uri: &str,
    headers: &mut HeaderMap,
    body: &[u8],
    scope: &Scope,
    credentials: &Credentials,
    time: SystemTime,
) -> Result<(), String> {
    let identity = identity(credentials);
    let params = params(&identity, scope, time, SigningSettings::default());
    let params = params.ok_or("parameters are missing")?;
    let mut texts = Vec::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        let value = value
            .to_str()
            .map_err(|_| format!("the header {name} is no text"))?;
        texts.push((name.as_str(), value));
    }
    let request = SignableRequest::new(
        method.as_str(),
        uri,
        texts.into_iter(),
        SignableBody::Bytes(body),
    );
    let request = request.map_err(|error| error.to_string())?;
    let output =
        aws_sigv4::http_request::sign(request, &params).map_err(|error| error.to_string())?;
    let (instructions, _) = output.into_parts();
    let (added, _) = instructions.into_parts();
    for header in added {
        let mut value = HeaderValue::from_str(header.value())
            .map_err(|_| format!("{} cannot be a header", header.name()))?;
        value.set_sensitive(true);
        headers.insert(header.name(), value);
    }
    Ok(())
}
