"""The Python client: what every call carries, what every failure becomes, how waiting survives."""

import asyncio
import os
import subprocess
import sys

import grpc
import pytest
from wap.control.v1.access_pb2 import GetCallerRequest, ListAuditEventsRequest
from wap.control.v1.cluster_pb2 import ListClustersRequest, WatchClustersRequest
from wap.control.v1.operation_pb2 import OPERATION_STATE_SUCCEEDED, Operation
from wap.control.v1.project_pb2 import CreateProjectRequest

from console.client import AsyncClient, Client, WapError
from console.client.wire import is_read
from console.fake import FakeControl, serve_in_thread
from console.fake.tls import loopback_identity
from tests.cli.conftest import Wap
from tests.waiting import eventually


def connected(fake: FakeControl) -> Client:
    return Client(fake.endpoint, ca_pem=fake.ca_pem, token=fake.call(fake.session))


async def test_async_login_create_and_wait() -> None:
    async with FakeControl(step_seconds=0.0) as fake, AsyncClient(fake.endpoint, ca_pem=fake.ca_pem) as client:
        assert (await client.login("admin", "password")).actor == "user:admin"
        seen: list[int] = []

        async def note(operation: Operation) -> None:
            seen.append(operation.steps_done)

        operation = await client.create_cluster("demo", "orders")
        operation = await client.wait(operation.id, note, timeout=30)
        assert operation.state == OPERATION_STATE_SUCCEEDED
        assert seen == sorted(seen)
        assert seen[-1] == 14
        assert len((await client.cluster("demo", "orders")).members) == 3


async def test_a_cancelled_watch_ends_without_an_error() -> None:
    async with FakeControl() as fake, AsyncClient(fake.endpoint, ca_pem=fake.ca_pem, token=fake.session()) as client:
        watch = client.clusters.WatchClusters(WatchClustersRequest())
        replies = 0

        async def read() -> None:
            nonlocal replies
            async for _ in watch:
                replies += 1

        reader = asyncio.create_task(read())
        await eventually(lambda: replies == 1, within=10)
        watch.cancel()
        await asyncio.wait_for(reader, timeout=10)


