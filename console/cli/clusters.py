"""`wap cluster`: ask for clusters, look at them, connect to them, delete them."""

from pathlib import Path
from typing import Annotated

import typer
from wap.control.v1 import cluster_pb2 as pb

from console.cli.cluster_view import (
    cluster_facts,
    cluster_table,
    connection_facts,
    masked,
    member_table,
    plan_cost,
    plan_steps,
)
from console.cli.command import Commands, LimitOption, ProjectOption, YesOption
from console.cli.completion import cluster_names
from console.cli.confirm import confirm as confirm_yes
from console.cli.confirm import confirm_name
from console.cli.failures import CommandError
from console.cli.paging import collect
from console.cli.progress import finish
from console.cli.session import Session
from console.cli.text import usd
from console.client.wish import WishFields

app = Commands("Clusters: MongoDB replica sets.")

ClusterArgument = Annotated[
    str, typer.Argument(metavar="CLUSTER", help="Name (or id) of the cluster.", autocompletion=cluster_names)
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]
PlanOption = Annotated[bool, typer.Option("--plan", help="Show the plan and what it costs; change nothing.")]


@app.command("create")
def create_cluster(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    project: ProjectOption = None,
    members: Annotated[
        int, typer.Option(min=0, max=1000, metavar="N", help="Voting members with data: 3, 5 or 7.")
    ] = 3,
    instance_type: Annotated[str, typer.Option(help="EC2 instance type of each member.")] = "",
    disk_gib: Annotated[
        int | None, typer.Option(min=1, max=2**31, metavar="GIB", help="Data volume of each member in GiB.")
    ] = None,
    zone: Annotated[list[str] | None, typer.Option(help="Availability zone; repeat for several.")] = None,
    version: Annotated[str, typer.Option(help="MongoDB version; default: the newest.")] = "",
    region: Annotated[str, typer.Option(help="AWS region; default: the control plane's.")] = "",
    deletion_protection: Annotated[bool, typer.Option(help="Refuse to delete the cluster.")] = False,
    allow_unsafe: Annotated[bool, typer.Option("--allow-unsafe", help="Allow 1 member.")] = False,
    plan: PlanOption = False,
    wait: WaitOption = True,
    yes: YesOption = False,
) -> None:
    """Create a replica set: shows the plan and its cost, asks, and follows the operation."""
    wish = WishFields(
        members=members,
        instance_type=instance_type,
        disk_gib=disk_gib or 0,
        zones=zone or (),
        version=version,
        region=region,
        deletion_protection=deletion_protection,
        allow_unsafe=allow_unsafe,
    )
    with session.client() as client:
        project_id = session.project(client, project).id
        if plan:
            _show_plan(session, client.plan_cluster(project_id, name, **wish))
            return
        if not yes:
            _ask(session, name, client.plan_cluster(project_id, name, **wish))
        operation = client.create_cluster(project_id, name, **wish)
        finish(session, client, operation, wait=wait)
    if wait:
        session.say(f"Connect with: wap cluster connect {name} --show-password --ca-out ca.pem")


@app.command("list")
def list_clusters(session: Session, project: ProjectOption = None, limit: LimitOption = 500) -> None:
    """List clusters: of the named or default project, or of all that you can see."""
    with session.client() as client:
        request = pb.ListClustersRequest(project_id=session.project_id(client, project))
        reply = collect(client.clusters.ListClusters, request, pb.ListClustersResponse(), limit)
    session.answer(reply, lambda: cluster_table(reply.clusters))


@app.command("show")
def show_cluster(session: Session, cluster: ClusterArgument, project: ProjectOption = None) -> None:
    """Show one cluster with its members."""
    with session.client() as client:
        found = session.cluster(client, cluster, project)
    session.answer(found, lambda: cluster_facts(found), lambda: member_table(found))


@app.command("connect")
def connect(
    session: Session,
    cluster: ClusterArgument,
    project: ProjectOption = None,
    uri_only: Annotated[bool, typer.Option("--uri-only", help="Print the connection string and nothing else.")] = False,
    ca_out: Annotated[Path | None, typer.Option(help="Write the cluster's CA certificate to this file.")] = None,
    show_password: Annotated[bool, typer.Option("--show-password", help="Show the password instead of ****.")] = False,
) -> None:
    """Show how to connect with mongosh, Python and Node.js. Each call is in the audit log."""
    with session.client() as client:
        found = session.cluster(client, cluster, project)
        connection = client.clusters.GetConnection(pb.GetConnectionRequest(cluster_id=found.id))
    if ca_out is not None:
        _write_ca(ca_out, connection.ca_pem)
    if not show_password:
        connection = masked(connection)
    if uri_only:
        session.print_plain(connection.uri)
        return
    session.answer(connection, lambda: connection_facts(connection, ca_out))
    if not show_password:
        session.say("The password is hidden; show it with --show-password.", "dim")


@app.command("delete")
def delete_cluster(
    session: Session,
    cluster: ClusterArgument,
    project: ProjectOption = None,
    confirm: Annotated[str | None, typer.Option(metavar="NAME", help="The name again, instead of typing it.")] = None,
    plan: PlanOption = False,
    wait: WaitOption = True,
) -> None:
    """Delete a cluster, its data and everything that was made for it. Asks for its name."""
    with session.client() as client:
        found = session.cluster(client, cluster, project)
        if plan:
            planned = client.clusters.DeleteCluster(pb.DeleteClusterRequest(cluster_id=found.id, validate_only=True))
            session.answer(planned, lambda: plan_steps(planned.plan))
            return
        typed = confirm_name(session, "cluster", found.name, confirm)
        request = pb.DeleteClusterRequest(cluster_id=found.id, confirm_name=typed)
        operation = client.clusters.DeleteCluster(request).operation
        finish(session, client, operation, wait=wait)


def _ask(session: Session, name: str, planned: pb.CreateClusterResponse) -> None:
    if session.can_ask:
        _show_plan(session, planned)
    confirm_yes(session, f"Create cluster {name} for about {usd(planned.plan.usd_per_month)} per month?", yes=False)


def _show_plan(session: Session, planned: pb.CreateClusterResponse) -> None:
    session.answer(planned, lambda: plan_steps(planned.plan), lambda: plan_cost(planned.plan))


def _write_ca(path: Path, ca_pem: str) -> None:
    try:
        path.write_text(ca_pem, encoding="ascii")
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from None
