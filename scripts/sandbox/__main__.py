"""`wap sandbox`: run the EC2 stand-in alone."""

import json
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from scripts.sandbox import Sandbox, StartError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def sandbox(
    state: Annotated[Path, typer.Option(help="directory of its account, instances and volumes")] = Path(
        "state/sandbox"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port")] = 7480,
    host: Annotated[str, typer.Option(help="address to bind; it has no login, so keep it on loopback")] = "127.0.0.1",
    region: Annotated[str, typer.Option()] = "us-east-1",
    volumes: Annotated[str, typer.Option(help="directory, loop (needs root), or auto: loop where it works")] = "auto",
    leave_instances: Annotated[bool, typer.Option(help="do not end instances at the end")] = False,
    ready: Annotated[str, typer.Option(help="how to say that it is ready: text or json")] = "text",
) -> None:
    """Run the EC2 sandbox: a stand-in for EC2 whose instances are processes on this machine."""
    if volumes not in {"auto", "directory", "loop"}:
        raise typer.BadParameter("must be auto, directory or loop", param_hint="--volumes")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    try:
        world = Sandbox(state, port, host=host, region=region, volumes=volumes)
    except StartError as error:
        typer.echo(f"wap sandbox: {error}", err=True)
        raise typer.Exit(1) from None
    world.start()
    if ready == "json":
        print(json.dumps({"endpoint": world.endpoint, "volumes": world.volumes}), flush=True)
    else:
        print(f"EC2 sandbox (a stand-in, not AWS): AWS_ENDPOINT_URL={world.endpoint}", flush=True)
        print(f"Volumes are {VOLUMES[world.volumes]}.", flush=True)
    stop.wait()
    world.stop(leave_instances=leave_instances)


VOLUMES = {"loop": "file systems on loop devices", "directory": "directories (loop devices need root on Linux)"}

if __name__ == "__main__":
    app()