async def test_cancelling_the_reading_task_still_cancels_it() -> None:
    async with FakeControl() as fake, AsyncClient(fake.endpoint, ca_pem=fake.ca_pem, token=fake.session()) as client:
        fake.engine.hold("network")
        operation = await client.create_cluster("demo", "orders")
        waiting = asyncio.create_task(client.wait(operation.id))
        await eventually(lambda: fake.world.operations[operation.id].start_time.seconds > 0, within=10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def test_a_refusal_carries_everything(fake: FakeControl) -> None:
    with connected(fake) as client, pytest.raises(WapError) as refused:
        client.projects.CreateProject(CreateProjectRequest(name="No!"))
    error = refused.value
    assert (error.code, error.reason, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "name")
    assert error.given == "No!"
    assert "a-z" in error.allowed
    assert len(error.request_id) == 32


def test_the_request_id_of_a_change_stands_in_the_audit_log(fake: FakeControl) -> None:
    with connected(fake) as client:
        client.projects.CreateProject(CreateProjectRequest(name="one"))
        event = client.access.ListAuditEvents(ListAuditEventsRequest()).events[0]
    assert (event.action, len(event.request_id)) == ("CreateProject", 32)


def test_a_name_or_an_id_names_a_project(fake: FakeControl) -> None:
    with connected(fake) as client:
        by_name = client.project("demo")
        assert client.project(by_name.id) == by_name
        with pytest.raises(WapError) as unknown:
            client.project("nothing")
    assert (unknown.value.reason, unknown.value.given) == ("NOT_FOUND", "nothing")


def test_the_same_idempotency_key_creates_once(fake: FakeControl) -> None:
    with connected(fake) as client:
        first = client.create_cluster("demo", "orders", idempotency_key="k1")
        assert client.create_cluster("demo", "orders", idempotency_key="k1").id == first.id
        with pytest.raises(WapError) as other:
            client.create_cluster("demo", "orders", members=5, idempotency_key="k1")
        assert other.value.reason == "IDEMPOTENCY_CONFLICT"
        with pytest.raises(WapError) as taken:  # control: without the key it is a second request
            client.create_cluster("demo", "orders")
        assert taken.value.reason == "ALREADY_EXISTS"


def test_waiting_has_an_end(fake: FakeControl) -> None:
    fake.call(lambda: fake.engine.hold("network"))
    with connected(fake) as client:
        operation = client.create_cluster("demo", "orders")
        with pytest.raises(TimeoutError, match="it goes on"):
            client.wait(operation.id, timeout=0.3)
        fake.call(fake.engine.release)
        assert client.wait(operation.id, timeout=30).state == OPERATION_STATE_SUCCEEDED


def test_waiting_survives_a_restart_of_the_control_plane(fake: FakeControl) -> None:
    fake.call(lambda: fake.engine.hold("network"))
    with connected(fake) as client:
        operation = client.create_cluster("demo", "orders")
        restarted = False

        def restart_once(_: Operation) -> None:
            nonlocal restarted
            if not restarted:
                restarted = True
                fake.restart(lambda: None)
                fake.call(fake.engine.release)

        assert client.wait(operation.id, restart_once, timeout=30).state == OPERATION_STATE_SUCCEEDED
        assert restarted


def test_without_patience_a_restart_is_an_error(fake: FakeControl) -> None:
    """The control of the test above."""
    fake.call(lambda: fake.engine.hold("network"))
    with connected(fake) as client:
        operation = client.create_cluster("demo", "orders")
        with pytest.raises(WapError) as lost:
            client.wait(operation.id, lambda _: fake.restart(lambda: None), timeout=30, patience=0)
    assert lost.value.code is grpc.StatusCode.UNAVAILABLE


def test_reads_are_repeated_and_changes_are_not() -> None:
    service = "/wap.control.v1.ClusterService/"
    assert all(is_read(service + name) for name in ("GetCluster", "ListClusters"))
    assert not any(is_read(service + name) for name in ("CreateCluster", "DeleteCluster", "Login", "WatchClusters"))


def test_a_read_outlives_a_short_absence(fake: FakeControl) -> None:
    with connected(fake) as client, Client(fake.endpoint, ca_pem=fake.ca_pem, token=client.token) as other:
        refused: list[WapError] = []

        def call_while_away() -> None:
            with pytest.raises(WapError) as lost:
                other.projects.CreateProject(CreateProjectRequest(name="lost"))
            refused.append(lost.value)

        fake.restart(call_while_away)
        assert refused[0].code is grpc.StatusCode.UNAVAILABLE
        assert other.clusters.ListClusters(ListClustersRequest()) is not None


def test_a_foreign_authority_is_named(fake: FakeControl) -> None:
    foreign = loopback_identity().ca_pem
    with Client(fake.endpoint, ca_pem=foreign) as client, pytest.raises(WapError) as refused:
        client.login("admin", "password")
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    assert "not signed by the given CA" in refused.value.message


def test_a_server_without_tls_is_named() -> None:
    with serve_in_thread(FakeControl(tls=False)) as fake:
        address = fake.endpoint.removeprefix("plaintext://")
        with Client(address, ca_pem=loopback_identity().ca_pem) as client, pytest.raises(WapError) as refused:
            client.login("admin", "password")
    assert "does not speak TLS" in refused.value.message


@pytest.mark.parametrize("endpoint", ["", "host", "host:", ":1", "host:99999", "plaintext://192.0.2.1:7443"])
def test_an_unusable_address_is_refused(endpoint: str) -> None:
    with pytest.raises(WapError) as refused:
        Client(endpoint, ca_pem=None)
    assert (refused.value.field, refused.value.given) == ("endpoint", endpoint)


def test_plaintext_is_for_this_machine() -> None:
    with serve_in_thread(FakeControl(tls=False)) as fake, connected(fake) as client:
        assert client.access.GetCaller(GetCallerRequest()).caller.actor == "user:admin"


def test_a_session_that_ended_ends_its_watch(fake: FakeControl) -> None:
    with connected(fake) as client:
        replies = iter(client.clusters.WatchClusters(WatchClustersRequest()))
        assert not next(replies).clusters
        client.create_cluster("demo", "orders")
        assert next(replies).clusters  # control: it goes on while the session lives
        fake.call(fake.world.session_users.clear)
        fake.call(fake.world.clusters.clear)
        fake.call(fake.world.touch)
        with pytest.raises(WapError) as ended:
            list(replies)
    assert ended.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_the_example_script(wap: Wap) -> None:
    environment = {**os.environ, "WAP_CONFIG": str(wap.config_file)}
    program = [sys.executable, "-m", "scripts.examples.create_and_wait", "demo", "orders"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mongodb://")
    assert "14/14" in done.stderr
