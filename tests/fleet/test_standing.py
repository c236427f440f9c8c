"""The right to speak is looked at with every message: a stream does not outlive a certificate, a ban or its successor."""

import asyncio
from datetime import timedelta

import grpc
import pytest
from sqlalchemy import update
from wap.agent.v1 import command_pb2, stream_pb2, telemetry_pb2

from controlplane.domain.clock import Clock, FakeClock, SystemClock
from controlplane.fleet.certificates import BACKDATE
from controlplane.store import commands, nodes
from controlplane.store.database import Database
from controlplane.store.tables import Node
from tests.fleet.driver import SERVICE, Agent, ControlPlane, Ended, command, control_plane
from tests.waiting import eventually

BAN_SECONDS = 5.0


@pytest.mark.parametrize("sees_the_time", [True, False])
async def test_a_certificate_that_expires_ends_its_open_stream(sqlite: Database, sees_the_time: bool) -> None:
    """The control is a control plane whose clock stands still: gRPC itself lets the stream go on."""
    real = SystemClock()
    clock: Clock = real if sees_the_time else FakeClock(real.now())
    async with control_plane(sqlite, clock=clock) as plane:
        agent = await plane.add_agent(life=timedelta(seconds=2))
        async with agent.session() as line:
            expires = (await plane.node(agent.node_id)).certificate_expires_at
            assert expires is not None
            await eventually(lambda: real.now() > expires, within=5)
            await line.beat(problem="after the end")
            if sees_the_time:
                end = await line.ended()
                assert (end.status, end.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED")
                assert f"{expires:%FT%TZ}" in end.text
                assert (await plane.node(agent.node_id)).report is None
                assert [event.outcome for event in await plane.audit("agent.refused")] == ["CERTIFICATE_EXPIRED"]
            else:
                await eventually(lambda: _report(plane, agent.node_id), within=15)


async def _report(plane: ControlPlane, node_id: str) -> object:
    return (await plane.node(node_id)).report


@pytest.mark.parametrize("told", [True, False])
async def test_a_ban_closes_streams_within_seconds_even_if_the_wake_up_call_is_lost(
    plane: ControlPlane, told: bool
) -> None:
    agent, other = await plane.add_agent(), await plane.add_agent()
    async with agent.session() as line, other.session() as unharmed:
        report = line.channel.stream_stream(
            SERVICE + "Report",
            request_serializer=telemetry_pb2.ReportRequest.SerializeToString,
            response_deserializer=telemetry_pb2.ReportResponse.FromString,
        )()
        await report.write(telemetry_pb2.ReportRequest())
        await report.read()
        now = plane.clock.now()
        if told:
            await plane.database.write(lambda tx: nodes.ban(tx, agent.node_id, now))
        else:
            await plane.database.write(
                lambda tx: tx.execute(update(Node).where(Node.id == agent.node_id).values(banned_at=now))
            )
        end = await line.ended(BAN_SECONDS)
        assert (end.status, end.reason) == (grpc.StatusCode.PERMISSION_DENIED, "AGENT_BANNED")
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await report.read()
        assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
        again = await agent.attempt()
        assert isinstance(again, Ended)
        assert again.reason == "AGENT_BANNED"
        await unharmed.beat(problem="unharmed")
        await eventually(lambda: _report(plane, other.node_id), within=15)
        events = await plane.audit("agent.refused")
        assert {(event.resource, event.outcome) for event in events} == {(f"node/{agent.node_id}", "AGENT_BANNED")}


async def test_a_banned_agent_that_reads_nothing_is_gone_all_the_same(plane: ControlPlane) -> None:
    """What it was sent fills its window, so not even the end of the stream gets through to it."""
    agent = await plane.add_agent()
    async with agent.session():
        await plane.database.write(lambda tx: commands.put(tx, [_large(plane, agent.node_id, n) for n in range(40)]))
        await eventually(lambda: len(plane.sessions) == 1, within=5)
        now = plane.clock.now()
        await plane.database.write(lambda tx: nodes.ban(tx, agent.node_id, now))
        await eventually(lambda: len(plane.sessions) == 0, within=BAN_SECONDS)


def _large(plane: ControlPlane, node_id: str, number: int) -> commands.NewCommand:
    order = command(f"op/{number}")
    order.start_mongod.CopyFrom(command_pb2.StartMongod(ca_pem="x" * 200_000))
    now = plane.clock.now()
    body = plane.vault.seal(order.SerializeToString(), f"command/{order.id}")
    return commands.NewCommand(
        order.id, node_id, "op", "start_mongod", order.epoch, now + timedelta(minutes=1), body, now
    )


async def test_the_old_certificate_is_worth_nothing_once_the_new_one_is_used(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    old = agent.copy()
    async with old.session() as line:
        await agent.renew()
        assert isinstance(await old.attempt(), stream_pb2.Welcome)  # both are good
        await line.ended()
    async with old.session() as line:
        async with agent.session():
            end = await line.ended()
            assert end.reason in {"SESSION_SUPERSEDED", "CERTIFICATE_NOT_ACTIVE"}
        refused = await old.attempt()
        assert isinstance(refused, Ended)
        assert (refused.status, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CERTIFICATE_NOT_ACTIVE")
        assert isinstance(await agent.attempt(), stream_pb2.Welcome)
    node = await plane.node(agent.node_id)
    assert node.next_certificate_serial == ""


async def test_of_two_holders_of_one_key_one_is_shut_out_by_the_next_renewal(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    thief = agent.copy()
    await thief.renew()
    await agent.renew()
    answers = [await agent.attempt(), await thief.attempt()]
    assert [isinstance(answer, Ended) for answer in answers] == [False, True]
    assert [event.outcome for event in await plane.audit("agent.refused")] == ["CERTIFICATE_NOT_ACTIVE"]


async def test_certificates_rotate_without_a_gap(plane: ControlPlane) -> None:
    """Ten renewals one after another, each used while the session before it is still open."""
    agent = await plane.add_agent()
    epochs, serials = [], []
    for _ in range(10):
        async with agent.session() as line:
            serials.append((await agent.renew()).serial)
            async with agent.session() as successor:
                epochs += [line.epoch, successor.epoch]
                assert await plane.state(agent.node_id) == "CONNECTED"
                assert (await line.ended()).reason in {"SESSION_SUPERSEDED", "CERTIFICATE_NOT_ACTIVE"}
    assert epochs == sorted(set(epochs))
    assert len(set(serials)) == 10


async def test_a_certificate_lives_a_day(plane: ControlPlane) -> None:
    leaf = await (await plane.add_agent()).renew()
    assert timedelta(hours=23) < leaf.expires - plane.clock.now() <= timedelta(hours=24)
    assert timedelta() < BACKDATE < timedelta(hours=1)


async def test_a_second_session_ends_the_first(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.session() as first, agent.session() as second:
        assert second.epoch > first.epoch
        end = await first.ended()
        assert (end.status, end.reason) == (grpc.StatusCode.ABORTED, "SESSION_SUPERSEDED")
        assert f"superseded by session epoch {second.epoch}" in end.text
        await second.beat(problem="the newer one")
        await eventually(lambda: _report(plane, agent.node_id), within=15)
        assert await plane.state(agent.node_id) == "CONNECTED"


async def test_a_session_elsewhere_ends_the_one_here(database: Database) -> None:
    async with control_plane(database, owner="one") as one:
        agent = await one.add_agent()
        async with control_plane(database, owner="two", vault=one.vault) as two, agent.session() as first:
            async with agent.session(two) as second:
                end = await first.ended()
                assert (end.status, end.reason) == (grpc.StatusCode.ABORTED, "SESSION_SUPERSEDED")
                await second.beat(problem="the newer one")
                await eventually(lambda: _report(one, agent.node_id), within=15)
                assert (await one.node(agent.node_id)).session_owner == "two"
                assert await one.state(agent.node_id) == "CONNECTED"


async def test_many_sessions_of_one_agent_at_once_leave_one(database: Database) -> None:
    async with control_plane(database) as plane:
        agent = await plane.add_agent()
        answers = await asyncio.gather(*(_stay(agent) for _ in range(12)))
        assert sum(answer == "stays" for answer in answers) == 1


async def _stay(agent: Agent) -> str:
    try:
        async with agent.session() as line:
            await line.ended(3)
            return "ends"
    except grpc.aio.AioRpcError:
        return "refused"
    except TimeoutError:
        return "stays"


async def test_a_removed_node_is_refused(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    async with agent.session() as line:
        now = plane.clock.now()
        await plane.database.write(lambda tx: nodes.retire(tx, agent.node_id, now))
        assert (await line.ended()).reason == "CERTIFICATE_NOT_ACTIVE"
    answer = await agent.attempt()
    assert isinstance(answer, Ended)
    assert answer.status is grpc.StatusCode.PERMISSION_DENIED


async def test_refusals_of_one_agent_do_not_fill_the_audit(plane: ControlPlane) -> None:
    agent = await plane.add_agent()
    now = plane.clock.now()
    await plane.database.write(lambda tx: nodes.ban(tx, agent.node_id, now))
    for _ in range(10):
        assert isinstance(await agent.attempt(), Ended)
    (event,) = await plane.audit("agent.refused")
    assert event.outcome == "AGENT_BANNED"
