//! The actions, as far as clients look at them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::recipient::fill;
use super::{FORBIDDEN, Fault, KEY, StandIn, lock};

/// An error.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &str, message: &str) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        }
    }
}

/// Answers an action.
pub(super) fn answer(
    kms: &StandIn,
    action: &str,
    request: &Value,
    fault: Option<Fault>,
    turn: usize,
) -> Result<Value, Refusal> {
    let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
    let bytes = |name: &str| STANDARD.decode(text(name)).unwrap_or_default();
    let context = request.get("EncryptionContext").map(Value::to_string);
    let context = context.unwrap_or_default();
    let key = key(&text("KeyId"), action)?;
    let seal = |secret: &[u8]| {
        let mut sealed = lock(&kms.0.sealed);
        sealed.push((key.clone(), context.clone(), secret.to_vec()));
        // Longer than any plaintext, as a ciphertext is.
        STANDARD.encode(format!("sealed:{:0>120}", sealed.len() - 1))
    };
    let mut answer = json!({ "KeyId": key });
    let (member, secret) = match action {
        "Encrypt" => {
            answer["CiphertextBlob"] = json!(seal(&bytes("Plaintext")));
            answer["EncryptionAlgorithm"] = json!("SYMMETRIC_DEFAULT");
            return Ok(answer);
        }
        "GenerateDataKeyWithoutPlaintext" => {
            answer["CiphertextBlob"] = json!(seal(&random(32)));
            return Ok(answer);
        }
        "Sign" => {
            answer["Signature"] = json!(STANDARD.encode(random(256)));
            answer["SigningAlgorithm"] = request["SigningAlgorithm"].clone();
            return Ok(answer);
        }
        "DescribeKey" => {
            let created = 1_700_000_000.125;
            let data = json!({ "KeyId": key, "Enabled": true, "CreationDate": created });
            return Ok(json!({ "KeyMetadata": data }));
        }
        "ListKeys" => return Ok(list(request)),
        "Decrypt" => {
            let blob = String::from_utf8(bytes("CiphertextBlob")).unwrap_or_default();
            let number = blob
                .strip_prefix("sealed:")
                .map(|n| n.trim_start_matches('0'));
            let number = number.map(|n| if n.is_empty() { "0" } else { n });
            let number: Option<usize> = number.and_then(|n| n.parse().ok());
            let found = number.and_then(|n| lock(&kms.0.sealed).get(n).cloned());
            match found {
                Some((_, its, secret)) if its == context => {
                    answer["EncryptionAlgorithm"] = json!("SYMMETRIC_DEFAULT");
                    ("Plaintext", secret)
                }
                _ => return Err(Refusal::new(400, "InvalidCiphertextException", "")),
            }
        }
        "GenerateDataKey" => {
            let length = match request["KeySpec"].as_str() {
                Some("AES_128") => 16,
                Some(_) => 32,
                None => {
                    usize::try_from(request["NumberOfBytes"].as_u64().unwrap_or(32)).unwrap_or(32)
                }
            };
            let secret = random(length);
            answer["CiphertextBlob"] = json!(seal(&secret));
            ("Plaintext", secret)
        }
        "GenerateDataKeyPair" => {
            let secret = random(1218);
            answer["PrivateKeyCiphertextBlob"] = json!(seal(&secret));
            answer["PublicKey"] = json!(STANDARD.encode(random(294)));
            answer["KeyPairSpec"] = request["KeyPairSpec"].clone();
            ("PrivateKeyPlaintext", secret)
        }
        "DeriveSharedSecret" => {
            answer["KeyAgreementAlgorithm"] = json!("ECDH");
            ("SharedSecret", random(32))
        }
        "GenerateRandom" => {
            let length = request["NumberOfBytes"].as_u64().unwrap_or(32);
            answer = json!({});
            ("Plaintext", random(usize::try_from(length).unwrap_or(32)))
        }
        other => {
            let message = format!("no action {other}");
            return Err(Refusal::new(400, "UnknownOperationException", &message));
        }
    };
    fill(kms, request, &mut answer, member, &secret, fault, turn)?;
    Ok(answer)
}

fn key(id: &str, action: &str) -> Result<String, Refusal> {
    match id {
        "" if ["Decrypt", "GenerateRandom", "ListKeys"].contains(&action) => Ok(KEY.to_owned()),
        "alias/app" | KEY => Ok(KEY.to_owned()),
        FORBIDDEN | "alias/forbidden" => {
            let message = format!("User is not authorized to perform: kms:{action} ☹");
            Err(Refusal::new(400, "AccessDeniedException", &message))
        }
        other => Err(Refusal::new(400, "NotFoundException", other)),
    }
}

/// Five keys, two at a time unless told otherwise.
fn list(request: &Value) -> Value {
    let from: usize = request["Marker"]
        .as_str()
        .and_then(|m| m.parse().ok())
        .unwrap_or(0);
    let limit = usize::try_from(request["Limit"].as_u64().unwrap_or(2)).unwrap_or(2);
    let keys: Vec<Value> = (0..5)
        .skip(from)
        .take(limit)
        .map(|number| json!({ "KeyId": format!("key-{number}"), "KeyArn": format!("{KEY}{number}") }))
        .collect();
    let next = from + keys.len();
    match next < 5 {
        true => json!({ "Keys": keys, "Truncated": true, "NextMarker": next.to_string() }),
        false => json!({ "Keys": keys, "Truncated": false }),
    }
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).expect("random bytes");
    bytes
}
