"""The machines and their agents: who reports, with which certificate, and how to shut one out."""

import time
from collections.abc import Sequence

from wap.control.v1.node_pb2 import AGENT_STATE_CONNECTED, AgentState, BanAgentRequest, Node
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_ADMIN

from console.frame import heading
from console.pages.clusters import figure
from console.pages.topics import watch_nodes
from console.parts.controls import Dialog, button, field
from console.parts.markup import Child, Html, box, change, h, joined, show
from console.parts.tables import Column, Table, empty, filter_field
from console.parts.words import meter, per_cent, pill, share, since, size, word
from console.view import View

COLUMNS = (
    Column("Node", "named"),
    Column("Agent"),
    Column("Last seen"),
    Column("mongod", "wide-only"),
    Column("Instance and volume", "wide-only ids"),
    Column("CPU", "num"),
    Column("Memory"),
    Column("Disk"),
)

CERTIFICATE_WARNING = 4 * 3600
"""Seconds of life left under which a certificate is shown as a concern: they are renewed at half of their 24 h."""


async def build(view: View) -> None:
    """Fill the page."""
    heading("Nodes and agents", "One machine per member, each with an agent that connects by its own certificate")
    page = _NodesPage(view)
    await view.connected()
    view.follow("nodes", lambda: watch_nodes(view.api), page.update)


class _NodesPage:
    def __init__(self, view: View) -> None:
        self._view = view
        self._nodes: dict[str, Node] = {}
        self._banning = ""
        self._figures = show(_figures([]), classes="figures")
        with box("tools"):
            show(filter_field("nodes", "Filter by name, cluster, zone, id"))
        words = "Machines appear here when WAP launches them for a cluster."
        self._table = Table(COLUMNS, "nodes", "Nodes", empty("nodes", "No nodes", words), self._actions)
        self._dialog = Dialog("Ban this agent?", mark="ban-dialog")
        with self._dialog.body:
            self._whom = show(Html(""))
            self._reason = field("Reason", hint="It goes into the audit log.", mark="ban-reason")
        with self._dialog.foot:
            button(view, "Keep it", self._dialog.close)
            button(view, "Ban agent", self._do_ban, kind="danger-solid", icon="ban", mark="confirm-ban")

    def update(self, nodes: Sequence[Node]) -> None:
        """Show these nodes."""
        self._nodes = {node.id: node for node in nodes}
        change(self._figures, _figures(nodes))
        self._table.update({node.id: _row(node) for node in nodes})

    def _actions(self, node_id: str) -> None:
        name, project = self._nodes[node_id].name, self._nodes[node_id].project_id
        if self._view.session.role_in(project) < ACCESS_ROLE_ADMIN:
            return
        button(
            self._view,
            "Ban",
            lambda: self._ask_ban(node_id),
            kind="danger small",
            mark=f"ban:{name}",
            about=f"Ban the agent of {name}",
        )

    def _ask_ban(self, node_id: str) -> None:
        self._banning = node_id
        name = self._nodes[node_id].name
        words = (
            " is disconnected within seconds and its certificate is refused from then on. mongod on it keeps running."
        )
        change(self._whom, h("p", "The agent of ", h("b", name), words))
        self._reason.value = ""
        self._dialog.open()

    async def _do_ban(self) -> None:
        request = BanAgentRequest(node_id=self._banning, reason=self._reason.value or "")
        with self._view.errors_to(self._dialog.complain):
            reply = await self._view.api.nodes.BanAgent(request)
        self._dialog.close()
        self.update([reply.node if node.id == reply.node.id else node for node in self._nodes.values()])
        self._view.say(f"The agent of {reply.node.name} is banned")


def _figures(nodes: Sequence[Node]) -> Html:
    connected = sum(node.agent_state == AGENT_STATE_CONNECTED for node in nodes)
    away = len(nodes) - connected
    zones = len({node.zone for node in nodes})
    return joined(
        [
            figure("Nodes", str(len(nodes))),
            figure("Agents connected", f"{connected} / {len(nodes)}"),
            figure("Not connected", str(away), "bad" if away else ""),
            figure("Zones", str(zones)),
        ]
    )


def _row(node: Node) -> Sequence[Child]:
    cluster = h("a", node.cluster_name, href=f"/clusters/{node.cluster_id}")
    under = joined(
        [h("div", cluster, f" · {node.zone}", class_="small muted"), h("div", node.private_ip, class_="mono muted")]
    )
    version = h("div", f"Version {node.agent_version}", class_="small muted") if node.agent_version else None
    ids = [h("div", text, class_="mono muted") for text in (node.instance_id, node.volume_id) if text]
    memory = share(node.memory_used_bytes, node.memory_total_bytes)
    disk = share(node.disk_used_bytes, node.disk_total_bytes)
    role = h("div", node.member_state.lower(), class_="small muted") if node.member_state else None
    seen = bool(node.last_seen_time.seconds)
    return (
        joined([h("a", node.name, href=f"/nodes/{node.id}", class_="row-name"), under]),
        joined([pill(word(AgentState.DESCRIPTOR, node.agent_state)), version]),
        joined([h("div", since(node.last_seen_time)), _certificate(node)]),
        joined([h("div", node.mongod_state or "\N{EN DASH}"), role]),
        joined(ids),
        per_cent(node.cpu_percent) if seen else "\N{EN DASH}",
        _gauge(memory, f"Memory of {node.name}", node.memory_used_bytes, node.memory_total_bytes),
        _gauge(disk, f"Disk of {node.name}", node.disk_used_bytes, node.disk_total_bytes),
    )


def _certificate(node: Node) -> Html | None:
    if not node.certificate_expire_time.seconds:
        return None
    short = node.certificate_expire_time.seconds - time.time() < CERTIFICATE_WARNING
    look = "small bad" if short else "small muted"
    return h("div", "Certificate ends ", since(node.certificate_expire_time), class_=look)


def _gauge(percent: float | None, label: str, used: float, total: float) -> Html:
    title = f"{size(used)} of {size(total)}" if total else None
    return h("span", h("span", per_cent(percent), class_="num"), meter(percent, label), class_="gauge", title=title)
