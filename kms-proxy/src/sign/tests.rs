//! Signatures against a vector of AWS' test suite, and against each other.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Uri};

use super::{Incoming, Refused, Scope, sign};
use crate::credentials::Credentials;

/// "get-vanilla" of the test suite for Signature Version 4, for 2015-08-30.
const VANILLA: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
    SignedHeaders=host;x-amz-date, \
    Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";

fn example() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
}

fn then() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        let value = value.parse().expect("a value");
        (http::HeaderName::from_static(name), value)
    });
    pairs.collect()
}

fn vanilla() -> HeaderMap {
    headers(&[
        ("host", "example.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
        ("authorization", VANILLA),
    ])
}

#[test]
fn a_vector_of_aws_verifies() {
    let (uri, headers) = (Uri::from_static("/"), vanilla());
    let incoming = Incoming::read(&uri, &headers).expect("read");
    assert_eq!(incoming.scope.region, "us-east-1");
    let verify = |method: &Method, headers: &HeaderMap, body: &[u8], program: &Credentials, at| {
        incoming.verify(method, headers, body, program, at)
    };
    let get = Method::GET;
    assert_eq!(verify(&get, &headers, b"", &example(), then()), Ok(()));
    for (refused, as_wanted) in [
        (
            verify(&Method::POST, &headers, b"", &example(), then()),
            Refused::Mismatch,
        ),
        (
            verify(&get, &headers, b"x", &example(), then()),
            Refused::Mismatch,
        ),
        (
            verify(
                &get,
                &headers,
                b"",
                &Credentials::new("AKIDEXAMPLE", "x"),
                then(),
            ),
            Refused::Mismatch,
        ),
        (
            verify(&get, &headers, b"", &Credentials::new("AKIA", "x"), then()),
            Refused::OtherKey,
        ),
        (
            verify(
                &get,
                &headers,
                b"",
                &example(),
                then() + Duration::from_secs(1000),
            ),
            Refused::Expired,
        ),
        (
            verify(
                &get,
                &headers,
                b"",
                &example(),
                then() - Duration::from_secs(1000),
            ),
            Refused::Expired,
        ),
    ] {
        assert_eq!(refused, Err(as_wanted));
    }
    let mut other = headers.clone();
    other.insert("host", "example.com".parse().expect("a host"));
    assert_eq!(
        verify(&get, &other, b"", &example(), then()),
        Err(Refused::Mismatch)
    );
}

#[test]
fn what_we_sign_verifies() {
    let scope = Scope {
        region: "eu-west-1".into(),
        service: "kms".into(),
    };
    let mut request = headers(&[
        ("host", "kms.eu-west-1.amazonaws.com"),
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", "TrentService.Decrypt"),
    ]);
    let now = SystemTime::now();
    let mut credentials = example();
    credentials.token = Some(String::from("a token").into());
    let url = "https://kms.eu-west-1.amazonaws.com/";
    sign(
        &Method::POST,
        url,
        &mut request,
        b"{}",
        &scope,
        &credentials,
        now,
    )
    .expect("signs");
    assert_eq!(request["x-amz-security-token"], "a token");
    let shown = format!("{request:?}");
    assert!(!shown.contains("a token"), "{shown}");
    let incoming = Incoming::read(&Uri::from_static("/"), &request).expect("read");
    assert_eq!(incoming.scope, scope);
    assert_eq!(
        incoming.verify(&Method::POST, &request, b"{}", &example(), now),
        Ok(())
    );
}

/// A query that botocore has signed: `generate_presigned_url` for KMS in us-east-1.
#[test]
fn a_signature_in_the_query_is_read_and_taken_out() {
    let uri: Uri =
        "/?a=b&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2F\
        us-east-1%2Fkms%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&\
        X-Amz-SignedHeaders=host&X-Amz-Signature=00"
            .parse()
            .expect("a URI");
    let incoming = Incoming::read(&uri, &HeaderMap::new()).expect("read");
    assert_eq!(incoming.target(), "/?a=b");
    assert_eq!(incoming.scope.service, "kms");
    let host = headers(&[("host", "127.0.0.1:9999")]);
    let verified = incoming.verify(&Method::GET, &host, b"", &example(), then());
    assert_eq!(verified, Err(Refused::Mismatch));
}

#[test]
fn what_is_no_signature_is_refused() {
    let uri = Uri::from_static("/");
    assert_eq!(
        Incoming::read(&uri, &HeaderMap::new()).err(),
        Some(Refused::Missing)
    );
    let whole = VANILLA;
    for (from, to) in [
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        ("/aws4_request", ""),
        ("us-east-1", "us east"),
        ("us-east-1", "a.b"),
        ("20150830/", "20150831/"),
        ("host;", ""),
        (";x-amz-date", ""),
        ("host;", "Host;"),
        ("Signature=", "Sign="),
        (", Sig", " Sig"),
    ] {
        let mut headers = vanilla();
        let value = whole.replacen(from, to, 1).parse().expect("a value");
        headers.insert("authorization", value);
        let refused = Incoming::read(&uri, &headers).err();
        assert!(
            matches!(refused, Some(Refused::Malformed(_))),
            "{to}: {refused:?}"
        );
    }
}
