"""Tails of the client: they outlive a control plane that goes away, and end when told."""

import threading

import grpc
import pytest
from wap.control.v1.log_pb2 import TailLogsRequest
from wap.control.v1.metric_pb2 import QueryMetricsRequest, StreamMetricsRequest

from console.client import AsyncClient, Client, WapError
from console.client.monitoring import (
    follow,
    follow_async,
    log_filter,
    query_request,
    search_request,
    span,
    summary_request,
)
from console.client.wire import is_read
from console.fake import FakeControl, serve_in_thread
from tests.waiting import wait_until

METRICS = ("host.cpu.used_percent",)


def seconds(request: QueryMetricsRequest) -> float:
    return request.end_time.ToMicroseconds() / 1e6 - request.start_time.ToMicroseconds() / 1e6


def test_times_are_given_in_plain_seconds() -> None:
    request = query_request(METRICS, cluster_id="cl-1", last_seconds=900.5, end=1_000_000.25, step_seconds=60)
    assert (request.end_time.seconds, request.end_time.nanos) == (1_000_000, 250_000_000)
    assert seconds(request) == pytest.approx(900.5)
    assert request.step == span(60)
    assert not query_request(METRICS, node_id="nd-1").HasField("step")
    assert summary_request(METRICS[0], quantile=1).quantile == 1
    assert search_request(log_filter(text="x"), end=10_000).end_time.seconds == 10_000


def test_a_tail_goes_on_after_a_restart_of_the_control_plane() -> None:
    with serve_in_thread(FakeControl(step_seconds=0)) as fake:
        with Client(fake.endpoint, ca_pem=fake.ca_pem, token=fake.session()) as client:
            client.wait(client.create_cluster("demo", "orders").id)
            lines: list[str] = []
            ended = threading.Event()

            def read() -> None:
                request = TailLogsRequest(filter=log_filter())
                for reply in follow(client.logs.TailLogs, request, timeout=20):
                    lines.extend(line.text for line in reply.lines)
                    if ended.is_set():
                        return

            reader = threading.Thread(target=read)
            reader.start()
            wait_until(lambda: lines, within=15)
            before: list[int] = []
            fake.restart(lambda: before.append(len(lines)))
            wait_until(lambda: len(lines) > before[0], within=15)
            ended.set()
            reader.join(timeout=15)
            assert not reader.is_alive()


def test_without_following_a_restart_ends_a_tail() -> None:
    """The control: the stream itself does not survive."""
    with serve_in_thread(FakeControl(step_seconds=0)) as fake:
        with Client(fake.endpoint, ca_pem=fake.ca_pem, token=fake.session()) as client:
            client.wait(client.create_cluster("demo", "orders").id)
            stream = client.logs.TailLogs(TailLogsRequest(filter=log_filter()), timeout=20)
            next(iter(stream))
            fake.restart(lambda: None)
            with pytest.raises(WapError):
                list(stream)


async def test_a_tail_ends_when_its_time_is_over_and_when_it_is_refused() -> None:
    async with FakeControl(step_seconds=0) as fake:
        async with AsyncClient(fake.endpoint, ca_pem=fake.ca_pem, token=fake.session()) as client:
            operation = await client.create_cluster("demo", "orders")
            await client.wait(operation.id)
            request = StreamMetricsRequest(cluster_id=operation.cluster_id, metrics=METRICS, interval=span(1))
            replies = [reply async for reply in follow_async(client.metrics.StreamMetrics, request, timeout=1.5)]
            assert replies
            assert {sample.metric for reply in replies for sample in reply.samples} == set(METRICS)
            bad = StreamMetricsRequest(cluster_id=operation.cluster_id, metrics=METRICS, interval=span(99))
            with pytest.raises(WapError) as refused:
                [reply async for reply in follow_async(client.metrics.StreamMetrics, bad)]
            assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["QueryMetrics", "SummariseMetrics", "SearchLogs", "ListSlowQueries", "GetAlert"])
def test_reads_are_repeated_while_nobody_answers(name: str) -> None:
    assert is_read(f"/wap.control.v1.SomeService/{name}")


@pytest.mark.parametrize("name", ["KillOperation", "AcknowledgeAlert", "CreateSilence", "TestAlertChannel"])
def test_what_changes_something_is_not(name: str) -> None:
    assert not is_read(f"/wap.control.v1.SomeService/{name}")
