//! The Rust SDK through the proxy to a KMS whose keys and ciphertexts are real: moto, behind the
//! stand-in.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::error::ProvideErrorMetadata as _;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{
    DataKeyPairSpec, DataKeySpec, GrantOperation, KeyAgreementAlgorithmSpec, KeySpec, KeyState,
    KeyUsageType, MacAlgorithmSpec, SigningAlgorithmSpec, Tag,
};
use odyn_tests::Process;
use odyn_tests::process::until;
use odyn_tests::third_party::installed;

use super::client::{Wanted, World, world};
use super::sdk::sdk;

const KEY: &str = "alias/app";

/// A moto of one's own. It ends with the test.
struct Moto {
    _process: Process,
    address: SocketAddr,
    _logs: tempfile::TempDir,
}

impl Moto {
    /// None where there is none: see [`installed`].
    fn start() -> Option<Self> {
        let app = installed("ODYN_TEST_MOTO")?;
        let logs = tempfile::tempdir().expect("a directory");
        // It ends even when this test is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(app);
        command.args(["-H", "127.0.0.1", "-p", "0"]);
        let mut process = Process::spawn(command, "moto", logs.path(), false);
        let mut address = None;
        until(Duration::from_secs(60), "moto to listen", || {
            let log = String::from_utf8_lossy(&process.stderr()).into_owned();
            address = log
                .split_once("Running on http://")
                .and_then(|(_, rest)| rest.split_once('\n'))
                .and_then(|(address, _)| address.trim().parse().ok());
            assert!(address.is_some() || process.ended().is_none(), "{log}");
            address.is_some()
        });
        Some(Self {
            _process: process,
            address: address?,
            _logs: logs,
        })
    }
}

/// A proxy before moto, the SDK, and a key with the alias that apps use.
async fn app(moto: &Moto) -> (World, Client, String) {
    let world = world(Wanted {
        emulator: Some(moto.address),
        ..Wanted::default()
    })
    .await;
    let kms = sdk(&world);
    let created = kms.create_key().description("of tests").send().await;
    let created = created.expect("CreateKey").key_metadata.expect("metadata");
    let alias = kms.create_alias().alias_name(KEY);
    let alias = alias.target_key_id(&created.key_id).send().await;
    alias.expect("CreateAlias");
    world.kms.seen();
    (world, kms, created.key_id)
}

#[tokio::test]
async fn what_attesting_actions_give_is_what_the_other_actions_mean() {
    let Some(moto) = Moto::start() else { return };
    let (world, kms, id) = app(&moto).await;
    let hello = Blob::new("hello from inside");
    // Both forms of content.
    for _ in 0..2 {
        let encrypt = kms.encrypt().key_id(KEY).plaintext(hello.clone());
        let encrypt = encrypt.encryption_context("purpose", "tests");
        let sealed = encrypt.send().await.expect("Encrypt").ciphertext_blob;
        let sealed = sealed.expect("a ciphertext");
        let decrypt = kms.decrypt().ciphertext_blob(sealed.clone());
        let opened = decrypt.clone().encryption_context("purpose", "tests");
        let opened = opened.send().await.expect("Decrypt");
        assert_eq!(opened.plaintext(), Some(&hello));
        assert!(opened.key_id().is_some_and(|arn| arn.ends_with(&id)));
        let other = decrypt.encryption_context("purpose", "others");
        let refused = other.send().await.expect_err("another context");
        assert!(
            refused
                .into_service_error()
                .is_invalid_ciphertext_exception()
        );

        let data_key = kms.generate_data_key().key_id(KEY);
        let data_key = data_key.key_spec(DataKeySpec::Aes128).send().await;
        let data_key = data_key.expect("GenerateDataKey");
        let blob = data_key.ciphertext_blob().expect("a ciphertext").clone();
        // Under another key it is the same.
        let other = kms.create_key().send().await.expect("CreateKey");
        let other = other.key_metadata.expect("metadata").key_id;
        let again = kms.re_encrypt().ciphertext_blob(blob);
        let again = again.destination_key_id(&other).send().await;
        let again = again.expect("ReEncrypt").ciphertext_blob;
        let opened = kms.decrypt().set_ciphertext_blob(again).send().await;
        let opened = opened.expect("Decrypt");
        assert_eq!(opened.plaintext(), data_key.plaintext());
        assert_eq!(opened.plaintext().map(|key| key.as_ref().len()), Some(16));
    }
    let random = kms.generate_random().number_of_bytes(33).send().await;
    let random = random.expect("GenerateRandom").plaintext;
    assert_eq!(random.map(|bytes| bytes.as_ref().len()), Some(33));
    // These two moto does not have: they are the stand-in's.
    let pair = kms.generate_data_key_pair().key_id(KEY);
    let pair = pair.key_pair_spec(DataKeyPairSpec::Rsa2048).send().await;
    assert!(pair.expect("a pair").private_key_plaintext().is_some());
    let shared = kms.derive_shared_secret().key_id(KEY);
    let shared = shared.key_agreement_algorithm(KeyAgreementAlgorithmSpec::Ecdh);
    let shared = shared.public_key(Blob::new([1; 91])).send().await;
    assert!(
        shared
            .expect("DeriveSharedSecret")
            .shared_secret()
            .is_some()
    );
    let attesting = [
        "Decrypt",
        "DeriveSharedSecret",
        "GenerateDataKey",
        "GenerateDataKeyPair",
        "GenerateRandom",
    ];
    for seen in world.kms.seen() {
        let is_attesting = attesting.contains(&seen.action.as_str());
        assert_eq!(seen.document.is_some(), is_attesting, "{}", seen.action);
    }
}

