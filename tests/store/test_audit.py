"""The audit: in the transaction of the change, without secrets, newest first."""

from functools import partial
from typing import Any

import pytest
from sqlalchemy.orm import Session

from controlplane.domain.failure import FailureCode, Refused
from controlplane.store import audit
from controlplane.store.database import Database
from controlplane.store.tables import AuditEvent
from tests.store.rows import NOW, all_at_once

CANARY = "hunter2-canary"


async def events(database: Database, **filters: Any) -> list[AuditEvent]:
    wish = {"project_ids": None, "resource": "", "actor": "", "before": None, "limit": 100} | filters
    return list(await database.read(partial(audit.list_page, **wish)))


def record(action: str = "ClusterService/Create", **more: Any) -> partial[None]:
    event: dict[str, Any] = {"now": NOW, "actor": "user:admin", "action": action} | more
    return partial(audit.record, **event)


async def test_an_event_tells_who_did_what_before_and_after(database: Database) -> None:
    facts = {"resource": "cluster/cl-1", "project_id": "pr-1", "request_id": "rq-1", "peer": "127.0.0.1"}
    await database.write(record(before={"members": 3}, after={"members": 5}, **facts))
    (event,) = await events(database)
    assert {name: getattr(event, name) for name in facts} == facts
    assert (event.before, event.after, event.time, event.outcome) == ({"members": 3}, {"members": 5}, NOW, "ok")


async def test_a_change_that_is_rolled_back_leaves_no_event(database: Database) -> None:
    def work(tx: Session) -> None:
        record()(tx)
        raise Refused(FailureCode.INVALID_ARGUMENT, "no")

    with pytest.raises(Refused):
        await database.write(work)
    assert await events(database) == []


async def test_secrets_are_masked_however_deep_they_stand(database: Database) -> None:
    for name in audit.MASKED:
        await database.write(record(before={name: CANARY}, after={"users": [{"name": "app", "login": {name: CANARY}}]}))
        (event,) = await events(database, limit=1)
        assert event.before == {name: "***"}
        assert event.after == {"users": [{"name": "app", "login": {name: "***"}}]}


def test_masking_leaves_everything_else_as_it_is() -> None:
    value = {"passwords_changed": 2, "name": "token", "password": "", "list": [1, "secret", None]}
    assert audit.mask(value) == value
    assert audit.mask(None) is None


async def test_what_is_too_long_for_its_column_is_cut_and_kept(database: Database) -> None:
    long = "x" * 1000
    await database.write(record(actor=long, resource=long, request_id=long, peer=long))
    (event,) = await events(database)
    assert {len(event.actor), len(event.resource), len(event.request_id), len(event.peer)} == {255}


async def test_pages_are_newest_first_and_hold_each_once(database: Database) -> None:
    for number in range(7):
        who, where = f"user:u{number % 2}", f"pr-{number % 3}"
        await database.write(record(f"a{number}", actor=who, project_id=where, resource=f"cluster/{number % 2}"))
    seen: list[AuditEvent] = []
    while page := await events(database, before=seen[-1].seq if seen else None, limit=3):
        seen += page
    assert [event.action for event in seen] == [f"a{number}" for number in reversed(range(7))]
    assert [event.action for event in await events(database, actor="user:u1")] == ["a5", "a3", "a1"]
    assert [event.action for event in await events(database, project_ids={"pr-0"})] == ["a6", "a3", "a0"]
    assert [event.action for event in await events(database, resource="cluster/0", limit=2)] == ["a6", "a4"]
    assert await events(database, project_ids=set()) == []


async def test_events_written_at_once_all_stand_there(database: Database) -> None:
    await all_at_once(database, [record(f"a{number}") for number in range(20)])
    assert {event.action for event in await events(database)} == {f"a{number}" for number in range(20)}
