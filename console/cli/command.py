"""Commands: a typer app whose commands share `--output`, receive a Session and end with exit codes that mean something."""

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from console.cli.failures import EXIT_CODES_HELP, FAILED, INTERRUPTED, CommandError, as_json, exit_code, lines_for
from console.cli.session import Session
from console.client import WapError


class Output(StrEnum):
    """Who reads the output."""

    table = "table"
    json = "json"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="For people (table) or for programs (json).", rich_help_panel="Output")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as --output json.", rich_help_panel="Output")]
ProjectOption = Annotated[
    str | None, typer.Option("--project", "-p", help="Project by name or id; default: `wap project use`, WAP_PROJECT.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="At most so many rows.")]


class Commands(typer.Typer):
    """An app of commands `def name(session: Session, ...)`."""

    def __init__(self, help: str) -> None:
        super().__init__(help=help, no_args_is_help=True, rich_markup_mode="rich")

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:  # type: ignore[override]
        """Register a command; the function itself stays as it is."""
        register = super().command(name, epilog=EXIT_CODES_HELP, **settings)

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            register(answering(function))
            return function

        return decorate


def answering(function: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command's signature, take `session` out of it, and translate what it raises."""

    @functools.wraps(function)
    def run(*, output: Output, json: bool, **given: Any) -> None:
        session = Session(json=json or output is Output.json)
        try:
            function(session, **given)
        except (WapError, CommandError) as error:
            raise typer.Exit(tell(session, error)) from None
        except TimeoutError as error:
            session.warn(f"Error: {error}")
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            session.warn("Interrupted.")
            raise typer.Exit(INTERRUPTED) from None

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter("output", kind, default=Output.table, annotation=OutputOption),
        inspect.Parameter("json", kind, default=False, annotation=JsonOption),
    ]
    parameters = [parameter.replace(kind=kind) for parameter in own] + shared
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def tell(session: Session, error: WapError | CommandError) -> int:
    """Say on stderr what went wrong; returns the exit code."""
    if session.json:
        session.err.file.write(as_json(error) + "\n")
    elif isinstance(error, CommandError):
        session.warn(f"Error: {error.message}")
        if error.hint:
            session.warn(f"  {error.hint}")
    else:
        for line in lines_for(error):
            session.warn(line)
    return error.exit_code if isinstance(error, CommandError) else exit_code(error)
