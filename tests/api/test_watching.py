"""Open streams: at once, after each change, never for nothing; and they end with the right of who watches."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from wap.control.v1 import access_pb2, cluster_pb2, operation_pb2, project_pb2
from wap.type.v1 import cluster_pb2 as type_pb2

from console.client import WapError
from controlplane.api.gate import RECHECK_SECONDS
from controlplane.domain.access import Grant, Role
from controlplane.domain.cluster import ClusterState
from controlplane.domain.node import AgentState
from controlplane.domain.operation import OperationState, StepState
from controlplane.store import access, clusters, nodes, operations
from controlplane.store.bus import publish
from controlplane.store.database import Database
from controlplane.store.tables import Operation, OperationStep, Token
from tests.api.world import Watching, World, a_report, populate, running
from tests.waiting import eventually

PROMISED_SECONDS = 5.0
WATCH_OPERATION, WATCH_CLUSTERS = "OperationService/WatchOperation", "ClusterService/WatchClusters"


async def soon(stream: Watching, within: float = 10.0) -> Any:
    """The next answer, which must come."""
    return await asyncio.wait_for(stream.next(), within)


async def ended(stream: Watching, within: float = 10.0) -> WapError:
    """The error that ends the stream, whatever is still sent before."""

    async def drain() -> WapError:
        try:
            while await stream.next() is not None:
                pass
        except WapError as error:
            return error
        raise AssertionError("the stream ended well")

    return await asyncio.wait_for(drain(), within)


async def move(world: World, operation_id: str, state: OperationState, summary: str = "moved") -> None:
    await world.database.write(lambda tx: operations.set_state(tx, tx.get_one(Operation, operation_id), state, summary))


async def test_a_watched_operation_is_sent_at_once_after_each_change_and_at_its_end(both: World) -> None:
    operation_id = await both.operation("orders", OperationState.QUEUED)
    request = operation_pb2.WatchOperationRequest(operation_id=operation_id)
    async with both.watch(WATCH_OPERATION, request, "viewer-a") as stream:
        first = (await soon(stream)).operation
        assert (first.id, first.state) == (operation_id, operation_pb2.OPERATION_STATE_QUEUED)
        assert first.steps
        await move(both, operation_id, OperationState.RUNNING)
        assert (await soon(stream)).operation.state == operation_pb2.OPERATION_STATE_RUNNING
        await move(both, operation_id, OperationState.FAILED)
        assert (await soon(stream)).operation.state == operation_pb2.OPERATION_STATE_FAILED
        await move(both, operation_id, OperationState.QUEUED)  # a failed one may go on
        assert (await soon(stream)).operation.state == operation_pb2.OPERATION_STATE_QUEUED
        await move(both, operation_id, OperationState.RUNNING)
        await move(both, operation_id, OperationState.SUCCEEDED)
        while (reply := await soon(stream)).operation.state != operation_pb2.OPERATION_STATE_SUCCEEDED:
            pass
        assert reply.operation.summary == "moved"
        assert await soon(stream) is None, "the final state is the last word"


async def test_a_watch_of_a_finished_operation_says_so_and_ends(world: World) -> None:
    operation_id = await world.operation("orders", OperationState.CANCELLED)
    request = operation_pb2.WatchOperationRequest(operation_id=operation_id)
    async with world.watch(WATCH_OPERATION, request) as stream:
        assert (await soon(stream)).operation.state == operation_pb2.OPERATION_STATE_CANCELLED
        assert await soon(stream) is None


async def test_another_control_plane_s_change_is_seen_too(both: World) -> None:
    """The other one shares the database and nothing else."""
    other = Database(both.database.url)
    try:
        operation_id = await both.operation("orders", OperationState.QUEUED)
        request = operation_pb2.WatchOperationRequest(operation_id=operation_id)
        async with both.watch(WATCH_OPERATION, request) as stream:
            await soon(stream)
            await other.write(
                lambda tx: operations.set_state(tx, tx.get_one(Operation, operation_id), OperationState.RUNNING, "")
            )
            assert (await soon(stream)).operation.state == operation_pb2.OPERATION_STATE_RUNNING
    finally:
        await other.close()


async def test_a_burst_of_changes_is_one_message_and_no_change_is_none(world: World) -> None:
    operation_id = await world.operation("orders")
    request = operation_pb2.WatchOperationRequest(operation_id=operation_id)

    def step(name: str, state: StepState) -> Callable[[Any], None]:
        def work(tx: Any) -> None:
            tx.get_one(OperationStep, (operation_id, name)).state = state
            publish(tx, f"operation/{operation_id}")

        return work

    async with world.watch(WATCH_OPERATION, request) as stream:
        names = [one.plan.name for one in (await soon(stream)).operation.steps]
        for name in names:
            await world.database.write(step(name, StepState.RUNNING))
            await world.database.write(step(name, StepState.SUCCEEDED))
        received = 0
        while (await soon(stream)).operation.steps_done < len(names):
            received += 1
        assert received < len(names), f"{2 * len(names)} changes"
        await world.database.write(lambda tx: publish(tx, f"operation/{operation_id}"))  # for nothing
        await move(world, operation_id, OperationState.SUCCEEDED, "done")
        assert (await soon(stream)).operation.summary == "done"


async def test_watched_clusters_are_those_of_the_project_and_change_with_them(both: World) -> None:
    request = cluster_pb2.WatchClustersRequest(project_id=both.ids["aa"])
    async with both.watch(WATCH_CLUSTERS, request, "viewer-a") as stream:
        assert [one.name for one in (await soon(stream)).clusters] == ["orders"]
        await both.cluster("aa", "billing")
        assert [one.name for one in (await soon(stream)).clusters] == ["billing", "orders"]
        for state in (ClusterState.DELETING, ClusterState.DELETED):
            await both.database.write(
                lambda tx, state=state: clusters.set_state(tx, both.ids["billing"], state, both.clock.now())  # type: ignore[misc]
            )
        while [one.name for one in (await soon(stream)).clusters] != ["orders"]:
            pass


async def test_an_agents_word_reaches_who_watches(world: World) -> None:
    request = cluster_pb2.WatchClustersRequest(cluster_id=world.ids["orders"])
    async with world.watch(WATCH_CLUSTERS, request) as stream:
        assert (await soon(stream)).clusters[0].health == cluster_pb2.CLUSTER_HEALTH_HEALTHY
        node_id = world.ids["orders-rs0-1"]
        observation = nodes.Observation(
            node_id, world.ids["orders"], 0, world.clock.now(), AgentState.CONNECTED, a_report("RECOVERING"), True
        )
        await world.database.write(lambda tx: nodes.record(tx, [observation]))
        cluster = (await soon(stream)).clusters[0]
        assert cluster.health == cluster_pb2.CLUSTER_HEALTH_DEGRADED
        assert cluster.members[1].state == "RECOVERING"


async def test_health_changes_by_silence_alone(world: World) -> None:
    """Nobody writes anything when all agents and control planes fall silent."""
    request = cluster_pb2.WatchClustersRequest(cluster_id=world.ids["orders"])
    async with world.watch(WATCH_CLUSTERS, request) as stream:
        assert (await soon(stream)).clusters[0].health == cluster_pb2.CLUSTER_HEALTH_HEALTHY
        world.clock.advance(21)
        assert (await soon(stream)).clusters[0].health == cluster_pb2.CLUSTER_HEALTH_UNKNOWN


async def test_a_watched_cluster_is_shown_to_its_end(world: World) -> None:
    request = cluster_pb2.WatchClustersRequest(cluster_id=world.ids["orders"])
    async with world.watch(WATCH_CLUSTERS, request) as stream:
        await soon(stream)
        for state in (ClusterState.DELETING, ClusterState.DELETED):
            await world.database.write(
                lambda tx, state=state: clusters.set_state(tx, world.ids["orders"], state, world.clock.now())  # type: ignore[misc]
            )
        while (await soon(stream)).clusters[0].state != cluster_pb2.CLUSTER_STATE_DELETED:
            pass


async def _revoke(world: World) -> None:
    """By the call, as a person would."""
    tokens = (await world.call("AccessService/ListTokens", access_pb2.ListTokensRequest())).tokens
    await world.call("AccessService/RevokeToken", access_pb2.RevokeTokenRequest(token_id=tokens[0].id))


async def _revoke_unheard(world: World) -> None:
    """In the database alone: the wake-up call was lost."""
    moment = world.clock.now()

    def work(tx: Any) -> None:
        for token in access.list_tokens(tx, None):
            token.revoked_at = moment

    await world.database.write(work)


async def _disable(world: World) -> None:
    request = access_pb2.SetUserDisabledRequest(user_id=world.ids["user:guest"], disabled=True)
    await world.call("AccessService/SetUserDisabled", request)


async def _expire(world: World) -> None:
    world.clock.advance(24 * 3600)


async def _remove_project(world: World) -> None:
    request = project_pb2.DeleteProjectRequest(project_id=world.ids["cc"])
    await world.call("ProjectService/DeleteProject", request)


async def _lose_role(world: World) -> None:
    await world.database.write(lambda tx: access.set_grants(tx, "user", world.ids["user:guest"], []))


async def program(world: World) -> None:
    """A guest of project `cc` whose program watches it."""
    await world.project("cc")
    await world.person("guest", Grant(world.ids["cc"], Role.VIEWER))
    grants = [access_pb2.Grant(project_id=world.ids["cc"], role=type_pb2.ACCESS_ROLE_VIEWER)]
    request = access_pb2.CreateTokenRequest(name="ci", grants=grants, expire_days=1)
    world.tokens["ci"] = (await world.call("AccessService/CreateToken", request, "guest")).secret


@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (_revoke, "UNAUTHENTICATED"),
        (_revoke_unheard, "UNAUTHENTICATED"),
        (_disable, "UNAUTHENTICATED"),
        (_expire, "UNAUTHENTICATED"),
        (_lose_role, "NOT_FOUND"),
        (_remove_project, "NOT_FOUND"),
    ],
)
async def test_a_stream_ends_within_five_seconds_of_the_right_to_it(
    world: World, lose: Callable[[World], Any], reason: str
) -> None:
    await program(world)
    request = cluster_pb2.WatchClustersRequest(project_id=world.ids["cc"])
    async with world.watch(WATCH_CLUSTERS, request, "ci") as stream:
        await soon(stream)
        begin = time.monotonic()
        await lose(world)
        error = await ended(stream)
        assert error.reason == reason
        assert time.monotonic() - begin < PROMISED_SECONDS


async def test_control_a_caller_who_is_not_looked_at_again_keeps_the_stream(sqlite: Database) -> None:
    """The same loss of rights behind a gate that looks only at the door, and to whom nobody calls."""
    assert RECHECK_SECONDS < PROMISED_SECONDS - 1
    async with running(sqlite, recheck_seconds=3600) as world:
        await populate(world)
        await program(world)
        request = cluster_pb2.WatchClustersRequest(project_id=world.ids["cc"])
        async with world.watch(WATCH_CLUSTERS, request, "ci") as stream:
            await soon(stream)
            await _revoke_unheard(world)
            world.clock.advance(1)
            await world.cluster("cc", "billing")
            assert len((await soon(stream)).clusters) == 1


async def test_other_streams_of_other_callers_stay_open(world: World) -> None:
    await program(world)
    request = cluster_pb2.WatchClustersRequest(project_id=world.ids["aa"])
    async with world.watch(WATCH_CLUSTERS, request, "viewer-a") as stream:
        await soon(stream)
        await _disable(world)
        await world.cluster("aa", "billing")
        assert len((await soon(stream)).clusters) == 2


async def test_streams_end_with_a_reason_when_the_server_stops(sqlite: Database) -> None:
    async with running(sqlite) as world:
        await populate(world)
        request = cluster_pb2.WatchClustersRequest(project_id=world.ids["aa"])
        async with world.watch(WATCH_CLUSTERS, request) as stream:
            await soon(stream)
            begin = time.monotonic()
            stopping = asyncio.create_task(world.server.stop(5.0))
            error = await ended(stream)
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
            assert "stopping" in error.message
            await stopping
            assert time.monotonic() - begin < 4.0, "nobody had to be cut off"


def ours(tasks: "set[asyncio.Task[Any]]") -> list[str]:
    """Tasks that run code of the API or wait in it; gRPC has some of its own."""
    return [repr(task) for task in tasks if "controlplane/" in repr(task) or "_wrap_awaitable" in repr(task)]


async def test_a_client_that_goes_leaves_nothing_behind(world: World) -> None:
    request = cluster_pb2.WatchClustersRequest(project_id=world.ids["aa"])
    subscriptions = len(world.database.bus._subscriptions)
    for _ in range(5):
        async with world.watch(WATCH_CLUSTERS, request) as stream:
            await soon(stream)
            assert ours(asyncio.all_tasks()), "while it is open there is something"
    await eventually(lambda: len(world.database.bus._subscriptions) == subscriptions, within=10)
    await eventually(lambda: not ours(asyncio.all_tasks()), within=10)


async def test_a_session_in_use_by_a_watch_is_in_use(world: World) -> None:
    """Somebody who looks at a page is there: the session's idle time begins when the watch ends."""
    request = cluster_pb2.WatchClustersRequest(project_id=world.ids["aa"])
    async with world.watch(WATCH_CLUSTERS, request, "viewer-a") as stream:
        await soon(stream)
        world.clock.advance(29 * 60)

        async def used() -> bool:
            token: Token = await world.database.read(lambda tx: tx.get_one(Token, world.ids["session:viewer-a"]))
            return token.last_used_at == world.clock.now()

        await eventually(used, within=10)
