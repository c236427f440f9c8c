"""Charts: what each one shows, and the board that puts several of them under one time range.

A board sends the browser no more than titles and an address. Its script fetches the series there itself, over a request
that carries the session's cookie; so a page with twenty charts costs the page's socket nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from nicegui import ui
from nicegui.elements import echart  # registers the script module that ours imports

from console.view import View

assert echart  # imported for its effect


@dataclass(frozen=True)
class Chart:
    """One chart. `lines` are metrics of the catalogue with what to call them.

    `by_member`: a line for each member (and each of `lines`); else a line for each of `lines`, over all members together:
    their sum, or where that means nothing (`mean`) their mean. `form` says how numbers are written: "" plainly, "bytes"
    (1024), "rate" (bytes per second, 1000), "seconds". `highest` fixes the top of the axis.
    """

    key: str
    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    by_member: bool = True
    form: str = ""
    highest: float | None = None
    stacked: bool = False
    mean: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that it is made of."""
        return tuple(metric for metric, _ in self.lines)


def _one(key: str, title: str, unit: str, metric: str, form: str = "", highest: float | None = None) -> Chart:
    return Chart(key, title, unit, ((metric, ""),), form=form, highest=highest)


_OPERATIONS = tuple(
    (f"mongod.opcounters.{name}_per_second", label)
    for name, label in (
        ("query", "Query"),
        ("update", "Update"),
        ("insert", "Insert"),
        ("delete", "Delete"),
        ("getmore", "Get more"),
        ("command", "Command"),
    )
)
_LATENCIES = tuple(
    (f"mongod.latency.{name}_milliseconds", label)
    for name, label in (("reads", "Read"), ("writes", "Write"), ("commands", "Command"))
)
_CPU = tuple(
    (f"host.cpu.{name}_percent", label)
    for name, label in (("user", "User"), ("system", "System"), ("iowait", "Waiting for disk"), ("steal", "Steal"))
)
_IOPS = (("host.disk.reads_per_second", "Read"), ("host.disk.writes_per_second", "Write"))
_DISK_LATENCY = (
    ("host.disk.read_latency_milliseconds", "Read"),
    ("host.disk.write_latency_milliseconds", "Write"),
)
_NETWORK = (
    ("host.network.received_bytes_per_second", "Received"),
    ("host.network.sent_bytes_per_second", "Sent"),
)
_QUEUE = (("mongod.queue.readers", "Readers"), ("mongod.queue.writers", "Writers"))
_TICKETS = (("mongod.tickets.read_available", "Read"), ("mongod.tickets.write_available", "Write"))
_CACHE = (("mongod.cache.used_percent", "Used"), ("mongod.cache.dirty_percent", "Dirty"))

CHARTS: Mapping[str, Chart] = {
    chart.key: chart
    for chart in (
        Chart("operations", "Operations", "per second", _OPERATIONS, by_member=False),
        _one("cpu", "CPU", "%", "host.cpu.used_percent", highest=100),
        Chart("cpu-kinds", "CPU", "%", _CPU, by_member=False, highest=100, stacked=True, mean=True),
        _one("connections", "Connections", "open", "mongod.connections.current"),
        _one("lag", "Replication lag", "s", "replica_set.lag_seconds"),
        Chart("latency", "Latency", "ms", _LATENCIES, by_member=False, mean=True),
        _one("read-latency", "Read latency", "ms", "mongod.latency.reads_milliseconds"),
        _one("write-latency", "Write latency", "ms", "mongod.latency.writes_milliseconds"),
        _one("memory", "Memory in use", "%", "host.memory.used_percent", highest=100),
        _one("swap", "Swap in use", "bytes", "host.swap.used_bytes", form="bytes"),
        _one("disk-used", "Disk space in use", "%", "host.disk.used_percent", highest=100),
        Chart("iops", "Disk operations", "per second", _IOPS, by_member=False),
        _one("reads", "Disk reads", "per second", "host.disk.reads_per_second"),
        _one("writes", "Disk writes", "per second", "host.disk.writes_per_second"),
        Chart("disk-latency", "Disk latency", "ms", _DISK_LATENCY, by_member=False, mean=True),
        _one("disk-read-latency", "Disk read latency", "ms", "host.disk.read_latency_milliseconds"),
        _one("disk-write-latency", "Disk write latency", "ms", "host.disk.write_latency_milliseconds"),
        _one("disk-queue", "Disk queue", "requests", "host.disk.queue_length"),
        Chart("network", "Network", "bytes per second", _NETWORK, by_member=False, form="rate"),
        _one("received", "Network received", "bytes per second", "host.network.received_bytes_per_second", "rate"),
        _one("sent", "Network sent", "bytes per second", "host.network.sent_bytes_per_second", "rate"),
        Chart("queue", "Waiting operations", "operations", _QUEUE, by_member=False),
        Chart("tickets", "Tickets left", "tickets", _TICKETS, by_member=False),
        _one("queue-total", "Waiting operations", "operations", "mongod.queue.total"),
        Chart("cache-kinds", "Cache", "%", _CACHE, by_member=False, highest=100, mean=True),
        _one("cache", "Cache in use", "%", "mongod.cache.used_percent", highest=100),
        _one("dirty", "Cache not yet on disk", "%", "mongod.cache.dirty_percent"),
        _one("evictions", "Cache evictions", "pages per second", "mongod.cache.evicted_pages_per_second"),
        _one("page-faults", "Page faults", "per second", "mongod.page_faults_per_second"),
        _one("targeting", "Documents examined", "per one returned", "mongod.query.docs_examined_per_returned"),
        _one("scans", "Sorts without an index", "per second", "mongod.query.scan_and_order_per_second"),
        _one("collection-scans", "Collection scans", "per second", "mongod.query.collection_scans_per_second"),
        _one("cursors", "Cursors", "open", "mongod.cursors.open"),
        _one("transactions", "Transactions", "open", "mongod.transactions.open"),
        _one("asserts", "Errors returned to clients", "per second", "mongod.asserts.user_per_second"),
        _one("oplog", "Oplog window", "time", "replica_set.oplog_window_seconds", form="seconds"),
        _one("descriptors", "File descriptors", "open", "mongod.process.file_descriptors_open"),
        _one("agent-cpu", "Agent CPU", "% of a core", "agent.core_percent"),
        _one("agent-memory", "Agent memory", "bytes", "agent.resident_bytes", form="bytes"),
        _one("agent-buffer", "Samples not yet sent", "bytes", "agent.buffer_bytes", form="bytes"),
    )
}

