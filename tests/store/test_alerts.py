"""Rules, alerts, silences, channels and leases in the store."""

import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from controlplane.alerting.built_in import BUILT_IN
from controlplane.domain.alert import AlertState, Place, Rule, Severity, Silence
from controlplane.domain.failure import FailureCode, Refused
from controlplane.store import alert_channels, alerts, leases
from controlplane.store.alert_channels import NewChannel
from controlplane.store.alert_tables import Alert, Lease
from controlplane.store.alerts import AlertFilter, Firing, Subject
from controlplane.store.database import Database
from controlplane.store.vault import KEY_BYTES, Vault
from tests.store.rows import NOW, all_at_once

NODE = Place("pr-1", "cl-1", "nd-1")
SUBJECT = Subject(NODE, "orders", "orders-rs0-0")
RULE = dataclasses.replace(BUILT_IN[0], place=Place("pr-1"), built_in=False)
LIFE = timedelta(seconds=30)
EVERYTHING = AlertFilter(None, include_resolved=True)


async def fire(database: Database, rule: Rule = RULE, subject: Subject = SUBJECT, seconds: float = 0) -> Alert:
    now = NOW + timedelta(seconds=seconds)
    (alert,) = await database.write(lambda tx: alerts.fire(tx, [Firing(rule, subject, 99.0)], now))
    return alert


async def test_a_rule_comes_back_as_it_went_in(database: Database) -> None:
    for rule in BUILT_IN:
        own = dataclasses.replace(rule, place=NODE, built_in=False, repeat=None)
        row = await database.write(lambda tx, own=own: alerts.insert_rule(tx, own, NOW))  # type: ignore[misc]
        assert alerts.rule_of(row) == dataclasses.replace(own, id=row.id, created_at=NOW)
    assert len(await database.read(alerts.list_rules)) == len(BUILT_IN)


async def test_a_level_has_each_name_once(database: Database) -> None:
    outcomes = await all_at_once(database, [lambda tx: alerts.insert_rule(tx, RULE, NOW) for _ in range(5)])
    assert sorted(isinstance(one, Refused) for one in outcomes) == [False, True, True, True, True]
    await database.write(lambda tx: alerts.insert_rule(tx, dataclasses.replace(RULE, place=NODE), NOW))
    other = await database.write(lambda tx: alerts.insert_rule(tx, dataclasses.replace(RULE, name="Another"), NOW).id)

    def rename(tx: Session) -> None:
        row = alerts.get_rule(tx, other)
        assert row is not None
        alerts.change_rule(tx, row, RULE)

    with pytest.raises(Refused) as refused:
        await database.write(rename)
    assert refused.value.code is FailureCode.ALREADY_EXISTS


async def test_of_a_rule_and_a_node_one_alert_is_open(database: Database) -> None:
    first = await fire(database)
    assert await database.write(lambda tx: alerts.fire(tx, [Firing(RULE, SUBJECT, 1.0)], NOW)) == []
    await database.write(lambda tx: alerts.resolve(tx, tx.get_one(Alert, first.id), "it is good", NOW))
    second = await fire(database)
    assert second.id != first.id


async def test_a_resolved_alert_does_not_come_back(database: Database) -> None:
    alert = await fire(database)
    await database.write(lambda tx: alerts.resolve(tx, tx.get_one(Alert, alert.id), "it is good", NOW))
    with pytest.raises(Refused):
        await database.write(
            lambda tx: alerts.acknowledge(tx, tx.get_one(Alert, alert.id), NOW + LIFE, "user:ann", "", NOW)
        )


