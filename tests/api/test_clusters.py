"""Clusters: a wish is written once and whole, and what is shown is what agents said a moment ago."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select
from wap.control.v1 import cluster_pb2 as pb
from wap.control.v1 import node_pb2, operation_pb2, project_pb2

from console.client import WapError
from controlplane.domain.catalog import INSTANCE_TYPES
from controlplane.domain.cluster import ClusterState
from controlplane.domain.node import AgentState
from controlplane.domain.operation import OperationState
from controlplane.store import nodes
from controlplane.store.fake_queue import Entry
from controlplane.store.tables import AuditEvent, Cluster, Node, Operation
from tests.api.world import CA_PEM, DATABASE_PASSWORD, MAX_CLUSTERS, ZONES, World, a_report, a_spec, a_wish

CREATE = "ClusterService/CreateCluster"


async def get(world: World, name: str) -> pb.Cluster:
    reply = await world.call("ClusterService/GetCluster", pb.GetClusterRequest(cluster_id=world.ids[name]))
    found: pb.Cluster = reply.cluster
    return found


async def report(world: World, name: str, **columns: Any) -> None:
    def work(tx: Any) -> None:
        node = tx.get_one(Node, world.ids[name])
        for column, value in columns.items():
            setattr(node, column, value)

    await world.database.write(work)


async def test_a_wish_becomes_a_cluster_an_operation_and_a_place_in_the_queue(both: World) -> None:
    reply = await both.call(CREATE, a_wish(both.ids["aa"]), "operator-a", request_id="rq-mine")
    cluster, operation = reply.cluster, reply.operation
    assert (cluster.name, cluster.project_name, cluster.state) == ("demo", "aa", pb.CLUSTER_STATE_CREATING)
    assert (cluster.health, cluster.health_reason) == (pb.CLUSTER_HEALTH_UNKNOWN, "the cluster is being created")
    assert cluster.active_operation_id == operation.id
    assert [member.name for member in cluster.members] == ["demo-rs0-0", "demo-rs0-1", "demo-rs0-2"]
    assert [member.zone for member in cluster.members] == list(ZONES), "the zones are the server's choice where empty"
    assert (operation.actor, operation.state) == ("user:operator-a", operation_pb2.OPERATION_STATE_QUEUED)
    assert operation.steps_total == len(operation.steps) == len(reply.plan.steps)
    assert both.queue.entries == [Entry(operation.id, cluster.id, 1)]
    (stored,) = await both.database.read(lambda tx: tx.scalars(select(Operation)).all())
    assert (stored.id, stored.request_id) == (operation.id, "rq-mine")
    assert (
        await both.call("ClusterService/GetCluster", pb.GetClusterRequest(cluster_id=cluster.id))
    ).cluster == cluster
    by_name = pb.GetClusterRequest(project_id=both.ids["aa"], name="demo")
    assert (await both.call("ClusterService/GetCluster", by_name)).cluster == cluster


async def test_the_plan_says_what_why_and_what_it_costs(world: World) -> None:
    plan = (await world.call(CREATE, a_wish(world.ids["aa"]))).plan
    assert [step.stage for step in plan.steps] == sorted(step.stage for step in plan.steps)
    assert plan.steps[0].stage == 1
    assert all(step.name and step.title and step.reason and step.stage_title for step in plan.steps)
    kind = INSTANCE_TYPES["m6i.large"]
    assert plan.usd_per_month == pytest.approx(3 * (kind.usd_per_month + 20 * 0.08 + 20 * 0.08))
    assert plan.usd_per_month == pytest.approx(sum(line.usd_per_month for line in plan.cost_lines))
    assert "us-east-1" in plan.cost_note


async def test_a_preview_has_the_same_plan_and_changes_nothing(world: World) -> None:
    wish = a_wish(world.ids["aa"], idempotency_key="key")
    wish.validate_only = True
    before = await world.dump()
    preview = await world.call(CREATE, wish)
    assert await world.dump() == before
    assert world.queue.entries == []
    assert not preview.HasField("cluster")
    assert not preview.HasField("operation")
    wish.validate_only = False
    assert (await world.call(CREATE, wish)).plan == preview.plan


async def test_a_preview_refuses_what_the_real_call_would_refuse(world: World) -> None:
    taken = a_wish(world.ids["aa"], "orders")
    taken.validate_only = True
    assert (await world.refusal(CREATE, taken)).reason == "ALREADY_EXISTS"
    for number in range(MAX_CLUSTERS - 1):
        await world.cluster("aa", f"more-{number}")
    one_more = a_wish(world.ids["aa"], "one-more")
    one_more.validate_only = True
    assert (await world.refusal(CREATE, one_more)).reason == "QUOTA_EXCEEDED"
    deletion = pb.DeleteClusterRequest(cluster_id=world.ids["orders"], validate_only=True)
    await world.operation("orders")
    assert (await world.refusal("ClusterService/DeleteCluster", deletion)).reason == "CLUSTER_BUSY"


async def test_the_same_request_again_gets_the_first_answer(both: World) -> None:
    wish = a_wish(both.ids["aa"], idempotency_key="build-17")
    first = await both.call(CREATE, wish)
    again = await both.call(CREATE, wish)
    assert again == first
    assert len(both.queue.entries) == 1
    other = a_wish(both.ids["aa"], idempotency_key="build-17", disk_gib=21)
    error = await both.refusal(CREATE, other)
    assert (error.reason, error.field, error.given) == ("IDEMPOTENCY_CONFLICT", "idempotency_key", "build-17")
    assert len(both.queue.entries) == 1


async def test_a_key_is_its_users_own(world: World) -> None:
    """Another user's request with the same key is another request, and tells nothing of the first."""
    await world.call(CREATE, a_wish(world.ids["aa"], idempotency_key="k"), "operator-a")
    reply = await world.call(CREATE, a_wish(world.ids["aa"], "other", idempotency_key="k"), "admin-a")
    assert reply.cluster.name == "other"


