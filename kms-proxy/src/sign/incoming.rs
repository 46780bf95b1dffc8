//! The signature of a request of the app, in its headers or in its query.

use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings};
use http::{HeaderMap, Method, Uri, header};

use super::text::{decode, time};
use super::{Scope, identity, params};
use crate::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Largest difference between a signature's time and the clock, as at AWS.
const TOLERANCE: Duration = Duration::from_secs(15 * 60);
/// Longest validity of a signature in a query: seven days.
const MAX_EXPIRES: u64 = 7 * 24 * 3600;
/// Most signed headers.
const MAX_SIGNED: usize = 64;

/// The header that names the action.
const TARGET: &str = "x-amz-target";

/// Why a signature is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureRefused {
    /// The request has no signature.
    #[error("the request is not signed")]
    Missing,
    /// The signature cannot be read.
    #[error("the signature is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is by another key than the app's.
    #[error("the access key is not the one that odyn-net gave to the app")]
    OtherKey,
    /// The signature does not match the request.
    #[error("the signature does not match")]
    Mismatch,
    /// The signature is not valid at this time.
    #[error("the signature is expired or not yet valid")]
    Expired,
}

/// The signature of a request.
#[derive(Debug, Clone)]
pub struct SignedRequest {
    /// The region and service of the signature.
    pub scope: Scope,
    access_key_id: String,
    time: SystemTime,
    signed_headers: Vec<String>,
    signature: String,
    /// The validity of a signature in the query, in seconds.
    expires: Option<u64>,
    /// The path, and the query without the signature.
    target: String,
    /// `target` with the session token of a signature in the query, which is signed as well.
    signed_target: String,
}

impl SignedRequest {
    /// Reads the signature of a request.
    ///
    /// # Errors
    /// [`SignatureRefused::Missing`] or [`SignatureRefused::Malformed`].
    pub fn read(uri: &Uri, headers: &HeaderMap) -> Result<Self, SignatureRefused> {
        match headers.get(header::AUTHORIZATION) {
            Some(_) if is_presigned(uri) => Err(SignatureRefused::Malformed("two of them")),
            Some(value) => {
                let value = value
                    .to_str()
                    .map_err(|_| SignatureRefused::Malformed("not a text"))?;
                Self::of_header(uri, headers, value)
            }
            None => Self::of_query(uri),
        }
    }

    /// `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`
    fn of_header(uri: &Uri, headers: &HeaderMap, value: &str) -> Result<Self, SignatureRefused> {
        let parts = value
            .strip_prefix(ALGORITHM)
            .ok_or(SignatureRefused::Malformed("another algorithm"))?;
        let mut found = [None; 3];
        for part in parts.split(',') {
            let (name, value) = part
                .trim()
                .split_once('=')
                .ok_or(SignatureRefused::Malformed(
                    "not a list of names and values",
                ))?;
            let place = ["Credential", "SignedHeaders", "Signature"]
                .iter()
                .position(|known| *known == name)
                .ok_or(SignatureRefused::Malformed("an unknown part"))?;
            found[place] = Some(value);
        }
        let [Some(credential), Some(signed), Some(signature)] = found else {
            return Err(SignatureRefused::Malformed("a part is missing"));
        };
        let date = headers
            .get("x-amz-date")
            .and_then(|value| value.to_str().ok())
            .ok_or(SignatureRefused::Malformed("no X-Amz-Date"))?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Self::new(credential, signed, signature, date, None, target, target)
    }

