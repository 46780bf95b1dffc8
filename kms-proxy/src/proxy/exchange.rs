//! One request, from its signature to its answer.

use std::time::SystemTime;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;

use super::answer::ProxyFailure;
use super::fields::JsonFields;
use super::retry::{ATTEMPTS, Advice, advice, pause};
use super::upstream::NoAnswer;
use super::{Proxy, actions};
use crate::Error;
use crate::envelope::KEY_ENCRYPTION_ALGORITHM;
use crate::sign::{Scope, SignatureRefused, SignedRequest, sign};

/// Headers that the proxy does not forward.
///
/// They belong to the connection, to the app's signature, or to the encoding of the body.
const OURS: [&str; 14] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-amz-date",
    "x-amz-security-token",
];

/// A request to KMS, without its signature.
struct Outgoing {
    url: String,
    headers: HeaderMap,
    body: Bytes,
    scope: Scope,
}

impl Proxy {
    /// Answers one request.
    pub(super) async fn exchange(
        &self,
        parts: &Parts,
        body: Bytes,
    ) -> Result<Response<Full<Bytes>>, ProxyFailure> {
        let incoming = SignedRequest::read(&parts.uri, &parts.headers).map_err(refused)?;
        let now = SystemTime::now();
        incoming
            .verify(&parts.method, &parts.headers, &body, &self.app, now)
            .map_err(refused)?;
        if incoming.scope.service != "kms" {
            let message = format!("this is KMS, not {}", incoming.scope.service);
            return Err(ProxyFailure::invalid(message));
        }
        let target = parts.headers.get("x-amz-target");
        let target = target.and_then(|target| target.to_str().ok());
        let action = target.and_then(actions::name).unwrap_or_default();
        let (body, member) = self.attested(action, body).await?;
        let outgoing = self.outgoing(parts, &incoming, body)?;
        let answer = self.send(parts, &outgoing).await?;
        tracing::debug!(
            action,
            status = answer.status().as_u16(),
            "KMS has answered"
        );
        match member {
            Some(member) if answer.status().is_success() => self.opened(answer, member).await,
            _ => Ok(forwarded(answer)),
        }
    }

    /// The body for KMS, and the member to fill.
    ///
    /// `Recipient` is added if the action takes one and the app sent none.
    async fn attested(
        &self,
        action: &str,
        body: Bytes,
    ) -> Result<(Bytes, Option<&'static str>), ProxyFailure> {
        let member = actions::secret_member(action);
        let demands = self.demands != super::Demands::default();
        if member.is_none() && !demands {
            return Ok((body, None));
        }
        // KMS treats a missing body as an empty object.
        let json = if body.is_empty() { &b"{}"[..] } else { &body };
        let Some(mut fields) = JsonFields::parse(json) else {
            return Err(ProxyFailure::new(
                StatusCode::BAD_REQUEST,
                "SerializationException",
                "the body is no JSON object, or has a name twice",
            ));
        };
        if let Some(missing) = self.demands.missing(action, &fields) {
            return Err(ProxyFailure::invalid(missing));
        }
        let Some(member) = member.filter(|_| !fields.has("Recipient")) else {
            return Ok((body, None));
        };
        let document = self.recipient.document().await;
        let document = document.map_err(|error| ProxyFailure::unavailable(error.to_string()))?;
        let recipient = serde_json::json!({
            "KeyEncryptionAlgorithm": KEY_ENCRYPTION_ALGORITHM,
            "AttestationDocument": &*document,
        });
        let recipient = serde_json::value::to_raw_value(&recipient);
        let recipient = recipient.map_err(|error| ProxyFailure::unavailable(error.to_string()))?;
        fields.set("Recipient", recipient);
        Ok((Bytes::from_owner(fields.write()), Some(member)))
    }

    fn outgoing(
        &self,
        parts: &Parts,
        incoming: &SignedRequest,
        body: Bytes,
    ) -> Result<Outgoing, ProxyFailure> {
        let region = &incoming.scope.region;
        let (endpoint, region) = (self.endpoints.of(region))
            .ok_or_else(|| ProxyFailure::invalid(format!("there is no endpoint for {region}")))?;
        let authority = endpoint.https_authority();
        let mut headers = HeaderMap::new();
        for (name, value) in &parts.headers {
            if !OURS.contains(&name.as_str()) && name != "x-amz-content-sha256" {
                headers.append(name.clone(), value.clone());
            }
        }
        // A DNS name and a port are valid in a header.
        if let Ok(host) = HeaderValue::from_str(&authority) {
            headers.insert(header::HOST, host);
        }
        Ok(Outgoing {
            url: format!("https://{authority}{}", incoming.target()),
            headers,
            body,
            scope: Scope {
                region: region.to_owned(),
                service: incoming.scope.service.clone(),
            },
        })
    }

