"""The other programs of WAP as commands of `wap`: found by entry point, imported only when called.

So `wap cluster list` does not load a control plane, and an optional part that is not installed costs one clear sentence.
"""

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from console.cli.failures import FAILED

GROUP = "wap.programs"
PANEL = "Programs"

SUMMARIES = {
    "server": "Run the control plane (with --console also the web console).",
    "agent": "Run the agent of a node.",
    "console": "Run the web console alone.",
    "sandbox": "Run the EC2 sandbox alone.",
    "sweep": "Show, and with --delete remove, cloud resources that no cluster owns.",
}

EXTRAS = {"sandbox": "sandbox"}
"""Programs that need an optional part of the distribution, and its name."""


class Program(TyperCommand):
    """Stands for a program in help and completion, and becomes it when called."""

    def __init__(self, entry: EntryPoint) -> None:
        super().__init__(
            entry.name, help=SUMMARIES.get(entry.name, f"Run {entry.value}."), rich_help_panel=PANEL, params=[]
        )
        self._entry = entry

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command, which then runs instead of this one."""
        return self._real().make_context(info_name, args, parent, **extra)

    def _real(self) -> Any:
        try:
            loaded = self._entry.load()
        except ImportError as error:
            sys.stderr.write(f"Error: `wap {self.name}` cannot start: {_missing(self.name or '', error)}\n")
            raise typer.Exit(FAILED) from None
        return typer.main.get_command(loaded) if isinstance(loaded, typer.Typer) else loaded


class WapGroup(TyperGroup):
    """The root: its own commands and every program that is installed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
            self.commands.setdefault(entry.name, Program(entry))


def _missing(name: str, error: ImportError) -> str:
    extra = EXTRAS.get(name)
    what = f"{error.name} is not installed" if isinstance(error, ModuleNotFoundError) and error.name else str(error)
    return f'{what}; install it with: pip install "wap[{extra}]"' if extra else f"{what}."
