"""Rounds of looking: what fires, what stays, what resolves, who is told; and what a control plane that was away does."""

import asyncio
import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from controlplane.alerting.built_in import BUILT_IN
from controlplane.domain.alert import AlertState, Place, Rule, Severity
from controlplane.domain.cluster import ClusterState
from controlplane.domain.node import AgentState
from controlplane.store import alerts
from controlplane.store.alert_tables import Alert, Lease
from controlplane.telemetry.port import Frame
from tests.alerting.stage import DISK, LAG, LIFE, ROUND, Stage
from tests.waiting import eventually

GOOD = {number: {DISK: 50.0, LAG: 0.0} for number in range(3)}
FULL = {0: {DISK: 93.0}, 1: {DISK: 50.0}, 2: {DISK: 50.0}}
CRITICAL, WARNING = "Disk nearly full", "Disk filling"


def built_in(name: str) -> Rule:
    return next(rule for rule in BUILT_IN if rule.name == name)


async def test_all_is_well_and_nothing_is_written(stage: Stage) -> None:
    await stage.tick(GOOD, rounds=30)
    assert await stage.every() == []


async def test_an_alert_fires_is_acknowledged_and_resolves(both: Stage) -> None:
    await both.channel()
    await both.tick(GOOD, rounds=6)
    await both.tick(FULL, rounds=2)
    assert await both.open() == {}
    await both.tick(FULL)
    found = await both.open()
    assert set(found) == {(CRITICAL, "orders-rs0-0"), (WARNING, "orders-rs0-0")}
    alert = found[CRITICAL, "orders-rs0-0"]
    assert (alert.state, alert.value, alert.threshold, alert.severity) == (AlertState.FIRING, 93.0, 90.0, "CRITICAL")
    assert (alert.cluster_name, alert.started_at) == ("orders", both.clock.now())
    assert sorted(await both.told()) == [("fired", WARNING), ("fired", CRITICAL)]

    until = both.clock.now() + timedelta(hours=1)
    await both.database.write(
        lambda tx: alerts.acknowledge(
            tx, tx.get_one(Alert, alert.id), until, "user:ann", "volume is growing", both.clock.now()
        )
    )
    await both.tick({0: {DISK: 94.0}}, rounds=3)
    assert (await both.open())[CRITICAL, "orders-rs0-0"].value == 94.0

    await both.tick({0: {DISK: 60.0}}, rounds=6)
    assert await both.open() == {}
    assert [(one.rule_name, one.state) for one in await both.every()] == [
        (one.rule_name, AlertState.RESOLVED) for one in await both.every()
    ]
    history = await both.history(alert.id)
    assert [event.what for event in history] == ["fired", "acknowledged", "resolved"]
    assert (history[1].actor, "volume is growing" in history[1].detail) == ("user:ann", True)
    assert sorted(await both.told())[2:] == [("resolved", WARNING), ("resolved", CRITICAL)]


async def test_a_value_around_the_threshold_is_one_alert_and_later_a_new_one(stage: Stage) -> None:
    for value in (91.0, 89.5, 91.0, 89.5, 91.0, 89.5) * 5:
        await stage.tick({0: {DISK: value}})
    assert [one.rule_name for one in await stage.every()].count(CRITICAL) == 1
    await stage.tick({0: {DISK: 50.0}}, rounds=7)
    assert (CRITICAL, "orders-rs0-0") not in await stage.open()
    await stage.tick({0: {DISK: 95.0}}, rounds=7)
    assert [one.rule_name for one in await stage.every()].count(CRITICAL) == 2


async def test_a_silent_agent_is_told_after_90_seconds(both: Stage) -> None:
    await both.tick(GOOD, rounds=12)
    both.heard.discard(both.nodes[2])
    await both.change(2, agent_state=AgentState.SILENT)
    await both.tick(rounds=9)
    assert await both.open() == {}
    await both.tick()
    assert set(await both.open()) == {("Agent silent", "orders-rs0-2")}
    both.heard.add(both.nodes[2])
    await both.tick()
    assert await both.open() == {}