#[tokio::test]
async fn signatures_and_macs_are_made_and_verified() {
    let Some(moto) = Moto::start() else { return };
    let (world, kms, _) = app(&moto).await;
    let create = kms.create_key().key_spec(KeySpec::Rsa2048);
    let create = create.key_usage(KeyUsageType::SignVerify).send().await;
    let signer = create.expect("CreateKey").key_metadata.expect("metadata");
    let public = kms.get_public_key().key_id(&signer.key_id).send().await;
    let public = public.expect("GetPublicKey");
    assert_eq!(public.public_key().map(|key| key.as_ref().len()), Some(294));
    let (message, other) = (Blob::new("message"), Blob::new("another"));
    let algorithm = SigningAlgorithmSpec::RsassaPssSha256;
    let sign = kms.sign().key_id(&signer.key_id).message(message.clone());
    let signed = sign.signing_algorithm(algorithm.clone()).send().await;
    let signature = signed.expect("Sign").signature.expect("a signature");
    let verify = kms.verify().key_id(&signer.key_id).signature(signature);
    let verify = verify.signing_algorithm(algorithm);
    let verified = verify.clone().message(message.clone()).send().await;
    assert!(verified.expect("Verify").signature_valid());
    let verified = verify.message(other.clone()).send().await;
    // moto says no where KMS has an exception.
    assert!(!verified.is_ok_and(|verified| verified.signature_valid()));

    let create = kms.create_key().key_spec(KeySpec::Hmac256);
    let create = create.key_usage(KeyUsageType::GenerateVerifyMac).send();
    let mac_key = create.await.expect("CreateKey").key_metadata;
    let mac_key = mac_key.expect("metadata").key_id;
    let algorithm = MacAlgorithmSpec::HmacSha256;
    let generate = kms.generate_mac().key_id(&mac_key).message(message.clone());
    let made = generate.mac_algorithm(algorithm.clone()).send().await;
    let mac = made.expect("GenerateMac").mac.expect("a MAC");
    let verify = kms.verify_mac().key_id(&mac_key).mac(mac);
    let verify = verify.mac_algorithm(algorithm);
    let verified = verify.clone().message(message).send().await;
    assert!(verified.expect("VerifyMac").mac_valid());
    let refused = verify.message(other).send().await.expect_err("another");
    assert!(refused.into_service_error().is_kms_invalid_mac_exception());
    assert!(world.kms.seen().iter().all(|seen| seen.document.is_none()));
}

