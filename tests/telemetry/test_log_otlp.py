"""The export by OTLP, against a receiver that decodes what it is sent."""

import gzip
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from controlplane.telemetry.fake_logs import FakeLogStore
from controlplane.telemetry.otlp_logs import REJECTED, OtlpExport, WithExport
from controlplane.telemetry.outbox import Outbox
from controlplane.telemetry.port import LogLine, LogQuery, SlowQuery, StoreUnavailable
from tests.waiting import eventually

TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)
SLOW = SlowQuery("shop.orders", "find", "{}", "{}", "COLLSCAN", 120, 0, 9000, 3, True, False)


class Collector:
    """An OTLP receiver on a port of its own. `status` is what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.rejects = 0
        self.requests: list[ExportLogsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                reply = b"not now"
                if collector.status == 200:
                    collector.requests.append(ExportLogsServiceRequest.FromString(gzip.decompress(body)))
                    partial = ExportLogsPartialSuccess(rejected_log_records=collector.rejects)
                    reply = ExportLogsServiceResponse(partial_success=partial).SerializeToString()
                self.send_response(collector.status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/logs"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def bodies(self) -> list[str]:
        return [
            record.body.string_value
            for request in self.requests
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


def line(sequence: int, node: str = "n1", text: str = "") -> LogLine:
    time = TIME + timedelta(microseconds=sequence)
    return LogLine(node, "c1", sequence, time, "REPL", "W", 21, text or f"line {sequence}", "main", '{"a":1}', SLOW)


async def test_records_carry_what_the_lines_say(collector: Collector) -> None:
    export = OtlpExport(collector.url, {"Authorization": "Bearer token"})
    await export.write([line(1), line(2, "n2"), line(3)])
    await export.close()
    [request] = collector.requests
    by_node = {
        next(each.value.string_value for each in resource.resource.attributes if each.key == "host.id"): resource
        for resource in request.resource_logs
    }
    assert set(by_node) == {"n1", "n2"}
    record = by_node["n1"].scope_logs[0].log_records[1]
    attributes = {each.key: each.value for each in record.attributes}
    assert record.body.string_value == "line 3"
    assert record.time_unix_nano == int(TIME.timestamp()) * 10**9 + 3_000
    assert (record.severity_number, record.severity_text) == (13, "W")
    assert attributes["log.record.uid"].string_value == "n1/3"
    assert attributes["mongodb.message_id"].int_value == 21
    assert attributes["db.namespace"].string_value == "shop.orders"
    assert collector.headers[0]["authorization"] == "Bearer token"
    assert collector.headers[0]["content-type"] == "application/x-protobuf"


async def test_requests_are_bounded(collector: Collector) -> None:
    export = OtlpExport(collector.url)
    await export.write([line(number) for number in range(4_500)])
    await export.write([line(number, text="ü" * 200_000) for number in range(6)])
    await export.close()
    assert len(collector.bodies) == 4_506
    assert all(request.ByteSize() < 4 << 20 for request in collector.requests)
    assert len(collector.requests) >= 5


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ValueError),
        (413, ValueError),
        (401, StoreUnavailable),
        (404, StoreUnavailable),
        (429, StoreUnavailable),
        (503, StoreUnavailable),
    ],
)
async def test_what_a_collector_answers(collector: Collector, status: int, kind: type[Exception]) -> None:
    export = OtlpExport(collector.url)
    collector.status = status
    with pytest.raises(kind, match=str(status)):
        await export.write([line(1)])
    collector.server.shutdown()
    await export.close()


async def test_records_that_the_collector_leaves_out_are_counted(collector: Collector) -> None:
    export = OtlpExport(collector.url)
    collector.rejects = 2
    await export.write([line(number) for number in range(5)])
    await export.close()
    assert export.lost == {REJECTED: 2}


async def test_a_collector_that_is_away_holds_up_nothing_and_is_caught_up(collector: Collector) -> None:
    export = OtlpExport(collector.url)
    outbox = Outbox(export.write, every_s=0, batch_items=2_000, pause_s=0.01, longest_pause_s=0.05)
    outbox.start()
    store = WithExport(FakeLogStore(), export, outbox)
    collector.status = 503
    await store.write([line(1), line(2)])
    await eventually(lambda: outbox.last_failure, within=15)
    page = await store.search(LogQuery(["n1"], TIME, TIME + timedelta(hours=1)))
    assert [each.sequence for each in page.lines] == [2, 1]
    collector.status = 200
    await store.write([line(3)])
    assert await outbox.flush(5)
    assert collector.bodies == ["line 1", "line 2", "line 3"]
    await store.close()


async def test_lines_that_were_not_stored_are_not_exported(collector: Collector) -> None:
    export = OtlpExport(collector.url)
    outbox = Outbox(export.write, every_s=0)
    outbox.start()
    shelf = FakeLogStore()
    store = WithExport(shelf, export, outbox)
    shelf.away = True
    with pytest.raises(StoreUnavailable):
        await store.write([line(1)])
    shelf.away = False
    await store.write([line(1)])
    assert await outbox.flush(5)
    assert collector.bodies == ["line 1"]
    await store.close()
