"""A fake control plane per test, and `wap` as a person or program calls it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.cli.main import app
from console.client.config import Config, save
from console.fake import FakeControl, serve_in_thread

# `wap` in a process of its own that Ctrl-C ends also where the tests run in the background, which ignores it.
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from console.cli.main import run; run()"
)


@dataclass
class Answer:
    """What one call of `wap` left behind."""

    exit_code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its standard output as JSON."""
        return json.loads(self.out)

    def error(self) -> dict[str, str]:
        """Its error for programs."""
        told: dict[str, str] = json.loads(self.err)["error"]
        return told


@dataclass
class Wap:
    """Calls `wap` with a private configuration file."""

    config_file: Path

    @property
    def environment(self) -> dict[str, str | None]:
        """Only our configuration file counts."""
        names = ("WAP_ENDPOINT", "WAP_TOKEN", "WAP_CA_FILE", "WAP_PROJECT")
        return {name: None for name in names} | {"WAP_CONFIG": str(self.config_file), "COLUMNS": "200"}

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Answer:
        """Run one command."""
        result = CliRunner().invoke(app, list(arguments), input=stdin, env={**self.environment, **environment})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    def ok(self, *arguments: str, stdin: str = "") -> Answer:
        """Run one command that must succeed."""
        answer = self(*arguments, stdin=stdin)
        assert answer.exit_code == 0, answer.err
        return answer


@pytest.fixture
def fake() -> Iterator[FakeControl]:
    """A fake control plane that answers at once."""
    with serve_in_thread(FakeControl(step_seconds=0.0)) as running:
        yield running


@pytest.fixture
def stranger(tmp_path: Path) -> Wap:
    """Nobody is logged in and nothing is configured."""
    return Wap(tmp_path / "config" / "config.json")


@pytest.fixture
def wap(fake: FakeControl, stranger: Wap) -> Wap:
    """Logged in as admin, with project demo as the default."""
    return logged_in(fake, stranger, "admin")


def logged_in(fake: FakeControl, wap: Wap, username: str) -> Wap:
    """The same with a session of this user."""
    ca_pem = (fake.ca_pem or b"").decode()
    token = fake.call(lambda: fake.session(username))
    save(Config(endpoint=fake.endpoint, ca_pem=ca_pem, token=token, project="demo"), wap.config_file)
    return wap
