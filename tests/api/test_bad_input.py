"""Every wish that is not acceptable: the code, the reason, the field, what was given, what is allowed; nothing changed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from wap.control.v1 import access_pb2, cluster_pb2, log_pb2, metric_pb2, node_pb2, operation_pb2, project_pb2
from wap.type.v1 import cluster_pb2 as type_pb2

from controlplane.domain.access import Grant, Role
from controlplane.domain.cluster import ClusterState
from controlplane.domain.operation import OperationKind, OperationState
from tests.api.world import MAX_CLUSTERS, World, a_spec, a_wish

NAME_RULE = "2 to 40 of a-z, 0-9 and '-'"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
SIZE = "spec.replica_sets[0].size"
Build = Callable[[World], Message]
Prepare = Callable[[World], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """One bad wish and its answer. `given` None: not compared; `allowed` is a part of the text."""

    id: str
    rpc: str
    build: Build
    field: str
    given: str | None
    allowed: str
    reason: str = "INVALID_ARGUMENT"
    code: grpc.StatusCode = INVALID
    prepare: Prepare | None = None
    as_: str = "root"


def wish(id: str, field: str, given: str | None, allowed: str, **changes: Any) -> Row:
    """A CreateCluster with something wrong."""
    return Row(id, "ClusterService/CreateCluster", lambda w: a_wish(w.ids["aa"], **changes), field, given, allowed)


def with_routers(request: cluster_pb2.CreateClusterRequest) -> cluster_pb2.CreateClusterRequest:
    request.spec.routers.count = 2
    return request


BAD_NAMES = {
    "empty": "",
    "one letter": "a",
    "41 characters": "a" * 41,
    "64 characters": "a" * 64,
    "1000 characters": "a" * 1000,
    "upper case": "Orders",
    "begins with a digit": "1orders",
    "begins with a dash": "-orders",
    "ends with a dash": "orders-",
    "underscore": "my_orders",
    "space": "my orders",
    "line feed": "orders\n",
    "cyrillic look-alike": "оrders",
    "full width": "ｏrders",
    "ligature": "oﬀers",
    "zero width joiner": "or\u200dders",
    "right to left": "\u202eorders",
    "emoji": "orders🙂",
    "path part": "../etc",
    "slash": "a/b",
    "dots": "..",
    "SQL": "x'; drop table cluster; --",
    "HTML": "<script>alert(1)</script>",
    "shell": "$(reboot)",
    "format": "%s{0}",
}
NAMES = [
    row
    for name, text in BAD_NAMES.items()
    for row in (
        wish(f"cluster name: {name}", "name", text[:80], NAME_RULE, name=text),
        Row(
            f"project name: {name}",
            "ProjectService/CreateProject",
            lambda w, text=text: project_pb2.CreateProjectRequest(name=text),  # type: ignore[misc]
            "name",
            text[:80],
            NAME_RULE,
        ),
    )
]
A_SET = type_pb2.ReplicaSetSpec(members=3, size=type_pb2.NodeSize(instance_type="m6i.large", disk_gib=20))
SPECS = [
    *(
        wish(f"{n} members", "spec.replica_sets[0].members", str(n), "3, 5, 7", members=n)
        for n in (0, 1, 2, 4, 6, 8, 9)
    ),
    wish("2^32-1 members", "spec.replica_sets[0].members", str(2**32 - 1), "3, 5, 7", members=2**32 - 1),
    wish("2 members, unsafe", "spec.replica_sets[0].members", "2", "1, 3, 5, 7", members=2, allow_unsafe=True),
    wish(
        "replica set named",
        "spec.replica_sets[0].name",
        "RS 0",
        NAME_RULE,
        replica_sets=[type_pb2.ReplicaSetSpec(name="RS 0", members=3, size=A_SET.size)],
    ),
    wish("config role", "spec.replica_sets[0].role", "CONFIG", "DATA", role=type_pb2.REPLICA_SET_ROLE_CONFIG),
    wish("role without a name", "spec.replica_sets[0].role", "77", "REPLICA_SET_ROLE_DATA", role=77),
    wish("no replica set", "spec.replica_sets", "0", "exactly 1", replica_sets=[]),
    wish("two replica sets", "spec.replica_sets", "2", "exactly 1", replica_sets=[A_SET, A_SET]),
    wish("sharded", "spec.topology", "SHARDED", "TOPOLOGY_REPLICA_SET", topology=type_pb2.TOPOLOGY_SHARDED),
    wish("no topology", "spec.topology", "TOPOLOGY_UNSPECIFIED", "TOPOLOGY_REPLICA_SET", topology=0),
    wish("topology without a name", "spec.topology", "99", "TOPOLOGY_REPLICA_SET", topology=99),
    Row(
        "no spec",
        "ClusterService/CreateCluster",
        lambda w: cluster_pb2.CreateClusterRequest(project_id=w.ids["aa"], name="demo"),
        "spec.topology",
        "TOPOLOGY_UNSPECIFIED",
        "TOPOLOGY_REPLICA_SET",
    ),
    wish("unknown instance type", f"{SIZE}.instance_type", "m6i.huge", "m6i.large", instance_type="m6i.huge"),
    wish("no instance type", f"{SIZE}.instance_type", "", "m6i.large", instance_type=""),
    wish("instance type in capitals", f"{SIZE}.instance_type", "M6I.LARGE", "m6i.large", instance_type="M6I.LARGE"),
    wish("disk of 0", f"{SIZE}.disk_gib", "0", "1 to 16384 GiB", disk_gib=0),
    wish("disk over 16 TiB", f"{SIZE}.disk_gib", "16385", "1 to 16384 GiB", disk_gib=16385),
    wish("disk of 2^32-1", f"{SIZE}.disk_gib", str(2**32 - 1), "1 to 16384 GiB", disk_gib=2**32 - 1),
    wish("too few IOPS", f"{SIZE}.disk_iops", "2999", "3000 to 16000", disk_iops=2999),
    wish("too many IOPS", f"{SIZE}.disk_iops", "16001", "3000 to 16000", disk_gib=1000, disk_iops=16001),
    wish("IOPS out of ratio", f"{SIZE}.disk_iops", "10001", "500 per GiB", disk_gib=20, disk_iops=10001),
    wish("too little throughput", f"{SIZE}.disk_throughput_mibps", "124", "125 to 1000", disk_throughput_mibps=124),
    wish("too much throughput", f"{SIZE}.disk_throughput_mibps", "1001", "125 to 1000", disk_throughput_mibps=1001),
    wish("throughput out of ratio", f"{SIZE}.disk_throughput_mibps", "800", "0.25 MiB/s", disk_throughput_mibps=800),
    wish("unknown version", "spec.mongodb_version", "5.0.99", "6.0.5, 7.0.14", mongodb_version="5.0.99"),
    wish("no version", "spec.mongodb_version", "", "6.0.5, 7.0.14", mongodb_version=""),
    wish("unknown region", "spec.region", "mars-north-1", "us-east-1", region="mars-north-1"),
    Row(
        "routers",
        "ClusterService/CreateCluster",
        lambda w: with_routers(a_wish(w.ids["aa"])),
        "spec.routers.count",
        "2",
        "0 for a replica set",
    ),
    wish("empty zone", "spec.zones[0]", "", "us-east-1a", zones=[""]),
    wish("zone of another region", "spec.zones[1]", "eu-west-1a", "us-east-1a", zones=["us-east-1a", "eu-west-1a"]),
    wish("zone twice", "spec.zones", "us-east-1a, us-east-1a", "each zone once", zones=["us-east-1a", "us-east-1a"]),
    wish("long idempotency key", "idempotency_key", "k" * 65, "64 printable", idempotency_key="k" * 65),
    wish("idempotency key with a line feed", "idempotency_key", "a\nb", "printable", idempotency_key="a\nb"),
]


def user(**fields: Any) -> Build:
    return lambda w: access_pb2.CreateUserRequest(**{"username": "newcomer", **fields})


def token(**fields: Any) -> Build:
    def build(w: World) -> Message:
        grants = [access_pb2.Grant(project_id=w.ids["aa"], role=type_pb2.ACCESS_ROLE_VIEWER)]
        return access_pb2.CreateTokenRequest(**{"name": "ci", "grants": grants, **fields})

    return build


VIEWER_EVERYWHERE = access_pb2.Grant(role=type_pb2.ACCESS_ROLE_VIEWER)
ACCESS = [
    *(
        Row(
            f"user name {text!r}",
            "AccessService/CreateUser",
            user(username=text),
            "username",
            text[:80],
            "2 to 40 of a-z",
        )
        for text in ("", "a", "a" * 41, "Admin", "jos\u00e9", "a b", "<b>", "root'--", "1st", "a/b", "аdmin")
    ),
    Row(
        "password of 11", "AccessService/CreateUser", user(password="x" * 11), "password", "11 characters", "12 to 128"
    ),
    Row(
        "password of 129",
        "AccessService/CreateUser",
        user(password="x" * 129),
        "password",
        "129 characters",
        "12 to 128",
    ),
    Row(
        "taken user name",
        "AccessService/CreateUser",
        user(username="viewer-a"),
        "username",
        "viewer-a",
        "a name that no user has",
        "ALREADY_EXISTS",
        grpc.StatusCode.ALREADY_EXISTS,
    ),
    Row(
        "grant without a role",
        "AccessService/CreateUser",
        user(grants=[access_pb2.Grant()]),
        "grants[0].role",
        "ACCESS_ROLE_UNSPECIFIED",
        "ACCESS_ROLE_VIEWER",
    ),
    Row(
        "role without a name",
        "AccessService/CreateUser",
        user(grants=[access_pb2.Grant(role=9)]),  # type: ignore[arg-type]
        "grants[0].role",
        "9",
        "ACCESS_ROLE_VIEWER",
    ),
    Row(
        "the same project twice",
        "AccessService/CreateUser",
        user(grants=[VIEWER_EVERYWHERE, VIEWER_EVERYWHERE]),
        "grants[1].project_id",
        "",
        "each project once",
    ),
    Row(
        "101 grants",
        "AccessService/CreateUser",
        user(grants=[VIEWER_EVERYWHERE] * 101),
        "grants",
        "101 grants",
        "100",
    ),
    Row(
        "grant in a project that is not there",
        "AccessService/CreateUser",
        user(grants=[access_pb2.Grant(project_id="pr-no", role=type_pb2.ACCESS_ROLE_VIEWER)]),
        "project_id",
        "pr-no",
        "",
        "NOT_FOUND",
        grpc.StatusCode.NOT_FOUND,
    ),
    Row(
        "user that is not there",
        "AccessService/SetUserDisabled",
        lambda w: access_pb2.SetUserDisabledRequest(user_id="us-no", disabled=True),
        "user_id",
        "us-no",
        "",
        "NOT_FOUND",
        grpc.StatusCode.NOT_FOUND,
    ),
    Row(
        "locking oneself out",
        "AccessService/SetUserDisabled",
        lambda w: access_pb2.SetUserDisabledRequest(user_id=w.ids["user:root"], disabled=True),
        "user_id",
        None,
        "another user",
    ),
    *(
        Row(
            f"token name {text[:9]!r}",
            "AccessService/CreateToken",
            token(name=text),
            "name",
            text[:80],
            "1 to 64 printable",
        )
        for text in ("", "x" * 65, "a\tb", "\u202eic")
    ),
    Row("91 days", "AccessService/CreateToken", token(expire_days=91), "expire_days", "91", "1 to 90"),
    Row(
        "2^32-1 days",
        "AccessService/CreateToken",
        token(expire_days=2**32 - 1),
        "expire_days",
        str(2**32 - 1),
        "1 to 90",
    ),
    Row("no grants", "AccessService/CreateToken", token(grants=[]), "grants", "none", "at least one"),
    Row(
        "more than one has",
        "AccessService/CreateToken",
        token(grants=[VIEWER_EVERYWHERE]),
        "grants[0]",
        "VIEWER in all projects",
        "a role that the caller has",
        "PERMISSION_DENIED",
        grpc.StatusCode.PERMISSION_DENIED,
        as_="operator-a",
    ),
    Row(
        "token that is not there",
        "AccessService/RevokeToken",
        lambda w: access_pb2.RevokeTokenRequest(token_id="tk-no"),
        "token_id",
        "tk-no",
        "",
        "NOT_FOUND",
        grpc.StatusCode.NOT_FOUND,
    ),
    Row(
        "a session is no API token",
        "AccessService/RevokeToken",
        lambda w: access_pb2.RevokeTokenRequest(token_id=w.ids["session:viewer-a"]),
        "token_id",
        None,
        "",
        "NOT_FOUND",
        grpc.StatusCode.NOT_FOUND,
    ),
    *(
        Row(
            f"new password of {n}",
            "AccessService/ChangePassword",
            lambda w, n=n: access_pb2.ChangePasswordRequest(old_password="x", new_password="y" * n),  # type: ignore[misc]
            "new_password",
            f"{n} characters",
            "12 to 128",
        )
        for n in (0, 11, 129)
    ),
]


async def protected(world: World) -> None:
    await world.cluster("aa", "kept", spec=a_spec(protected=True))


async def busy(world: World) -> None:
    world.ids["op"] = await world.operation("orders")


async def deleted(world: World) -> None:
    await world.cluster("aa", "gone", state=ClusterState.DELETED)


async def creating(world: World) -> None:
    await world.cluster("aa", "young", state=ClusterState.CREATING, reporting=False)


async def full(world: World) -> None:
    for number in range(MAX_CLUSTERS - 1):
        await world.cluster("aa", f"more-{number}")


def standing(state: OperationState, kind: OperationKind = OperationKind.CREATE_CLUSTER) -> Prepare:
    async def prepare(world: World) -> None:
        world.ids["op"] = await world.operation("orders", state, kind)

    return prepare


def delete(name: str, typed: str) -> Build:
    return lambda w: cluster_pb2.DeleteClusterRequest(cluster_id=w.ids[name], confirm_name=typed)


def steer(verb: str) -> tuple[str, Build]:
    request = getattr(operation_pb2, f"{verb}OperationRequest")
    return f"OperationService/{verb}Operation", lambda w: request(operation_id=w.ids["op"])


CANCEL, RETRY, ABANDON = steer("Cancel"), steer("Retry"), steer("Abandon")
OVER = (OperationState.SUCCEEDED, OperationState.CANCELLED, OperationState.ABANDONED)
AT_WORK = (OperationState.QUEUED, OperationState.RUNNING, OperationState.CANCELLING)
STATES = [
    *(
        Row(
            f"typed {typed!r}",
            "ClusterService/DeleteCluster",
            delete("orders", typed),
            "confirm_name",
            typed,
            "orders",
            "NAME_NOT_CONFIRMED",
        )
        for typed in ("", "order", "Orders", "orders ", "оrders")
    ),
    Row(
        "delete of a protected one",
        "ClusterService/DeleteCluster",
        delete("kept", "kept"),
        "spec.deletion_protection",
        "true",
        "switch deletion protection off",
        "DELETION_PROTECTED",
        PRECONDITION,
        protected,
    ),
    Row(
        "delete of a busy one",
        "ClusterService/DeleteCluster",
        delete("orders", "orders"),
        "cluster_id",
        None,
        "wait for it",
        "CLUSTER_BUSY",
        PRECONDITION,
        busy,
    ),
    Row(
        "delete of a deleted one",
        "ClusterService/DeleteCluster",
        delete("gone", "gone"),
        "cluster_id",
        None,
        "not deleted",
        "CLUSTER_STATE",
        PRECONDITION,
        deleted,
    ),
    Row(
        "connection to one that is being created",
        "ClusterService/GetConnection",
        lambda w: cluster_pb2.GetConnectionRequest(cluster_id=w.ids["young"]),
        "cluster_id",
        None,
        "AVAILABLE",
        "CLUSTER_STATE",
        PRECONDITION,
        creating,
    ),
    Row(
        "connection to a deleted one",
        "ClusterService/GetConnection",
        lambda w: cluster_pb2.GetConnectionRequest(cluster_id=w.ids["gone"]),
        "cluster_id",
        None,
        "AVAILABLE",
        "CLUSTER_STATE",
        PRECONDITION,
        deleted,
    ),
    Row(
        "one cluster too many",
        "ClusterService/CreateCluster",
        lambda w: a_wish(w.ids["aa"], "one-more"),
        "project_id",
        str(MAX_CLUSTERS),
        f"at most {MAX_CLUSTERS}",
        "QUOTA_EXCEEDED",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        full,
    ),
    Row(
        "taken cluster name",
        "ClusterService/CreateCluster",
        lambda w: a_wish(w.ids["aa"], "orders"),
        "name",
        "orders",
        "no living cluster",
        "ALREADY_EXISTS",
        grpc.StatusCode.ALREADY_EXISTS,
    ),
    Row(
        "taken project name",
        "ProjectService/CreateProject",
        lambda w: project_pb2.CreateProjectRequest(name="bb"),
        "name",
        "bb",
        "no project has",
        "ALREADY_EXISTS",
        grpc.StatusCode.ALREADY_EXISTS,
    ),
    Row(
        "project with clusters",
        "ProjectService/DeleteProject",
        lambda w: project_pb2.DeleteProjectRequest(project_id=w.ids["aa"]),
        "project_id",
        None,
        "without clusters",
        "PROJECT_NOT_EMPTY",
        PRECONDITION,
    ),
    *(
        Row(
            f"cancel: {s}",
            *CANCEL,
            "operation_id",
            None,
            "queued or running",
            "OPERATION_FINISHED",
            PRECONDITION,
            standing(s),
        )
        for s in (*OVER, OperationState.FAILED)
    ),
    Row(
        "cancel of a delete",
        *CANCEL,
        "operation_id",
        None,
        "wait for it",
        "NOT_CANCELLABLE",
        PRECONDITION,
        standing(OperationState.RUNNING, OperationKind.DELETE_CLUSTER),
    ),
    *(
        Row(f"retry: {s}", *RETRY, "operation_id", None, "FAILED", "NOT_RETRYABLE", PRECONDITION, standing(s))
        for s in (*OVER, *AT_WORK)
    ),
    *(
        Row(
            f"abandon: {s}",
            *ABANDON,
            "operation_id",
            None,
            "queued or running",
            "OPERATION_FINISHED",
            PRECONDITION,
            standing(s),
        )
        for s in OVER
    ),
    *(
        Row(f"abandon: {s}", *ABANDON, "operation_id", None, "FAILED", "NOT_RETRYABLE", PRECONDITION, standing(s))
        for s in AT_WORK
    ),
    *(
        Row(
            f"ban without a reason: {reason!r}",
            "NodeService/BanAgent",
            lambda w, reason=reason: node_pb2.BanAgentRequest(  # type: ignore[misc]
                node_id=w.ids["orders-rs0-0"], reason=reason
            ),
            "reason",
            reason[:80],
            "1 to 500 printable",
        )
        for reason in ("", "x" * 501, "two\nlines")
    ),
]

NO_IDS = [
    Row(f"{rpc} without an id", rpc, lambda w, request=request: request, field, "", "id")  # type: ignore[misc]
    for rpc, request, field in (
        ("ProjectService/GetProject", project_pb2.GetProjectRequest(), "project_id"),
        ("ProjectService/DeleteProject", project_pb2.DeleteProjectRequest(), "project_id"),
        ("ClusterService/CreateCluster", cluster_pb2.CreateClusterRequest(name="demo"), "project_id"),
        ("ClusterService/GetCluster", cluster_pb2.GetClusterRequest(), "cluster_id"),
        ("ClusterService/GetConnection", cluster_pb2.GetConnectionRequest(), "cluster_id"),
        ("ClusterService/DeleteCluster", cluster_pb2.DeleteClusterRequest(), "cluster_id"),
        ("OperationService/GetOperation", operation_pb2.GetOperationRequest(), "operation_id"),
        ("OperationService/WatchOperation", operation_pb2.WatchOperationRequest(), "operation_id"),
        ("OperationService/CancelOperation", operation_pb2.CancelOperationRequest(), "operation_id"),
        ("NodeService/GetNode", node_pb2.GetNodeRequest(), "node_id"),
        ("NodeService/BanAgent", node_pb2.BanAgentRequest(reason="lost"), "node_id"),
        ("MetricService/ListCurrentOperations", metric_pb2.ListCurrentOperationsRequest(), "node_id"),
        ("MetricService/KillOperation", metric_pb2.KillOperationRequest(current_operation_id=1), "node_id"),
    )
]
LISTS: dict[str, type[Any]] = {
    "ClusterService/ListClusters": cluster_pb2.ListClustersRequest,
    "OperationService/ListOperations": operation_pb2.ListOperationsRequest,
    "AccessService/ListAuditEvents": access_pb2.ListAuditEventsRequest,
}


def asking(request: type[Any], **fields: Any) -> Build:
    return lambda w: request(**fields)


PAGES = [
    row
    for rpc, request in LISTS.items()
    for row in (
        *(
            Row(
                f"{rpc}: size {size}",
                rpc,
                asking(request, page_size=size),
                "page_size",
                str(size),
                "1 to 500",
            )
            for size in (501, 10**9, 2**32 - 1)
        ),
        *(
            Row(
                f"{rpc}: token {text[:9]!r}",
                rpc,
                asking(request, page_token=text),
                "page_token",
                text[:80],
                "next_page_token",
            )
            for text in ("1", "forged", "=", "AAAA" * 30, "é", "' or 1=1")
        ),
    )
]
OPTIONS = [
    Row(
        "options of a foreign region",
        "ClusterService/ListCreateOptions",
        lambda w: cluster_pb2.ListCreateOptionsRequest(region="mars-north-1"),
        "region",
        "mars-north-1",
        "us-east-1",
    )
]
METRIC = "host.cpu.user_percent"
NAMES_OF_METRICS = "ListMetrics tells"


def measured(kind: str = "Query", **fields: Any) -> tuple[str, Build]:
    """A question about the metrics of a cluster with something wrong."""
    request = getattr(metric_pb2, f"{kind}MetricsRequest")
    metrics: dict[str, Any] = {"metric": METRIC} if kind == "Summarise" else {"metrics": [METRIC]}
    return (
        f"MetricService/{kind}Metrics",
        lambda w: request(**{"cluster_id": w.ids["orders"], **metrics, **fields}),
    )


def at(seconds: int, nanos: int = 0) -> Timestamp:
    return Timestamp(seconds=seconds, nanos=nanos)


def logged(**fields: Any) -> Build:
    return lambda w: log_pb2.SearchLogsRequest(**fields)


def asked_of_metrics(**times: Any) -> Build:
    return measured(**times)[1]


def summarised(**times: Any) -> Build:
    return measured("Summarise", **times)[1]


PERIODS = [
    row
    for name, rpc, ask in (
        ("series", "MetricService/QueryMetrics", asked_of_metrics),
        ("summaries", "MetricService/SummariseMetrics", summarised),
        ("lines", "LogService/SearchLogs", logged),
    )
    for row in (
        Row(
            f"{name} that end before they begin",
            rpc,
            ask(start_time=at(2000), end_time=at(1000)),
            "end_time",
            "1970-01-01T00:16:40Z",
            "later than start_time",
        ),
        Row(f"{name} of no time", rpc, ask(start_time=at(9), end_time=at(9)), "end_time", None, "later than"),
        Row(
            f"{name} from a time without a calendar",
            rpc,
            ask(start_time=at(10**15)),
            "start_time",
            None,
            "1970 to 9999",
        ),
        Row(f"{name} to a time before 1970", rpc, ask(end_time=at(-(10**12))), "end_time", None, "1970 to 9999"),
        Row(f"{name} to a time with wrong nanoseconds", rpc, ask(end_time=at(1, -5)), "end_time", None, "1970 to 9999"),
    )
]
MEASURED = [
    Row("no metric", *measured(metrics=[]), "metrics", "0 names", "1 to 20"),
    Row("21 metrics", *measured(metrics=[METRIC] * 21), "metrics", "21 names", "1 to 20"),
    Row("unknown metric", *measured(metrics=[METRIC, "x.y"]), "metrics[1]", "x.y", NAMES_OF_METRICS),
    Row("unknown live metric", *measured("Stream", metrics=["x.y"]), "metrics[0]", "x.y", NAMES_OF_METRICS),
    Row("unknown metric in a summary", *measured("Summarise", metric="x.y"), "metric", "x.y", NAMES_OF_METRICS),
    Row("summary of no metric", *measured("Summarise", metric=""), "metric", "", NAMES_OF_METRICS),
    *(
        Row(f"quantile {number}", *measured("Summarise", quantile=number), "quantile", str(number), "0 to 1")
        for number in (-0.1, 1.1, float("nan"), float("inf"))
    ),
    *(
        Row(f"step of {step.seconds} s", *measured(step=step), "step", None, "1 to 314496000 seconds")
        for step in (Duration(), Duration(seconds=-10), Duration(seconds=315_576_000_000))
    ),
    *(
        Row(
            f"interval of {seconds} s",
            *measured("Stream", interval=Duration(seconds=seconds)),
            "interval",
            None,
            "1 to 10",
        )
        for seconds in (0, 11, -1)
    ),
    Row(
        "node and cluster",
        *measured(node_id="nd-x"),
        "node_id",
        "nd-x",
        "not both",
    ),
    Row("neither node nor cluster", *measured(cluster_id=""), "cluster_id", "", "id"),
    Row("live, neither node nor cluster", *measured("Stream", cluster_id=""), "cluster_id", "", "id"),
    Row(
        "kill of no operation",
        "MetricService/KillOperation",
        lambda w: metric_pb2.KillOperationRequest(node_id=w.ids["orders-rs0-0"], current_operation_id=-1),
        "current_operation_id",
        "-1",
        "ListCurrentOperations",
    ),
    Row(
        "operations that run for minus a second",
        "MetricService/ListCurrentOperations",
        lambda w: metric_pb2.ListCurrentOperationsRequest(
            node_id=w.ids["orders-rs0-0"], running_at_least=Duration(seconds=-1)
        ),
        "running_at_least",
        "-1 seconds",
        "0 to",
    ),
]
LOGGED = [
    *(
        Row(
            f"severity {text!r}",
            "LogService/SearchLogs",
            logged(filter=log_pb2.LogFilter(minimum_severity=text)),
            "filter.minimum_severity",
            text,
            "F, E, W, I",
        )
        for text in ("X", "e", "WARNING", "D6")
    ),
    *(
        Row(f"{size} lines", "LogService/SearchLogs", logged(page_size=size), "page_size", str(size), "1 to 1000")
        for size in (1001, 2**32 - 1)
    ),
    *(
        Row(
            f"lines from token {text[:9]!r}",
            "LogService/SearchLogs",
            logged(page_token=text),
            "page_token",
            text[:80],
            "next_page_token",
        )
        for text in ("1", "forged", "AAAA" * 30, "é")
    ),
    Row(
        "201 shapes",
        "LogService/ListSlowQueries",
        lambda w: log_pb2.ListSlowQueriesRequest(cluster_id=w.ids["orders"], limit=201),
        "limit",
        "201",
        "1 to 200",
    ),
    Row(
        "slow queries of nothing",
        "LogService/ListSlowQueries",
        lambda w: log_pb2.ListSlowQueriesRequest(),
        "cluster_id",
        "",
        "id",
    ),
    Row(
        "live lines of a severity that is none",
        "LogService/TailLogs",
        lambda w: log_pb2.TailLogsRequest(filter=log_pb2.LogFilter(minimum_severity="?")),
        "filter.minimum_severity",
        "?",
        "F, E, W, I",
    ),
]
ROWS = [*NAMES, *SPECS, *ACCESS, *STATES, *NO_IDS, *PAGES, *OPTIONS, *PERIODS, *MEASURED, *LOGGED]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id.encode("ascii", "backslashreplace").decode())
async def test_a_bad_wish_is_refused_in_words_and_changes_nothing(world: World, row: Row) -> None:
    if row.prepare is not None:
        await row.prepare(world)
    before = await world.dump()
    error = await world.refusal(row.rpc, row.build(world), row.as_)
    assert (error.code, error.reason, error.field) == (row.code, row.reason, row.field)
    assert row.allowed in error.allowed
    if row.given is not None:
        assert error.given == row.given
    assert len(error.given) <= 80
    assert error.message
    assert error.request_id
    after = await world.dump()
    if row.reason == "PERMISSION_DENIED":  # which is itself an event
        assert len(after.pop("audit_event")) == len(before.pop("audit_event")) + 1
    assert after == before
    assert world.queue.entries == []
    if row.code is INVALID and not row.field.startswith("spec.zones"):
        assert world.offer.aws_calls == 0, "AWS is not asked about a wish that is bad anyway"


async def test_control_a_good_wish_is_taken(world: World) -> None:
    """The same request without the mistake: so it was the mistake that was refused."""
    before = await world.dump()
    await world.call("ClusterService/CreateCluster", a_wish(world.ids["aa"]))
    await world.call("ProjectService/CreateProject", project_pb2.CreateProjectRequest(name="cc"))
    await world.call("AccessService/CreateUser", user()(world))
    await world.call("AccessService/CreateToken", token()(world))
    assert await world.dump() != before
    assert len(world.queue.entries) == 1
    assert world.offer.aws_calls == 1


@pytest.mark.parametrize("rpc", LISTS)
async def test_a_page_token_is_good_for_its_own_list_filters_and_a_day(world: World, rpc: str) -> None:
    for number in range(3):
        await world.cluster("aa", f"more-{number}")
        await world.operation(f"more-{number}", OperationState.SUCCEEDED)
        await world.call("ProjectService/CreateProject", project_pb2.CreateProjectRequest(name=f"event-{number}"))
    request = LISTS[rpc]
    token_text = (await world.call(rpc, request(page_size=1))).next_page_token
    assert token_text
    assert await world.call(rpc, request(page_size=1, page_token=token_text))
    other = next(name for name in LISTS if name != rpc)
    for used, wrong in (
        (other, LISTS[other](page_token=token_text)),
        (rpc, request(page_token=token_text, project_id=world.ids["aa"])),
    ):
        error = await world.refusal(used, wrong)
        assert (error.reason, error.field) == ("INVALID_ARGUMENT", "page_token")
    await world.person("tomorrow", Grant("", Role.ADMIN), life=timedelta(days=2))
    world.clock.advance(24 * 3600)
    await world.person("late", Grant("", Role.ADMIN))
    error = await world.refusal(rpc, request(page_token=token_text), "late")
    assert (error.field, error.allowed) == ("page_token", "a page token that is less than a day old")
