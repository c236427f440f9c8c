"""Metrics to a server of Prometheus's kind: written by remote write, read back by PromQL.

For Prometheus, VictoriaMetrics and Amazon Managed Prometheus alike. A sample is a series `wap_<metric>` with the labels
cluster_id, node_id and, where there is one, object. What the server will never take (a sample too old for it, or out of
order) is dropped and counted; what it does not take now makes the write fail, and whoever calls tries again.

Prometheus refuses samples that are older than its newest unless it runs with `storage.tsdb.out_of_order_time_window`
(2h carries a whole outage), VictoriaMetrics hides the last seconds unless it runs with `-search.latencyOffset=1s`.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import cramjam
import httpx

from controlplane.telemetry.port import Frame, MetricQuery, Series, StoreUnavailable
from controlplane.telemetry.promql import PromQLReader, series_name

MOST_SERIES = 10_000
TIMEOUT = httpx.Timeout(30, connect=5)
# A request that is refused is halved to find the samples at fault, by time: the old ones lie together. So often at most.
MOST_HALVINGS = 60
_HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "wap",
}
# Prometheus answers 500 for a sample that is too old, as if trying again could help.
_NEVER = ("too old sample", "out of order", "out of bounds", "duplicate sample")


class RemoteWriteStore:
    """MetricStore over remote write and PromQL. What is kept, and for how long, is the server's affair."""

    def __init__(
        self,
        write_url: str,
        read_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
        most_halvings: int = MOST_HALVINGS,
    ) -> None:
        """`write_url` is the whole URL of remote write, `read_url` that of the API before `/api/v1/`.

        `most_halvings`: how often a refused request is halved; what is left of it then is dropped whole.
        """
        self._write_url, self._most_halvings = write_url, most_halvings
        self._client = httpx.AsyncClient(headers=headers, auth=auth, timeout=TIMEOUT, follow_redirects=False)
        self._reader = PromQLReader(self._client, read_url)
        # Samples that the server will never take, by reason.
        self.dropped: Counter[str] = Counter()

    async def write(self, frames: Sequence[Frame]) -> None:
        """Send every sample; those that the server refuses for good are dropped and counted."""
        samples = await asyncio.to_thread(_samples, frames)
        for begin in range(0, len(samples), MOST_SERIES):
            await self._send_or_halve(samples[begin : begin + MOST_SERIES])

    async def query(self, query: MetricQuery) -> list[Series]:
        """Series with at least one value, by node, metric, object."""
        return await self._reader.query(query)

    async def summarise(
        self, metric: str, node_ids: Sequence[str], start: datetime, end: datetime, quantile: float
    ) -> dict[str, float]:
        """The quantile (0 to 1) of each node's samples in [start, end)."""
        return await self._reader.summarise(metric, node_ids, start, end, quantile)

    async def upkeep(self, now: datetime) -> None:
        """The server does it."""

    async def close(self) -> None:
        """Close the connections; nothing is held back."""
        await self._client.aclose()

    async def _send_or_halve(self, samples: Sequence["Sample"]) -> None:
        """A server that refuses one sample of a request may have taken none of them: so the others are sent again."""
        waiting, halvings = [samples], 0
        while waiting:
            some = waiting.pop()
            refused = await self._send(some)
            if refused and (len(some) == 1 or halvings >= self._most_halvings):
                self.dropped[refused] += len(some)
            elif refused:
                halvings += 1
                middle = len(some) // 2
                waiting += [some[middle:], some[:middle]]  # the older half first: servers want them in order

    async def _send(self, samples: Sequence["Sample"]) -> str | None:
        """None when taken, or the reason why the server will never take it."""
        body = await asyncio.to_thread(_request, samples)
        host = httpx.URL(self._write_url).host  # not the URL, which may hold a password
        try:
            answer = await self._client.post(self._write_url, content=body, headers=_HEADERS)
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"remote write to {host}: {error!r}") from error
        if answer.is_success:
            return None
        said = answer.text.strip()[:200]
        never = next((reason for reason in _NEVER if reason in said.lower()), None)
        if never or answer.status_code in (400, 413):
            return never or "refused by the server"
        raise StoreUnavailable(f"remote write to {host}: answered {answer.status_code}: {said}")


class Sample(NamedTuple):
    """One value as it goes out, its labels already encoded."""

    millis: int
    labels: bytes
    value: float


def _samples(frames: Sequence[Frame]) -> list[Sample]:
    """Every value by time; each series and time once."""
    found: dict[tuple[int, bytes], float] = {}
    for frame in frames:
        millis = round(frame.time.timestamp() * 1000)
        source = _source_labels(frame.node_id, frame.cluster_id, frame.object)
        for metric, value in frame.values.items():
            found.setdefault((millis, _name_label(metric) + source), value)
    return [Sample(millis, labels, value) for (millis, labels), value in sorted(found.items())]


def _request(samples: Sequence[Sample]) -> bytes:
    """A WriteRequest of Prometheus, in snappy's block format."""
    series: dict[bytes, list[bytes]] = {}
    times: dict[int, bytes] = {}
    for millis, labels, value in samples:
        if millis not in times:
            times[millis] = b"\x10" + _varint(millis)
        sample = b"\x09" + struct.pack("<d", value) + times[millis]
        series.setdefault(labels, []).append(_field(2, sample))
    message = b"".join(_field(1, labels + b"".join(points)) for labels, points in series.items())
    return bytes(cramjam.snappy.compress_raw(message))


# Labels in the order of their names, as remote write demands: __name__, cluster_id, node_id, object.
@lru_cache(maxsize=4096)
def _name_label(metric: str) -> bytes:
    return _label("__name__", series_name(metric))


@lru_cache(maxsize=262_144)
def _source_labels(node_id: str, cluster_id: str, object_: str) -> bytes:
    labels = (("cluster_id", cluster_id), ("node_id", node_id), ("object", object_))
    return b"".join(_label(name, value) for name, value in labels if value)


def _label(name: str, value: str) -> bytes:
    return _field(1, _field(1, name.encode()) + _field(2, value.encode()))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