    /// Sends a request, with retries, until there is an answer to forward.
    async fn send(
        &self,
        parts: &Parts,
        outgoing: &Outgoing,
    ) -> Result<Response<Bytes>, ProxyFailure> {
        let mut cost = None;
        let mut attempt = 1;
        // One more attempt for each correction, beside the usual ones.
        let (mut may_set_clock, mut may_renew) = (true, true);
        loop {
            let credentials = self.credentials.get().await;
            let credentials =
                credentials.map_err(|error| ProxyFailure::unavailable(error.to_string()))?;
            let mut headers = outgoing.headers.clone();
            sign(
                &parts.method,
                &outgoing.url,
                &mut headers,
                &outgoing.body,
                &outgoing.scope,
                &credentials,
                self.clock.now(),
            )
            .map_err(ProxyFailure::invalid)?;
            let mut request = Request::new(Full::new(outgoing.body.clone()));
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = outgoing
                .url
                .parse()
                .map_err(|_| ProxyFailure::invalid("the path is no URI"))?;
            *request.headers_mut() = headers;
            let answer = self.upstream.send(request).await;
            match &answer {
                Ok(answer) => match advice(answer.status(), answer.body()) {
                    Advice::Take => {
                        if answer.status().is_success() {
                            self.quota.give(cost);
                        }
                    }
                    Advice::Clock if may_set_clock && self.set_clock(answer) => {
                        may_set_clock = false;
                        continue;
                    }
                    Advice::Credentials if may_renew => {
                        may_renew = false;
                        tracing::info!("KMS refused the credentials; fetching others");
                        self.credentials.refuse(&credentials).await;
                        continue;
                    }
                    Advice::Clock | Advice::Credentials => {}
                    Advice::Again => {
                        if self.may_retry(&mut attempt, &mut cost, false).await {
                            continue;
                        }
                    }
                },
                Err(error) => {
                    tracing::debug!(%error, attempt, "no answer of KMS");
                    let timed_out = matches!(error, NoAnswer::TimedOut(_));
                    if self.may_retry(&mut attempt, &mut cost, timed_out).await {
                        continue;
                    }
                }
            }
            return answer.map_err(|error| match error {
                NoAnswer::TimedOut(_) => ProxyFailure::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "RequestTimeoutException",
                    error.to_string(),
                ),
                NoAnswer::Failed(text) => {
                    ProxyFailure::unavailable(format!("KMS cannot be reached: {text}"))
                }
            });
        }
    }

    /// Waits for the next attempt, if there is one.
    async fn may_retry(&self, attempt: &mut u32, cost: &mut Option<i64>, timed_out: bool) -> bool {
        if *attempt >= ATTEMPTS {
            return false;
        }
        let Some(taken) = self.quota.take(timed_out) else {
            return false;
        };
        *cost = Some(taken);
        *attempt += 1;
        tokio::time::sleep(pause(*attempt)).await;
        true
    }

    fn set_clock(&self, answer: &Response<Bytes>) -> bool {
        let date = answer.headers().get(header::DATE);
        let date = date.and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let changed = date.is_some_and(|date| self.clock.set(date));
        if changed {
            tracing::warn!("the clock is wrong; signing with the time of KMS");
        }
        changed
    }

    /// The answer with its encrypted member decrypted.
    async fn opened(
        &self,
        answer: Response<Bytes>,
        member: &'static str,
    ) -> Result<Response<Full<Bytes>>, ProxyFailure> {
        let bad = |what: &str| ProxyFailure::bad_answer(format!("the answer of KMS {what}"));
        let (parts, body) = answer.into_parts();
        let mut fields = JsonFields::parse(&body).ok_or_else(|| bad("is no JSON object"))?;
        let Some(envelope) = fields.text("CiphertextForRecipient") else {
            // KMS answers DryRun with errors only, so this is not from KMS.
            return Err(bad("has no CiphertextForRecipient"));
        };
        let secret = match self.recipient.open(&envelope).await {
            Ok(secret) => secret,
            Err(error @ (Error::Envelope { .. } | Error::OtherRecipient | Error::Decrypt)) => {
                return Err(bad(&format!("cannot be opened: {error}")));
            }
            Err(error) => return Err(ProxyFailure::unavailable(error.to_string())),
        };
        let set = fields.set_secret(member, secret.expose());
        set.ok_or_else(|| bad("cannot be written"))?;
        fields.remove("CiphertextForRecipient");
        // The bytes are overwritten after hyper has sent them.
        let body = Bytes::from_owner(fields.write());
        let mut response = forwarded(Response::from_parts(parts, body));
        // The checksum is of the original body.
        response.headers_mut().remove("x-amz-crc32");
        Ok(response)
    }
}

/// An answer of KMS for the app, without the headers of the connection.
fn forwarded(answer: Response<Bytes>) -> Response<Full<Bytes>> {
    let (mut parts, body) = answer.into_parts();
    for name in OURS {
        parts.headers.remove(HeaderName::from_static(name));
    }
    parts.extensions.clear();
    parts.version = http::Version::HTTP_11;
    Response::from_parts(parts, Full::new(body))
}

fn refused(why: SignatureRefused) -> ProxyFailure {
    let code = match why {
        SignatureRefused::Missing => "MissingAuthenticationTokenException",
        SignatureRefused::Malformed(_) => "IncompleteSignatureException",
        SignatureRefused::OtherKey => "UnrecognizedClientException",
        SignatureRefused::Mismatch | SignatureRefused::Expired => "InvalidSignatureException",
    };
    ProxyFailure::new(StatusCode::FORBIDDEN, code, why.to_string())
}
