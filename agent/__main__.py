"""`wap agent`, or `python -m agent`: run the agent of a node."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent import daemon
from agent.failure import NodeFailure

CANNOT_RUN = 1
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    root: Annotated[Path, typer.Option(envvar="WAP_ROOT", help='Directory that stands for "/" of the node.')] = Path(
        "/"
    ),
) -> None:
    """Run the agent of a node. It keeps running; its settings are in etc/wap/agent.json below the root."""
    try:
        asyncio.run(daemon.run(root.resolve()))
    except NodeFailure as failure:
        sys.stderr.write(f"Error: {failure.message}\n")
        raise typer.Exit(CANNOT_RUN) from None


if __name__ == "__main__":
    app()