async def test_pages_hold_open_ones_first_and_then_the_newest(database: Database) -> None:
    made = [
        await fire(database, dataclasses.replace(RULE, name=f"Rule {number}"), SUBJECT, number // 2)
        for number in range(10)
    ]
    for alert in made[1::3]:
        await database.write(lambda tx, a=alert: alerts.resolve(tx, tx.get_one(Alert, a.id), "", NOW))  # type: ignore[misc]
    found: list[Alert] = []
    after = None
    while page := await database.read(lambda tx: alerts.list_page(tx, EVERYTHING, after, 3)):  # noqa: B023
        found += page
        last = page[-1]
        after = (0 if last.open_key else 1, last.started_at, last.id)
    assert len({one.id for one in found}) == 10
    keys = [(one.state == AlertState.RESOLVED, -one.started_at.timestamp(), one.id) for one in found]
    assert keys == sorted(keys)


async def test_filters(database: Database) -> None:
    await fire(database)
    elsewhere = Subject(Place("pr-2", "cl-2", "nd-2"), "other", "orders-rs0-1")
    ended = await fire(database, RULE, elsewhere)
    await database.write(lambda tx: alerts.resolve(tx, tx.get_one(Alert, ended.id), "", NOW))

    async def count(**wanted: object) -> int:
        fields = {"project_ids": None, "include_resolved": True, **wanted}
        return len(await database.read(lambda tx: alerts.list_page(tx, AlertFilter(**fields), None, 9)))  # type: ignore[arg-type]

    assert await count() == 2
    assert await count(include_resolved=False) == 1
    assert await count(project_ids=["pr-2"]) == 1
    assert await count(project_ids=[]) == 0
    assert await count(cluster_id="cl-1", node_id="nd-2") == 0
    assert await count(node_id="nd-2") == 1


async def test_silences_end(database: Database) -> None:
    silence = Silence(Place("pr-1"), "", NOW, NOW + LIFE)
    row = await database.write(lambda tx: alerts.insert_silence(tx, silence, "work", "user:ann"))
    everywhere = Silence(Place(), "", NOW, NOW + LIFE)
    await database.write(lambda tx: alerts.insert_silence(tx, everywhere, "", "user:root"))
    assert alerts.silence_of(row) == silence

    async def current(projects: list[str] | None, seconds: float = 0) -> int:
        now = NOW + timedelta(seconds=seconds)
        return len(await database.read(lambda tx: alerts.list_silences(tx, projects, now)))

    assert [await current(None), await current(["pr-1"]), await current(["pr-2"])] == [2, 2, 1]
    assert await current(None, 30) == 0
    await database.write(lambda tx: alerts.end_silence(tx, tx.merge(row), NOW))
    assert await current(["pr-1"]) == 1


async def test_a_project_has_each_channel_once(database: Database) -> None:
    vault = Vault(bytes(KEY_BYTES))
    new = NewChannel("ops", "pr-1", Severity.INFO, "SLACK", {}, "https://hooks.example.com")
    await database.write(lambda tx: alert_channels.insert(tx, vault, new, NOW))
    with pytest.raises(Refused) as refused:
        await database.write(lambda tx: alert_channels.insert(tx, vault, new, NOW))
    assert refused.value.code is FailureCode.ALREADY_EXISTS
    await database.write(lambda tx: alert_channels.insert(tx, vault, dataclasses.replace(new, project_id="pr-2"), NOW))


async def test_one_at_a_time_holds_a_lease(database: Database) -> None:
    async def hold(holder: str) -> bool:
        return await database.write(lambda tx: leases.hold(tx, "alerts", holder, LIFE))

    assert await hold("one")
    assert not await hold("two")
    assert await hold("one"), "it may be renewed"
    await database.write(lambda tx: leases.release(tx, "alerts", "two"))
    assert not await hold("two"), "who does not hold it cannot let go of it"
    await database.write(lambda tx: leases.release(tx, "alerts", "one"))
    assert await hold("two")


async def test_of_many_who_want_a_lease_at_once_one_gets_it(database: Database) -> None:
    work = [lambda tx, n=number: leases.hold(tx, "alerts", f"plane-{n}", LIFE) for number in range(8)]
    assert sorted(await all_at_once(database, work)) == [False] * 7 + [True]  # type: ignore[type-var]
    row = await database.read(lambda tx: tx.get_one(Lease, "alerts"))
    assert row.holder.startswith("plane-")
