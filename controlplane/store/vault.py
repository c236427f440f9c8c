"""Secrets at rest: AES-256-GCM, nonce first, the identity of the place as associated data.

A ciphertext that is copied to another row does not decrypt there. The 32 byte key comes from a file that only its
owner may read, or is unwrapped by AWS KMS at start (server.py decides).
"""

import os
import secrets
import stat
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete
from sqlalchemy.orm import Session

from controlplane.domain.failure import FailureCode, WapFailure
from controlplane.store.database import take_turns
from controlplane.store.tables import Secret

KEY_BYTES = 32
NONCE_BYTES = 12


# Names of a cluster's secrets that more than one part reads.
ADMIN_PASSWORD, AUTHORITY_CERTIFICATE = "admin-password", "authority-certificate"


def cluster_scope(cluster_id: str) -> str:
    """Where the secrets of a cluster are kept."""
    return f"cluster/{cluster_id}"


class Vault:
    """Encrypts and decrypts values that belong to one place each."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, plain: bytes, place: str) -> bytes:
        """Ciphertext that only opens for the same place."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """The plain value; INTERNAL when the key is wrong or the value was moved or changed."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError):  # ValueError: too short to have been sealed
            raise WapFailure(
                FailureCode.INTERNAL, f"secret {place} does not decrypt: wrong master key, or the row was changed"
            ) from None

    def put(self, tx: Session, scope: str, name: str, plain: bytes, now: datetime) -> None:
        """Store a secret unless it is there already: the first value wins, so a step may run twice."""
        take_turns(tx, f"secret/{scope}/{name}")
        if tx.get(Secret, (scope, name)) is None:
            tx.add(Secret(scope=scope, name=name, ciphertext=self.seal(plain, f"{scope}/{name}"), created_at=now))
            tx.flush()

    def get(self, tx: Session, scope: str, name: str) -> bytes | None:
        """The secret, or None."""
        row = tx.get(Secret, (scope, name))
        return self.open(row.ciphertext, f"{scope}/{name}") if row else None

    def remove(self, tx: Session, scope: str) -> None:
        """Forget all secrets of a scope."""
        tx.execute(delete(Secret).where(Secret.scope == scope))


def key_from_file(path: Path) -> bytes:
    """The master key of `path`, made on first use with mode 0600. Refuses a file that others can read."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise WapFailure(
            FailureCode.INTERNAL,
            f"master key {path} can be read by others",
            field="master_key_file",
            allowed="mode 0600",
        )
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise WapFailure(
            FailureCode.INTERNAL,
            f"master key {path} has {len(key)} bytes",
            field="master_key_file",
            given=f"{len(key)} bytes",
            allowed=f"{KEY_BYTES} bytes",
        )
    return key
