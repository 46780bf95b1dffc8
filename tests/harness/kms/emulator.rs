//! An emulator of KMS behind the stand-in: moto. It knows keys, policies and ciphertexts, and nothing
//! of `Recipient`.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::actions::Refusal;
use super::recipient::fill;
use super::{Fault, StandIn};

/// The actions that attest of which the emulator makes the secret. It has none of the two others.
const ATTESTING: [&str; 3] = ["Decrypt", "GenerateDataKey", "GenerateRandom"];
/// Actions that the stand-in answers by itself in any case.
const OUR_OWN: [&str; 2] = ["GenerateDataKeyPair", "DeriveSharedSecret"];

/// The address of an emulator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Emulator(pub(super) SocketAddr);

impl Emulator {
    /// Whether an action is for the emulator.
    pub(super) fn knows(action: &str) -> bool {
        !OUR_OWN.contains(&action)
    }

    /// Answers an action, of which the signature is verified already. The emulator's own answers and
    /// errors stay byte for byte.
    pub(super) async fn answer(
        self,
        kms: &StandIn,
        action: &str,
        headers: &HeaderMap,
        mut body: Value,
        (fault, turn): (Option<Fault>, usize),
    ) -> Result<Response<Bytes>, Refusal> {
        let failed = |error: anyhow::Error| {
            Refusal::new(500, "KMSInternalException", &format!("moto: {error:#}"))
        };
        let request = body.clone();
        let has_recipient = match body.as_object_mut() {
            Some(members) if ATTESTING.contains(&action) => members.remove("Recipient").is_some(),
            _ => false,
        };
        let (parts, answer) = self.ask(headers, &body).await.map_err(failed)?.into_parts();
        if !has_recipient || !parts.status.is_success() {
            return Ok(Response::from_parts(parts, answer));
        }
        let parsed = serde_json::from_slice(&answer).context("its answer");
        let mut json: Value = parsed.map_err(failed)?;
        let secret = json["Plaintext"].as_str().context("no Plaintext");
        let secret = secret.and_then(|text| Ok(STANDARD.decode(text)?));
        let secret = secret.map_err(failed)?;
        if let Some(members) = json.as_object_mut() {
            members.remove("Plaintext");
        }
        fill(kms, &request, &mut json, "Plaintext", &secret, fault, turn)?;
        Ok(Response::from_parts(parts, json.to_string().into()))
    }

    async fn ask(self, headers: &HeaderMap, body: &Value) -> Result<Response<Bytes>> {
        let socket = TcpStream::connect(self.0).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        let body = if body.is_null() {
            "{}".into()
        } else {
            body.to_string()
        };
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let host = self.0.to_string().parse()?;
        request.headers_mut().insert("host", host);
        for name in ["authorization", "content-type", "x-amz-target"] {
            if let Some(value) = headers.get(name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let (mut parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        // Of that connection, and of the body before it changes.
        for name in ["connection", "content-length", "transfer-encoding"] {
            parts.headers.remove(name);
        }
        Ok(Response::from_parts(parts, body))
    }
}
