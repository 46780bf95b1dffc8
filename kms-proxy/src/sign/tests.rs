//! Signatures against a vector of AWS' test suite, and against each other.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Uri};

use super::{Scope, SignatureRefused, SignedRequest, sign};
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
    let incoming = SignedRequest::read(&uri, &headers).expect("read");
    assert_eq!(incoming.scope.region, "us-east-1");
    let verify = |method: &Method, headers: &HeaderMap, body: &[u8], app: &Credentials, at| {
        incoming.verify(method, headers, body, app, at)
    };
    let get = Method::GET;
    assert_eq!(verify(&get, &headers, b"", &example(), then()), Ok(()));
    for (refused, as_wanted) in [
        (
            verify(&Method::POST, &headers, b"", &example(), then()),
            SignatureRefused::Mismatch,
        ),
        (
            verify(&get, &headers, b"x", &example(), then()),
            SignatureRefused::Mismatch,
        ),
        (
            verify(
                &get,
                &headers,
                b"",
                &Credentials::new("AKIDEXAMPLE", "x"),
                then(),
            ),
            SignatureRefused::Mismatch,
        ),
        (
            verify(&get, &headers, b"", &Credentials::new("AKIA", "x"), then()),
            SignatureRefused::OtherKey,
        ),
        (
            verify(
                &get,
                &headers,
                b"",
                &example(),
                then() + Duration::from_secs(1000),
            ),
            SignatureRefused::Expired,
        ),
        (
            verify(
                &get,
                &headers,
                b"",
                &example(),
                then() - Duration::from_secs(1000),
            ),
            SignatureRefused::Expired,
        ),
    ] {
        assert_eq!(refused, Err(as_wanted));
    }
    let mut other = headers.clone();
    other.insert("host", "example.com".parse().expect("a host"));
    assert_eq!(
        verify(&get, &other, b"", &example(), then()),
        Err(SignatureRefused::Mismatch)
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
    let incoming = SignedRequest::read(&Uri::from_static("/"), &request).expect("read");
    assert_eq!(incoming.scope, scope);
    assert_eq!(
        incoming.verify(&Method::POST, &request, b"{}", &example(), now),
        Ok(())
    );
}

/// Queries that botocore 1.44 has signed on 2015-08-30: `generate_presigned_url("list_keys",
/// Params={"Limit": 2}, ExpiresIn=60, HttpMethod="POST")`, without and with a session token.
const PRESIGNED: [&str; 2] = [
    "/?Limit=2&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2F\
     us-east-1%2Fkms%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&\
     X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-target&\
     X-Amz-Signature=8d34d83b715649ba15866818519f240451b460c7bb4d9e1124bd24ee81edc3d5",
    "/?Limit=2&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2F\
     us-east-1%2Fkms%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&\
     X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-target&\
     X-Amz-Security-Token=a%20token%2B%2F%3D&\
     X-Amz-Signature=b30cc7211d609b437c09eede02394c9eb2f502ff99b7f546bafbaa4285abaa96",
];

fn presigned_headers() -> HeaderMap {
    headers(&[
        ("host", "127.0.0.1:9999"),
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", "TrentService.ListKeys"),
    ])
}

fn presigned(
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
    at: u64,
) -> Result<(), SignatureRefused> {
    let uri: Uri = query.parse().expect("a URI");
    let incoming = SignedRequest::read(&uri, headers)?;
    assert_eq!(incoming.target(), "/?Limit=2");
    assert_eq!(incoming.scope.service, "kms");
    let now = then() + Duration::from_secs(at);
    incoming.verify(&Method::POST, headers, body, &example(), now)
}

#[test]
fn a_signature_in_the_query_verifies_and_is_taken_out() {
    let headers = presigned_headers();
    for query in PRESIGNED {
        assert_eq!(presigned(query, &headers, b"", 60), Ok(()));
        // Valid for a minute, and for this request.
        assert_eq!(
            presigned(query, &headers, b"", 61),
            Err(SignatureRefused::Expired)
        );
        let other = presigned(query, &headers, b"{}", 0);
        assert_eq!(other, Err(SignatureRefused::Mismatch));
        let mut encrypt = headers.clone();
        let action = "TrentService.Encrypt".parse().expect("a value");
        encrypt.insert("x-amz-target", action);
        let other = presigned(query, &encrypt, b"", 0);
        assert_eq!(other, Err(SignatureRefused::Mismatch));
        let longer = query.replace("Expires=60", "Expires=600");
        let other = presigned(&longer, &headers, b"", 0);
        assert_eq!(other, Err(SignatureRefused::Mismatch));
    }
    let other_token = PRESIGNED[1].replace("a%20token", "b%20token");
    let other = presigned(&other_token, &headers, b"", 0);
    assert_eq!(other, Err(SignatureRefused::Mismatch));
}

#[test]
fn a_query_that_is_no_whole_signature_is_refused() {
    for (from, to) in [
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256&", ""),
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        ("X-Amz-Expires=60&", ""),
        ("X-Amz-Expires=60", "X-Amz-Expires=604801"),
        ("X-Amz-Expires=60", "X-Amz-Expires=1m"),
        ("%3Bhost", ""),
        ("%3Bx-amz-target", ""),
        ("%2Faws4_request", "%2"),
        ("X-Amz-Signature", "X-Amz-Sign"),
    ] {
        let query = PRESIGNED[0].replacen(from, to, 1);
        let refused = presigned(&query, &presigned_headers(), b"", 0);
        assert!(
            matches!(refused, Err(SignatureRefused::Malformed(_))),
            "{from}: {refused:?}"
        );
    }
    let mut both = presigned_headers();
    both.insert("authorization", VANILLA.parse().expect("a value"));
    let refused = presigned(PRESIGNED[0], &both, b"", 0);
    assert_eq!(refused, Err(SignatureRefused::Malformed("two of them")));
}

#[test]
fn an_action_that_is_not_signed_is_refused() {
    let mut headers = vanilla();
    let action = "TrentService.Encrypt".parse().expect("a value");
    headers.insert("x-amz-target", action);
    let incoming = SignedRequest::read(&Uri::from_static("/"), &headers).expect("read");
    let refused = incoming.verify(&Method::GET, &headers, b"", &example(), then());
    assert!(
        matches!(refused, Err(SignatureRefused::Malformed(_))),
        "{refused:?}"
    );
}

#[test]
fn what_is_no_signature_is_refused() {
    let uri = Uri::from_static("/");
    assert_eq!(
        SignedRequest::read(&uri, &HeaderMap::new()).err(),
        Some(SignatureRefused::Missing)
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
        let refused = SignedRequest::read(&uri, &headers).err();
        assert!(
            matches!(refused, Some(SignatureRefused::Malformed(_))),
            "{to}: {refused:?}"
        );
    }
}