    /// `X-Amz-Algorithm` and its companions: a presigned URL. The service's own parameters stay.
    fn of_query(uri: &Uri) -> Result<Self, SignatureRefused> {
        let query = uri.query().unwrap_or_default();
        let mut found: [Option<String>; 6] = Default::default();
        let mut rest = Vec::new();
        let mut signed_rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let known = [
                "X-Amz-Algorithm",
                "X-Amz-Credential",
                "X-Amz-SignedHeaders",
                "X-Amz-Signature",
                "X-Amz-Date",
                "X-Amz-Expires",
            ];
            match known.iter().position(|known| *known == name) {
                Some(place) => found[place] = Some(decode(value)?),
                // The app's session token is not forwarded: KMS gets the instance's.
                None if name == "X-Amz-Security-Token" => signed_rest.push(pair),
                None => {
                    rest.push(pair);
                    signed_rest.push(pair);
                }
            }
        }
        if found.iter().all(Option::is_none) {
            return Err(SignatureRefused::Missing);
        }
        let [
            Some(algorithm),
            Some(credential),
            Some(signed),
            Some(signature),
            Some(date),
            expires,
        ] = found
        else {
            return Err(SignatureRefused::Malformed("a part is missing"));
        };
        if algorithm != ALGORITHM {
            return Err(SignatureRefused::Malformed("another algorithm"));
        }
        let expires = expires
            .and_then(|text| text.parse().ok())
            .filter(|seconds| *seconds <= MAX_EXPIRES)
            .ok_or(SignatureRefused::Malformed("X-Amz-Expires"))?;
        let target = |pairs: &[&str]| match pairs.is_empty() {
            true => uri.path().to_owned(),
            false => format!("{}?{}", uri.path(), pairs.join("&")),
        };
        Self::new(
            &credential,
            &signed,
            &signature,
            &date,
            Some(expires),
            &target(&rest),
            &target(&signed_rest),
        )
    }

    fn new(
        credential: &str,
        signed: &str,
        signature: &str,
        date: &str,
        expires: Option<u64>,
        target: &str,
        signed_target: &str,
    ) -> Result<Self, SignatureRefused> {
        let mut parts = credential.rsplitn(5, '/');
        let mut part = || {
            parts
                .next()
                .ok_or(SignatureRefused::Malformed("Credential"))
        };
        let (end, service, region, day, key) = (part()?, part()?, part()?, part()?, part()?);
        let is_name = |text: &str| {
            (1..=32).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if end != "aws4_request" || !is_name(region) || !is_name(service) {
            return Err(SignatureRefused::Malformed("Credential"));
        }
        if !date.starts_with(day) {
            return Err(SignatureRefused::Malformed("two dates"));
        }
        let signed_headers: Vec<String> = signed.split(';').map(str::to_owned).collect();
        let is_lower = |name: &String| !name.bytes().any(|b| b.is_ascii_uppercase());
        if signed_headers.len() > MAX_SIGNED || !signed_headers.iter().all(is_lower) {
            return Err(SignatureRefused::Malformed("SignedHeaders"));
        }
        // Without these headers, a signature would be valid for another host and another time.
        let wanted = ["host", "x-amz-date"];
        let wanted = &wanted[..if expires.is_some() { 1 } else { 2 }];
        if !wanted
            .iter()
            .all(|name| signed_headers.iter().any(|s| s == name))
        {
            return Err(SignatureRefused::Malformed("SignedHeaders"));
        }
        Ok(Self {
            scope: Scope {
                region: region.to_owned(),
                service: service.to_owned(),
            },
            access_key_id: key.to_owned(),
            time: time(date).ok_or(SignatureRefused::Malformed("X-Amz-Date"))?,
            signed_headers,
            signature: signature.to_owned(),
            expires,
            target: target.to_owned(),
            signed_target: signed_target.to_owned(),
        })
    }

    /// The path and query without the signature.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Checks the signature of a request with this body.
    ///
    /// # Errors
    /// The reason why the signature is not accepted.
    pub fn verify(
        &self,
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
        app: &Credentials,
        now: SystemTime,
    ) -> Result<(), SignatureRefused> {
        if self.access_key_id != app.access_key_id {
            return Err(SignatureRefused::OtherKey);
        }
        // The action is in a header. If it were not signed, anyone could choose another.
        let is_signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        if headers.contains_key(TARGET) && !is_signed(TARGET) {
            return Err(SignatureRefused::Malformed("X-Amz-Target is not signed"));
        }
        let until = self.expires.map_or(TOLERANCE, Duration::from_secs);
        if now > self.time + until || self.time > now + TOLERANCE {
            return Err(SignatureRefused::Expired);
        }
        let expected = self.expected(method, headers, body, app)?;
        verify_slices_are_equal(expected.as_bytes(), self.signature.as_bytes())
            .map_err(|_| SignatureRefused::Mismatch)
    }

    /// The expected signature.
    fn expected(
        &self,
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
        app: &Credentials,
    ) -> Result<String, SignatureRefused> {
        let mut signed = Vec::with_capacity(self.signed_headers.len());
        for name in &self.signed_headers {
            let mut any = false;
            for value in headers.get_all(name) {
                any = true;
                let value = value.to_str();
                signed.push((
                    name.as_str(),
                    value.map_err(|_| SignatureRefused::Mismatch)?,
                ));
            }
            if !any {
                return Err(SignatureRefused::Mismatch);
            }
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let host = host.ok_or(SignatureRefused::Mismatch)?;
        let uri = format!("http://{host}{}", self.signed_target);
        let mut settings = SigningSettings::default();
        // All headers that the client signed, whatever the rules of the proxy.
        settings.excluded_headers = None;
        if let Some(expires) = self.expires {
            settings.signature_location = SignatureLocation::QueryParams;
            settings.expires_in = Some(Duration::from_secs(expires));
        }
        let identity = identity(app);
        let params = params(&identity, &self.scope, self.time, settings);
        let request = SignableRequest::new(
            method.as_str(),
            uri,
            signed.into_iter(),
            SignableBody::Bytes(body),
        )
        .map_err(|_| SignatureRefused::Mismatch)?;
        let output =
            aws_sigv4::http_request::sign(request, &params.ok_or(SignatureRefused::Mismatch)?);
        Ok(output
            .map_err(|_| SignatureRefused::Mismatch)?
            .signature()
            .to_owned())
    }
}

/// Whether the query has a signature, complete or not.
fn is_presigned(uri: &Uri) -> bool {
    let names = uri.query().unwrap_or_default().split('&');
    names
        .filter_map(|pair| pair.split('=').next())
        .any(|name| name == "X-Amz-Algorithm" || name == "X-Amz-Signature")
}
