"""`wap node`: machines and their agents."""

from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text
from wap.control.v1.metric_pb2 import KillOperationRequest, ListCurrentOperationsRequest
from wap.control.v1.node_pb2 import AgentState, BanAgentRequest, GetNodeRequest, ListNodesRequest, Node

from console.cli.command import Commands, ProjectOption, YesOption
from console.cli.completion import cluster_names
from console.cli.confirm import confirm
from console.cli.failures import NOT_FOUND, CommandError
from console.cli.session import Session, facts, table
from console.cli.text import ago, gib, moment, state, word
from console.client import Client
from console.client.monitoring import span

app = Commands("Nodes: the machines of clusters, and their agents.")

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="Name or id of the node.")]


@app.command("list")
def list_nodes(
    session: Session,
    project: ProjectOption = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", "-c", help="Only of this cluster.", autocompletion=cluster_names)
    ] = None,
    removed: Annotated[bool, typer.Option("--removed", help="Also nodes that are gone.")] = False,
) -> None:
    """List nodes with their agents."""
    with session.client() as client:
        found = session.cluster(client, cluster, project) if cluster else None
        request = ListNodesRequest(
            project_id=found.project_id if found else session.project_id(client, project),
            cluster_id=found.id if found else "",
            include_removed=removed,
        )
        reply = client.nodes.ListNodes(request)
    rows = [
        (
            one.name,
            one.cluster_name,
            state(word(AgentState.DESCRIPTOR, one.agent_state)),
            state(one.mongod_state),
            one.member_state or "-",
            one.private_ip,
            one.zone,
            one.instance_type,
            f"{gib(one.disk_used_bytes)} of {gib(one.disk_total_bytes)}",
            ago(one.last_seen_time),
        )
        for one in reply.nodes
    ]
    columns = ("NAME", "CLUSTER", "AGENT", "MONGOD", "MEMBER", "ADDRESS", "ZONE", "TYPE", ">DISK", "SEEN")
    session.answer(reply, lambda: table(columns, rows, empty="No nodes."))


@app.command("show")
def show_node(session: Session, node: NodeArgument, project: ProjectOption = None) -> None:
    """Show one node."""
    with session.client() as client:
        found = find_node(session, client, node, project)
    session.answer(found, lambda: _facts(found))


@app.command("ban")
def ban_agent(
    session: Session,
    node: NodeArgument,
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")],
    project: ProjectOption = None,
    yes: YesOption = False,
) -> None:
    """End the session of a node's agent and refuse its certificates from now on."""
    with session.client() as client:
        found = find_node(session, client, node, project)
        confirm(session, f"Ban the agent of {found.name}? WAP loses its only way to that machine.", yes=yes)
        found = client.nodes.BanAgent(BanAgentRequest(node_id=found.id, reason=reason)).node
    session.answer(found, lambda: f"The agent of {found.name} is banned.")


@app.command("operations")
def list_current_operations(
    session: Session,
    node: NodeArgument,
    project: ProjectOption = None,
    at_least: Annotated[int, typer.Option("--at-least", min=0, help="Only those that run so many seconds.")] = 0,
) -> None:
    """Show what a node's mongod is doing at this moment, the longest first."""
    with session.client() as client:
        found = find_node(session, client, node, project)
        request = ListCurrentOperationsRequest(node_id=found.id, running_at_least=span(at_least))
        reply = client.metrics.ListCurrentOperations(request)
    rows = [
        (
            str(one.id),
            f"{one.running.seconds + one.running.nanos / 1e9:.1f} s",
            one.operation,
            one.namespace,
            one.plan_summary,
            one.application or one.client or one.description,
            "lock" if one.waiting_for_lock else "",
            one.command_shape[:120],
        )
        for one in reply.operations
    ]
    columns = (">ID", ">RUNS", "OPERATION", "NAMESPACE", "PLAN", "CLIENT", "WAITS", "COMMAND")
    session.answer(reply, lambda: table(columns, rows, empty="It does nothing."))


@app.command("kill")
def kill_operation(
    session: Session,
    node: NodeArgument,
    operation: Annotated[int, typer.Argument(help="Id, as `wap node operations` shows it.")],
    project: ProjectOption = None,
    yes: YesOption = False,
) -> None:
    """End one operation of a client on a node."""
    with session.client() as client:
        found = find_node(session, client, node, project)
        confirm(session, f"End operation {operation} on {found.name}? Its client gets an error.", yes=yes)
        reply = client.metrics.KillOperation(KillOperationRequest(node_id=found.id, current_operation_id=operation))
    session.answer(reply, lambda: f"The mongod of {found.name} was told to end operation {operation}.")


def find_node(session: Session, client: Client, node: str, project: str | None, cluster: str | None = None) -> Node:
    """The node with this id, or the only one with this name in the project (and cluster)."""
    if node.startswith("nd-"):
        return client.nodes.GetNode(GetNodeRequest(node_id=node)).node
    of_cluster = session.cluster(client, cluster, project) if cluster else None
    request = ListNodesRequest(
        project_id=of_cluster.project_id if of_cluster else session.project_id(client, project),
        cluster_id=of_cluster.id if of_cluster else "",
    )
    named = [one for one in client.nodes.ListNodes(request).nodes if one.name == node]
    if len(named) == 1:
        # Read alone, a node tells more.
        return client.nodes.GetNode(GetNodeRequest(node_id=named[0].id)).node
    if named:
        raise CommandError(f"{len(named)} nodes are named {node}.", "Use --project, --cluster, or the node's id.")
    raise CommandError(
        f"There is no node {node}.", "See them with: wap node list", exit_code=NOT_FOUND, reason="NOT_FOUND"
    )


def _facts(one: Node) -> RenderableType:
    rows: list[tuple[str, str | Text]] = [
        ("Node", f"{one.name} ({one.id})"),
        ("Cluster", f"{one.cluster_name} ({one.cluster_id})"),
        ("Agent", state(word(AgentState.DESCRIPTOR, one.agent_state))),
        ("Agent version", one.agent_version),
        ("Last seen", ago(one.last_seen_time)),
        ("Certificate until", moment(one.certificate_expire_time)),
        ("mongod", state(one.mongod_state)),
        ("Member", one.member_state),
        ("Host", f"{one.host_name} {one.private_ip}"),
        ("Zone", one.zone),
        ("Instance", f"{one.instance_id} ({one.instance_type})"),
        ("Volume", one.volume_id),
        ("Disk", f"{gib(one.disk_used_bytes)} of {gib(one.disk_total_bytes)}"),
        ("Memory", f"{gib(one.memory_used_bytes)} of {gib(one.memory_total_bytes)}"),
        ("CPU", f"{one.cpu_percent:.1f} %"),
        *(
            ("Telemetry", f"{loss.count:,} {loss.reason}{', on the node' if loss.on_node else ''}")
            for loss in one.telemetry_losses
        ),
    ]
    return facts(rows)
