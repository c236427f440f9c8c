"""What `scripts/demo` runs: from nothing to a writable 3-node replica set, shown step by step.

`--check` proves the cluster with a majority write and a read from each member, deletes it, and verifies that nothing
is left: no process, no instance, volume, security group or network, no file outside the state directory.
"""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pymongo
import typer
from pymongo import ReadPreference
from pymongo.write_concern import WriteConcern
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from wap.control.v1 import cluster_pb2, operation_pb2, project_pb2

from console.client import Client, WapError
from scripts.stack import NETWORK_POOL, Stack, StartError, mongodb_directory, port_is_free

NAME = "demo"
PORTS = {"sandbox": 7480, "api": 7443, "agent": 7444, "console": 7481}
READS_SECONDS = 20
screen = Console()
app = typer.Typer(add_completion=False)


@app.command()
def main(
    check: Annotated[bool, typer.Option("--check", help="prove the cluster, delete it, leave nothing")] = False,
    state: Annotated[Path, typer.Option(help="directory of everything the demo writes")] = Path("state/demo"),
    ports: Annotated[int, typer.Option(help="move all ports by this much")] = 0,
) -> None:
    """Create project demo and the replica set demo on the EC2 sandbox, and keep running until Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        requirements()
        if check:
            run_check()
        else:
            run_until_interrupted(state.absolute(), {name: port + ports for name, port in PORTS.items()})
    except StartError as error:
        screen.print(f"[red]{error}[/]")
        raise typer.Exit(1) from None
    except WapError as error:
        screen.print(f"[red]{error}[/]")
        raise typer.Exit(1) from None


def requirements() -> None:
    """StartError, in one sentence, when something that the demo needs is missing."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise StartError(f"the demo brings a MongoDB for Linux x86-64; this is {sys.platform} {platform.machine()}")
    mongod = mongodb_directory() / "bin" / "mongod"
    try:
        subprocess.run([mongod, "--version"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(f"mongod does not run here: {error}") from None


def run_until_interrupted(state: Path, ports: dict[str, int]) -> None:
    """The demo for people: everything up, the address printed, down again in order at Ctrl-C."""
    for name, port in ports.items():
        if not port_is_free(port):
            raise StartError(f"port {port} ({name}) is taken; choose others with --ports N, which moves all by N")
    stack = Stack(
        state, ports["sandbox"], ports["api"], ports["agent"], ports["console"], console=True, network_pool=NETWORK_POOL
    )
    with running(stack):
        with stack.client() as client:
            client.login("admin", stack.admin_password())
            cluster = ensure_cluster(client)
            print_access(stack, client, cluster)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        screen.print("\nStopping: control plane, agents, MongoDB, sandbox ...")
    screen.print(f"Stopped. The data is kept in {state}; run the demo again to carry on, or delete the directory.")


def run_check() -> None:
    """The demo for programs: prove, delete, verify that nothing is left."""
    with tempfile.TemporaryDirectory(prefix="wap-check-") as directory:
        stack = Stack(Path(directory) / "state", console=True)
        with running(stack), stack.client() as client:
            client.login("admin", stack.admin_password())
            cluster = ensure_cluster(client)
            prove(client, cluster)
            deletion = client.clusters.DeleteCluster(
                cluster_pb2.DeleteClusterRequest(cluster_id=cluster.id, confirm_name=cluster.name)
            )
            follow(client, deletion.operation)
            left = {kind: found for kind, found in stack.inventory().items() if found}
            if left:
                raise StartError(f"left behind in the sandbox: {left}")
        processes = processes_below(directory)
        if processes:
            raise StartError(f"left behind: processes {processes}")
    screen.print("[green]Nothing is left: no process, no instance, volume, security group or network, no file.[/]")


@contextlib.contextmanager
def running(stack: Stack) -> Iterator[None]:
    """Sandbox and server up; both down again, whatever happens."""
    try:
        with screen.status("starting the EC2 sandbox and the control plane ..."):
            stack.start_sandbox()
            stack.start_server()
        yield
    finally:
        stack.stop()


def ensure_cluster(client: Client) -> cluster_pb2.Cluster:
    """Project and cluster `demo`, made now or found from an earlier run."""
    try:
        client.project(NAME)
    except WapError:
        client.projects.CreateProject(project_pb2.CreateProjectRequest(name=NAME))
    try:
        cluster = client.cluster(NAME, NAME)
        if cluster.active_operation_id:
            follow(client, operation_pb2.Operation(id=cluster.active_operation_id))
    except WapError:
        follow(client, client.create_cluster(NAME, NAME, members=3, disk_gib=20))
    return client.cluster(NAME, NAME)


def follow(client: Client, operation: operation_pb2.Operation) -> None:
    """Show the operation's steps until it rests. StartError when it failed."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
    )
    shown: set[str] = set()
    with Progress(*columns, TimeElapsedColumn(), console=screen) as progress:
        task = progress.add_task("waiting", total=1)

        def show(now: operation_pb2.Operation) -> None:
            for step in now.steps:
                if step.state == operation_pb2.STEP_STATE_SUCCEEDED and step.plan.name not in shown:
                    shown.add(step.plan.name)
                    took = step.end_time.ToMilliseconds() - step.start_time.ToMilliseconds()
                    progress.console.print(
                        f"  [green]done[/] {step.plan.title}  [dim]{took / 1000:.1f} s  {step.detail}[/]"
                    )
            waits = {step.waiting_for for step in now.steps if step.waiting_for}
            text = "; ".join(sorted(waits)) or now.summary
            progress.update(task, description=text[:70], completed=now.steps_done, total=now.steps_total or 1)

        final = client.wait(operation.id, on_change=show)
    if final.state != operation_pb2.OPERATION_STATE_SUCCEEDED:
        raise StartError(
            f"operation {final.id} ended {operation_pb2.OperationState.Name(final.state)}: {final.summary}"
        )


def connect(client: Client, cluster: cluster_pb2.Cluster, ca_file: Path, **options: Any) -> "pymongo.MongoClient[Any]":
    """A MongoDB client with the cluster's own connection data."""
    access = client.clusters.GetConnection(cluster_pb2.GetConnectionRequest(cluster_id=cluster.id))
    ca_file.write_text(access.ca_pem)
    return pymongo.MongoClient(access.uri, tlsCAFile=str(ca_file), **options)


def prove(client: Client, cluster: cluster_pb2.Cluster) -> None:
    """One majority write, then the same document read from every member directly."""
    with tempfile.TemporaryDirectory() as directory:
        ca_file = Path(directory) / "ca.pem"
        with connect(client, cluster, ca_file) as mongo:
            proof = mongo["demo"].get_collection("proof", write_concern=WriteConcern("majority", wtimeout=20_000))
            proof.insert_one({"_id": cluster.id, "written": "with w: majority"})
        screen.print("  [green]done[/] majority write accepted")
        access = client.clusters.GetConnection(cluster_pb2.GetConnectionRequest(cluster_id=cluster.id))
        for member in cluster.members:
            read_from(member.address, access, cluster.id, ca_file)
            screen.print(f"  [green]done[/] read from {member.name} at {member.address}")


def read_from(address: str, access: cluster_pb2.GetConnectionResponse, key: str, ca_file: Path) -> None:
    """Read the proof from one member; a secondary may need a moment to apply it."""
    with pymongo.MongoClient[Any](
        address,
        username=access.username,
        password=access.password,
        tls=True,
        tlsCAFile=str(ca_file),
        directConnection=True,
        read_preference=ReadPreference.SECONDARY_PREFERRED,
    ) as mongo:
        pause = threading.Event()
        for _ in range(READS_SECONDS * 10):
            if mongo["demo"]["proof"].find_one({"_id": key}):
                return
            pause.wait(0.1)
    raise StartError(f"{address} does not return what was written")


def print_access(stack: Stack, client: Client, cluster: cluster_pb2.Cluster) -> None:
    """Where to go from here."""
    access = client.clusters.GetConnection(cluster_pb2.GetConnectionRequest(cluster_id=cluster.id))
    ca_file = stack.state / "demo-ca.pem"
    ca_file.write_text(access.ca_pem)
    ready = stack.servers[-1].ready
    screen.print()
    screen.print("[bold]Replica set demo is ready.[/]")
    screen.print(f"  connection string  {access.uri}&tlsCAFile={ca_file}", soft_wrap=True)
    screen.print(f"  console            {ready['console']}   (user admin)")
    screen.print(f"  admin password     {stack.admin_password()}   (one-time: change it in the console)")
    screen.print(
        f"  command line       .venv/bin/wap login --endpoint {ready['api']} --ca-file {ready['ca_file']}",
        soft_wrap=True,
    )
    screen.print("Ctrl-C stops everything in order.")


def processes_below(directory: str) -> list[str]:
    """Command names of processes whose command line or environment names the directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(entry.name) != os.getpid() and directory.encode() in (
                (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            ):
                found.append((entry / "comm").read_text().strip())
    return found


if __name__ == "__main__":
    app()
