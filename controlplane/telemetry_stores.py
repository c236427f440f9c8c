"""Which stores the settings name, made: the embedded ones in files of the state directory, or those that many share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from controlplane.settings import Settings
from controlplane.telemetry.cloudwatch_logs import CloudWatchLogStore
from controlplane.telemetry.duckdb_file import DuckDBFile
from controlplane.telemetry.duckdb_logs import DuckDBLogStore
from controlplane.telemetry.duckdb_metrics import DuckDBMetricStore
from controlplane.telemetry.otlp_logs import OtlpExport, WithExport
from controlplane.telemetry.outbox import Outbox, bytes_of
from controlplane.telemetry.port import LogLine, LogStore, MetricStore
from controlplane.telemetry.remote_write import RemoteWriteStore

EMBEDDED, CLOUDWATCH = "duckdb", "cloudwatch:"
GIB = 2**30


@dataclass
class Stores:
    """Both stores. `export` waits for an OTLP collector, `lost` tells by store what none of them would take."""

    metrics: MetricStore
    logs: LogStore
    export: Outbox[LogLine] | None = None
    lost: dict[str, Callable[[], Mapping[str, int]]] = field(default_factory=dict)


def stores(settings: Settings) -> Stores:
    """The stores; each is opened by its first use. Call in the running event loop."""
    lost: dict[str, Callable[[], Mapping[str, int]]] = {}
    made = Stores(_metric_store(settings, lost), _log_store(settings, lost), lost=lost)
    if settings.otlp_logs_url:
        export = OtlpExport(settings.otlp_logs_url)
        lost["otlp"] = lambda: export.lost
        made.export = Outbox(export.write, name="otlp", size_of=bytes_of)
        made.export.start()
        made.logs = WithExport(made.logs, export, made.export)
    return made


def _metric_store(settings: Settings, lost: dict[str, Callable[[], Mapping[str, int]]]) -> MetricStore:
    found: DuckDBMetricStore | RemoteWriteStore
    if settings.metrics_store == EMBEDDED:
        found = DuckDBMetricStore(_file(settings, "metrics"))
    else:
        found = RemoteWriteStore(settings.metrics_store, read_url(settings))
    lost["metrics"] = lambda: found.dropped
    return found


def read_url(settings: Settings) -> str:
    """Where PromQL is answered: what was given, or else what stands before /api/v1/ in the URL of the remote write."""
    return settings.metrics_read_url or settings.metrics_store.partition("/api/v1/")[0]


def _log_store(settings: Settings, lost: dict[str, Callable[[], Mapping[str, int]]]) -> LogStore:
    found: DuckDBLogStore | CloudWatchLogStore
    if settings.logs_store == EMBEDDED:
        keep, most = timedelta(days=settings.logs_days), int(settings.logs_gib * GIB)
        found = DuckDBLogStore(_file(settings, "logs"), keep=keep, most_bytes=most)
    else:
        group, keep_days = settings.logs_store.removeprefix(CLOUDWATCH), max(1, round(settings.logs_days))
        found = CloudWatchLogStore(group, region=settings.region, keep_days=keep_days)
    lost["logs"] = lambda: found.lost
    return found


def _file(settings: Settings, name: str) -> DuckDBFile:
    return DuckDBFile(settings.state_dir / f"{name}.duckdb")
