//! Parses what a request wants in its attestation document.

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use odyn_kms::attest::Claims;
use pki_types::SubjectPublicKeyInfoDer;
use pki_types::pem::PemObject;
use serde::Deserialize;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
/// Base64 with or without padding.
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
/// The alphabet for URLs.
const URL_SAFE: GeneralPurpose =
    general_purpose::GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default)]
    user_data: Option<String>,
    #[serde(default)]
    public_key: Option<String>,
}

/// Parses a JSON object. An empty body asks for a document without extras.
pub(super) fn of_json(body: &[u8]) -> Result<Claims, String> {
    if body.is_empty() {
        return Ok(Claims::default());
    }
    let question: Question = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let bytes = |field, text: Option<String>| text.map(|text| decode(field, &text)).transpose();
    Ok(Claims {
        nonce: bytes("nonce", question.nonce)?,
        user_data: bytes("user_data", question.user_data)?,
        public_key: question.public_key.map(|pem| key(&pem)).transpose()?,
    })
}

/// Parses a query string, which may have `nonce` alone.
pub(super) fn of_query(query: &str) -> Result<Claims, String> {
    let mut claims = Claims::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("nonce", text)) if claims.nonce.is_none() => {
                let text = text.replace("%2B", "+").replace("%2b", "+");
                let text = text.replace("%2F", "/").replace("%2f", "/");
                let text = text.replace("%3D", "=").replace("%3d", "=");
                claims.nonce = Some(decode("nonce", &text)?);
            }
            _ => return Err("the query takes `nonce`, once".to_owned()),
        }
    }
    Ok(claims)
}

fn decode(field: &str, text: &str) -> Result<Vec<u8>, String> {
    let engine = if text.contains(['-', '_']) {
        URL_SAFE
    } else {
        STANDARD
    };
    engine
        .decode(text)
        .map_err(|error| format!("{field} is no base64: {error}"))
}

/// Decodes a PEM block PUBLIC KEY, or its content in base64.
fn key(pem: &str) -> Result<Vec<u8>, String> {
    if !pem.contains("-----BEGIN") {
        return decode("public_key", pem);
    }
    let key = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes());
    let key = key.map_err(|_| "public_key is no PUBLIC KEY in PEM".to_owned())?;
    Ok(key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood() {
        let json = br#"{"nonce":"AQI=","user_data":"AQ","public_key":"-----BEGIN PUBLIC KEY-----\nAQID\n-----END PUBLIC KEY-----\n"}"#;
        let claims = of_json(json).unwrap();
        assert_eq!(claims.nonce, Some(vec![1, 2]));
        assert_eq!(claims.user_data, Some(vec![1]));
        assert_eq!(claims.public_key, Some(vec![1, 2, 3]));
        assert_eq!(of_json(b"").unwrap(), Claims::default());
        assert_eq!(of_query("").unwrap(), Claims::default());
        for query in ["nonce=-_8", "nonce=%2B%2f8%3D", "nonce=+/8="] {
            assert_eq!(of_query(query).unwrap().nonce, Some(vec![0xfb, 0xff]));
        }
    }

    #[test]
    fn what_is_not_is_said() {
        for (json, part) in [
            (r#"{"nonce":"*"}"#, "nonce is no base64"),
            (r#"{"nonse":"AQ"}"#, "nonse"),
            (r#"{"public_key":"-----BEGIN PUBLIC KEY-----"}"#, "PEM"),
            ("[", "EOF"),
        ] {
            let error = of_json(json.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(of_query("nonce=AQ&nonce=AQ").is_err() && of_query("x=1").is_err());
    }
}
