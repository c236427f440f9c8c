"""The ledger: what was asked of AWS stands there before it is asked, once, and until it is known to be gone."""

from datetime import datetime, timedelta
from typing import Any

from controlplane.store import ledger
from controlplane.store.database import Database
from controlplane.store.tables import CloudResource
from tests.store.rows import NOW

CLUSTER, INSTANCE = "cl-1", "instance:rs0-0"


async def intend(database: Database, token: str, *, now: datetime = NOW, **changes: Any) -> None:
    entry: dict[str, Any] = {"cluster_id": CLUSTER, "operation_id": "op-1", "region": "us-east-1", "kind": "instance"}
    rest = {"resource": INSTANCE, "client_token": token, "zone": "us-east-1a", "now": now}
    await database.write(lambda tx: ledger.intend(tx, **entry | rest | changes))


async def made(database: Database, token: str, cloud_id: str) -> None:
    await database.write(
        lambda tx: ledger.made(tx, cluster_id=CLUSTER, resource=INSTANCE, client_token=token, cloud_id=cloud_id)
    )


async def deleted(database: Database) -> None:
    await database.write(lambda tx: ledger.deleted(tx, cluster_id=CLUSTER, resource=INSTANCE, now=NOW))


async def living(database: Database) -> list[CloudResource]:
    return list(await database.read(ledger.living))


async def cloud_id(database: Database, cluster: str = CLUSTER, resource: str = INSTANCE) -> str:
    return await database.read(lambda tx: ledger.cloud_id(tx, cluster, resource))


async def test_an_intention_is_there_before_anything_came_of_it(database: Database) -> None:
    await intend(database, "t1")
    (entry,) = await living(database)
    assert (entry.resource, entry.client_token, entry.cloud_id, entry.requested_at) == (INSTANCE, "t1", "", NOW)
    assert await cloud_id(database) == ""


async def test_the_same_intention_twice_is_one_entry_and_another_attempt_another(database: Database) -> None:
    for token in ("t1", "t1", "t2"):
        await intend(database, token)
    assert [entry.client_token for entry in await living(database)] == ["t1", "t2"]


async def test_intending_again_forgets_nothing_that_was_made(database: Database) -> None:
    await intend(database, "t1")
    await made(database, "t1", "i-1")
    await intend(database, "t1", now=NOW + timedelta(hours=1))
    (entry,) = await living(database)
    assert (entry.cloud_id, entry.requested_at) == ("i-1", NOW)


async def test_the_newest_that_was_made_is_the_one(database: Database) -> None:
    for token, made_id in (("t1", "i-1"), ("t2", "i-2")):
        await intend(database, token)
        await made(database, token, made_id)
    await intend(database, "t3")
    assert await cloud_id(database) == "i-2"
    assert await cloud_id(database, cluster="cl-2") == await cloud_id(database, resource="vpc") == ""


async def test_a_deletion_covers_every_attempt_of_the_resource_and_no_other(database: Database) -> None:
    await intend(database, "t1")
    await made(database, "t1", "i-1")
    await intend(database, "t2")
    await intend(database, "t3", resource="instance:rs0-1")
    await intend(database, "t1", cluster_id="cl-2")
    await deleted(database)
    assert await cloud_id(database) == ""
    left = [(entry.cluster_id, entry.resource) for entry in await living(database)]
    assert sorted(left) == [(CLUSTER, "instance:rs0-1"), ("cl-2", INSTANCE)]
    assert len(await database.read(ledger.all_entries)) == 4  # the book keeps what was


async def test_what_was_deleted_can_be_asked_for_again(database: Database) -> None:
    await intend(database, "t1")
    await made(database, "t1", "i-1")
    await deleted(database)
    later = NOW + timedelta(hours=1)
    await intend(database, "t1", now=later)
    (entry,) = await living(database)
    assert (entry.cloud_id, entry.requested_at) == ("", later)
