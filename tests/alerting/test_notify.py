"""From an alert to its receiver: the queue, its order, back-off, what is shown of failures, and who sends."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from controlplane.alerting.channels import ChannelKind, Channels
from controlplane.alerting.notify import Notifier
from controlplane.alerting.service import Alerting, AlertingSettings
from controlplane.domain.alert import Severity
from controlplane.store import alert_channels
from controlplane.store.tables import Secret
from tests.alerting.receivers import MailServer, Receiver, listening
from tests.alerting.stage import DISK, START, Stage
from tests.waiting import eventually

FULL, GOOD = {0: {DISK: 93.0}}, {0: {DISK: 50.0}}


def notifier(stage: Stage, **limits: Any) -> Notifier:
    channels = Channels(allow_private=True, clock=stage.clock)
    return Notifier(stage.database, stage.vault, stage.clock, channels, **limits)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening(Receiver()) as running:
        yield running


async def send(notifier: Notifier) -> int:
    """Send what is due now, to its end."""
    begun = await notifier.send_due()
    await notifier.settle()
    return begun


def events(receiver: Receiver) -> list[tuple[str, str]]:
    """What the receiver was told, in order."""
    told = [one for request in receiver.requests for one in json.loads(request.body)["alerts"]]
    return [(one["event"], one["rule"]) for one in told]


async def test_an_alert_reaches_its_receiver_and_so_does_its_end(both: Stage, receiver: Receiver) -> None:
    channel = await both.channel(settings={"url": receiver.url}, severity=Severity.CRITICAL)
    sender = notifier(both)
    assert await send(sender) == 0
    await both.tick(FULL, rounds=3)
    assert await send(sender) == 1
    await both.tick(GOOD, rounds=7)
    assert await send(sender) == 1
    assert events(receiver) == [("fired", "Disk nearly full"), ("resolved", "Disk nearly full")]
    first = json.loads(receiver.requests[0].body)["alerts"][0]
    assert first["summary"] == (
        "Disk nearly full on node orders-rs0-0: host.disk.used_percent is 93 %, above 90 %, "
        "since 2026-01-02 03:00:30 UTC"
    )
    assert first["advice"].startswith("mongod stops when the volume is full.")
    (alert,) = [one for one in await both.every() if one.severity == "CRITICAL"]
    assert [event.what for event in await both.history(alert.id)] == ["fired", "sent to ops", "resolved", "sent to ops"]
    row = await both.channel_row(channel)
    assert (row.last_success_at, row.last_failure_at, await both.told()) == (both.clock.now(), None, [])


async def test_a_channel_that_is_down_is_tried_again_with_growing_pauses_and_shown(
    both: Stage, receiver: Receiver
) -> None:
    channel = await both.channel(settings={"url": receiver.url}, severity=Severity.CRITICAL)
    sender = notifier(both)
    receiver.status = "503 Down"
    await both.tick(FULL, rounds=3)
    assert await send(sender) == 1
    pauses = []
    for _ in range(10):
        row = await both.channel_row(channel)
        assert row.last_failure == "HTTP 503 Service Unavailable" or row.last_failure.startswith("HTTP 503")
        assert row.last_failure_at == both.clock.now()
        assert row.next_attempt_at is not None
        pauses.append((row.next_attempt_at - both.clock.now()).total_seconds())
        assert await send(sender) == 0, "not before its pause is over"
        both.clock.advance(pauses[-1] + 0.001)
        assert await send(sender) == 1
    assert 4 <= pauses[0] <= 5
    assert 8 <= pauses[1] <= 10
    assert 480 <= pauses[-1] <= 600
    assert await both.database.read(alert_channels.waiting) == {channel: 1}
    receiver.status = "200 OK"
    both.clock.advance(600)
    assert await send(sender) == 1
    assert await both.database.read(alert_channels.waiting) == {}
    alert = next(one for one in await both.every() if one.severity == "CRITICAL")
    what = [event.what for event in await both.history(alert.id)]
    assert what == ["fired", "failed to send to ops", "sent to ops"], "a failure stands in the history once"


async def test_messages_keep_their_order_while_a_channel_is_down(stage: Stage, receiver: Receiver) -> None:
    await stage.channel(settings={"url": receiver.url}, severity=Severity.CRITICAL)
    sender = notifier(stage)
    receiver.status = "503 Down"
    await stage.tick(FULL, rounds=3)
    await send(sender)
    await stage.tick(GOOD, rounds=7)
    await stage.tick(FULL, rounds=7)
    receiver.status, receiver.requests = "200 OK", []
    for _ in range(3):
        stage.clock.advance(600)
        await send(sender)
    assert [event for event, _ in events(receiver)] == ["fired", "resolved", "fired"]
    assert len(receiver.requests) == 2, "one alone after a failure, and the rest together"


async def test_a_slow_channel_delays_no_other_and_no_evaluation(stage: Stage, receiver: Receiver) -> None:
    async with listening(MailServer(silent=True)) as stuck:
        mail = {"host": "127.0.0.1", "port": stuck.port, "from": "w@example.com", "to": ["a@example.com"]}
        await stage.channel("a stuck one", kind=ChannelKind.EMAIL, settings={**mail, "plaintext": True}, secret="")
        await stage.channel("z good one", settings={"url": receiver.url})
        sender = notifier(stage)
        await stage.tick(FULL, rounds=3)
        assert await sender.send_due() == 2
        await eventually(lambda: receiver.requests, within=15)
        await eventually(lambda: stuck.connections, within=15)
        await stage.tick(GOOD, rounds=5)  # 50 s: a channel that is being tried is held for 60
        assert await stage.open() == {}
        assert await eventually(sender.send_due, within=15) == 1, "who is being tried is not tried a second time"
        await eventually(lambda: len(events(receiver)) == 4, within=15)


async def test_a_message_that_is_never_taken_does_not_block_the_others(stage: Stage, receiver: Receiver) -> None:
    await stage.channel(settings={"url": receiver.url})
    sender = notifier(stage)
    receiver.status = "413 Too Large"
    await stage.tick(FULL, rounds=3)
    await send(sender)
    assert len(events(receiver)) == 2, "both in one message"
    stage.clock.advance(600)
    await send(sender)
    assert len(await stage.told()) == 1, "alone, and refused again: dropped"
    receiver.status = "200 OK"
    stage.clock.advance(600)
    await send(sender)
    assert await stage.told() == []
    texts = [event.what for alert in await stage.every() for event in await stage.history(alert.id)]
    assert texts.count("gave up sending to ops") == 1
    assert texts.count("sent to ops") == 1


async def test_what_could_not_be_told_for_a_day_is_dropped_and_noted(stage: Stage, receiver: Receiver) -> None:
    await stage.channel(settings={"url": receiver.url}, severity=Severity.CRITICAL)
    sender = notifier(stage)
    receiver.status = "503 Down"
    await stage.tick(FULL, rounds=3)
    await send(sender)
    stage.clock.advance(timedelta(days=1, minutes=1).total_seconds())
    receiver.status = "200 OK"
    await send(sender)
    assert await stage.told() == []
    alert = next(one for one in await stage.every() if one.severity == "CRITICAL")
    assert [event.what for event in await stage.history(alert.id)][-1] == "gave up sending to ops"


async def test_a_dead_channel_does_not_fill_the_database(stage: Stage) -> None:
    await stage.channel(settings={"url": "http://127.0.0.1:1/"})
    sender = notifier(stage, most_waiting=3)
    for _ in range(4):
        await stage.tick(FULL, rounds=7)
        await stage.tick(GOOD, rounds=7)
    assert len(await stage.told()) == 16
    await send(sender)
    assert len(await stage.told()) == 3


async def test_two_control_planes_send_each_message_once(both: Stage, receiver: Receiver) -> None:
    await both.channel(settings={"url": receiver.url})
    senders = [notifier(both) for _ in range(4)]
    await both.tick(FULL, rounds=3)
    await asyncio.gather(*(sender.send_due() for sender in senders))
    await asyncio.gather(*(sender.settle() for sender in senders))
    assert sorted(rule for _, rule in events(receiver)) == ["Disk filling", "Disk nearly full"]
    assert len(receiver.requests) == 1


async def test_who_dies_while_sending_leaves_the_message_to_others(both: Stage, receiver: Receiver) -> None:
    """The control plane that took it is gone: a minute later another one sends it, with the same id."""
    await both.channel(settings={"url": receiver.url}, severity=Severity.CRITICAL)
    await both.tick(FULL, rounds=3)
    now = both.clock.now()
    taken = await both.database.write(lambda tx: alert_channels.take(tx, both.vault, now))
    assert len(taken) == 1
    other = notifier(both)
    assert await send(other) == 0
    both.clock.advance(61)
    assert await send(other) == 1
    assert events(receiver) == [("fired", "Disk nearly full")]


async def test_who_closes_while_sending_lets_go_at_once(stage: Stage) -> None:
    async with listening(Receiver(silent=True)) as stuck:
        await stage.channel(settings={"url": stuck.url}, severity=Severity.CRITICAL)
        await stage.tick(FULL, rounds=3)
        first = notifier(stage, close_seconds=0.1)
        await first.send_due()
        await eventually(lambda: stuck.requests, within=15)
        await first.close()
    assert await notifier(stage).send_due() == 1


async def test_a_removed_channel_leaves_no_secret_and_no_message(stage: Stage) -> None:
    channel = await stage.channel(settings={"url": "http://127.0.0.1:1/"})
    await stage.tick(FULL, rounds=3)
    row = await stage.channel_row(channel)
    await stage.database.write(lambda tx: alert_channels.remove(tx, stage.vault, tx.merge(row)))
    assert await stage.told() == []
    left = await stage.database.read(lambda tx: [one.scope for one in tx.query(Secret).all()])
    assert left == []


async def test_the_channels_of_a_project_that_is_gone_go_too(stage: Stage) -> None:
    await stage.channel("stays", project="")
    await stage.channel("goes", project="pr-gone")
    assert await stage.database.write(lambda tx: alert_channels.forget_orphans(tx, stage.vault)) == 1
    left = await stage.database.read(lambda tx: [row.name for row in alert_channels.list_channels(tx, None)])
    assert left == ["stays"]


async def test_secrets_are_sealed(stage: Stage) -> None:
    channel = await stage.channel(secret="whsec_Y2FuYXJ5", settings={"url": "https://example.com/"})
    (row,) = await stage.database.read(lambda tx: tx.query(Secret).all())
    assert b"whsec_Y2FuYXJ5" not in row.ciphertext
    told = await stage.database.read(lambda tx: alert_channels.secret(tx, stage.vault, channel))
    assert told == "whsec_Y2FuYXJ5"


async def test_started_as_the_server_does_it_tells_within_a_round(stage: Stage, receiver: Receiver) -> None:
    """Evaluation and sending by themselves, by their own tasks, and a close that leaves nothing running."""
    await stage.channel(settings={"url": receiver.url}, severity=Severity.CRITICAL)
    settings = AlertingSettings(holder="one", allow_private_webhooks=True, every_seconds=0.05)
    await stage.tick(FULL, rounds=2)
    alerting = Alerting(stage.database, stage.vault, stage.clock, stage.hot, settings)
    before = len(asyncio.all_tasks())
    alerting.start()
    try:
        assert events(receiver) == []
        await stage.tick(FULL)
        await eventually(lambda: events(receiver) == [("fired", "Disk nearly full")], within=10)
    finally:
        await alerting.close()
    assert len(asyncio.all_tasks()) == before
    assert stage.clock.now() > START
