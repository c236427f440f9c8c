"""Log lines to a collector that speaks OTLP (http/protobuf): an export only, beside a store that can be searched.

The attributes follow OpenTelemetry's semantic conventions where these have a name: `host.id` is the node, `db.system.name`
says MongoDB, `log.record.uid` tells a repeated record from a new one. mongod's own fields stand below `mongodb.`, ours
below `wap.`.
"""

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from controlplane.telemetry.outbox import Outbox
from controlplane.telemetry.port import LogLine, LogPage, LogQuery, LogStore, StoreUnavailable

REJECTED = "rejected by the OTLP collector"
# One request: collectors take 4 MiB by default.
MOST_RECORDS = 2_000
MOST_BYTES = 2 << 20
TIMEOUT = httpx.Timeout(20, connect=5)
# mongod's severities in OTLP's numbers: the least of each range.
SEVERITIES = {
    "F": SeverityNumber.SEVERITY_NUMBER_FATAL,
    "E": SeverityNumber.SEVERITY_NUMBER_ERROR,
    "W": SeverityNumber.SEVERITY_NUMBER_WARN,
    "I": SeverityNumber.SEVERITY_NUMBER_INFO,
    "D1": SeverityNumber.SEVERITY_NUMBER_DEBUG,
    "D2": SeverityNumber.SEVERITY_NUMBER_DEBUG,
    "D3": SeverityNumber.SEVERITY_NUMBER_TRACE3,
    "D4": SeverityNumber.SEVERITY_NUMBER_TRACE2,
    "D5": SeverityNumber.SEVERITY_NUMBER_TRACE,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Answers about what was sent: other lines may fare better, these never will.
_REFUSALS = {400, 413, 422}


class OtlpExport:
    """Sends lines to `url` ("https://collector:4318/v1/logs"), with these headers (a token, a tenant)."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._client = httpx.AsyncClient(headers=dict(headers or {}), timeout=TIMEOUT)
        self._lost: Counter[str] = Counter()

    @property
    def lost(self) -> Mapping[str, int]:
        """How many lines the collector did not take, by reason."""
        return dict(self._lost)

    async def write(self, lines: Sequence[LogLine]) -> None:
        """Send all lines. Raises StoreUnavailable to be asked again, ValueError where the collector refuses them."""
        for piece in _pieces(lines):
            await self._send(request(piece))

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def _send(self, message: ExportLogsServiceRequest) -> None:
        body = gzip.compress(message.SerializeToString(), 1)
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        try:
            reply = await self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"OTLP collector: {type(error).__name__} {error}") from error
        if reply.status_code in _REFUSALS:
            raise ValueError(f"the OTLP collector refuses: {reply.status_code} {reply.text[:200]}")
        if not reply.is_success:
            # Throttling and faults pass; a wrong address or token is put right by a person. Neither is the lines' fault.
            raise StoreUnavailable(f"OTLP collector: {reply.status_code} {reply.text[:200]}")
        self._count_rejected(reply)

    def _count_rejected(self, reply: httpx.Response) -> None:
        if not reply.headers.get("content-type", "").startswith("application/x-protobuf"):
            return
        rejected = ExportLogsServiceResponse.FromString(reply.content).partial_success.rejected_log_records
        if rejected:
            self._lost[REJECTED] += rejected


class WithExport:
    """A LogStore that also hands every line it has stored to an export's outbox, whose troubles are not the store's."""

    def __init__(self, store: LogStore, export: OtlpExport, outbox: Outbox[LogLine]) -> None:
        self._store, self._export, self._outbox = store, export, outbox

    async def write(self, lines: Sequence[LogLine]) -> None:
        """Store, then hand on: a write that is repeated after a failure is handed on once."""
        await self._store.write(lines)
        self._outbox.put(lines)

    async def search(self, query: LogQuery) -> LogPage:
        """As the store finds them."""
        return await self._store.search(query)

    async def upkeep(self, now: datetime) -> None:
        """The store's."""
        await self._store.upkeep(now)

    async def close(self) -> None:
        """Send what waits, for a short time, and let both go."""
        await self._outbox.close()
        await self._export.close()
        await self._store.close()


def request(lines: Sequence[LogLine]) -> ExportLogsServiceRequest:
    """The lines as one OTLP request, by node."""
    by_node: dict[tuple[str, str], list[LogLine]] = defaultdict(list)
    for line in lines:
        by_node[line.node_id, line.cluster_id].append(line)
    observed = (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1) * 1000
    return ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource=Resource(attributes=_resource(node_id, cluster_id)),
                scope_logs=[
                    ScopeLogs(
                        scope=InstrumentationScope(name="wap"),
                        log_records=[_record(line, observed) for line in of_node],
                    )
                ],
            )
            for (node_id, cluster_id), of_node in by_node.items()
        ]
    )


def _resource(node_id: str, cluster_id: str) -> list[KeyValue]:
    return [
        _text("service.name", "mongod"),
        _text("service.instance.id", node_id),
        _text("db.system.name", "mongodb"),
        _text("host.id", node_id),
        _text("wap.cluster.id", cluster_id),
        _text("wap.node.id", node_id),
    ]


def _record(line: LogLine, observed: int) -> LogRecord:
    attributes = [
        _text("log.record.uid", f"{line.node_id}/{line.sequence}"),
        _text("mongodb.component", line.component),
        KeyValue(key="mongodb.message_id", value=AnyValue(int_value=line.message_id)),
    ]
    if line.context:
        attributes.append(_text("mongodb.context", line.context))
    if line.attributes:
        attributes.append(_text("mongodb.attributes", line.attributes))
    if line.slow_query:
        attributes.append(_text("db.namespace", line.slow_query.namespace))
        attributes.append(_text("db.operation.name", line.slow_query.operation))
    return LogRecord(
        time_unix_nano=(line.time - _EPOCH) // timedelta(microseconds=1) * 1000,
        observed_time_unix_nano=observed,
        severity_number=SEVERITIES.get(line.severity, SeverityNumber.SEVERITY_NUMBER_UNSPECIFIED),
        severity_text=line.severity,
        body=AnyValue(string_value=line.text),
        attributes=attributes,
    )


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _pieces(lines: Sequence[LogLine]) -> Iterator[list[LogLine]]:
    piece: list[LogLine] = []
    size = 0
    for line in lines:
        length = 4 * (len(line.text) + len(line.attributes)) + 400
        if piece and (len(piece) == MOST_RECORDS or size + length > MOST_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(line)
        size += length
    if piece:
        yield piece
