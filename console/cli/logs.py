"""`wap logs` and `wap slow-queries`: what mongods and agents wrote, and what it says of queries."""

from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from rich.text import Text
from wap.control.v1 import log_pb2 as pb
from wap.control.v1.node_pb2 import ListNodesRequest

from console.cli.command import ProjectOption, answering
from console.cli.failures import CommandError
from console.cli.measures import LastOption, seconds_of
from console.cli.metrics import ClusterOption, NodeOption
from console.cli.nodes import find_node
from console.cli.paging import collect
from console.cli.session import Session, as_dict, table
from console.cli.text import ago, safe
from console.client import Client
from console.client.monitoring import follow, log_filter, query_times, search_request

COLOURS = {"F": "bold red", "E": "red", "W": "yellow"}


def register(app: typer.Typer) -> None:
    """Put the commands on the root."""
    app.command()(answering(logs))
    app.command("slow-queries")(answering(slow_queries))


def logs(
    session: Session,
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="Part of the line, in any case.")] = "",
    cluster: ClusterOption = None,
    node: NodeOption = None,
    project: ProjectOption = None,
    component: Annotated[str, typer.Option(help='As mongod names it, "REPL"; "agent" for the agent\'s own.')] = "",
    severity: Annotated[str, typer.Option("--severity", "-s", help="This and worse: F, E, W, I.")] = "",
    message_id: Annotated[int, typer.Option(min=0, help="mongod's number of the message.")] = 0,
    last: LastOption = "1h",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="At most so many lines.")] = 100,
    following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with lines as they come in; Ctrl-C ends it.")
    ] = False,
) -> None:
    """Show log lines, the newest last. JSON: one object for each line where it follows, else one answer."""
    with session.client() as client:
        wanted = _filter(session, client, cluster, node, project)
        wanted.MergeFrom(log_filter(text=text, component=component, minimum_severity=severity, message_id=message_id))
        request = search_request(wanted, last_seconds=seconds_of(last, "--last"))
        reply = collect(client.logs.SearchLogs, request, pb.SearchLogsResponse(), limit)
        if not following:
            _print_all(session, reply)
            return
        for line in reversed(reply.lines):
            _print_one(session, line)
        for more in follow(client.logs.TailLogs, pb.TailLogsRequest(filter=wanted)):
            if more.skipped:
                session.warn(f"{more.skipped} lines came too fast and are left out here; wap logs finds them.")
            for line in more.lines:
                _print_one(session, line)


def _filter(
    session: Session, client: Client, cluster: str | None, node: str | None, project: str | None
) -> pb.LogFilter:
    if node:
        return pb.LogFilter(node_id=find_node(session, client, node, project, cluster).id)
    if cluster:
        return pb.LogFilter(cluster_id=session.cluster(client, cluster, project).id)
    return pb.LogFilter(project_id=session.project_id(client, project))


def _print_all(session: Session, reply: pb.SearchLogsResponse) -> None:
    if session.json:
        session.answer(reply)
        return
    for line in reversed(reply.lines):
        _print_one(session, line)
    if not reply.lines:
        session.say("No lines in this time.", "dim")
    elif reply.next_page_token:
        session.warn("There are more lines in this time: give --limit, or a shorter --last.")


def _print_one(session: Session, line: pb.LogLine) -> None:
    if session.json:
        session.print_json(as_dict(line), indent=None)
        return
    stamp = line.time.ToJsonString()[:23].replace("T", " ").rstrip("Z")
    context = f" [{line.context}]" if line.context else ""
    shown = f"{stamp}  {line.severity:<2} {line.node_name}  {line.component:<8}{context} {line.text}"
    if line.attributes and line.attributes != "{}":
        shown += f" {line.attributes}"
    session.out.print(Text(safe(shown), style=COLOURS.get(line.severity, "")), soft_wrap=True)


def slow_queries(
    session: Session,
    cluster: ClusterOption = None,
    node: NodeOption = None,
    project: ProjectOption = None,
    namespace: Annotated[str, typer.Option(help="Only of this collection, database.collection.")] = "",
    last: LastOption = "24h",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="At most so many shapes.")] = 20,
) -> None:
    """Show slow queries by shape, the most costly first, and the indexes that would help."""
    with session.client() as client:
        place = _slow_place(session, client, cluster, node, project)
        start, end = query_times(seconds_of(last, "--last"), None)
        request = pb.ListSlowQueriesRequest(start_time=start, end_time=end, namespace=namespace, limit=limit)
        request.MergeFrom(place)
        reply = client.logs.ListSlowQueries(request)
    rows = [
        (
            one.namespace,
            one.operation,
            f"{one.predicate_shape} {one.sort_shape}".strip(),
            str(one.count),
            _seconds(one.p50),
            _seconds(one.p95),
            _seconds(one.total),
            f"{one.docs_examined:,}/{one.docs_returned:,}",
            str(one.collection_scans or "-"),
            ago(one.last_time),
        )
        for one in reply.shapes
    ]
    columns = (
        "NAMESPACE",
        "OPERATION",
        "SHAPE",
        ">COUNT",
        ">P50",
        ">P95",
        ">TOTAL",
        ">EXAMINED/RETURNED",
        ">SCANS",
        "LAST",
    )
    session.answer(reply, lambda: table(columns, rows, empty="No slow queries in this time."))
    for one in reply.shapes:
        if one.HasField("advice"):
            session.say(f"An index would help {one.namespace}: {one.advice.keys}")
            session.say(f"  {one.advice.reason}", "dim")
    if reply.partial and not session.json:
        session.warn("There were more slow queries in this time than were looked at: give a shorter --last.")


def _slow_place(
    session: Session, client: Client, cluster: str | None, node: str | None, project: str | None
) -> pb.ListSlowQueriesRequest:
    """The cluster or node; without either the only cluster there is."""
    if node:
        return pb.ListSlowQueriesRequest(node_id=find_node(session, client, node, project, cluster).id)
    if cluster:
        return pb.ListSlowQueriesRequest(cluster_id=session.cluster(client, cluster, project).id)
    listed = client.nodes.ListNodes(ListNodesRequest(project_id=session.project_id(client, project)))
    ids = sorted({one.cluster_id for one in listed.nodes})
    if len(ids) != 1:
        raise CommandError("It is not clear which cluster is meant.", "Use --cluster NAME or --node NAME.")
    return pb.ListSlowQueriesRequest(cluster_id=ids[0])


def _seconds(length: Duration) -> str:
    return f"{length.seconds + length.nanos / 1e9:.3g} s"
