"""The members of a cluster as cards: who is primary, where each one runs, and how much room it has."""

from collections.abc import Mapping, Sequence

from wap.control.v1.cluster_pb2 import Cluster, Member
from wap.control.v1.node_pb2 import Node

from console.design import ICONS
from console.parts.markup import Html, h, joined
from console.parts.words import count, meter, per_cent, sentence, share, since

LETTERS = {"PRIMARY": "P", "SECONDARY": "S", "ARBITER": "A"}


def topology(cluster: Cluster, nodes: Mapping[str, Node]) -> Html:
    """One card per member, primary first; `nodes` by id add what the machine reports."""
    members = sorted(cluster.members, key=lambda one: (one.replica_set, one.state != "PRIMARY", one.name))
    if not members:
        wanted = sum(one.members for one in cluster.spec.replica_sets)
        return h("p", f"No machines yet; {count(wanted, 'member')} are wanted.", class_="muted")
    return joined(_card(member, nodes.get(member.node_id)) for member in members)


def _card(member: Member, node: Node | None) -> Html:
    look = "member primary" if member.state == "PRIMARY" else "member"
    # A member that is only starting has no state yet; one that had a state and lost its health is sick.
    if member.state in LETTERS and not member.healthy:
        look = "member sick"
    role = sentence(member.state.lower()) or "No state yet"
    letter = h("span", LETTERS.get(member.state, "\N{MIDDLE DOT}"), class_="role", aria_hidden="true", title=role)
    where = " · ".join(part for part in (role, member.zone, member.instance_type) if part)
    name = h("span", _name(member), h("span", where, class_="small muted"), class_="stack")
    head = h("div", letter, name, class_="member-head")
    problem = h("div", ICONS["alert"], h("span", sentence(member.problem)), class_="risk") if member.problem else None
    return h(
        "article", head, _gauges(member, node), problem, _foot(member), class_=look, aria_label=f"{member.name}, {role}"
    )


def _name(member: Member) -> Html:
    if not member.node_id:
        return h("span", member.name, class_="member-name")
    return h("a", member.name, href=f"/nodes/{member.node_id}", class_="member-name")


def _gauges(member: Member, node: Node | None) -> Html:
    rows: list[tuple[str, float | None]] = []
    if node is not None:
        rows.append(("CPU", node.cpu_percent if node.last_seen_time.seconds else None))
        rows.append(("Memory", share(node.memory_used_bytes, node.memory_total_bytes)))
    rows.append(("Disk", share(member.disk_used_bytes, member.disk_total_bytes)))
    cells = (
        joined([h("span", label), meter(percent, f"{label} of {member.name}"), h("b", per_cent(percent))])
        for label, percent in rows
    )
    return h("div", joined(cells), class_="gauges")


def _foot(member: Member) -> Html:
    connected = member.agent_connected
    dot = h("i", class_=f"dot {'good' if connected else 'caution'}", aria_hidden="true")
    seen = None if connected else since(member.last_seen_time)
    agent = h("span", dot, h("span", "Agent connected" if connected else "Agent away "), seen, class_="agent")
    address = h("span", member.address, class_="mono")
    return h("div", address, h("span", _lag(member)), agent, class_="member-foot")


def _lag(member: Member) -> str:
    if member.state == "PRIMARY":
        return "Takes writes"
    return f"Lag {member.lag_seconds:.0f} s" if member.lag_seconds >= 0 else "Lag unknown"


def zones_of(members: Sequence[Member]) -> int:
    """How many zones the members stand in."""
    return len({member.zone for member in members if member.zone})