async def test_the_same_request_many_times_at_once_makes_one_cluster(both: World) -> None:
    wish = a_wish(both.ids["aa"], idempotency_key="build-17")
    replies = await asyncio.gather(*(both.call(CREATE, wish) for _ in range(8)))
    assert len({reply.operation.id for reply in replies}) == 1
    assert len(both.queue.entries) == 1


async def test_one_of_many_that_want_one_name_gets_it(both: World) -> None:
    results = await asyncio.gather(*(outcome(both, a_wish(both.ids["aa"])) for _ in range(8)))
    assert sorted(results) == ["ALREADY_EXISTS"] * 7 + ["ok"]
    assert len(both.queue.entries) == 1


async def test_the_quota_holds_when_many_come_at_once_and_networks_are_never_shared(both: World) -> None:
    results = await asyncio.gather(*(outcome(both, a_wish(both.ids["aa"], f"c-{n}")) for n in range(8)))
    room = MAX_CLUSTERS - 1
    assert sorted(results) == ["QUOTA_EXCEEDED"] * (8 - room) + ["ok"] * room
    slots = await both.database.read(lambda tx: tx.scalars(select(Cluster.network_slot)).all())
    assert len(set(slots)) == len(slots)


async def test_projects_do_not_stand_in_each_others_way(both: World) -> None:
    wishes = [a_wish(both.ids[project], f"c-{n}") for n in range(4) for project in ("aa", "bb")]
    assert await asyncio.gather(*(outcome(both, wish) for wish in wishes)) == ["ok"] * 8


async def test_a_project_is_not_deleted_under_a_cluster_that_is_being_created(both: World) -> None:
    for number in range(4):
        project_id = await both.project(f"p-{number}")
        deletion = both.call("ProjectService/DeleteProject", project_pb2.DeleteProjectRequest(project_id=project_id))
        created, deleted = await asyncio.gather(
            outcome(both, a_wish(project_id)), asyncio.gather(deletion, return_exceptions=True)
        )
        gone = not isinstance(deleted[0], WapError)
        assert (created == "ok") is not gone
        assert created in {"ok", "NOT_FOUND"}


async def outcome(world: World, wish: pb.CreateClusterRequest) -> str:
    try:
        await world.call(CREATE, wish)
    except WapError as error:
        return error.reason
    return "ok"


