// An unmodified app with the JavaScript SDK: the attesting actions, pages, an error, a retry.
const assert = require("assert");
const kms = require("@aws-sdk/client-kms");

(async () => {
  const client = new kms.KMSClient({});
  const EncryptionContext = { purpose: "tests" };
  const KeyId = "alias/app";
  const made = await client.send(
    new kms.GenerateDataKeyCommand({ KeyId, KeySpec: "AES_256", EncryptionContext }));
  const opened = await client.send(
    new kms.DecryptCommand({ CiphertextBlob: made.CiphertextBlob, EncryptionContext }));
  assert.deepStrictEqual(Buffer.from(opened.Plaintext), Buffer.from(made.Plaintext));
  assert.strictEqual(made.CiphertextForRecipient, undefined);
  const pair = await client.send(
    new kms.GenerateDataKeyPairCommand({ KeyId, KeyPairSpec: "RSA_2048" }));
  assert.strictEqual(pair.PrivateKeyPlaintext.length, 1218);
  const random = await client.send(new kms.GenerateRandomCommand({ NumberOfBytes: 12 }));
  assert.strictEqual(random.Plaintext.length, 12);
  const shared = await client.send(new kms.DeriveSharedSecretCommand(
    { KeyId, KeyAgreementAlgorithm: "ECDH", PublicKey: Buffer.alloc(91, 1) }));
  assert.strictEqual(shared.SharedSecret.length, 32);
  let keys = 0;
  for await (const page of kms.paginateListKeys({ client, pageSize: 2 }, {})) {
    keys += page.Keys.length;
  }
  assert.strictEqual(keys, 5);
  await assert.rejects(
    client.send(new kms.EncryptCommand({ KeyId: "alias/forbidden", Plaintext: Buffer.from("x") })),
    { name: "AccessDeniedException" });
  const region = await client.config.region();
  console.log("key", Buffer.from(made.Plaintext).toString("hex"), "region", region);
})().catch((error) => { console.error(error); process.exit(1); });
