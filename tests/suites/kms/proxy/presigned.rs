//! Requests whose signature stands in the query ("presigned"): as good as one in the header.

use std::time::{Duration, SystemTime};

use aws_sdk_kms::config::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::client::{INSTANCE, REGION, Wanted, World, app, world};

const RANDOM: &str = r#"{"NumberOfBytes":24}"#;

/// A request before it is signed.
struct Request {
    headers: Vec<(&'static str, String)>,
    token: Option<String>,
    made: SystemTime,
}

impl Request {
    fn new(world: &World, action: &str) -> Self {
        Self {
            headers: vec![
                ("host", world.proxy.clone()),
                ("content-type", "application/x-amz-json-1.1".to_owned()),
                ("x-amz-target", format!("TrentService.{action}")),
            ],
            token: None,
            made: SystemTime::now(),
        }
    }

    /// The path and query with a signature, valid for a minute.
    fn target(&self, world: &World, body: &str) -> String {
        let id = app().access_key_id;
        let token = self.token.clone();
        let identity = Credentials::new(id, "program-hush", token, None, "program").into();
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(60));
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name("kms")
            .time(self.made)
            .settings(settings)
            .build()
            .expect("parameters")
            .into();
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (*name, value.as_str()));
        let url = format!("http://{}/", world.proxy);
        let body = SignableBody::Bytes(body.as_bytes());
        let request = SignableRequest::new("POST", url.as_str(), headers, body);
        let output = sign(request.expect("a request"), &params).expect("signed");
        let mut request = http::Request::builder().uri(url).body(()).expect("a URL");
        output.into_parts().0.apply_to_request_http1x(&mut request);
        request.uri().path_and_query().expect("a query").to_string()
    }

    fn headers(&self) -> HeaderMap {
        let headers = self.headers.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("a value");
            (HeaderName::from_static(name), value)
        });
        headers.collect()
    }
}

#[tokio::test]
async fn a_presigned_request_is_answered_as_any_other() {
    let world = world(Wanted::default()).await;
    let mut request = Request::new(&world, "GenerateRandom");
    for token in [None, Some("a token+/=".to_owned())] {
        request.token = token;
        let target = request.target(&world, RANDOM);
        assert!(target.contains("X-Amz-Signature="), "{target}");
        let answer = world.send_to(&target, request.headers(), RANDOM).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        assert_eq!(answer.bytes("Plaintext").len(), 24);
    }
    // Signed anew in the header: the stand-in refuses a signature in both places.
    for seen in world.kms.seen() {
        assert!(seen.document.is_some());
        assert_eq!(seen.access_key, INSTANCE.0);
    }
}

#[tokio::test]
async fn a_presigned_request_is_good_for_itself_and_its_time() {
    let world = world(Wanted::default()).await;
    let mut request = Request::new(&world, "GenerateRandom");
    let target = request.target(&world, RANDOM);
    let other_body = world.send_to(&target, request.headers(), "{}").await;
    other_body.is_error(403, "InvalidSignatureException");
    let mut headers = request.headers();
    let decrypt = HeaderValue::from_static("TrentService.Decrypt");
    headers.insert("x-amz-target", decrypt);
    let other_action = world.send_to(&target, headers, RANDOM).await;
    other_action.is_error(403, "InvalidSignatureException");

    let mut both = world.signed("GenerateRandom", RANDOM, &app(), "kms");
    let answer = world.send_to(&target, both.clone(), RANDOM).await;
    let message = answer.is_error(403, "IncompleteSignatureException");
    assert!(message.contains("two of them"), "{message}");
    both.remove("authorization");
    let unsigned = world.send(both, RANDOM).await;
    unsigned.is_error(403, "MissingAuthenticationTokenException");

    request.made -= Duration::from_secs(61);
    let target = request.target(&world, RANDOM);
    let late = world.send_to(&target, request.headers(), RANDOM).await;
    let message = late.is_error(403, "InvalidSignatureException");
    assert!(message.contains("expired"), "{message}");
    assert!(world.kms.seen().is_empty(), "nothing has reached KMS");
}

#[tokio::test]
async fn a_presigned_request_has_its_action_signed() {
    let world = world(Wanted::default()).await;
    let mut request = Request::new(&world, "GenerateRandom");
    let headers = request.headers();
    request.headers.truncate(1);
    let target = request.target(&world, RANDOM);
    let answer = world.send_to(&target, headers, RANDOM).await;
    let message = answer.is_error(403, "IncompleteSignatureException");
    assert!(message.contains("X-Amz-Target is not signed"), "{message}");
    assert!(world.kms.seen().is_empty(), "nothing has reached KMS");
}
