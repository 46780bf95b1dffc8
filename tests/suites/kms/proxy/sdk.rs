//! The Rust SDK, as it comes, as the app: what it makes of the proxy's answers. More actions,
//! answered by an emulator: `moto.rs`.

use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{Credentials, Region};
use aws_sdk_kms::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{
    DataKeyPairSpec, DataKeySpec, KeyAgreementAlgorithmSpec, KeySpec, SigningAlgorithmSpec,
};
use aws_sdk_kms::{Client, Config};
use odyn_kms::proxy::Demands;
use odyn_tests::kms::{Fault, KEY};

use super::client::{INSTANCE, REGION, Wanted, World, app, world};

const KEY_NAME: &str = "alias/app";

/// The SDK with what an app finds in its environment.
pub(crate) fn sdk(world: &World) -> Client {
    sdk_with(world, "program-hush", 1)
}

/// The same with another secret key, or with retries of its own.
fn sdk_with(world: &World, secret: &str, attempts: u32) -> Client {
    let id = app().access_key_id;
    let config = Config::builder()
        .behavior_version_latest()
        .region(Region::new(REGION))
        .endpoint_url(format!("http://{}", world.proxy))
        .credentials_provider(Credentials::new(id, secret, None, None, "program"))
        .retry_config(RetryConfig::standard().with_max_attempts(attempts))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

#[tokio::test]
async fn the_rust_sdk_gets_the_plaintext_of_the_five_attesting_actions() {
    let world = world(Wanted::default()).await;
    let kms = sdk(&world);
    // Both forms of content, and each way in which KMS leaves a member empty.
    for _ in 0..6 {
        let data_key = kms
            .generate_data_key()
            .key_id(KEY_NAME)
            .key_spec(DataKeySpec::Aes256)
            .encryption_context("purpose", "tests")
            .send()
            .await
            .expect("GenerateDataKey");
        let plain = data_key.plaintext().expect("a plaintext");
        assert_eq!(plain.as_ref().len(), 32);
        assert_eq!(data_key.key_id(), Some(KEY));
        assert_eq!(data_key.ciphertext_for_recipient(), None);
        let opened = kms
            .decrypt()
            .ciphertext_blob(data_key.ciphertext_blob().expect("a ciphertext").clone())
            .encryption_context("purpose", "tests")
            .send()
            .await
            .expect("Decrypt");
        assert_eq!(opened.plaintext(), Some(plain));
        assert_eq!(opened.ciphertext_for_recipient(), None);

        let pair = kms
            .generate_data_key_pair()
            .key_id(KEY_NAME)
            .key_pair_spec(DataKeyPairSpec::Rsa2048)
            .send()
            .await
            .expect("GenerateDataKeyPair");
        let sealed = pair.private_key_ciphertext_blob().expect("a ciphertext");
        let opened = kms.decrypt().ciphertext_blob(sealed.clone()).send().await;
        let opened = opened.expect("Decrypt");
        assert!(opened.plaintext().is_some());
        assert_eq!(pair.private_key_plaintext(), opened.plaintext());
        assert_eq!(pair.public_key().map(|key| key.as_ref().len()), Some(294));
        assert_eq!(pair.ciphertext_for_recipient(), None);

        let random = kms.generate_random().number_of_bytes(17).send().await;
        let random = random.expect("GenerateRandom");
        assert_eq!(random.plaintext().map(|b| b.as_ref().len()), Some(17));
        assert_eq!(random.ciphertext_for_recipient(), None);

        let shared = kms
            .derive_shared_secret()
            .key_id(KEY_NAME)
            .key_agreement_algorithm(KeyAgreementAlgorithmSpec::Ecdh)
            .public_key(Blob::new([1; 91]))
            .send()
            .await
            .expect("DeriveSharedSecret");
        assert_eq!(shared.shared_secret().map(|b| b.as_ref().len()), Some(32));
        assert_eq!(shared.ciphertext_for_recipient(), None);
    }
    for seen in world.kms.seen() {
        assert!(seen.document.is_some(), "{}", seen.action);
        assert_eq!(seen.access_key, INSTANCE.0);
    }
}

#[tokio::test]
async fn the_rust_sdk_gets_what_other_actions_answer() {
    let world = world(Wanted::default()).await;
    let kms = sdk(&world);
    let hello = Blob::new("hello");
    let encrypt = kms.encrypt().key_id(KEY_NAME).plaintext(hello.clone());
    let sealed = encrypt.send().await.expect("Encrypt");
    let sealed = sealed.ciphertext_blob().expect("a ciphertext").clone();
    let opened = kms.decrypt().ciphertext_blob(sealed).send().await;
    assert_eq!(opened.expect("Decrypt").plaintext(), Some(&hello));
    let signed = kms
        .sign()
        .key_id(KEY_NAME)
        .message(hello)
        .signing_algorithm(SigningAlgorithmSpec::RsassaPssSha256)
        .send()
        .await
        .expect("Sign");
    assert_eq!(signed.signature().map(|s| s.as_ref().len()), Some(256));
    let described = kms.describe_key().key_id(KEY_NAME).send().await;
    let described = described.expect("DescribeKey");
    let metadata = described.key_metadata().expect("metadata");
    assert!(metadata.enabled());
    let created = metadata.creation_date().expect("a date");
    assert_eq!(created.as_secs_f64(), 1_700_000_000.125);
    let data_key = kms.generate_data_key_without_plaintext();
    let data_key = data_key.key_id(KEY_NAME).key_spec(DataKeySpec::Aes256);
    let data_key = data_key.send().await;
    let data_key = data_key.expect("GenerateDataKeyWithoutPlaintext");
    assert!(data_key.ciphertext_blob().is_some());
    let keys = kms.list_keys().limit(2).into_paginator().items().send();
    let keys = keys.collect::<Result<Vec<_>, _>>().await;
    let names: Vec<_> = keys
        .expect("ListKeys")
        .into_iter()
        .map(|k| k.key_id)
        .collect();
    let expected: Vec<_> = (0..5).map(|n| Some(format!("key-{n}"))).collect();
    assert_eq!(names, expected);
    let seen = world.kms.seen();
    assert_eq!(
        seen.iter().filter(|one| one.action == "ListKeys").count(),
        3
    );
    assert_eq!(seen.iter().filter(|one| one.document.is_some()).count(), 1);
}

#[tokio::test]
async fn the_rust_sdk_makes_its_errors_of_those_of_kms() {
    let world = world(Wanted::default()).await;
    let kms = sdk(&world);
    let encrypt = kms.encrypt().key_id("alias/forbidden");
    let denied = encrypt.plaintext(Blob::new("x")).send().await;
    let denied = denied.expect_err("denied").into_service_error();
    assert_eq!(denied.code(), Some("AccessDeniedException"));
    let message = denied.message().unwrap_or_default();
    assert!(message.ends_with("kms:Encrypt ☹"), "{message}");
    // An action that attests.
    let random = kms.generate_data_key().key_id("alias/forbidden");
    let denied = random.send().await.expect_err("denied");
    assert_eq!(denied.code(), Some("AccessDeniedException"));
    let missing = kms.describe_key().key_id("nothing").send().await;
    let missing = missing.expect_err("not found").into_service_error();
    assert!(missing.is_not_found_exception(), "{missing:?}");
    let wrong = kms.decrypt().ciphertext_blob(Blob::new("x")).send().await;
    let wrong = wrong.expect_err("no ciphertext").into_service_error();
    assert!(wrong.is_invalid_ciphertext_exception(), "{wrong:?}");
    world.kms.fail([Fault::Error(400, "DisabledException")]);
    let disabled = kms.generate_data_key().key_id(KEY_NAME).send().await;
    let disabled = disabled.expect_err("disabled").into_service_error();
    assert!(disabled.is_disabled_exception(), "{disabled:?}");
    let unknown = kms.create_key().key_spec(KeySpec::SymmetricDefault).send();
    let unknown = unknown.await.expect_err("not of the stand-in");
    assert_eq!(unknown.code(), Some("NotFoundException"));
}

#[tokio::test]
async fn the_rust_sdk_makes_errors_of_those_of_the_proxy() {
    let demands = Demands {
        key_id: true,
        encryption_context: false,
    };
    let world = world(Wanted {
        demands,
        ..Wanted::default()
    })
    .await;
    let kms = sdk(&world);
    let decrypt = kms.decrypt().ciphertext_blob(Blob::new("x")).send().await;
    let refused = decrypt.expect_err("no key id");
    assert_eq!(refused.code(), Some("ValidationException"));
    let message = refused.message().unwrap_or_default();
    assert!(message.starts_with("odyn: "), "{message}");
    let stranger = sdk_with(&world, "guessed", 1);
    let refused = stranger.list_keys().send().await.expect_err("another key");
    assert_eq!(refused.code(), Some("InvalidSignatureException"));
    assert!(world.kms.seen().is_empty(), "nothing has reached KMS");
    world.kms.fail([Fault::Replayed]);
    let refused = kms.generate_random().number_of_bytes(8).send().await;
    let refused = refused.expect_err("for another key");
    assert_eq!(refused.code(), Some("EnclaveProxyException"));
    assert!(matches!(refused, SdkError::ServiceError(_)), "{refused:?}");
}

#[tokio::test]
async fn the_rust_sdk_tries_again_when_the_proxy_has_given_up() {
    let world = world(Wanted::default()).await;
    let throttled = Fault::Error(400, "ThrottlingException");
    // The proxy's three attempts are one of the SDK's.
    world.kms.fail([throttled; 4]);
    let kms = sdk_with(&world, "program-hush", 2);
    let random = kms.generate_random().number_of_bytes(8).send().await;
    let random = random.expect("after a while");
    assert_eq!(random.plaintext().map(|b| b.as_ref().len()), Some(8));
    assert_eq!(world.kms.seen().len(), 5);
    world.kms.fail([throttled; 3]);
    let refused = sdk(&world).generate_random().number_of_bytes(8).send();
    let refused = refused.await.expect_err("throttled");
    assert_eq!(refused.code(), Some("ThrottlingException"));
    assert_eq!(world.kms.seen().len(), 3);
}