async def test_a_control_plane_that_was_away_raises_no_false_alarm(stage: Stage) -> None:
    """While it was down nobody was heard, and nobody had a primary in its eyes."""
    await stage.tick(GOOD, rounds=3)
    stage.clock.advance(3600)
    stage.evaluator = stage.new_evaluator()
    await stage.evaluator.round()  # no agent has come back yet
    assert await stage.every() == []
    stage.heard.clear()
    await stage.tick(rounds=1)
    assert await stage.every() == [], "an agent has 90 s to come back"
    await stage.tick(rounds=9)
    assert {name for name, _ in await stage.open()} == {"Agent silent", "No primary"}


async def test_control_what_it_would_say_if_it_took_its_absence_for_theirs(stage: Stage) -> None:
    """The same silence, witnessed: the alarm is right."""
    await stage.tick(GOOD, rounds=3)
    stage.heard.clear()
    await stage.tick(rounds=10)
    assert {name for name, _ in await stage.open()} == {"Agent silent", "No primary"}


async def test_a_gap_between_rounds_counts_as_absence(stage: Stage) -> None:
    """The database was away: no heartbeat was written, and no round was looked at."""
    await stage.tick(GOOD, rounds=3)
    stage.clock.advance(600)
    await stage.evaluator.round()
    assert await stage.every() == []


async def test_a_restart_ends_no_alert_and_makes_none_twice(stage: Stage) -> None:
    await stage.tick(GOOD, rounds=3)
    stage.heard.clear()
    await stage.tick(rounds=12)
    before = {one.id for one in await stage.every()}
    assert len(before) == 4
    stage.evaluator = stage.new_evaluator()
    await stage.tick(rounds=12)
    assert {one.id for one in await stage.every()} == before
    assert len(await stage.open()) == 4


async def test_no_primary_is_told_after_more_than_an_ordinary_election(stage: Stage) -> None:
    await stage.tick(GOOD, rounds=3)
    stage.reports[stage.nodes[0]]["member_state"] = "SECONDARY"
    await stage.tick()
    assert await stage.open() == {}
    await stage.tick()
    alert = (await stage.open())["No primary", ""]
    assert (alert.severity, alert.node_id, alert.cluster_id) == ("CRITICAL", "", stage.cluster)
    stage.reports[stage.nodes[1]]["member_state"] = "PRIMARY"
    await stage.tick()
    assert await stage.open() == {}


async def test_a_mongod_that_stays_down_is_told_and_one_that_was_stopped_is_not(stage: Stage) -> None:
    await stage.tick(GOOD, rounds=3)
    stage.reports[stage.nodes[1]]["mongod_state"] = "MONGOD_STATE_FAILED"
    stage.reports[stage.nodes[2]]["mongod_state"] = "MONGOD_STATE_STOPPED"
    await stage.tick(rounds=8)
    assert set(await stage.open()) == {("mongod down", "orders-rs0-1")}
    stage.evaluator = stage.new_evaluator()
    await stage.tick(rounds=2)
    assert set(await stage.open()) == {("mongod down", "orders-rs0-1")}, (
        "a restart of the control plane starts no mongod"
    )
    stage.reports[stage.nodes[1]]["mongod_state"] = "MONGOD_STATE_RUNNING"
    await stage.tick()
    assert await stage.open() == {}


async def test_a_certificate_that_is_not_renewed_is_told(stage: Stage) -> None:
    await stage.change(1, certificate_expires_at=stage.clock.now() + LIFE / 5)
    await stage.tick()
    alert = (await stage.open())["Certificate expiring", "orders-rs0-1"]
    assert alert.value == pytest.approx(20.0, abs=0.1)
    await stage.change(1, certificate_expires_at=stage.clock.now() + LIFE)
    await stage.tick()
    assert await stage.open() == {}


