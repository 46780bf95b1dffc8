"""An unmodified boto3 app: keys made and opened, lists in pages, errors as they are."""
import os

import boto3
import botocore

# AWS_ENDPOINT_URL_KMS is read by botocore 1.31 and newer; Debian 12 has an older one.
old = tuple(map(int, botocore.__version__.split(".")[:2])) < (1, 31)
endpoint = os.environ["AWS_ENDPOINT_URL_KMS"] if old else None
kms = boto3.client("kms", endpoint_url=endpoint)
context = {"purpose": "tests"}
key = kms.generate_data_key(KeyId="alias/app", KeySpec="AES_256", EncryptionContext=context)
opened = kms.decrypt(CiphertextBlob=key["CiphertextBlob"], EncryptionContext=context)
assert len(key["Plaintext"]) == 32 and opened["Plaintext"] == key["Plaintext"]
assert "CiphertextForRecipient" not in key

sealed = kms.encrypt(KeyId="alias/app", Plaintext=b"hello from outside")
assert kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"])["Plaintext"] == b"hello from outside"
pair = kms.generate_data_key_pair(KeyId="alias/app", KeyPairSpec="RSA_2048")
assert len(pair["PrivateKeyPlaintext"]) == 1218 and len(pair["PublicKey"]) == 294
assert len(kms.generate_random(NumberOfBytes=99)["Plaintext"]) == 99
assert kms.describe_key(KeyId="alias/app")["KeyMetadata"]["Enabled"] is True
pages = kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2})
assert sum(len(page["Keys"]) for page in pages) == 5
signed = kms.sign(KeyId="alias/app", Message=b"x", SigningAlgorithm="RSASSA_PSS_SHA_256")
assert len(signed["Signature"]) == 256
try:
    kms.encrypt(KeyId="alias/forbidden", Plaintext=b"x")
    raise SystemExit("was allowed")
except kms.exceptions.ClientError as error:
    assert error.response["Error"]["Code"] == "AccessDeniedException", error
try:
    kms.describe_key(KeyId="nothing")
    raise SystemExit("was found")
except kms.exceptions.NotFoundException:
    pass
print("key", key["Plaintext"].hex(), "region", kms.meta.region_name)
