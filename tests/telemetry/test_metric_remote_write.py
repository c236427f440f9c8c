"""Remote write: what a server refuses, what it answers when it is in trouble, and one that is away."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cramjam
import pytest

from controlplane.telemetry.port import Frame, Grid, MetricQuery, Series, StoreUnavailable
from controlplane.telemetry.remote_write import MOST_SERIES, RemoteWriteStore
from tests.telemetry.metric_servers import MetricServer, prometheus, victoria_metrics
from tests.waiting import eventually

CPU = "host.cpu.user_percent"
NOW = datetime.now(UTC).replace(second=0, microsecond=0)
OK = (204, "")


def frame(time: datetime, values: Mapping[str, float], node: str = "n1") -> Frame:
    return Frame(node, "cl-1", "", time, values)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


async def averages(store: RemoteWriteStore, seconds: int, node: str = "n1") -> list[float | None]:
    """Ten-second averages of the last seconds; [] for no series."""
    grid = Grid(ago(seconds), timedelta(seconds=10), seconds // 10 + 1)
    found: list[Series] = await store.query(MetricQuery([node], [CPU], grid))
    return list(found[0].averages) if found else []


def opened(server: MetricServer) -> RemoteWriteStore:
    return RemoteWriteStore(server.write_url, server.read_url)


@asynccontextmanager
async def answering(reply: Callable[[bytes], tuple[int, str]]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers each request by `reply`; gives its URL and the bodies that came in."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            bodies.append(await reader.readexactly(length))
            status, text = reply(bodies[-1])
            body = text.encode()
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
            await writer.drain()

    async def serve_until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    server = await asyncio.start_server(serve_until_gone, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", bodies


@asynccontextmanager
async def writing_to(url: str) -> AsyncIterator[RemoteWriteStore]:
    store = RemoteWriteStore(f"{url}/api/v1/write", url)
    try:
        yield store
    finally:
        await store.close()


async def test_what_prometheus_refuses_is_dropped_and_counted_and_the_rest_is_taken(tmp_path: Path) -> None:
    """Without an out-of-order window Prometheus refuses a request with one sample older than its newest, whole."""
    with prometheus(tmp_path, out_of_order="0s") as server:
        store = opened(server)
        await store.write([frame(ago(20), {CPU: 1})])
        await store.write(
            [
                frame(ago(100), {CPU: 9}),
                frame(ago(10), {CPU: 2}),
                *(frame(ago(10), {CPU: 3}, f"m{i}") for i in range(20)),
            ]
        )
        assert store.dropped == {"out of order": 1}
        assert await averages(store, 30) == [None, 1, 2, None]
        assert await averages(store, 30, "m19") == [None, None, 3, None]
        await store.close()


async def test_control_the_server_takes_nothing_of_a_request_that_is_not_halved(tmp_path: Path) -> None:
    with prometheus(tmp_path, out_of_order="0s") as server:
        store = RemoteWriteStore(server.write_url, server.read_url, most_halvings=0)
        await store.write([frame(ago(20), {CPU: 1})])
        await store.write([frame(ago(100), {CPU: 9}), frame(ago(10), {CPU: 2})])
        assert await averages(store, 30) == [None, 1, None, None]
        await store.close()


async def test_a_sample_too_old_for_prometheus_is_not_tried_for_ever(tmp_path: Path) -> None:
    """Prometheus answers 500 for a sample older than its out-of-order window."""
    with prometheus(tmp_path, out_of_order="1h") as server:
        store = opened(server)
        await store.write([frame(NOW, {CPU: 1})])
        await store.write([frame(NOW - timedelta(hours=5), {CPU: 2}), frame(NOW - timedelta(minutes=30), {CPU: 3})])
        assert sum(store.dropped.values()) == 1
        await store.close()


async def test_an_outage_of_the_server_is_caught_up(tmp_path: Path) -> None:
    with victoria_metrics(tmp_path) as server:
        store = opened(server)
        await store.write([frame(ago(60), {CPU: 1})])
    with pytest.raises(StoreUnavailable):
        await store.write([frame(ago(50), {CPU: 2})])
    with pytest.raises(StoreUnavailable):
        await averages(store, 60)
    with victoria_metrics(tmp_path, int(server.read_url.rsplit(":", 1)[1])):
        await store.write([frame(ago(50), {CPU: 2}), frame(ago(40), {CPU: 3})])

        async def all_there() -> bool:
            return await averages(store, 60) == [1, 2, 3, None, None, None, None]

        await eventually(all_there, within=30)
    await store.close()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_server_in_trouble_makes_the_write_fail_for_now(status: int) -> None:
    async with answering(lambda _body: (status, "slow down")) as (url, bodies), writing_to(url) as store:
        with pytest.raises(StoreUnavailable, match=f"{status}: slow down"):
            await store.write([frame(NOW, {CPU: 1})])
        assert len(bodies) == 1
        assert not store.dropped


async def test_a_server_that_refuses_everything_costs_a_bounded_number_of_requests() -> None:
    async with answering(lambda _body: (400, "no")) as (url, bodies), writing_to(url) as store:
        await store.write([frame(NOW, {CPU: 1}, f"n{i}") for i in range(5000)])
        assert store.dropped == {"refused by the server": 5000}
        assert len(bodies) < 150


async def test_requests_are_bounded_and_small() -> None:
    async with answering(lambda _body: OK) as (url, bodies), writing_to(url) as store:
        values = {f"group.metric_{i}": float(i) for i in range(60)}
        await store.write([frame(NOW, values, f"nd-{i:020}") for i in range(500)])
    requests = [bytes(cramjam.snappy.decompress_raw(body)) for body in bodies]
    assert [request.count(b"\x12\x10\x09") for request in requests] == [MOST_SERIES] * 3
    assert sum(map(len, bodies)) < 0.25 * sum(map(len, requests))


async def test_a_redirect_is_not_followed() -> None:
    async with answering(lambda _body: (307, "")) as (url, bodies), writing_to(url) as store:
        with pytest.raises(StoreUnavailable, match="307"):
            await store.write([frame(NOW, {CPU: 1})])
        assert len(bodies) == 1


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"data": {}}', '{"data": {"result": [{"metric": {}}]}}'])
async def test_an_answer_that_is_none_is_unavailable(text: str) -> None:
    async with answering(lambda _body: (200, text)) as (url, _bodies), writing_to(url) as store:
        with pytest.raises(StoreUnavailable):
            await averages(store, 60)