@pytest.mark.parametrize(
    ("metric", "value", "rules"),
    [
        (LAG, 61.0, {"Replication lag"}),
        (LAG, 601.0, {"Replication lag", "Replication lag critical"}),
        ("replica_set.oplog_full_window_seconds", 23 * 3600.0, {"Oplog window short"}),
        ("replica_set.oplog_full_window_seconds", 3000.0, {"Oplog window short", "Oplog window critical"}),
        (DISK, 76.0, {WARNING}),
        (DISK, 91.0, {WARNING, CRITICAL}),
        ("host.cpu.used_percent", 95.0, {"CPU high"}),
        ("mongod.connections.used_percent", 81.0, {"Connections near limit"}),
        ("mongod.query.docs_examined_per_returned", 1001.0, {"Query targeting"}),
        ("mongod.restarts", 1.0, {"Restarts"}),
    ],
)
async def test_each_rule_that_comes_with_wap(stage: Stage, metric: str, value: float, rules: set[str]) -> None:
    await stage.tick({1: {metric: value}}, rounds=30)
    assert set(await stage.open()) == {(rule, "orders-rs0-1") for rule in rules}


async def test_three_restarts_within_an_hour_are_told_and_two_are_not(stage: Stage) -> None:
    restarts = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    for value in restarts:
        await stage.tick({1: {"mongod.restarts": value}})
    assert await stage.open() == {}
    await stage.tick({1: {"mongod.restarts": 1.0}})
    assert set(await stage.open()) == {("Restarts", "orders-rs0-1")}


async def test_an_override_at_a_node_counts_there_only(stage: Stage) -> None:
    await stage.rule(dataclasses.replace(built_in(CRITICAL), place=stage.place(1), threshold=97.0, built_in=False))
    await stage.tick({number: {DISK: 95.0} for number in range(3)}, rounds=3)
    found = {node for name, node in await stage.open() if name == CRITICAL}
    assert found == {"orders-rs0-0", "orders-rs0-2"}


async def test_a_rule_that_is_switched_off_in_a_project_ends_its_alerts(stage: Stage) -> None:
    await stage.tick(FULL, rounds=3)
    assert (CRITICAL, "orders-rs0-0") in await stage.open()
    off = dataclasses.replace(built_in(CRITICAL), place=Place(stage.project), disabled=True, built_in=False)
    await stage.rule(off)
    await stage.tick(FULL)
    assert set(await stage.open()) == {(WARNING, "orders-rs0-0")}


async def test_an_open_alert_follows_a_change_of_its_rule(stage: Stage) -> None:
    await stage.tick(FULL, rounds=3)
    before = (await stage.open())[CRITICAL, "orders-rs0-0"]
    own = dataclasses.replace(
        built_in(CRITICAL), place=stage.place(0), threshold=85.0, severity=Severity.WARNING, built_in=False
    )
    await stage.rule(own)
    await stage.tick(FULL)
    after = (await stage.open())[CRITICAL, "orders-rs0-0"]
    assert (after.id, after.threshold, after.severity) == (before.id, 85.0, "WARNING")


async def test_what_is_no_longer_measured_resolves_and_a_node_that_says_nothing_keeps_its_alert(stage: Stage) -> None:
    await stage.tick({1: {LAG: 100.0, DISK: 1.0}, 2: {LAG: 100.0}}, rounds=3)
    assert len(await stage.open()) == 2
    await stage.tick({1: {DISK: 1.0}}, rounds=12)  # node 1 has become primary; node 2 sends no samples
    assert set(await stage.open()) == {("Replication lag", "orders-rs0-1"), ("Replication lag", "orders-rs0-2")}
    await stage.tick({1: {DISK: 1.0}}, rounds=10)
    assert set(await stage.open()) == {("Replication lag", "orders-rs0-2")}
    ended = next(one for one in await stage.every() if one.resolved_at is not None)
    assert (await stage.history(ended.id))[-1].detail == "it is no longer measured"


