//! An unmodified app with the Rust SDK, which knows of KMS what its environment says: keys made and
//! opened, lists in pages, errors as they are. The twin of `programs/kms_client.py` and `.js`.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, ensure};
use aws_config::BehaviorVersion;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::ProvideErrorMetadata as _;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeyPairSpec, DataKeySpec, KeyAgreementAlgorithmSpec};

const KEY: &str = "alias/app";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_config::defaults(BehaviorVersion::latest());
    let config = config.http_client(http).load().await;
    let kms = Client::new(&config);
    let made = kms
        .generate_data_key()
        .key_id(KEY)
        .key_spec(DataKeySpec::Aes256)
        .encryption_context("purpose", "tests")
        .send()
        .await
        .context("GenerateDataKey")?;
    let opened = kms
        .decrypt()
        .set_ciphertext_blob(made.ciphertext_blob)
        .encryption_context("purpose", "tests")
        .send()
        .await
        .context("Decrypt")?;
    ensure!(opened.plaintext == made.plaintext && made.ciphertext_for_recipient.is_none());
    let pair = kms.generate_data_key_pair().key_id(KEY);
    let pair = pair.key_pair_spec(DataKeyPairSpec::Rsa2048).send().await;
    let private = pair.context("GenerateDataKeyPair")?.private_key_plaintext;
    ensure!(private.is_some_and(|key| key.as_ref().len() == 1218));
    let random = kms.generate_random().number_of_bytes(12).send().await;
    let random = random.context("GenerateRandom")?.plaintext;
    ensure!(random.is_some_and(|bytes| bytes.as_ref().len() == 12));
    let shared = kms.derive_shared_secret().key_id(KEY);
    let shared = shared.key_agreement_algorithm(KeyAgreementAlgorithmSpec::Ecdh);
    let shared = shared.public_key(Blob::new([1; 91])).send().await;
    let shared = shared.context("DeriveSharedSecret")?.shared_secret;
    ensure!(shared.is_some_and(|secret| secret.as_ref().len() == 32));
    let keys = kms.list_keys().limit(2).into_paginator().items().send();
    let keys = keys.collect::<Result<Vec<_>, _>>().await;
    ensure!(keys.context("ListKeys")?.len() == 5);
    let denied = kms.encrypt().key_id("alias/forbidden");
    let denied = denied.plaintext(Blob::new("x")).send().await.err();
    let denied = denied.context("was allowed")?;
    ensure!(denied.code() == Some("AccessDeniedException"));

    let key = made.plaintext.context("no plaintext")?;
    let hex: String = key.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let region = config.region().context("no region")?;
    println!("key {hex} region {region}");
    Ok(())
}
