"""AWS KMS as the keeper of the vault's master key: only its wrapped form is ever stored."""

import asyncio

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from controlplane.domain.failure import CloudFailure, FailureCode

# A start that cannot reach KMS says so within a minute.
PATIENCE = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})
# Binds the wrapped key to its use: KMS refuses to unwrap it in another context.
CONTEXT = {"purpose": "wap-master-key"}


async def data_key(region: str, key_id: str, length: int) -> bytes:
    """A new data key of `length` bytes in its wrapped form."""
    reply = await _call(region, "generate_data_key_without_plaintext", KeyId=key_id, NumberOfBytes=length)
    return bytes(reply["CiphertextBlob"])


async def unwrap(region: str, key_id: str, wrapped: bytes) -> bytes:
    """The data key itself; CLOUD_DENIED when KMS does not let us."""
    reply = await _call(region, "decrypt", KeyId=key_id, CiphertextBlob=wrapped)
    return bytes(reply["Plaintext"])


async def _call(region: str, method: str, **arguments: object) -> dict[str, bytes]:
    def work() -> dict[str, bytes]:
        client = boto3.client("kms", region_name=region, config=PATIENCE)
        reply: dict[str, bytes] = getattr(client, method)(EncryptionContext=CONTEXT, **arguments)
        return reply

    try:
        return await asyncio.to_thread(work)
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
        raise CloudFailure(
            FailureCode.CLOUD_DENIED,
            f"KMS did not {method.replace('_', ' ')} in {region}: {code}; the setting master_key_kms must name a key "
            "that is enabled, and WAP needs kms:Decrypt and kms:GenerateDataKeyWithoutPlaintext on it",
            aws_code=code,
        ) from None
    except BotoCoreError as error:
        raise CloudFailure(
            FailureCode.CLOUD_UNAVAILABLE, f"KMS in {region} cannot be asked: {error}", retryable=True
        ) from None
