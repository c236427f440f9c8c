"""The public port of a whole `wap server` process: what strangers may ask, and that all services are behind one gate."""

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from wap.agent.v1 import stream_pb2, stream_pb2_grpc
from wap.control.v1 import access_pb2, alert_pb2, cluster_pb2, log_pb2, metric_pb2, project_pb2

from console.client import Client, WapError
from console.client.errors import from_call
from scripts.stack import Program, free_port, start
from tests.api.world import methods

METRICS_PORT = free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, mongodb_dir: Path) -> Iterator[Program]:
    """A server with an AWS that nobody answers for: nothing here asks it."""
    folder = tmp_path_factory.mktemp("server")
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("WAP_", "AWS_"))}
    environment = {
        **keep,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "WAP_STATE_DIR": str(folder / "state"),
        "WAP_API_PORT": "0",
        "WAP_AGENT_PORT": "0",
        "WAP_MONGODB_DIR": str(mongodb_dir),
        "WAP_SWEEP_MINUTES": "0",
        "WAP_METRICS_PORT": str(METRICS_PORT),
    }
    program = start([sys.executable, "-m", "controlplane", "--ready", "json"], folder / "log", environment)
    yield program
    assert program.stop() == 0


@pytest.fixture
def channel(server: Program) -> Iterator[grpc.Channel]:
    ca_pem = Path(server.ready["ca_file"]).read_bytes()
    with grpc.secure_channel(server.ready["api"], grpc.ssl_channel_credentials(ca_pem)) as channel:
        yield channel


@pytest.fixture
def client(server: Program) -> Iterator[Client]:
    with Client(server.ready["api"], ca_pem=Path(server.ready["ca_file"]).read_bytes()) as client:
        client.login("admin", server.ready["admin_password"])
        yield client


def test_health_is_told_to_anybody(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "wap.control.v1.ClusterService", "wap.agent.v1.EnrollmentService"):
        reply = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=10)
    assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_reflection_lists_every_service_of_the_contract(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (reply,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
    listed = {one.name for one in reply.list_services_response.service}
    assert {f"wap.control.v1.{name.partition('/')[0]}" for name in methods()} <= listed


def test_a_stranger_is_asked_for_a_token(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/wap.control.v1.ProjectService/ListProjects", bytes, bytes)(b"", timeout=10)
    assert refusal(raised.value).reason == "UNAUTHENTICATED"


def test_enrolment_keeps_its_own_answers_behind_the_gate(channel: grpc.Channel) -> None:
    stub = stream_pb2_grpc.EnrollmentServiceStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.Enroll(stream_pb2.EnrollRequest(node_id="nd-no", join_token="x", csr_pem="no request"), timeout=10)
    assert refusal(raised.value).reason in {"INVALID_ARGUMENT", "JOIN_REFUSED"}
    with pytest.raises(grpc.RpcError) as raised:
        stub.Enroll(stream_pb2.EnrollRequest(node_id="nd\x00no"), timeout=10)
    assert (refusal(raised.value).reason, refusal(raised.value).field) == ("INVALID_ARGUMENT", "node_id")
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/wap.agent.v1.EnrollmentService/Enroll", bytes, bytes)(b"\xff", timeout=10)
    assert refusal(raised.value).field == "request"


def test_the_printed_password_opens_the_product(client: Client) -> None:
    client.projects.CreateProject(project_pb2.CreateProjectRequest(name="demo"))
    assert client.project("demo").name == "demo"
    events = client.access.ListAuditEvents(access_pb2.ListAuditEventsRequest()).events
    assert [event.action for event in reversed(events)][:3] == ["user.first_admin", "Login", "CreateProject"]


def test_metrics_logs_and_alerts_are_served_from_the_start(client: Client) -> None:
    client.projects.CreateProject(project_pb2.CreateProjectRequest(name="watched"))
    assert client.metrics.ListMetrics(metric_pb2.ListMetricsRequest()).metrics
    request = metric_pb2.SummariseMetricsRequest(metric="host.cpu.used_percent", quantile=0.95)
    assert not client.metrics.SummariseMetrics(request).summaries
    assert not client.logs.SearchLogs(log_pb2.SearchLogsRequest()).lines
    assert any(one.rule.built_in for one in client.alerts.ListAlertRules(alert_pb2.ListAlertRulesRequest()).rules)


def test_prometheus_finds_the_health_of_the_control_plane_and_where_it_is(server: Program) -> None:
    port = f"http://127.0.0.1:{METRICS_PORT}"
    with urllib.request.urlopen(f"{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for name in ("wap_telemetry_received_total", "wap_telemetry_store_waiting", "process_cpu_seconds_total"):
        assert name in text
    with urllib.request.urlopen(f"{port}/sd", timeout=10) as answer:
        assert json.load(answer) == [{"targets": [f"127.0.0.1:{METRICS_PORT}"], "labels": {"job": "wap"}}]


def test_a_bad_wish_is_refused_although_aws_is_away(client: Client) -> None:
    with pytest.raises(WapError) as bad:
        client.create_cluster(
            "demo", "demo", members=4, version="6.0.5", instance_type="m6i.large", disk_gib=20, region="us-east-1"
        )
    assert (bad.value.reason, bad.value.field) == ("INVALID_ARGUMENT", "spec.replica_sets[0].members")


def test_an_aws_that_is_away_is_named(client: Client) -> None:
    with pytest.raises(WapError) as away:
        client.clusters.ListCreateOptions(cluster_pb2.ListCreateOptionsRequest(), timeout=60)
    assert away.value.reason.startswith("CLOUD_")


def refusal(error: Any) -> WapError:
    return from_call(error, endpoint="the server", request_id="", deadline=10)
