"""What an installation is made of: its lock, its master key, its identity, a database that answers."""

import asyncio
import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from controlplane.domain.failure import CloudFailure, FailureCode, WapFailure
from controlplane.installation import ProcessLock, distributions, identity, make_directory, open_vault, reach
from controlplane.settings import Settings, load
from controlplane.store.database import Database
from controlplane.store.schema import migrate
from controlplane.store.tables import Installation
from controlplane.store.vault import KEY_BYTES, Vault
from tests.postgres import Postgres, free_port
from tests.store.rows import NOW

moto_server = pytest.importorskip("moto.server", reason="needs the sandbox extra")


# The lock


def test_only_one_holds_the_lock_of_a_directory(tmp_path: Path) -> None:
    first = ProcessLock(tmp_path / "a")
    ProcessLock(tmp_path / "b").release()
    with pytest.raises(WapFailure, match="another control plane already runs") as failure:
        ProcessLock(tmp_path / "a")
    assert "PostgreSQL" in failure.value.details.allowed
    first.release()
    ProcessLock(tmp_path / "a").release()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WapFailure, match="cannot be used: Not a directory") as failure:
        make_directory(tmp_path / "file" / "state")
    assert failure.value.details.field == "state_dir"


# The database


async def test_a_database_that_answers_is_reached(database: Database) -> None:
    await asyncio.wait_for(reach(database, 0), 5)


async def refusal(url: str, seconds: float = 0.0, within: float = 8.0) -> WapFailure:
    store = Database(url)
    try:
        with pytest.raises(WapFailure) as failure:
            await asyncio.wait_for(reach(store, seconds), within)
    finally:
        await store.close()
    assert failure.value.details.field == "db"
    assert "\n" not in str(failure.value)
    return failure.value


async def test_a_port_where_nothing_answers_is_told_in_time_and_without_the_password() -> None:
    port = free_port()
    failure = await refusal(f"postgresql://wap:hunter2-canary@127.0.0.1:{port}/wap", seconds=1.0)
    assert str(failure).startswith(f"the database 127.0.0.1:{port}/wap cannot be used:")
    assert "Connection refused" in str(failure)
    assert "canary" not in f"{failure} {failure.details}"
    assert failure.code is FailureCode.UNAVAILABLE


async def test_a_server_that_accepts_and_says_nothing_is_told_in_time() -> None:
    with contextlib.closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        failure = await refusal(f"postgresql://wap@127.0.0.1:{silent.getsockname()[1]}/wap", within=20)
    assert "timeout" in str(failure)


async def test_a_database_that_does_not_exist_is_not_waited_for(postgres: Postgres) -> None:
    failure = await refusal(postgres.url("no_such_database"), seconds=60, within=5)
    assert 'database "no_such_database" does not exist' in str(failure)


async def test_a_read_only_database_is_refused(postgres: Postgres) -> None:
    url = postgres.create("standby")
    store = Database(url)
    await store.write(lambda tx: tx.execute(text("alter database standby set default_transaction_read_only = on")))
    await store.close()
    assert "read-only" in str(await refusal(url))


async def test_a_database_that_comes_up_late_is_waited_for(tmp_path: Path, postgres: Postgres) -> None:
    """As when both start at boot: a forwarder to the real server opens its port only later."""
    url, port = postgres.create("late"), free_port()
    store = Database(url.replace(f":{postgres.port}/", f":{port}/"))
    waiting = asyncio.create_task(reach(store, 30))
    await asyncio.wait({waiting}, timeout=0.7)
    assert not waiting.done()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", postgres.port)
        await asyncio.gather(_copy(reader, back), _copy(there, writer), return_exceptions=True)

    server = await asyncio.start_server(forward, "127.0.0.1", port)
    await asyncio.wait_for(waiting, 15)
    await store.close()
    server.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.close()


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "wap.db"
    file.write_text("this is not a database, and is longer than the header of one " * 10)
    failure = await refusal(f"sqlite:///{file}", seconds=60, within=5)
    assert str(failure) == f"the database {file} cannot be used: file is not a database"
    assert "unable to open" in str(await refusal(f"sqlite:///{tmp_path}/no/such/directory/wap.db"))


# The master key


def settings(tmp_path: Path, **more: Any) -> Settings:
    return load({"state_dir": tmp_path, **more})


async def test_the_master_key_file_is_the_default(tmp_path: Path, database: Database) -> None:
    vault = await open_vault(settings(tmp_path), database)
    sealed = vault.seal(b"secret", "place")
    assert (tmp_path / "master.key").stat().st_size == KEY_BYTES
    assert (await open_vault(settings(tmp_path), database)).open(sealed, "place") == b"secret"
    other = await open_vault(settings(tmp_path, master_key_file=str(tmp_path / "other.key")), database)
    with pytest.raises(WapFailure, match="wrong master key"):
        other.open(sealed, "place")


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """AWS KMS, imitated."""
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    yield boto3.client("kms", region_name="us-east-1")
    server.stop()