@pytest.mark.parametrize("state", [ClusterState.DELETING, ClusterState.DELETED])
async def test_alerts_of_a_cluster_that_goes_away_end(stage: Stage, state: ClusterState) -> None:
    await stage.tick(FULL, rounds=3)
    await stage.move(state)
    await stage.tick(FULL)
    assert await stage.open() == {}


async def test_a_cluster_that_is_being_made_raises_none(stage: Stage) -> None:
    await stage.move(ClusterState.CREATING)
    await stage.tick(FULL, rounds=10)
    assert await stage.every() == []


async def test_alerts_of_a_node_that_was_removed_end(stage: Stage) -> None:
    await stage.tick(FULL, rounds=3)
    await stage.change(0, removed_at=stage.clock.now())
    stage.heard.discard(stage.nodes[0])
    await stage.tick()
    assert {key for key in await stage.open() if key[1] == "orders-rs0-0"} == set()


async def test_what_is_silenced_fires_and_is_not_sent_until_the_silence_ends(stage: Stage) -> None:
    await stage.channel()
    await stage.silence(stage.place(0), 120)
    await stage.tick(FULL, rounds=5)
    assert (CRITICAL, "orders-rs0-0") in await stage.open()
    assert await stage.told() == []
    await stage.tick(FULL, rounds=9)
    assert {rule for _, rule in await stage.told()} == {CRITICAL, WARNING}


async def test_nothing_is_repeated_while_acknowledged_and_it_is_told_when_that_ends(stage: Stage) -> None:
    await stage.channel(severity=Severity.CRITICAL)
    repeat = dataclasses.replace(built_in(CRITICAL), place=stage.place(0), repeat=timedelta(minutes=1), built_in=False)
    await stage.rule(repeat)
    await stage.tick(FULL, rounds=3)
    assert await stage.told() == [("fired", CRITICAL)]
    await stage.tick(FULL, rounds=6)
    assert await stage.told() == [("fired", CRITICAL), ("repeated", CRITICAL)]
    alert = (await stage.open())[CRITICAL, "orders-rs0-0"]
    until = stage.clock.now() + timedelta(minutes=10)
    await stage.database.write(
        lambda tx: alerts.acknowledge(tx, tx.get_one(Alert, alert.id), until, "user:ann", "", stage.clock.now())
    )
    await stage.tick(FULL, rounds=59)
    assert len(await stage.told()) == 2
    await stage.tick(FULL)
    assert len(await stage.told()) == 3
    assert (await stage.open())[CRITICAL, "orders-rs0-0"].state == AlertState.FIRING
    assert [event.what for event in await stage.history(alert.id)][-1] == "acknowledgement ended"


async def test_who_is_told_by_severity_and_project(stage: Stage) -> None:
    everything = await stage.channel("everything", project="")
    critical = await stage.channel("critical", severity=Severity.CRITICAL)
    await stage.channel("elsewhere", project="pr-other")
    await stage.tick(FULL, rounds=3)
    rows = await stage.database.read(
        lambda tx: tx.execute(text("select channel_id, count(*) from alert_delivery group by channel_id")).all()
    )
    assert {channel: count for channel, count in rows} == {everything: 2, critical: 1}


async def test_a_channel_that_is_added_later_is_told_of_what_is_open(stage: Stage) -> None:
    await stage.tick(FULL, rounds=10)
    await stage.channel(severity=Severity.CRITICAL)
    await stage.tick(FULL)
    assert await stage.told() == [("repeated", CRITICAL)]


async def test_several_control_planes_open_each_alert_once(both: Stage) -> None:
    await both.tick(GOOD, rounds=3)
    others = [both.other(f"plane-{number}") for number in range(3)]
    for number, other in enumerate(others):
        other.hot = both.hot
        other.evaluator = other.new_evaluator(f"plane-{number}")
    both.reports[both.nodes[0]]["member_state"] = "SECONDARY"
    for _ in range(6):
        both.clock.advance(ROUND)
        await both.beat()
        both.hot.take([Frame(both.nodes[0], both.cluster, "", both.clock.now(), {DISK: 95.0})])
        await asyncio.gather(both.evaluator.round(), *(other.evaluator.round() for other in others))
    names = sorted(one.rule_name for one in await both.every())
    assert names == [WARNING, CRITICAL, "No primary"]


