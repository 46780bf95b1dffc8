//! What the proxy does with each action.

use odyn_kms::credentials::Credentials;
use odyn_kms::proxy::Demands;
use odyn_tests::kms::KEY;

use super::client::{INSTANCE, Wanted, app, world};

#[tokio::test]
async fn the_five_attesting_actions_come_back_in_clear() {
    let world = world(Wanted::default()).await;
    // Each form of content, and each way to leave the member empty.
    for _ in 0..6 {
        for (action, body, member, length) in [
            (
                "GenerateDataKey",
                r#"{"KeyId":"alias/app","KeySpec":"AES_256"}"#,
                "Plaintext",
                32,
            ),
            (
                "GenerateDataKeyPair",
                r#"{"KeyId":"alias/app","KeyPairSpec":"RSA_2048"}"#,
                "PrivateKeyPlaintext",
                1218,
            ),
            ("GenerateRandom", r#"{"NumberOfBytes":17}"#, "Plaintext", 17),
            (
                "DeriveSharedSecret",
                r#"{"KeyId":"alias/app"}"#,
                "SharedSecret",
                32,
            ),
        ] {
            let answer = world.ask(action, body).await;
            assert_eq!(answer.status, 200, "{}", answer.json());
            assert_eq!(answer.bytes(member).len(), length, "{action}");
            let json = answer.json();
            assert!(json.get("CiphertextForRecipient").is_none(), "{json}");
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(text.contains(r#""Odd":[1.50e+00]"#), "{text}");
        }
        let key = world
            .ask("GenerateDataKey", r#"{"KeyId":"alias/app"}"#)
            .await;
        let blob = key.json()["CiphertextBlob"].clone();
        let body = serde_json::json!({ "CiphertextBlob": blob, "KeyId": KEY }).to_string();
        let opened = world.ask("Decrypt", &body).await;
        assert_eq!(opened.bytes("Plaintext"), key.bytes("Plaintext"));
    }
    for seen in world.kms.seen() {
        assert!(seen.document.is_some(), "{}", seen.action);
        assert_eq!(seen.access_key, INSTANCE.0);
    }
}

#[tokio::test]
async fn all_other_actions_and_errors_are_passed_on_byte_for_byte() {
    let world = world(Wanted::default()).await;
    for (action, body) in [
        ("Encrypt", r#"{"KeyId":"alias/app","Plaintext":"aGVsbG8="}"#),
        (
            "Sign",
            r#"{"KeyId":"alias/app","Message":"aGVsbG8=","SigningAlgorithm":"RSASSA_PSS_SHA_256"}"#,
        ),
        ("DescribeKey", r#"{"KeyId":"alias/app"}"#),
        (
            "GenerateDataKeyWithoutPlaintext",
            r#"{"KeyId":"alias/app"}"#,
        ),
        ("ListKeys", "{}"),
        ("ListKeys", r#"{"Marker":"2","Limit":9}"#),
    ] {
        let answer = world.ask(action, body).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.ends_with(r#","Odd": [1.50e+00]}"#), "{text}");
        assert!(answer.headers.contains_key("x-amzn-requestid"));
    }
    for (action, body, code) in [
        (
            "Encrypt",
            r#"{"KeyId":"alias/forbidden"}"#,
            "AccessDeniedException",
        ),
        (
            "GenerateDataKey",
            r#"{"KeyId":"alias/forbidden"}"#,
            "AccessDeniedException",
        ),
        ("DescribeKey", r#"{"KeyId":"nothing"}"#, "NotFoundException"),
        (
            "Decrypt",
            r#"{"CiphertextBlob":"AAAA"}"#,
            "InvalidCiphertextException",
        ),
        (
            "NoSuchAction",
            r#"{"KeyId":"alias/app"}"#,
            "UnknownOperationException",
        ),
    ] {
        let answer = world.ask(action, body).await;
        answer.is_error(400, code);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains(r#""extra":[1]"#), "{text}");
    }
    let plain = world
        .kms
        .seen()
        .into_iter()
        .filter(|seen| seen.document.is_none());
    assert_eq!(plain.count(), 9);
}

#[tokio::test]
async fn only_the_app_has_requests_signed() {
    let world = world(Wanted::default()).await;
    let body = r#"{"KeyId":"alias/app"}"#;
    let unsigned = world.send(http::HeaderMap::new(), body).await;
    unsigned.is_error(403, "MissingAuthenticationTokenException");
    let mut guessed = world.signed("DescribeKey", body, &Credentials::new("AKIA", "x"), "kms");
    world
        .send(guessed.clone(), body)
        .await
        .is_error(403, "UnrecognizedClientException");
    guessed = world.signed(
        "DescribeKey",
        body,
        &Credentials::new("ODYNPROGRAM", "x"),
        "kms",
    );
    world
        .send(guessed, body)
        .await
        .is_error(403, "InvalidSignatureException");
    let taken = world.signed("DescribeKey", body, &app(), "kms");
    let other = r#"{"KeyId":"alias/other"}"#;
    world
        .send(taken.clone(), other)
        .await
        .is_error(403, "InvalidSignatureException");
    let mut other_action = taken;
    other_action.insert(
        "x-amz-target",
        "TrentService.Encrypt".parse().expect("a value"),
    );
    world
        .send(other_action, body)
        .await
        .is_error(403, "InvalidSignatureException");
    let s3 = world.signed("DescribeKey", body, &app(), "s3");
    world
        .send(s3, body)
        .await
        .is_error(400, "ValidationException");
    assert!(world.kms.seen().is_empty(), "nothing has reached KMS");
}

#[tokio::test]
async fn what_the_policy_demands_is_demanded() {
    let demands = Demands {
        key_id: true,
        encryption_context: true,
    };
    let world = world(Wanted {
        demands,
        ..Wanted::default()
    })
    .await;
    let refused = world.ask("Decrypt", r#"{"CiphertextBlob":"AAAA"}"#).await;
    assert!(
        refused
            .is_error(400, "ValidationException")
            .contains("require_key_id")
    );
    let refused = world
        .ask("Encrypt", r#"{"KeyId":"alias/app","Plaintext":""}"#)
        .await;
    let message = refused.is_error(400, "ValidationException");
    assert!(message.contains("require_encryption_context"), "{message}");
    assert!(world.kms.seen().is_empty());
    let body = r#"{"KeyId":"alias/app","EncryptionContext":{"for":"tests"}}"#;
    assert_eq!(world.ask("GenerateDataKey", body).await.status, 200);
}

#[tokio::test]
async fn connections_and_documents_are_used_again() {
    let world = world(Wanted::default()).await;
    for _ in 0..10 {
        let answer = world.ask("GenerateRandom", r#"{"NumberOfBytes":8}"#).await;
        assert_eq!(answer.status, 200);
    }
    let seen = world.kms.seen();
    assert!(seen.iter().all(|one| one.connection == seen[0].connection));
    assert!(seen.iter().all(|one| one.document == seen[0].document));
}

#[tokio::test]
async fn an_app_with_its_own_document_gets_its_own_envelope() {
    let world = world(Wanted::default()).await;
    let body = r#"{"NumberOfBytes":8,"Recipient":{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256","AttestationDocument":"AAAA"}}"#;
    let answer = world.ask("GenerateRandom", body).await;
    answer.is_error(400, "ValidationException");
    assert_eq!(world.kms.seen()[0].document.as_deref(), Some("AAAA"));
}