async def test_kms_keeps_the_master_key_and_only_its_wrapped_form_is_stored(
    tmp_path: Path, database: Database, kms: Any
) -> None:
    key_id = kms.create_key()["KeyMetadata"]["KeyId"]
    wish = settings(tmp_path, master_key_kms=key_id)
    sealed = (await open_vault(wish, database)).seal(b"secret", "place")
    assert (await open_vault(wish, database)).open(sealed, "place") == b"secret"
    assert not (tmp_path / "master.key").exists()
    wrapped = (await database.read(lambda tx: tx.get_one(Installation, "wrapped-master-key"))).value
    with pytest.raises(WapFailure, match="wrong master key"):
        Vault(wrapped.encode()[:KEY_BYTES]).open(sealed, "place")


async def test_two_control_planes_that_start_at_once_have_one_key(tmp_path: Path, database: Database, kms: Any) -> None:
    wish = settings(tmp_path, master_key_kms=kms.create_key()["KeyMetadata"]["KeyId"])
    one, two = await asyncio.gather(open_vault(wish, database), open_vault(wish, database))
    assert two.open(one.seal(b"secret", "place"), "place") == b"secret"


async def test_a_wrapped_key_that_kms_does_not_unwrap_is_told_and_kept(
    tmp_path: Path, database: Database, kms: Any
) -> None:
    wish = settings(tmp_path, master_key_kms=kms.create_key()["KeyMetadata"]["KeyId"])
    await open_vault(wish, database)
    damaged = base64.b64encode(b"x" * 100).decode()

    def damage(tx: Session) -> None:
        tx.get_one(Installation, "wrapped-master-key").value = damaged

    await database.write(damage)
    with pytest.raises(CloudFailure, match="KMS did not decrypt in us-east-1") as failure:
        await open_vault(wish, database)
    assert failure.value.code is FailureCode.CLOUD_DENIED
    # A new key in its place would make every secret unreadable for good.
    assert (await database.read(lambda tx: tx.get_one(Installation, "wrapped-master-key"))).value == damaged


async def test_an_unknown_kms_key_is_told(tmp_path: Path, database: Database, kms: Any) -> None:
    with pytest.raises(CloudFailure, match="NotFoundException; the setting master_key_kms") as failure:
        await open_vault(settings(tmp_path, master_key_kms="alias/none"), database)
    assert failure.value.code is FailureCode.CLOUD_DENIED


async def test_a_kms_that_is_away_is_told_in_time(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(CloudFailure, match="KMS in us-east-1 cannot be asked") as failure:
        await asyncio.wait_for(open_vault(settings(tmp_path, master_key_kms="k"), database), 20)
    assert failure.value.details.retryable


# The identity


async def test_the_identity_is_made_once_also_by_two_at_once(database: Database) -> None:
    vault, together = Vault(b"k" * KEY_BYTES), threading.Barrier(4)

    def first_start(tx: Any) -> tuple[str, bytes]:
        if database.is_postgres:  # SQLite lets one in at a time, and they would wait for each other
            together.wait(10)
        return identity(tx, vault, NOW)

    found = await asyncio.gather(*(database.write(first_start) for _ in range(4)))
    assert len(set(found)) == 1
    assert await database.write(partial(identity, vault=vault, now=NOW)) == found[0]


async def test_another_master_key_is_told_before_anything_is_done(database: Database) -> None:
    await database.write(partial(identity, vault=Vault(b"k" * KEY_BYTES), now=NOW))
    with pytest.raises(WapFailure, match="wrong master key"):
        await database.write(partial(identity, vault=Vault(b"x" * KEY_BYTES), now=NOW))


async def test_installations_differ(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        store = Database(f"sqlite:///{tmp_path}/{name}.db")
        await asyncio.to_thread(migrate, store.engine)
        found.append(await store.write(partial(identity, vault=Vault(b"k" * KEY_BYTES), now=NOW)))
        await store.close()
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


# The distributions


def test_without_a_mongodb_distribution_it_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(WapFailure, match="no MongoDB distribution is configured") as failure:
        distributions(settings(tmp_path))
    assert "WAP_MONGODB_DIR" in failure.value.details.allowed


def test_a_directory_without_a_mongod_that_runs_is_refused(tmp_path: Path) -> None:
    for content in (None, "not a program"):
        mongod = tmp_path / "bin" / "mongod"
        if content is not None:
            mongod.parent.mkdir()
            mongod.write_text(content)
            mongod.chmod(0o755)
        with pytest.raises(WapFailure, match="does not run") as failure:
            distributions(settings(tmp_path, mongodb_dir=str(tmp_path)))
        assert failure.value.details.field == "mongodb_dir"


def test_the_version_is_asked_of_the_mongod(tmp_path: Path, mongodb_dir: Path) -> None:
    offered = distributions(settings(tmp_path, mongodb_dir=str(mongodb_dir)))
    assert list(offered) == ["6.0.5"]
