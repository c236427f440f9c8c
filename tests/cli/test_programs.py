"""The root of the command: help, the other programs, completion."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from console.cli.main import app
from console.cli.programs import GROUP, Program
from tests.cli.conftest import Wap


def test_help_names_every_command_and_the_exit_codes(stranger: Wap) -> None:
    text = " ".join(stranger.ok("--help").out.split())
    for name in ("login", "cluster", "operation", "server", "agent", "sandbox", "130 interrupted"):
        assert name in text


def test_help_loads_no_other_program() -> None:
    check = (
        "import sys; from typer.testing import CliRunner; from console.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print(sorted({'boto3', 'sqlalchemy', 'dbos', 'nicegui', 'pymongo', 'moto'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_program_whose_parts_are_missing_says_so_in_one_sentence() -> None:
    broken = Program(EntryPoint(name="sandbox", value="no_such_module_at_all:app", group=GROUP))
    done = CliRunner().invoke(_app_with(broken), ["sandbox", "--anything"])
    assert done.exit_code == 1
    assert 'pip install "wap[sandbox]"' in done.stderr
    assert "no_such_module_at_all is not installed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_program_gets_its_own_arguments() -> None:
    done = CliRunner().invoke(
        _app_with(Program(EntryPoint("echo", f"{__name__}:echo_app", GROUP))), ["echo", "--times", "2"]
    )
    assert (done.exit_code, done.stdout) == (0, "echo echo\n")


def test_completion_offers_names_and_is_silent_when_it_cannot(wap: Wap) -> None:
    wap.ok("cluster", "create", "orders", "--yes")
    assert complete(wap, "wap cluster show ord") == ["orders"]
    assert complete(wap, "wap cluster show x") == []
    assert complete(wap, "wap project use de") == ["demo"]
    wap.config_file.unlink()
    assert complete(wap, "wap cluster show ord") == []


def complete(wap: Wap, line: str) -> list[str]:
    """What bash would offer for the last word of the line."""
    words = line.split(" ")
    environment = {"_WAP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = CliRunner().invoke(app, [], prog_name="wap", env={**wap.environment, **environment})
    return done.stdout.split()


echo_app = typer.Typer()


@echo_app.command()
def _echo(times: int = 1) -> None:
    typer.echo(" ".join(["echo"] * times))


def _app_with(program: Program) -> typer.Typer:
    class Root(TyperGroup):
        def __init__(self, **settings: object) -> None:
            super().__init__(**settings)  # type: ignore[arg-type]
            self.commands[program.name or ""] = program

    root = typer.Typer(cls=Root)

    @root.callback()
    def _root() -> None:
        pass

    return root
