"""All charts of one cluster, by subject, each board under its own time range."""

from nicegui import ui
from wap.control.v1.cluster_pb2 import GetClusterRequest

from console.frame import heading, loading
from console.parts.charts import ChartBoard
from console.parts.tabs import cluster_tabs
from console.view import View

BOARDS = (
    ("Traffic", ("operations", "connections", "read-latency", "write-latency", "queue-total", "cursors")),
    ("Machines", ("cpu", "memory", "disk-used", "disk-read-latency", "reads", "writes", "received", "sent")),
    ("Replication", ("lag", "oplog")),
    ("Storage engine", ("cache", "dirty", "evictions", "page-faults", "tickets", "transactions")),
    ("Queries", ("targeting", "scans", "collection-scans", "asserts")),
)


async def build(view: View) -> None:
    """Fill the page."""
    cluster_id = view.parameter("cluster_id")
    async with loading(view):
        cluster = (await view.api.clusters.GetCluster(GetClusterRequest(cluster_id=cluster_id))).cluster
    ui.page_title(f"Metrics of {cluster.name} · WAP")
    crumbs = (("Clusters", "/clusters"), (cluster.name, f"/clusters/{cluster.id}"))
    heading("Metrics", f"All members of {cluster.name}; failovers and operations are marked", crumbs=crumbs)
    cluster_tabs(cluster.id, "Metrics")
    for title, keys in BOARDS:
        ChartBoard(view, title, keys, about={"cluster": cluster.id, "prefix": f"{cluster.name}-"})