async def test_samples_are_judged_where_they_are_and_rows_by_who_leads(both: Stage) -> None:
    await both.tick(GOOD, rounds=3)
    other = both.other("two")
    other.heard, other.reports = set(both.nodes), both.reports
    both.reports[both.nodes[0]]["member_state"] = "SECONDARY"
    await other.tick(FULL, rounds=5)
    assert {name for name, _ in await both.open()} == {CRITICAL, WARNING}, "who does not lead judges its samples only"
    await both.evaluator.let_go()
    await other.tick(FULL, rounds=5)
    assert {name for name, _ in await both.open()} == {CRITICAL, WARNING, "No primary"}, "it has taken over"
    await both.evaluator.round()
    assert len(await both.open()) == 3, "who has no samples has no opinion on what they say"


async def test_a_lease_that_has_run_out_is_taken(both: Stage) -> None:
    await both.tick(GOOD)
    other = both.other("two")

    async def holder() -> str:
        return await both.database.read(lambda tx: tx.get_one(Lease, "alerts").holder)

    await other.evaluator.round()
    assert await holder() == "one"

    def run_out(tx: Session) -> None:
        lease = tx.get_one(Lease, "alerts")
        lease.until = lease.until - timedelta(minutes=1)

    await both.database.write(run_out)
    await other.evaluator.round()
    assert await holder() == "two"


async def test_a_round_that_fails_is_followed_by_one_that_does_not(stage: Stage) -> None:
    """And operations are not asked: the task needs nothing but the store."""
    await stage.tick(FULL, rounds=2)
    await stage.database.write(lambda tx: tx.execute(text("alter table alert_rule rename to hidden")))
    stage.evaluator = stage.new_evaluator()
    stage.hot.take([Frame(stage.nodes[0], stage.cluster, "", stage.clock.now(), {DISK: 95.0})])
    stage.evaluator._every = 0.05
    running = asyncio.create_task(stage.evaluator.run())
    try:
        await stage.database.write(lambda tx: tx.execute(text("alter table hidden rename to alert_rule")))
        stage.clock.advance(ROUND)
        stage.hot.take([Frame(stage.nodes[0], stage.cluster, "", stage.clock.now(), {DISK: 95.0})])
        await eventually(stage.open, within=10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert (CRITICAL, "orders-rs0-0") in await stage.open()


async def test_rules_of_what_is_gone_are_forgotten(stage: Stage) -> None:
    rule = dataclasses.replace(built_in(CRITICAL), built_in=False)
    places = [Place(), Place(stage.project), stage.place(), stage.place(0), stage.place(1), Place("pr-gone")]
    for place in places:
        await stage.rule(dataclasses.replace(rule, place=place))

    async def forget() -> int:
        return await stage.database.write(lambda tx: alerts.forget_orphans(tx, stage.clock.now()))

    assert await forget() == 1
    await stage.change(1, removed_at=stage.clock.now())
    assert await forget() == 1
    await stage.move(ClusterState.DELETED)
    assert await forget() == 2
    left = {one.place for one in await stage.database.read(alerts.list_rules)}
    assert left == {Place(), Place(stage.project)}


async def test_old_alerts_are_forgotten_with_their_history(stage: Stage) -> None:
    await stage.tick(FULL, rounds=3)
    await stage.tick(GOOD, rounds=7)
    assert await stage.open() == {}
    now = stage.clock.now()
    assert await stage.database.write(lambda tx: alerts.forget_resolved(tx, now - timedelta(days=1))) == 0
    assert await stage.database.write(lambda tx: alerts.forget_resolved(tx, now + timedelta(days=1))) == 2
    left = await stage.database.read(lambda tx: tx.execute(text("select count(*) from alert_event")).scalar_one())
    assert left == 0
