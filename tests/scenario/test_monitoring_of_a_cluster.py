"""What people see of a cluster that works, through real agents: metrics, logs, slow queries, an alert, a failover."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from wap.control.v1 import alert_pb2, cluster_pb2, log_pb2, metric_pb2, operation_pb2

from console.client import Client
from console.client.monitoring import log_filter, query_request, query_times, search_request, span, stamp
from scripts import workload
from scripts.stack import Stack
from tests.scenario.conftest import PROJECT, logged_in
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(300)
INSERTS, ELECTIONS = "mongod.opcounters.insert_per_second", "replica_set.elections"
CONNECTIONS = "mongod.connections.current"
NEW_PRIMARY_SECONDS = 15.0
LOAD_SECONDS = 240.0


@pytest.fixture
def watched(stack: Stack, tmp_path: Path) -> Iterator[tuple[Client, cluster_pb2.Cluster]]:
    """A cluster under load, and a client of its control plane."""
    stack.start_server()
    with logged_in(stack) as client:
        operation = client.wait(client.create_cluster(PROJECT, "orders", members=3, disk_gib=20).id, timeout=120)
        assert operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED, operation.summary
        cluster = client.cluster(PROJECT, "orders")
        reply = client.clusters.GetConnection(cluster_pb2.GetConnectionRequest(cluster_id=cluster.id))
        ca_file = tmp_path / "ca.pem"
        ca_file.write_text(reply.ca_pem)
        with under_load(reply.uri, ca_file):
            yield client, cluster


@contextmanager
def under_load(uri: str, ca_file: Path) -> Iterator[None]:
    ended = threading.Event()
    options: dict[str, Any] = {"seconds": LOAD_SECONDS, "ended": ended, "tlsCAFile": str(ca_file)}
    thread = threading.Thread(target=workload.run, args=[uri], kwargs=options)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def series(client: Client, cluster: cluster_pb2.Cluster, metric: str) -> dict[str, list[float]]:
    """What was measured in the last ten minutes, by node; gaps left out, the largest of each step."""
    reply = client.metrics.QueryMetrics(query_request([metric], cluster_id=cluster.id, last_seconds=600))
    return {one.node_name: [p.maximum for p in one.points if p.HasField("maximum")] for one in reply.series}


def test_what_a_cluster_does_is_seen_and_trouble_is_told(
    watched: tuple[Client, cluster_pb2.Cluster], stack: Stack
) -> None:
    client, cluster = watched
    primary = next(member for member in cluster.members if member.state == "PRIMARY")
    wait_until(lambda: max(series(client, cluster, INSERTS).get(primary.name, [0.0])) > 0, within=60)
    assert len(series(client, cluster, CONNECTIONS)) == 3
    _live_samples_come(client, cluster)
    _slow_queries_are_grouped_and_advised(client, cluster)
    _logs_are_found(client, cluster)
    _an_alert_fires_is_acknowledged_and_resolves(client, cluster)
    _a_failover_is_seen(client, cluster, stack)


def _live_samples_come(client: Client, cluster: cluster_pb2.Cluster) -> None:
    stream: Any = client.metrics.StreamMetrics(
        metric_pb2.StreamMetricsRequest(cluster_id=cluster.id, metrics=[CONNECTIONS], interval=span(1.0)), timeout=60
    )
    times: dict[str, list[float]] = {}
    for reply in stream:
        for sample in reply.samples:
            times.setdefault(sample.node_id, []).append(sample.time.ToMilliseconds() / 1000)
        if len(times) == 3 and all(len(found) >= 5 for found in times.values()):
            break
    stream.cancel()
    fastest = min(later - earlier for found in times.values() for earlier, later in itertools.pairwise(found))
    assert fastest < 5, "somebody looks, so nodes sample each second"


def _slow_queries_are_grouped_and_advised(client: Client, cluster: cluster_pb2.Cluster) -> None:
    def advised() -> list[log_pb2.SlowQueryShape]:
        start, end = query_times(600)
        request = log_pb2.ListSlowQueriesRequest(cluster_id=cluster.id, start_time=start, end_time=end)
        return [shape for shape in client.logs.ListSlowQueries(request).shapes if shape.HasField("advice")]

    shapes = wait_until(advised, within=90)
    worst = shapes[0]
    assert worst.namespace == f"{workload.DATABASE}.{workload.COLLECTION}"
    assert worst.collection_scans > 0
    assert worst.advice.keys
    assert worst.advice.reason
    shown = f"{worst.predicate_shape} {worst.sort_shape}"
    assert not [city for city in workload.CITIES if city in shown], "literals stay on the node"


def _logs_are_found(client: Client, cluster: cluster_pb2.Cluster) -> None:
    wanted = log_filter(cluster_id=cluster.id, message_id=51803)
    lines = client.logs.SearchLogs(search_request(wanted, last_seconds=600)).lines
    assert lines
    assert {line.text for line in lines} == {"Slow query"}
    assert not [line for line in lines if workload.NEVER_FOUND in line.attributes]


def _an_alert_fires_is_acknowledged_and_resolves(client: Client, cluster: cluster_pb2.Cluster) -> None:
    rule = alert_pb2.AlertRule(
        name="Anyone at all",
        cluster_id=cluster.id,
        metric=CONNECTIONS,
        comparison=alert_pb2.ALERT_COMPARISON_ABOVE,
        threshold=1,
        window=span(60),
        hits=1,
        severity=alert_pb2.ALERT_SEVERITY_WARNING,
        advice="Look who it is.",
    )
    rule = client.alerts.CreateAlertRule(alert_pb2.CreateAlertRuleRequest(rule=rule)).rule

    def raised() -> list[alert_pb2.Alert]:
        request = alert_pb2.ListAlertsRequest(cluster_id=cluster.id, include_resolved=True)
        return [alert for alert in client.alerts.ListAlerts(request).alerts if alert.rule_name == rule.name]

    alert = wait_until(raised, within=60)[0]
    assert alert.state == alert_pb2.ALERT_STATE_FIRING
    assert alert.node_name in alert.summary
    assert alert.advice == "Look who it is."
    until = stamp(query_times(0)[1].ToSeconds() + 600)
    client.alerts.AcknowledgeAlert(alert_pb2.AcknowledgeAlertRequest(alert_id=alert.id, until_time=until))
    rule.threshold = 100_000
    client.alerts.UpdateAlertRule(alert_pb2.UpdateAlertRuleRequest(rule=rule))
    wait_until(lambda: {one.state for one in raised()} == {alert_pb2.ALERT_STATE_RESOLVED}, within=90)
    history = client.alerts.GetAlert(alert_pb2.GetAlertRequest(alert_id=alert.id)).history
    said = [event.what for event in history]
    assert said[0] == "fired"
    assert {"acknowledged", "resolved"} <= set(said)


def _a_failover_is_seen(client: Client, cluster: cluster_pb2.Cluster, stack: Stack) -> None:
    old = next(member for member in client.cluster(PROJECT, "orders").members if member.state == "PRIMARY")
    before = {name: sum(found) for name, found in series(client, cluster, ELECTIONS).items()}
    address = old.address.partition(":")[0]
    victim = next(one for one in psutil.process_iter(["cmdline"]) if _is_mongod_of(one, stack, address))
    victim.kill()
    wait_until(lambda: _primary(client) not in ("", old.name), within=45)
    wait_until(
        lambda: any(
            sum(found) > before.get(name, 0.0)
            for name, found in series(client, cluster, ELECTIONS).items()
            if name != old.name
        ),
        within=NEW_PRIMARY_SECONDS,
    )


def _primary(client: Client) -> str:
    members = client.cluster(PROJECT, "orders").members
    return next((member.name for member in members if member.state == "PRIMARY"), "")


def _is_mongod_of(process: psutil.Process, stack: Stack, address: str) -> bool:
    line = process.info["cmdline"] or []
    if not line or not line[0].endswith("bin/mongod") or str(stack.state) not in " ".join(line):
        return False
    return bool(json.loads(Path(line[line.index("--config") + 1]).read_text())["net"]["bindIp"] == address)
