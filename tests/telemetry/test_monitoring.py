"""Telemetry put together: from an agent's report to the stores and back, through restarts and stores that are away."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import prometheus_client
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from wap.agent.v1 import telemetry_pb2 as pb

from controlplane.domain.clock import FakeClock
from controlplane.domain.node import AgentState
from controlplane.fleet.fake import SimulatedFleet
from controlplane.monitoring import Telemetry, start_telemetry
from controlplane.scrape import ScrapePort, Targets
from controlplane.settings import load
from controlplane.store.database import Database
from controlplane.store.schema import migrate
from controlplane.store.tables import Cluster, Node
from controlplane.telemetry.fake_logs import FakeLogStore
from controlplane.telemetry.fake_metrics import FakeMetricStore
from controlplane.telemetry.port import Grid, LogQuery, MetricQuery
from controlplane.telemetry_stores import Stores, read_url, stores
from tests.waiting import eventually

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOAD = "host.load.one_minute"
NODE, CLUSTER = "nd-1", "cl-1"
GRID = Grid(NOW - timedelta(minutes=10), timedelta(seconds=10), 120)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """With one node that lives."""
    store = Database(f"sqlite:///{tmp_path / 'wap.db'}")
    await asyncio.to_thread(migrate, store.engine)

    def work(tx: object) -> None:
        tx.add(  # type: ignore[attr-defined]
            Cluster(
                id=CLUSTER, project_id="p", name="c", name_key="c", spec={}, generation=1, state="AVAILABLE",
                usd_per_month=0.0, created_at=NOW, epoch=0,
            )
        )  # fmt: skip
        tx.add(  # type: ignore[attr-defined]
            Node(
                id=NODE, cluster_id=CLUSTER, name="rs0-0", replica_set="rs0", ordinal=0, zone_wish="a",
                instance_type="t3.small", disk_gib=1, agent_state=AgentState.CONNECTED, created_at=NOW,
            )
        )  # fmt: skip

    await store.write(work)
    yield store
    await store.close()


@asynccontextmanager
async def embedded(folder: Path, database: Database, clock: FakeClock) -> AsyncIterator[Telemetry]:
    """As `wap server` makes it without any setting."""
    telemetry = await start_telemetry(load({"state_dir": folder}), database, clock, SimulatedFleet(folder / "f.json"))
    try:
        yield telemetry
    finally:
        await telemetry.close()


@asynccontextmanager
async def faked(made: Stores, folder: Path, database: Database, clock: FakeClock) -> AsyncIterator[Telemetry]:
    telemetry = Telemetry(made, database, clock, SimulatedFleet(folder / "f.json"))
    await telemetry.start()
    try:
        yield telemetry
    finally:
        await telemetry.close()


def stamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made


def report(first: int, count: int, clock: FakeClock) -> pb.ReportRequest:
    """Frames and lines of so many ticks that end now; the load is the sequence."""
    request = pb.ReportRequest(metric_sets=[pb.MetricSet(id=1, names=[LOAD])])
    for sequence in range(first, first + count):
        at = stamp(clock.now() - timedelta(seconds=10 * (first + count - sequence)))
        request.frames.add(sequence=sequence, time=at, metric_set_id=1, values=[float(sequence)])
        request.logs.add(sequence=sequence, time=at, severity="I", component="REPL", text=f"line {sequence}")
    return request


async def measured(telemetry: Telemetry) -> list[float]:
    found = await telemetry.parts.metrics.query(MetricQuery([NODE], [LOAD], GRID))
    return [value for series in found for value in series.averages if value is not None]


async def logged(telemetry: Telemetry) -> list[str]:
    page = await telemetry.parts.logs.search(LogQuery([NODE], NOW - timedelta(hours=1), NOW + timedelta(hours=1)))
    return [line.text for line in reversed(page.lines)]


async def test_a_restart_loses_nothing_and_doubles_nothing(tmp_path: Path, database: Database) -> None:
    clock = FakeClock(NOW)
    sent = report(1, 20, clock)
    async with embedded(tmp_path, database, clock) as telemetry:
        reply = telemetry.ingest.open(NODE, CLUSTER).take(sent)
        assert (reply.frame_sequence, reply.log_sequence) == (20, 20)
    # The acknowledgement was lost with the control plane: the agent sends all of it again, and more.
    async with embedded(tmp_path, database, clock) as telemetry:
        await eventually(lambda: len(telemetry.hot.window(NODE, LOAD, 600)) == 20, within=10)
        clock.advance(100)
        intake = telemetry.ingest.open(NODE, CLUSTER)
        intake.take(sent)
        intake.take(report(21, 10, clock))
        assert telemetry.hot.latest(NODE)[LOAD].value == 30.0

        async def everything() -> bool:
            return await measured(telemetry) == [float(number) for number in range(1, 31)]

        await eventually(everything, within=10)
        assert await logged(telemetry) == [f"line {number}" for number in range(1, 31)]


async def test_stores_that_are_away_hold_up_nobody_and_are_caught_up(tmp_path: Path, database: Database) -> None:
    clock, metrics, logs = FakeClock(NOW), FakeMetricStore(), FakeLogStore()
    metrics.unavailable = logs.away = True
    async with faked(Stores(metrics, logs), tmp_path, database, clock) as telemetry:
        heard: list[str] = []
        with telemetry.tail.subscribe(lambda _: True) as follower:
            intake = telemetry.ingest.open(NODE, CLUSTER)
            assert intake.take(report(1, 20, clock)).frame_sequence == 20, "acknowledged: it waits in the outbox"
            heard += [line.text for line in (await anext(follower)).lines]
        assert len(heard) == 20
        assert telemetry.hot.latest(NODE)[LOAD].value == 20.0, "alerts and live charts go on"
        await eventually(lambda: figure("wap_telemetry_store_waiting", store="metrics") == 20, within=15)
        metrics.unavailable = logs.away = False

        async def caught_up() -> bool:
            return len(await measured(telemetry)) == 20 and len(await logged(telemetry)) == 20

        await eventually(caught_up, within=10)
        assert figure("wap_telemetry_store_waiting", store="logs") == 0
        assert figure("wap_telemetry_store_written_total", store="metrics") == 20
    assert figure("wap_telemetry_store_waiting", store="metrics") is None, "gone with its outbox"


def figure(name: str, **labels: str) -> float | None:
    return prometheus_client.REGISTRY.get_sample_value(name, labels)


async def test_a_node_that_is_gone_leaves_memory(tmp_path: Path, database: Database) -> None:
    clock = FakeClock(NOW)
    async with faked(Stores(FakeMetricStore(), FakeLogStore()), tmp_path, database, clock) as telemetry:
        for node in (NODE, "nd-gone"):
            telemetry.ingest.open(node, CLUSTER).take(report(1, 2, clock))
        await telemetry._forget()
        assert telemetry.hot.node_ids() == [NODE]


async def test_the_settings_name_the_stores(tmp_path: Path) -> None:
    settings = load(
        {
            "state_dir": tmp_path,
            "metrics_store": "http://127.0.0.1:9/api/v1/write",
            "logs_store": "cloudwatch:/wap/fleet",
            "otlp_logs_url": "http://127.0.0.1:9/v1/logs",
        }
    )
    made = stores(settings)
    assert {type(made.metrics).__name__, type(made.logs).__name__} == {"RemoteWriteStore", "WithExport"}
    assert set(made.lost) == {"metrics", "logs", "otlp"}
    assert read_url(settings) == "http://127.0.0.1:9"
    assert read_url(settings.model_copy(update={"metrics_read_url": "http://elsewhere"})) == "http://elsewhere"
    assert read_url(settings.model_copy(update={"metrics_store": "https://v/prom/api/v1/write"})) == "https://v/prom"
    await made.logs.close()
    await made.metrics.close()


# What Prometheus asks


@contextmanager
def port_of(targets: Targets) -> Iterator[ScrapePort]:
    port = ScrapePort("127.0.0.1", 0, targets)
    try:
        yield port
    finally:
        port.close()


def get(port: ScrapePort, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_port_tells_of_its_own_health_and_of_all_control_planes() -> None:
    with port_of(lambda: ["b:9", "a:9"]) as port:
        status, text = get(port, "/metrics")
        assert status == 200
        assert "wap_telemetry_received_total" in text
        assert "nd-" not in text, "no series of the fleet"
        status, text = get(port, "/sd")
        assert (status, json.loads(text)) == (200, [{"targets": ["a:9", "b:9"], "labels": {"job": "wap"}}])
        assert get(port, "/")[0] == 404


def test_a_list_that_cannot_be_read_is_no_empty_list() -> None:
    """Prometheus would forget all targets at an empty one; at an error it keeps those it knows."""

    def away() -> list[str]:
        raise TimeoutError

    with port_of(away) as port:
        assert get(port, "/sd")[0] == 503
