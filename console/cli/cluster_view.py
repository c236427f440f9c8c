"""How clusters, their members, plans and connections look on a terminal."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote_plus

from rich.console import RenderableType
from rich.text import Text
from wap.control.v1.cluster_pb2 import Cluster, ClusterHealth, ClusterState, GetConnectionResponse, Member
from wap.control.v1.operation_pb2 import Plan
from wap.type.v1.cluster_pb2 import Topology

from console.cli.session import facts, table
from console.cli.text import ago, gib, moment, safe, state, usd, word

MASK = "****"


def cluster_table(clusters: Iterable[Cluster]) -> RenderableType:
    """One row per cluster."""
    rows = []
    for one in clusters:
        size = one.spec.replica_sets[0].size if one.spec.replica_sets else None
        healthy = sum(member.healthy for member in one.members)
        wanted = sum(replica_set.members for replica_set in one.spec.replica_sets)
        rows.append(
            (
                one.name,
                one.project_name,
                state(word(ClusterState.DESCRIPTOR, one.state)),
                state(word(ClusterHealth.DESCRIPTOR, one.health)),
                f"{healthy}/{wanted}",
                one.spec.mongodb_version,
                size.instance_type if size else "-",
                f"{size.disk_gib} GiB" if size else "-",
                usd(one.usd_per_month),
                ago(one.create_time),
            )
        )
    columns = ("NAME", "PROJECT", "STATE", "HEALTH", ">MEMBERS", "VERSION", "TYPE", ">DISK", ">PER MONTH", "CREATED")
    return table(columns, rows, empty="No clusters yet: wap cluster create NAME")


def cluster_facts(one: Cluster) -> RenderableType:
    """The cluster without its members."""
    rows: list[tuple[str, str | Text]] = [
        ("Cluster", f"{one.name} ({one.id})"),
        ("Project", one.project_name),
        ("Kind", word(Topology.DESCRIPTOR, one.spec.topology).replace("_", " ")),
        ("State", state(word(ClusterState.DESCRIPTOR, one.state))),
        ("Health", state(word(ClusterHealth.DESCRIPTOR, one.health))),
        ("", one.health_reason),
        ("MongoDB", one.spec.mongodb_version),
        ("Region", f"{one.spec.region}: {', '.join(one.spec.zones)}"),
        ("Cost", f"about {usd(one.usd_per_month)} per month"),
        ("Created", moment(one.create_time)),
        ("Protected", "yes" if one.spec.deletion_protection else "no"),
    ]
    if one.active_operation_id:
        rows.append(("Operation", one.active_operation_id))
    return facts([*rows, ("", "")])


def member_table(one: Cluster) -> RenderableType:
    """The members of a cluster."""
    columns = ("MEMBER", "STATE", "HEALTHY", "ADDRESS", "ZONE", "TYPE", ">DISK", ">LAG", "AGENT", "SEEN", "PROBLEM")
    return table(columns, (_member_row(member) for member in one.members), empty="No members yet.")


def plan_steps(plan: Plan) -> RenderableType:
    """What would be done, in order."""
    rows = []
    stage = 0
    for step in plan.steps:
        new_stage, stage = step.stage != stage, step.stage
        title = f"{step.stage_title}" if new_stage else ""
        rows.append((title, step.title, step.reason, step.waits_for or "-", step.risk or "-"))
    return table(("STAGE", "STEP", "WHY", "WAITS FOR", "RISK"), rows, empty="Nothing to do.")


def plan_cost(plan: Plan) -> RenderableType:
    """What the result would cost."""
    rows: list[tuple[str, str | Text]] = [("", "")]
    rows += [(line.title, f"{usd(line.usd_per_month):>12}") for line in plan.cost_lines]
    rows.append(("Per month", Text(f"{usd(plan.usd_per_month):>12}", style="bold")))
    if plan.cost_note:
        rows.append(("", Text(safe(plan.cost_note), style="dim")))
    return facts(rows)


def connection_facts(connection: GetConnectionResponse, ca_file: Path | None) -> RenderableType:
    """How to connect."""
    rows: list[tuple[str, str | Text]] = [
        ("URI", connection.uri),
        ("User", connection.username),
        ("Password", connection.password),
        ("CA file", str(ca_file) if ca_file else "write it with --ca-out ca.pem"),
        ("mongosh", connection.mongosh_command),
        ("Python", Text(connection.python_snippet)),
        ("Node.js", Text(connection.nodejs_snippet)),
    ]
    return facts(rows)


def masked(connection: GetConnectionResponse) -> GetConnectionResponse:
    """The same without the password, in whatever spelling it occurs."""
    hidden = GetConnectionResponse()
    hidden.CopyFrom(connection)
    spellings = {connection.password, quote_plus(connection.password)} - {""}
    for field in ("uri", "mongosh_command", "python_snippet", "nodejs_snippet", "password"):
        text = getattr(hidden, field)
        for spelling in sorted(spellings, key=len, reverse=True):
            text = text.replace(spelling, MASK)
        setattr(hidden, field, text)
    return hidden


def _member_row(one: Member) -> tuple[str | Text, ...]:
    return (
        one.name,
        state(one.state),
        Text("yes", style="green") if one.healthy else Text("no", style="red"),
        one.address,
        one.zone,
        one.instance_type,
        f"{gib(one.disk_used_bytes)} of {gib(one.disk_total_bytes)}" if one.disk_total_bytes else f"{one.disk_gib} GiB",
        f"{one.lag_seconds:.0f} s" if one.lag_seconds >= 0 else "-",
        "connected" if one.agent_connected else "away",
        ago(one.last_seen_time),
        one.problem or "-",
    )