RANGES: Mapping[int, str] = {3600: "1 h", 21600: "6 h", 86400: "24 h", 604800: "7 d"}
"""Seconds shown -> what to call it."""

LIVE_SECONDS = 600
"""How much of the past a live board shows."""


class ChartBoard(ui.element, component="../static/live_chart.js"):
    """Charts under one time range, with one crosshair. `about` names the cluster or node that they are of.

    `live`: "" (not offered), "offered" or "only". While the board is live, `turned` is told, and `append` brings the
    newest values. `limit` is drawn as a line across.
    """

    def __init__(
        self,
        view: View,
        heading: str,
        keys: Sequence[str],
        *,
        about: Mapping[str, str],
        live: str = "",
        turned: Callable[[bool], None] | None = None,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.charts = [CHARTS[key] for key in keys]
        self._turned = turned
        self.props["heading"] = heading
        self.props["url"] = "/series?" + urlencode({**about, "charts": ",".join(keys)})
        self.props["charts"] = [_told(chart) for chart in self.charts]
        self.props["ranges"] = [] if live == "only" else [[seconds, label] for seconds, label in RANGES.items()]
        self.props["live"] = live
        self.props["window"] = LIVE_SECONDS
        if limit is not None:
            self.props["limit"] = limit
        self.is_live = live == "only"
        if turned is not None:
            self.on("live", view.authorised(lambda: self._turn(True)))
            self.on("rest", view.authorised(lambda: self._turn(False)))

    @property
    def metrics(self) -> list[str]:
        """All that its charts are made of, each once."""
        return list(dict.fromkeys(metric for chart in self.charts for metric in chart.metrics))

    def append(self, at: float, values: Mapping[str, Mapping[str, float | None]]) -> None:
        """The newest values: chart -> line -> value, at a moment in seconds since the epoch."""
        self.run_method("append", {"at": at, "charts": values})

    def _turn(self, on: bool) -> None:
        self.is_live = on
        if self._turned is not None:
            self._turned(on)


def charts_of(keys: str) -> list[Chart]:
    """The charts that a board asks for by their keys; those that are not known are left out."""
    return [CHARTS[key] for key in keys.split(",") if key in CHARTS]


def line_name(chart: Chart, member: str, label: str) -> str:
    """What a line is called: its member, its kind, or both."""
    if not chart.by_member:
        return label or chart.title
    return f"{member} {label.lower()}".strip()


def metrics_of(charts: Iterable[Chart]) -> list[str]:
    """The metrics of several charts, each once."""
    return list(dict.fromkeys(metric for chart in charts for metric in chart.metrics))


def _told(chart: Chart) -> dict[str, Any]:
    return {
        "key": chart.key,
        "title": chart.title,
        "unit": chart.unit,
        "form": chart.form,
        "highest": chart.highest,
        "stacked": chart.stacked,
        "members": chart.by_member,
    }
