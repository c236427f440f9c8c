"""From nothing to a writable replica set and back, and what it survives on the way."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pymongo
import pytest
from wap.control.v1 import access_pb2, cluster_pb2, node_pb2, operation_pb2

from console.client import Client, WapError
from scripts.stack import Stack
from tests.scenario.canary import Canary
from tests.scenario.conftest import PROJECT, logged_in
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(300)
READY_SECONDS = 120.0


def create(client: Client, name: str = "orders") -> cluster_pb2.Cluster:
    operation = client.create_cluster(PROJECT, name, members=3, disk_gib=20)
    final = client.wait(operation.id, timeout=READY_SECONDS)
    assert final.state == operation_pb2.OPERATION_STATE_SUCCEEDED, final.summary
    return client.cluster(PROJECT, name)


def delete(client: Client, cluster: cluster_pb2.Cluster) -> operation_pb2.Operation:
    request = cluster_pb2.DeleteClusterRequest(cluster_id=cluster.id, confirm_name=cluster.name)
    final = client.wait(client.clusters.DeleteCluster(request).operation.id, timeout=READY_SECONDS)
    assert final.state == operation_pb2.OPERATION_STATE_SUCCEEDED, final.summary
    return final


def access(
    client: Client, cluster: cluster_pb2.Cluster, folder: Path
) -> tuple[cluster_pb2.GetConnectionResponse, Path]:
    reply = client.clusters.GetConnection(cluster_pb2.GetConnectionRequest(cluster_id=cluster.id))
    ca_file = folder / "ca.pem"
    ca_file.write_text(reply.ca_pem)
    return reply, ca_file


def leftovers(stack: Stack) -> dict[str, Any]:
    return {kind: found for kind, found in stack.inventory().items() if found}


def processes(kind: str, stack: Stack) -> list[psutil.Process]:
    """Live mongods or agents of this stack."""
    marks = {"mongod": "bin/mongod", "agent": "-m agent"}
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if marks[kind] in line and str(stack.state) in line and not line.startswith("bash"):
            found.append(process)
    return found


def healthy(client: Client, name: str = "orders") -> bool:
    return client.cluster(PROJECT, name).health == cluster_pb2.CLUSTER_HEALTH_HEALTHY


def test_a_replica_set_is_created_used_survives_and_is_deleted(stack: Stack, tmp_path: Path) -> None:
    """One long story, because three mongods cost seconds to make and each part needs them."""
    stack.start_server()
    with logged_in(stack) as client:
        cluster = create(client)
        assert cluster.state == cluster_pb2.CLUSTER_STATE_AVAILABLE
        wait_until(lambda: healthy(client), within=20)
        cluster = client.cluster(PROJECT, "orders")
        assert sorted(member.state for member in cluster.members) == ["PRIMARY", "SECONDARY", "SECONDARY"]
        assert len({member.zone for member in cluster.members}) == 3
        reply, ca_file = access(client, cluster, tmp_path)
        _strangers_stay_out(cluster, ca_file)
        _security_of_the_machines(stack)
        _secrets_stand_nowhere(stack, client, reply)
        with Canary(reply.uri, ca_file) as canary:
            _agents_die(stack, client)
            _mongod_dies_while_the_control_plane_is_away(stack)
            client.close()
            stack.start_server()
        assert len(canary.acknowledged) > 50
        assert canary.lost() == []
    with logged_in(stack) as client:
        wait_until(lambda: healthy(client), within=60)
        _agent_freezes(stack, client)
        delete(client, client.cluster(PROJECT, "orders"))
        assert leftovers(stack) == {}
        assert processes("mongod", stack) == processes("agent", stack) == []
        with pytest.raises(WapError):
            client.cluster(PROJECT, "orders")
        actions = {event.action for event in client.access.ListAuditEvents(access_pb2.ListAuditEventsRequest()).events}
        assert {"CreateCluster", "DeleteCluster", "GetConnection"} <= actions


def _strangers_stay_out(cluster: cluster_pb2.Cluster, ca_file: Path) -> None:
    address = cluster.members[0].address
    with pymongo.MongoClient[Any](address, serverSelectionTimeoutMS=1500, directConnection=True) as plain:
        with pytest.raises(pymongo.errors.PyMongoError):
            plain.admin.command("ping")  # no TLS, no answer
    with pymongo.MongoClient[Any](address, tls=True, tlsCAFile=str(ca_file), directConnection=True) as nobody:
        with pytest.raises(pymongo.errors.OperationFailure) as refusal:
            nobody.admin.command("listDatabases")
        assert refusal.value.code == 13
        with pytest.raises(pymongo.errors.OperationFailure):  # the localhost exception is off
            nobody.admin.command("createUser", "intruder", pwd="x", roles=["root"])


def _security_of_the_machines(stack: Stack) -> None:
    inventory = stack.inventory()
    assert len(inventory["instances"]) == 3
    assert len(inventory["volumes"]) >= 3


def _secrets_stand_nowhere(stack: Stack, client: Client, reply: cluster_pb2.GetConnectionResponse) -> None:
    """The database password, the keyfile and the admin password: not in logs, database, process list, user data, audit."""
    keyfiles = {path.read_text().strip() for path in stack.state.rglob("keyfile") if path.is_file()}
    assert len(keyfiles) == 1
    canaries = [reply.password, stack.admin_password(), *keyfiles]
    allowed = {"keyfile", "admin-password"}
    for path in stack.state.rglob("*"):
        if path.is_file() and path.name not in allowed and path.stat().st_size < 20_000_000 and "/db/" not in str(path):
            content = path.read_bytes()
            assert not [c for c in canaries if c.encode() in content], path
    for process in psutil.process_iter(["cmdline", "environ"]):
        shown = f"{process.info['cmdline']} {process.info['environ']}"
        assert not [c for c in canaries if c in shown], process.info["cmdline"]
    events = client.access.ListAuditEvents(access_pb2.ListAuditEventsRequest(page_size=500)).events
    assert not [c for c in canaries if c in str(events)]


def _agents_die(stack: Stack, client: Client) -> None:
    mongods = {process.pid for process in processes("mongod", stack)}
    for agent in processes("agent", stack):
        agent.kill()
    wait_until(lambda: len(processes("agent", stack)) == 3, within=30)
    wait_until(lambda: healthy(client), within=30)
    assert {process.pid for process in processes("mongod", stack)} == mongods, "mongod outlives its agent"


def _mongod_dies_while_the_control_plane_is_away(stack: Stack) -> None:
    stack.servers[-1].kill()
    victim = processes("mongod", stack)[0]
    victim.kill()
    wait_until(lambda: len(processes("mongod", stack)) == 3, within=15)


def _agent_freezes(stack: Stack, client: Client) -> None:
    frozen = processes("agent", stack)[0]
    os.kill(frozen.pid, signal.SIGSTOP)
    try:

        def silent() -> bool:
            nodes = client.nodes.ListNodes(node_pb2.ListNodesRequest()).nodes
            return sum(node.agent_state == node_pb2.AGENT_STATE_SILENT for node in nodes) == 1

        wait_until(silent, within=20)
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    wait_until(lambda: healthy(client), within=60)


def test_a_cluster_is_named_once_and_refuses_a_second_operation(stack: Stack) -> None:
    stack.start_server()
    with logged_in(stack) as client:
        running = client.create_cluster(PROJECT, "orders", members=3, disk_gib=20)
        with pytest.raises(WapError) as twice:
            client.create_cluster(PROJECT, "orders", members=3, disk_gib=20)
        assert twice.value.reason == "ALREADY_EXISTS"
        cluster = client.cluster(PROJECT, "orders")
        with pytest.raises(WapError) as busy:
            client.clusters.DeleteCluster(
                cluster_pb2.DeleteClusterRequest(cluster_id=cluster.id, confirm_name="orders")
            )
        assert busy.value.reason == "CLUSTER_BUSY"
        client.operations.CancelOperation(operation_pb2.CancelOperationRequest(operation_id=running.id))
        final = client.wait(running.id, timeout=READY_SECONDS)
        assert final.state == operation_pb2.OPERATION_STATE_CANCELLED
        assert leftovers(stack) == {}
        assert processes("mongod", stack) == []


def test_a_killed_control_plane_s_create_is_finished_by_the_other(stack: Stack, postgres: Any) -> None:
    stack.database = postgres.create("takeover")
    first = stack.start_server()
    api, agents = stack.api_port, stack.agent_port
    stack.api_port = stack.agent_port = 0
    stack.start_server()
    stack.api_port, stack.agent_port = api, agents
    with stack.client(first) as one:
        one.login("admin", stack.admin_password())
    with logged_in(stack) as two:
        operation = two.create_cluster(PROJECT, "orders", members=3, disk_gib=20)

        def half_way() -> bool:
            now = two.operations.GetOperation(operation_pb2.GetOperationRequest(operation_id=operation.id)).operation
            return now.steps_done >= 6

        wait_until(half_way, within=60)
        first.kill()
        final = two.wait(operation.id, timeout=READY_SECONDS)
        assert final.state == operation_pb2.OPERATION_STATE_SUCCEEDED, final.summary
        assert len(stack.inventory()["instances"]) == 3


def test_a_database_restart_in_the_middle_of_a_create_is_waited_out(stack: Stack, postgres: Any) -> None:
    stack.database = postgres.create("restarted_under_way")
    stack.start_server()
    with logged_in(stack) as client:
        operation = client.create_cluster(PROJECT, "orders", members=3, disk_gib=20)
        postgres.stop(immediate=True)
        postgres.start()

        def done() -> bool:
            try:
                client.wait(operation.id, timeout=READY_SECONDS)
            except WapError as error:
                if error.code.name == "UNAVAILABLE":
                    return False
                raise
            return True

        wait_until(done, within=READY_SECONDS)
        now = client.operations.GetOperation(operation_pb2.GetOperationRequest(operation_id=operation.id)).operation
        assert now.state == operation_pb2.OPERATION_STATE_SUCCEEDED, now.summary


def test_the_demo_check_leaves_nothing(tmp_path: Path, mongodb_dir: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    (tmp_path / "home").mkdir()
    run = subprocess.run(
        [sys.executable, "-m", "scripts.demonstration", "--check"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Nothing is left" in run.stdout
    assert list((tmp_path / "home").rglob("*")) == []
