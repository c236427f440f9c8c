"""Facts that make an installation itself: its id, its keys, its lock. Made at the first start, the same ever after."""

import asyncio
import base64
import fcntl
import os
import secrets
import subprocess
import time
from datetime import datetime
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from controlplane.cloud.kms import data_key, unwrap
from controlplane.domain.failure import FailureCode, WapFailure
from controlplane.operations.tools import Distribution
from controlplane.settings import Settings
from controlplane.store.database import Database, take_turns
from controlplane.store.tables import Installation
from controlplane.store.vault import KEY_BYTES, Vault, key_from_file

SCOPE = "installation"
RETRY_SECONDS = 0.5
OLDEST_POSTGRES = 13
# What PostgreSQL says where it is not the moment that is wrong.
WAITING_DOES_NOT_HELP = ("does not exist", "authentication failed", "no password supplied", "no pg_hba.conf entry")


async def open_vault(settings: Settings, database: Database) -> Vault:
    """The vault under the master key: from the 0600 file, or wrapped by AWS KMS and kept beside the secrets."""
    if not settings.master_key_kms:
        return Vault(key_from_file(Path(settings.master_key_file)))
    wrapped = await database.read(lambda tx: _fact(tx, "wrapped-master-key"))
    if wrapped is None:
        fresh = await data_key(settings.region, settings.master_key_kms, KEY_BYTES)
        text = base64.b64encode(fresh).decode()
        wrapped = await database.write(lambda tx: _fact_once(tx, "wrapped-master-key", text))
    return Vault(await unwrap(settings.region, settings.master_key_kms, base64.b64decode(wrapped)))


def identity(tx: Session, vault: Vault, now: datetime) -> tuple[str, bytes]:
    """(install id, install key): who we are in tags, and the key that only we can make tokens with."""
    install_id = _fact_once(tx, "install-id", f"in-{secrets.token_hex(8)}")
    vault.put(tx, SCOPE, "install-key", secrets.token_bytes(KEY_BYTES), now)
    key = vault.get(tx, SCOPE, "install-key")
    assert key is not None
    return install_id, key


def _fact(tx: Session, key: str) -> str | None:
    row = tx.get(Installation, key)
    return row.value if row else None


def _fact_once(tx: Session, key: str, value: str) -> str:
    take_turns(tx, f"fact/{key}")  # several control planes may start at once
    found = _fact(tx, key)
    if found is None:
        tx.add(Installation(key=key, value=value))
        tx.flush()
    return found or value


def distributions(settings: Settings) -> dict[str, Distribution]:
    """MongoDB versions by name. Refuses a directory without a mongod that runs."""
    offered = {
        version: Distribution(version, wish.directory, wish.url, wish.sha256)
        for version, wish in settings.mongodb.items()
    }
    if settings.mongodb_dir:
        version = _version_of(Path(settings.mongodb_dir))
        offered[version] = Distribution(version, directory=settings.mongodb_dir)
    if not offered:
        raise WapFailure(
            FailureCode.INVALID_ARGUMENT,
            "no MongoDB distribution is configured",
            field="mongodb",
            allowed="WAP_MONGODB_DIR, or [mongodb.'7.0.14'] url and sha256 in the settings file",
        )
    return offered


def _version_of(directory: Path) -> str:
    mongod = directory / "bin" / "mongod"
    try:
        shown = subprocess.run([mongod, "--version"], check=True, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise WapFailure(
            FailureCode.DISTRIBUTION_INVALID,
            f"{mongod} does not run: {type(error).__name__}",
            field="mongodb_dir",
            given=directory,
            allowed="a directory with bin/mongod for this machine",
        ) from None
    return shown.split()[2].removeprefix("v")  # "db version v6.0.5"


class ProcessLock:
    """With SQLite only one control plane may run on a database's directory; the lock ends with the process."""

    def __init__(self, directory: Path) -> None:
        make_directory(directory)
        self._handle = os.open(directory / "wap.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise WapFailure(
                FailureCode.UNAVAILABLE,
                f"another control plane already runs on the database in {directory}",
                field="db",
                given=directory,
                allowed="one process with SQLite; PostgreSQL (--db) for several",
            ) from None

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._handle)


def directory_of(database: Database) -> Path:
    """Where an embedded database's file is."""
    return Path(database.engine.url.database or "").absolute().parent


def make_directory(directory: Path) -> None:
    """Make sure that the directory is there and ours to write."""
    reason = ""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    if reason or not os.access(directory, os.W_OK | os.X_OK):
        raise WapFailure(
            FailureCode.INVALID_ARGUMENT,
            f"directory {directory} cannot be used: {reason or 'not writable'}",
            field="state_dir",
            given=directory,
            allowed="a directory that this user can write to",
        )


async def reach(database: Database, seconds: float) -> None:
    """Return when the database answers and can be used; UNAVAILABLE, saying why not, at the latest after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            await database.write(_check_server)
        except DBAPIError as error:
            reason = _reason(error)
            lasting = not database.is_postgres or any(text in reason for text in WAITING_DOES_NOT_HELP)
            if lasting or time.monotonic() > deadline:
                raise _unreachable(database, reason) from None
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return


def _check_server(tx: Session) -> None:
    tx.connection()
    if tx.get_bind().dialect.name != "postgresql":
        return
    version = int(tx.execute(text("show server_version_num")).scalar_one())
    if version < OLDEST_POSTGRES * 10_000:
        raise _unusable(f"PostgreSQL {version // 10_000} is too old", f"PostgreSQL {OLDEST_POSTGRES} or newer")
    if tx.execute(text("show transaction_read_only")).scalar_one() == "on":
        raise _unusable("the database is read-only (a standby?)", "a primary that takes writes")


def _unusable(why: str, allowed: str) -> WapFailure:
    return WapFailure(FailureCode.UNAVAILABLE, why, field="db", allowed=allowed)


def _unreachable(database: Database, reason: str) -> WapFailure:
    url = database.engine.url
    where = f"{url.host or 'localhost'}:{url.port or 5432}/{url.database}" if database.is_postgres else url.database
    return WapFailure(
        FailureCode.UNAVAILABLE,
        f"the database {where} cannot be used: {reason}",
        field="db",
        given=where,
        allowed="sqlite:///path or postgresql://user@host/name of a database that answers",
        retryable=True,
    )


def _reason(error: DBAPIError) -> str:
    """The driver's own words, in one line."""
    lines = str(error.orig).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