async def test_two_deletions_at_once_open_one_operation(both: World) -> None:
    request = pb.DeleteClusterRequest(cluster_id=both.ids["orders"], confirm_name="orders")
    calls = [both.call("ClusterService/DeleteCluster", request) for _ in range(5)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refusals = [result for result in results if isinstance(result, WapError)]
    assert {refusal.reason for refusal in refusals} == {"CLUSTER_BUSY"}
    assert len(refusals) == 4
    (entry,) = both.queue.entries
    assert all(entry.operation_id in refusal.message for refusal in refusals), (
        "it names the operation that is in the way"
    )


async def test_a_deletion_shows_its_plan_without_the_name_and_changes_nothing(world: World) -> None:
    before = await world.dump()
    request = pb.DeleteClusterRequest(cluster_id=world.ids["orders"], validate_only=True)
    reply = await world.call("ClusterService/DeleteCluster", request)
    assert reply.plan.steps
    assert any("gone for good" in step.risk for step in reply.plan.steps)
    assert not reply.HasField("operation")
    assert await world.dump() == before
    request.confirm_name = "order"
    assert (await world.refusal("ClusterService/DeleteCluster", request)).reason == "NAME_NOT_CONFIRMED"


async def test_a_name_can_be_used_again_after_the_cluster_is_deleted(world: World) -> None:
    def delete(tx: Any) -> None:
        from_store = tx.get_one(Cluster, world.ids["orders"])
        from_store.state, from_store.name_key, from_store.network_slot = ClusterState.DELETED, "orders/x", None
        for node in tx.scalars(select(Node).where(Node.cluster_id == from_store.id)):
            node.agent_state, node.removed_at = AgentState.REMOVED, world.clock.now()

    await world.database.write(delete)
    reply = await world.call(CREATE, a_wish(world.ids["aa"], "orders"))
    old = await get(world, "orders")
    assert old.id != reply.cluster.id
    assert (old.state, old.health) == (pb.CLUSTER_STATE_DELETED, pb.CLUSTER_HEALTH_UNSPECIFIED)
    assert not old.members
    listed = await world.call("ClusterService/ListClusters", pb.ListClustersRequest(project_id=world.ids["aa"]))
    assert [one.id for one in listed.clusters] == [reply.cluster.id]
    every = pb.ListClustersRequest(project_id=world.ids["aa"], include_deleted=True)
    assert {one.id for one in (await world.call("ClusterService/ListClusters", every)).clusters} == {
        old.id,
        reply.cluster.id,
    }


async def test_lists_go_by_name_page_by_page(world: World) -> None:
    for name in ("delta", "alpha", "charlie"):
        await world.cluster("aa", name)
    request, seen = pb.ListClustersRequest(page_size=2), []
    while True:
        reply = await world.call("ClusterService/ListClusters", request)
        seen.append([one.name for one in reply.clusters])
        request.page_token = reply.next_page_token
        if not request.page_token:
            break
    assert seen == [["alpha", "charlie"], ["delta", "orders"], ["secrets"]]


async def test_connection_data_fit_each_client(world: World) -> None:
    reply = await world.call("ClusterService/GetConnection", pb.GetConnectionRequest(cluster_id=world.ids["orders"]))
    hosts = ",".join(f"10.77.0.{n}:27017" for n in (4, 5, 6))
    assert reply.uri == f"mongodb://admin:{DATABASE_PASSWORD}@{hosts}/?replicaSet=rs0&tls=true"
    assert (reply.username, reply.password, reply.ca_pem) == ("admin", DATABASE_PASSWORD, CA_PEM)
    for snippet in (reply.python_snippet, reply.nodejs_snippet):
        assert f'"{reply.uri}"' in snippet
        assert '"ca.pem"' in snippet
    assert hosts in reply.mongosh_command
    assert "--tlsCAFile ca.pem" in reply.mongosh_command
    assert DATABASE_PASSWORD not in reply.mongosh_command, "a command line can be read by every user of the machine"
    compile(reply.python_snippet, "snippet", "exec")


async def test_the_database_password_stands_in_no_row_and_no_event(world: World) -> None:
    await world.call("ClusterService/GetConnection", pb.GetConnectionRequest(cluster_id=world.ids["orders"]))
    assert DATABASE_PASSWORD not in str(await world.dump())
    (event,) = await world.database.read(lambda tx: tx.scalars(select(AuditEvent)).all())
    assert (event.action, event.after) == ("GetConnection", {"username": "admin"})


async def test_what_can_be_chosen_is_what_create_accepts(world: World) -> None:
    options = await world.call("ClusterService/ListCreateOptions", pb.ListCreateOptionsRequest())
    assert (options.region, list(options.zones)) == ("us-east-1", list(ZONES))
    assert list(options.mongodb_versions) == ["6.0.5", "7.0.14"]
    assert {one.name for one in options.instance_types} == set(INSTANCE_TYPES)
    for one in options.instance_types:
        wish = a_wish(world.ids["aa"], instance_type=one.name, disk_gib=options.disk_gib_max, zones=list(options.zones))
        wish.validate_only = True
        plan = (await world.call(CREATE, wish)).plan
        disks = 3 * (options.disk_gib_max + 20) * options.disk_usd_per_gib_month
        assert plan.usd_per_month == pytest.approx(3 * one.usd_per_month + disks)


async def test_a_healthy_cluster_shows_what_its_members_say(world: World) -> None:
    cluster = await get(world, "orders")
    assert cluster.health == pb.CLUSTER_HEALTH_HEALTHY
    assert [member.state for member in cluster.members] == ["PRIMARY", "SECONDARY", "SECONDARY"]
    first, second, _ = cluster.members
    assert first.healthy
    assert first.agent_connected
    assert (first.address, first.zone, first.instance_id, first.volume_id) == (
        "10.77.0.4:27017",
        "us-east-1a",
        "i-0",
        "vol-0",
    )
    assert (first.disk_used_bytes, first.disk_total_bytes, first.mongodb_version) == (2**30, 20 * 2**30, "6.0.5")
    assert (first.lag_seconds, second.lag_seconds) == (0.0, 1.5)


async def test_a_member_that_was_not_heard_lately_is_unknown_not_well(world: World) -> None:
    world.clock.advance(21)
    for slot in ("0", "1"):
        await report(world, f"orders-rs0-{slot}", last_seen_at=world.clock.now())
    cluster = await get(world, "orders")
    assert cluster.health == pb.CLUSTER_HEALTH_DEGRADED
    assert "rs0-2" in cluster.health_reason
    stale = cluster.members[2]
    assert (stale.state, stale.healthy, stale.agent_connected, stale.lag_seconds) == ("", False, False, -1)
    world.clock.advance(21)
    cluster = await get(world, "orders")
    assert (cluster.health, cluster.health_reason) == (pb.CLUSTER_HEALTH_UNKNOWN, "no agent has reported lately")


@pytest.mark.parametrize(
    ("columns", "health", "reason"),
    [
        ({"agent_state": AgentState.SILENT}, pb.CLUSTER_HEALTH_UNAVAILABLE, "no primary"),
        ({"agent_state": AgentState.BANNED}, pb.CLUSTER_HEALTH_UNAVAILABLE, "no primary"),
        ({"report": a_report("SECONDARY")}, pb.CLUSTER_HEALTH_UNAVAILABLE, "no primary"),
        ({"report": a_report("RECOVERING")}, pb.CLUSTER_HEALTH_UNAVAILABLE, "no primary"),
        ({"report": a_report("PRIMARY", problem="disk full")}, pb.CLUSTER_HEALTH_DEGRADED, "disk full"),
        ({"report": None}, pb.CLUSTER_HEALTH_UNAVAILABLE, "no primary"),
    ],
)
async def test_what_the_primary_says_decides(
    world: World, columns: dict[str, Any], health: pb.ClusterHealth.ValueType, reason: str
) -> None:
    await report(world, "orders-rs0-0", **columns)
    cluster = await get(world, "orders")
    assert cluster.health == health
    assert reason in cluster.health_reason


async def test_two_primaries_are_called_by_name(world: World) -> None:
    await report(world, "orders-rs0-1", report=a_report("PRIMARY"))
    cluster = await get(world, "orders")
    assert cluster.health == pb.CLUSTER_HEALTH_DEGRADED
    assert "rs0-0, rs0-1" in cluster.health_reason


async def test_a_newer_agents_words_break_no_view(world: World) -> None:
    strange = a_report("PRIMARY", mongod_state=77, something_new={"a": 1})
    await report(world, "orders-rs0-0", report=strange)
    assert (await get(world, "orders")).health == pb.CLUSTER_HEALTH_HEALTHY
    listed = (await world.call("NodeService/ListNodes", node_pb2.ListNodesRequest())).nodes
    assert listed[0].mongod_state == ""


async def test_nodes_show_machine_agent_and_mongod(world: World) -> None:
    listed = (await world.call("NodeService/ListNodes", node_pb2.ListNodesRequest(project_id=world.ids["aa"]))).nodes
    assert [one.name for one in listed] == ["orders-rs0-0", "orders-rs0-1", "orders-rs0-2"]
    node = listed[0]
    assert (node.cluster_name, node.project_id, node.private_ip) == ("orders", world.ids["aa"], "10.77.0.4")
    assert (node.agent_state, node.mongod_state, node.member_state) == (
        node_pb2.AGENT_STATE_CONNECTED,
        "running",
        "PRIMARY",
    )
    assert (node.cpu_percent, node.memory_total_bytes) == (3.5, 8 * 2**30)
    request = node_pb2.GetNodeRequest(node_id=node.id)
    assert (await world.call("NodeService/GetNode", request)).node == node


async def test_a_banned_agent_may_not_speak_again(world: World) -> None:
    node_id = world.ids["orders-rs0-0"]
    await report(world, "orders-rs0-0", certificate_serial="abc", join_token_hash="xyz")
    with world.database.bus.subscribe(f"session/{node_id}") as changes:
        for _ in range(2):  # a second time changes nothing
            request = node_pb2.BanAgentRequest(node_id=node_id, reason="stolen")
            reply = await world.call("NodeService/BanAgent", request, "operator-a")
            assert reply.node.agent_state == node_pb2.AGENT_STATE_BANNED
        assert await changes.wait(5), "whoever holds its session is told"
    standing = (await world.database.read(lambda tx: nodes.standings(tx, [node_id])))[node_id]
    assert standing.refusal("abc") == "AGENT_BANNED"
    assert (await world.node("orders-rs0-0")).join_token_hash == ""


async def test_a_removed_node_is_not_banned(world: World) -> None:
    await report(world, "orders-rs0-0", removed_at=world.clock.now(), agent_state=AgentState.REMOVED)
    request = node_pb2.BanAgentRequest(node_id=world.ids["orders-rs0-0"], reason="stolen")
    assert (await world.refusal("NodeService/BanAgent", request)).reason == "CLUSTER_STATE"
    listed = (await world.call("NodeService/ListNodes", node_pb2.ListNodesRequest(project_id=world.ids["aa"]))).nodes
    assert len(listed) == 2
    every = node_pb2.ListNodesRequest(project_id=world.ids["aa"], include_removed=True)
    assert len((await world.call("NodeService/ListNodes", every)).nodes) == 3


async def test_projects_count_their_living_clusters(world: World) -> None:
    await world.cluster("aa", "gone", state=ClusterState.DELETED)
    listed = (await world.call("ProjectService/ListProjects", project_pb2.ListProjectsRequest())).projects
    assert [(one.name, one.cluster_count) for one in listed] == [("aa", 1), ("bb", 1)]
    found = await world.call("ProjectService/GetProject", project_pb2.GetProjectRequest(name="aa"))
    assert found.project == listed[0]


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [
        ("Cancel", OperationState.RUNNING, operation_pb2.OPERATION_STATE_RUNNING),
        ("Cancel", OperationState.QUEUED, operation_pb2.OPERATION_STATE_QUEUED),
        ("Retry", OperationState.FAILED, operation_pb2.OPERATION_STATE_QUEUED),
        ("Abandon", OperationState.FAILED, operation_pb2.OPERATION_STATE_ABANDONED),
    ],
)
async def test_operations_are_steered(
    both: World, verb: str, before: OperationState, after: operation_pb2.OperationState.ValueType
) -> None:
    operation_id = await both.operation("orders", before)
    request = getattr(operation_pb2, f"{verb}OperationRequest")(operation_id=operation_id)
    reply = await both.call(f"OperationService/{verb}Operation", request, "operator-a")
    assert reply.operation.state == after
    assert reply.operation.cancel_requested is (verb == "Cancel")
    assert bool(both.queue.entries) is (verb == "Retry")
    if verb == "Retry":
        assert both.queue.entries == [Entry(operation_id, both.ids["orders"], 2)]
    free = not (await get(both, "orders")).active_operation_id
    assert free is (verb == "Abandon")