#[tokio::test]
async fn keys_are_managed_as_without_the_proxy() {
    let Some(moto) = Moto::start() else { return };
    let (world, kms, id) = app(&moto).await;
    let described = kms.describe_key().key_id(KEY).send().await;
    let described = described.expect("DescribeKey").key_metadata;
    assert_eq!(
        described.and_then(|m| m.description),
        Some("of tests".into())
    );
    let changed = kms.update_key_description().key_id(&id).description("ü ☹");
    changed.send().await.expect("UpdateKeyDescription");
    let described = kms.describe_key().key_id(KEY).send().await;
    let described = described.expect("DescribeKey").key_metadata;
    assert_eq!(described.and_then(|m| m.description), Some("ü ☹".into()));

    let keys = kms.list_keys().into_paginator().items().send();
    let keys = keys.collect::<Result<Vec<_>, _>>().await.expect("ListKeys");
    assert!(keys.iter().any(|key| key.key_id.as_deref() == Some(&id)));
    let aliases = kms.list_aliases().key_id(&id).send().await;
    let aliases = aliases.expect("ListAliases").aliases.unwrap_or_default();
    assert!(aliases.iter().any(|a| a.alias_name.as_deref() == Some(KEY)));

    let tag = Tag::builder().tag_key("of").tag_value("tests").build();
    let tagged = kms.tag_resource().key_id(&id).tags(tag.expect("a tag"));
    tagged.send().await.expect("TagResource");
    let tags = kms.list_resource_tags().key_id(&id).send().await;
    let tags = tags.expect("ListResourceTags").tags.unwrap_or_default();
    assert_eq!(tags.first().map(|tag| tag.tag_value()), Some("tests"));

    let policy = kms.get_key_policy().key_id(&id).policy_name("default");
    let policy = policy.send().await.expect("GetKeyPolicy").policy;
    assert!(policy.is_some_and(|text| text.contains("kms:*")));
    let grant = kms.create_grant().key_id(&id).name("of tests");
    let grant = grant.grantee_principal("arn:aws:iam::123456789012:role/app");
    let grant = grant.operations(GrantOperation::Decrypt).send().await;
    let grant = grant.expect("CreateGrant").grant_id;
    let grants = kms.list_grants().key_id(&id).send().await;
    let grants = grants.expect("ListGrants").grants.unwrap_or_default();
    assert_eq!(grants.first().map(|grant| &grant.grant_id), Some(&grant));
    let revoked = kms.revoke_grant().key_id(&id).set_grant_id(grant);
    revoked.send().await.expect("RevokeGrant");

    let rotation = kms.enable_key_rotation().key_id(&id).send().await;
    rotation.expect("EnableKeyRotation");
    let rotation = kms.get_key_rotation_status().key_id(&id).send().await;
    let rotation = rotation.expect("GetKeyRotationStatus");
    assert!(rotation.key_rotation_enabled());

    let delete = kms.schedule_key_deletion().key_id(&id);
    let delete = delete.pending_window_in_days(7).send().await;
    delete.expect("ScheduleKeyDeletion");
    let described = kms.describe_key().key_id(&id).send().await;
    let described = described.expect("DescribeKey").key_metadata;
    let state = described.and_then(|metadata| metadata.key_state);
    assert_eq!(state, Some(KeyState::PendingDeletion));
    let cancelled = kms.cancel_key_deletion().key_id(&id).send().await;
    cancelled.expect("CancelKeyDeletion");

    let missing = kms.describe_key().key_id("alias/nothing").send().await;
    let missing = missing.expect_err("not there").into_service_error();
    assert!(missing.is_not_found_exception(), "{missing:?}");
    let again = kms.create_alias().alias_name(KEY).target_key_id(&id);
    let again = again.send().await.expect_err("there already");
    assert_eq!(again.code(), Some("AlreadyExistsException"));
    assert!(world.kms.seen().iter().all(|seen| seen.document.is_none()));
}
