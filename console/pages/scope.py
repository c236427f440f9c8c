"""Pages that are about everything, one cluster or one node, as their address says: `?cluster=` or `?node=`."""

from dataclasses import dataclass

from wap.control.v1.cluster_pb2 import Cluster, ListClustersRequest
from wap.control.v1.node_pb2 import ListNodesRequest, Node

from console.frame import heading, loading
from console.parts.markup import box
from console.parts.tabs import cluster_tabs, node_tabs
from console.view import View

MOST_CLUSTERS = 500


@dataclass(frozen=True)
class Scope:
    """What the page is about, and what there is to choose from."""

    cluster_id: str
    node_id: str
    clusters: dict[str, Cluster]
    nodes: dict[str, Node]

    def cluster_names(self, first: str = "") -> dict[str, str]:
        """Id -> name for a list to choose from; `first` stands for no choice."""
        names = {key: one.name for key, one in self.clusters.items()}
        return {"": first} | names if first else names

    def node_names(self, first: str = "", cluster_id: str = "") -> dict[str, str]:
        """The same for nodes, of one cluster where it is given."""
        names = {key: one.name for key, one in self.nodes.items() if cluster_id in ("", one.cluster_id)}
        return {"": first} | names if first else names


async def scope_of(view: View, title: str, subtitle: str) -> Scope:
    """Show the page's title at once, and with it, as soon as it is known, what the page is about."""
    with box("contents") as place:
        heading(title, subtitle)
    async with loading(view):
        scope = await _read(view)
    node, cluster = scope.nodes.get(scope.node_id), scope.clusters.get(scope.cluster_id)
    if node is not None or cluster is not None:
        place.clear()
        with place:
            if node is not None:
                heading(title, subtitle, crumbs=(("Nodes", "/nodes"), (node.name, f"/nodes/{node.id}")))
                node_tabs(node.id, title)
            elif cluster is not None:
                heading(title, subtitle, crumbs=(("Clusters", "/clusters"), (cluster.name, f"/clusters/{cluster.id}")))
                cluster_tabs(cluster.id, title)
    return scope


async def _read(view: View) -> Scope:
    clusters = (await view.api.clusters.ListClusters(ListClustersRequest(page_size=MOST_CLUSTERS))).clusters
    nodes = (await view.api.nodes.ListNodes(ListNodesRequest())).nodes
    return Scope(
        view.query("cluster"), view.query("node"), {one.id: one for one in clusters}, {one.id: one for one in nodes}
    )
