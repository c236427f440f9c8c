"""`wap server` as a process: one sentence and an exit code when it cannot start, and nothing lost by having tried."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
CANARY = "hunter2-canary"


class Start:
    """One start of `wap server`, with settings as environment; free ports unless told otherwise."""

    def __init__(self, state: Path, distribution: Path, *flags: str, **settings: object) -> None:
        wish = {"state_dir": state, "api_port": 0, "agent_port": 0, "mongodb_dir": distribution, "sweep_minutes": 0}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WAP_", "AWS_"))}
        given = {f"WAP_{name.upper()}": str(value) for name, value in (wish | settings).items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "controlplane", "--ready", "json", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=kept | given | {"AWS_EC2_METADATA_DISABLED": "true"},
            cwd=REPOSITORY,
        )

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            pytest.fail(f"it did not start: {self.process.communicate(timeout=10)[1][-2000:]}")
        return dict(json.loads(line))

    def refusal(self) -> str:
        """The sentence that it ended with."""
        out, errors = self.process.communicate(timeout=30)
        assert self.process.returncode in {1, 2}, errors
        assert out == ""
        assert "Traceback" not in errors
        said = [line for line in errors.splitlines() if line.startswith("wap server: ")]
        assert len(said) == 1, errors
        return said[0].removeprefix("wap server: ")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture
def started() -> Iterator[list[Start]]:
    """Starts of a test; what runs still is ended."""
    starts: list[Start] = []
    yield starts
    for one in starts:
        one.stop()


def test_a_start_a_second_beside_it_and_a_restart(tmp_path: Path, mongodb_dir: Path, started: list[Start]) -> None:
    state = tmp_path / "a state"
    started.append(first := Start(state, mongodb_dir))
    ready = first.ready()
    assert ready["admin_password"]
    assert Path(ready["ca_file"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert state.stat().st_mode & 0o077 == 0
    assert (state / "master.key").stat().st_mode & 0o077 == 0

    port = ready["api"].rpartition(":")[2]
    same_state = Start(state, mongodb_dir)
    same_database = Start(tmp_path / "other", mongodb_dir, db=f"sqlite:///{state / 'wap.db'}")
    same_port = Start(tmp_path / "third", mongodb_dir, api_port=port)
    assert "another control plane already runs" in same_state.refusal()
    assert "another control plane already runs" in same_database.refusal()
    assert f"cannot listen on 127.0.0.1:{port}" in same_port.refusal()
    # What was in the way is gone: the password of the first start is still shown, to someone who sees it.
    assert first.stop() == 0
    started.append(again := Start(tmp_path / "third", mongodb_dir, api_port=port))
    assert again.ready()["admin_password"]
    assert again.stop() == 0
    started.append(back := Start(state, mongodb_dir))
    assert back.ready()["admin_password"] == ""
    assert back.stop() == 0


def test_a_killed_one_leaves_no_lock_behind(tmp_path: Path, mongodb_dir: Path, started: list[Start]) -> None:
    started.append(first := Start(tmp_path, mongodb_dir))
    first.ready()
    first.process.kill()
    first.process.communicate(timeout=10)
    started.append(second := Start(tmp_path, mongodb_dir))
    assert second.ready()["api"]

    wait_until(lambda: (tmp_path / "wap.db").exists(), within=5)
    assert second.stop() == 0
    with sqlite3.connect(tmp_path / "wap.db") as connection:
        newest = connection.execute("select version_num from alembic_version").fetchone()
        connection.execute("update alembic_version set version_num = '9999'")
    said = Start(tmp_path, mongodb_dir).refusal()
    assert "schema 9999, which this version of WAP does not know: run a newer version" in said
    (tmp_path / "master.key").chmod(0o644)
    with sqlite3.connect(tmp_path / "wap.db") as connection:
        connection.execute("update alembic_version set version_num = ?", newest)
    assert "can be read by others" in Start(tmp_path, mongodb_dir).refusal()


def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, mongodb_dir: Path) -> None:
    with contextlib.closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and not listening: refuses connections
        dead = closed.getsockname()[1]
        (tmp_path / "file").touch()
        cases = {
            "directory": Start(tmp_path / "file" / "b", mongodb_dir),
            f"the database 127.0.0.1:{dead}/wap cannot be used": Start(
                tmp_path / "c", mongodb_dir, db=f"postgresql://wap:{CANARY}@127.0.0.1:{dead}/wap", db_wait_seconds=0.5
            ),
            "cannot read": Start(tmp_path / "e", mongodb_dir, "--config", str(tmp_path / "missing.toml")),
            "WAP_API_PORT: setting api_port": Start(tmp_path / "f", mongodb_dir, api_port="many"),
            f"the console cannot be served on 127.0.0.1:{dead}": Start(
                tmp_path / "g", mongodb_dir, console="true", console_port=dead
            ),
        }
        for says, start in cases.items():
            said = start.refusal()
            assert says in said
            assert CANARY not in said
