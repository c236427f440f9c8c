"""Secrets at rest: sealed for their place, under the one key, and nowhere in plain text."""

import os
import stat
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.orm import Session

from controlplane.domain.failure import WapFailure
from controlplane.store.database import Database
from controlplane.store.tables import Secret
from controlplane.store.vault import KEY_BYTES, NONCE_BYTES, Vault, key_from_file
from tests.store.rows import NOW, all_at_once

KEY = b"k" * KEY_BYTES
CANARY = b"hunter2-canary"


class Unbound(Vault):
    """The control: a vault that seals for no place in particular."""

    def seal(self, plain: bytes, place: str) -> bytes:
        return super().seal(plain, "")

    def open(self, sealed: bytes, place: str) -> bytes:
        return super().open(sealed, "")


async def fill(database: Database, vault: Vault) -> None:
    for scope, value in (("cluster/a", CANARY), ("cluster/b", b"other")):
        await database.write(partial(vault.put, scope=scope, name="password", plain=value, now=NOW))


def swap(tx: Session) -> None:
    a, b = tx.get_one(Secret, ("cluster/a", "password")), tx.get_one(Secret, ("cluster/b", "password"))
    a.ciphertext, b.ciphertext = b.ciphertext, a.ciphertext


async def stored(database: Database, vault: Vault, scope: str = "cluster/a") -> bytes | None:
    return await database.read(lambda tx: vault.get(tx, scope, "password"))


async def test_a_secret_comes_back_and_is_not_stored_in_plain(database: Database) -> None:
    vault = Vault(KEY)
    await fill(database, vault)
    assert await stored(database, vault) == CANARY
    assert await stored(database, vault, "cluster/c") is None
    row = await database.read(lambda tx: tx.get_one(Secret, ("cluster/a", "password")))
    assert CANARY not in row.ciphertext
    assert len(row.ciphertext) == NONCE_BYTES + len(CANARY) + 16


async def test_a_swapped_row_does_not_open(database: Database) -> None:
    vault = Vault(KEY)
    await fill(database, vault)
    await database.write(swap)
    with pytest.raises(WapFailure, match="cluster/a/password does not decrypt"):
        await stored(database, vault)
    await database.write(swap)
    assert await stored(database, vault) == CANARY


async def test_without_the_place_as_associated_data_a_swapped_row_would_open(database: Database) -> None:
    vault = Unbound(KEY)
    await fill(database, vault)
    await database.write(swap)
    assert await stored(database, vault) == b"other"


@pytest.mark.parametrize("position", [0, NONCE_BYTES, -1])
def test_a_changed_byte_does_not_open(position: int) -> None:
    vault = Vault(KEY)
    sealed = bytearray(vault.seal(CANARY, "place"))
    sealed[position] ^= 1
    with pytest.raises(WapFailure, match="does not decrypt"):
        vault.open(bytes(sealed), "place")
    sealed[position] ^= 1
    assert vault.open(bytes(sealed), "place") == CANARY


@pytest.mark.parametrize("sealed", [b"", b"short", b"x" * NONCE_BYTES, b"x" * (NONCE_BYTES + 15)])
def test_what_is_too_short_to_be_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(WapFailure, match="does not decrypt"):
        Vault(KEY).open(sealed, "place")


async def test_a_wrong_master_key_says_so_and_repeats_no_secret(database: Database) -> None:
    await fill(database, Vault(KEY))
    with pytest.raises(WapFailure, match="wrong master key") as failure:
        await stored(database, Vault(b"x" * KEY_BYTES))
    assert CANARY.decode() not in repr(failure.value.details)


def test_the_same_value_is_sealed_differently_each_time() -> None:
    vault = Vault(KEY)
    sealed = {vault.seal(CANARY, "place") for _ in range(100)}
    assert len({one[:NONCE_BYTES] for one in sealed}) == 100


def test_it_is_aes_gcm_with_the_place_as_associated_data() -> None:
    """So that a person with the key can open a secret with any other tool."""
    sealed = Vault(KEY).seal(CANARY, "cluster/a/password")
    assert AESGCM(KEY).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], b"cluster/a/password") == CANARY


async def test_the_first_value_wins_also_among_ten_at_once(database: Database) -> None:
    vault = Vault(KEY)
    values = [f"value-{number}".encode() for number in range(10)]
    put = partial(vault.put, scope="cluster/a", name="password", now=NOW)
    await all_at_once(database, [partial(put, plain=value) for value in values])
    first = await stored(database, vault)
    assert first in values
    await database.write(partial(put, plain=b"later"))
    assert await stored(database, vault) == first


def test_the_key_file_is_made_private_and_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "state" / "master.key"
    mask = os.umask(0)
    try:
        key = key_from_file(path)
    finally:
        os.umask(mask)
    assert len(key) == KEY_BYTES
    assert key_from_file(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key_from_file(tmp_path / "another.key") != key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    key_from_file(path)
    path.chmod(mode)
    with pytest.raises(WapFailure, match="can be read by others") as failure:
        key_from_file(path)
    assert (failure.value.details.field, failure.value.details.allowed) == ("master_key_file", "mode 0600")


@pytest.mark.parametrize("content", [b"", b"k" * (KEY_BYTES - 1), b"k" * KEY_BYTES + b"\n"])
def test_a_key_file_of_another_length_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "master.key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(WapFailure, match=f"has {len(content)} bytes") as failure:
        key_from_file(path)
    assert (failure.value.details.field, failure.value.details.allowed) == ("master_key_file", "32 bytes")
    assert path.read_bytes() == content