async def test_of_many_retries_at_once_one_counts(both: World) -> None:
    operation_id = await both.operation("orders", OperationState.FAILED)
    request = operation_pb2.RetryOperationRequest(operation_id=operation_id)
    calls = [both.call("OperationService/RetryOperation", request) for _ in range(6)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refusals = [result.reason for result in results if isinstance(result, WapError)]
    assert refusals == ["NOT_RETRYABLE"] * 5
    assert len(both.queue.entries) == 1


async def test_operations_are_listed_newest_first_page_by_page(world: World) -> None:
    made = []
    for number in range(5):
        made.append(await world.operation("orders", OperationState.SUCCEEDED))
        world.clock.advance(number % 2)  # some at the very same moment
    request, seen = operation_pb2.ListOperationsRequest(cluster_id=world.ids["orders"], page_size=2), []
    while True:
        reply = await world.call("OperationService/ListOperations", request)
        assert len(reply.operations) <= 2
        assert not any(one.steps for one in reply.operations)
        assert all(one.steps_total for one in reply.operations)
        seen += list(reply.operations)
        request.page_token = reply.next_page_token
        if not request.page_token:
            break
    assert sorted(one.id for one in seen) == sorted(made), "each once"
    times = [one.create_time.ToNanoseconds() for one in seen]
    assert times == sorted(times, reverse=True)


async def test_deletion_protection_is_kept_and_shown(world: World) -> None:
    await world.cluster("aa", "kept", spec=a_spec(protected=True))
    assert (await get(world, "kept")).spec.deletion_protection
