//! Answers to requests with `Recipient`, as KMS gives them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use odyn_kms::attest::{Expected, SIMULATED_ROOT, verify};
use odyn_kms::envelope::seal::{Form, seal};
use serde_json::{Value, json};

use super::actions::Refusal;
use super::{Fault, StandIn};

/// KMS takes no document that is older.
const MAX_AGE: Duration = Duration::from_secs(300);
/// An envelope for a key that no test has.
const REPLAYED: &str = include_str!("../../../kms-proxy/vectors/kms-779.b64");

/// Puts a secret into an answer: in clear, or encrypted for the recipient.
pub(super) fn fill(
    kms: &StandIn,
    request: &Value,
    answer: &mut Value,
    member: &str,
    secret: &[u8],
    fault: Option<Fault>,
    turn: usize,
) -> Result<(), Refusal> {
    let Some(recipient) = request.get("Recipient").filter(|r| !r.is_null()) else {
        answer[member] = json!(STANDARD.encode(secret));
        return Ok(());
    };
    let public = public_key(kms, recipient)?;
    let form = match turn % 2 {
        0 => Form::Chunks(1024),
        _ => Form::Primitive,
    };
    let envelope = seal(&public, secret, form)
        .map_err(|_| Refusal::new(400, "ValidationException", "the key is no RSA key"))?;
    let envelope = match fault {
        Some(Fault::Truncated) => envelope[..envelope.len() - 3].to_vec(),
        Some(Fault::Padded) => [&envelope[..], b"\0\0"].concat(),
        Some(Fault::Replayed) => STANDARD.decode(REPLAYED.trim()).unwrap_or_default(),
        _ => envelope,
    };
    match turn % 3 {
        0 => answer[member] = Value::Null,
        1 => answer[member] = json!(""),
        _ => {}
    }
    match fault {
        Some(Fault::Plain) => answer[member] = json!(STANDARD.encode(secret)),
        _ => answer["CiphertextForRecipient"] = json!(STANDARD.encode(envelope)),
    }
    Ok(())
}

/// The public key that a valid document names.
fn public_key(kms: &StandIn, recipient: &Value) -> Result<Vec<u8>, Refusal> {
    let refuse = |message: &str| Refusal::new(400, "ValidationException", message);
    if recipient["KeyEncryptionAlgorithm"] != "RSAES_OAEP_SHA_256" {
        return Err(refuse("only RSAES_OAEP_SHA_256"));
    }
    let document = recipient["AttestationDocument"].as_str();
    let document = document.and_then(|text| STANDARD.decode(text).ok());
    let document = document.ok_or_else(|| refuse("no AttestationDocument"))?;
    let now = kms.now();
    let document = verify(&document, &Expected::of_root(SIMULATED_ROOT, now))
        .map_err(|fault| refuse(&format!("the attestation document: {fault}")))?;
    // The module's own clock is the instance's: a skew is told by its certificate's times.
    let age = now.duration_since(document.timestamp).unwrap_or_default();
    if age > MAX_AGE {
        return Err(refuse("the attestation document is expired"));
    }
    let key = document.claims.public_key;
    key.ok_or_else(|| refuse("the attestation document has no public key"))
}
