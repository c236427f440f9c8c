"""The root of `wap`: names, help and version. Every command lives in the module of its noun."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from console.cli import access, alerts, audit, clusters, login, logs, metrics, nodes, operations, projects
from console.cli.failures import EXIT_CODES_HELP
from console.cli.programs import WapGroup

app = typer.Typer(
    cls=WapGroup,
    help="WAP: MongoDB that runs itself in your own AWS account.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
login.register(app)
app.add_typer(projects.app, name="project")
app.add_typer(clusters.app, name="cluster")
app.add_typer(operations.app, name="operation")
app.add_typer(nodes.app, name="node")
app.add_typer(access.users, name="user")
app.add_typer(access.tokens, name="token")
app.add_typer(audit.app, name="audit")
metrics.register(app)
logs.register(app)
app.add_typer(alerts.app, name="alerts")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wap {version('wap')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """WAP: MongoDB that runs itself in your own AWS account."""


def run() -> None:
    """Entry point of the `wap` program."""
    sys.exit(app())
