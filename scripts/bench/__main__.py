"""The benchmarks as one command."""

import json
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from scripts.bench import create as create_bench
from scripts.bench import fleet as fleet_bench
from scripts.bench import idle as idle_bench
from scripts.bench import telemetry as telemetry_bench

app = typer.Typer(add_completion=False, help=__doc__)
Json = Annotated[bool, typer.Option("--json", help="one JSON object instead of a table")]


@app.command()
def create(runs: Annotated[int, typer.Option(min=1, help="pairs of runs")] = 3, as_json: Json = False) -> None:
    """Intent to ready for a 3-node replica set, against three mongods and one replSetInitiate by hand."""
    show("create", create_bench.run(runs), as_json)


@app.command()
def fleet(
    agents: Annotated[int, typer.Option(min=1)] = 2000,
    seconds: Annotated[float, typer.Option(min=5)] = 30.0,
    as_json: Json = False,
) -> None:
    """Memory and CPU per connected agent, fan-out and reconnect, against a bare grpc.aio server."""
    show("fleet", fleet_bench.run(agents, seconds), as_json)


@app.command()
def idle(seconds: Annotated[float, typer.Option(min=5)] = 30.0, as_json: Json = False) -> None:
    """CPU of a control plane that has one cluster and nothing to do."""
    show("idle", idle_bench.run(seconds), as_json)


@app.command()
def telemetry(
    nodes: Annotated[int, typer.Option(min=1)] = 1000,
    seconds: Annotated[float, typer.Option(min=20)] = 30.0,
    as_json: Json = False,
) -> None:
    """What monitoring costs the control plane, the agent and the disk, and how fast it answers."""
    show("telemetry", telemetry_bench.run(nodes, seconds), as_json)


def show(title: str, figures: Mapping[str, float], as_json: bool) -> None:
    """Print the figures."""
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}")
    Console().print(table)


if __name__ == "__main__":
    app()
