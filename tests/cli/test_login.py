"""Logging in, and what stays on disk."""

import json
import stat
from pathlib import Path

import pytest

from console.fake import FakeControl
from tests.cli.conftest import Answer, Wap


def ca_file(fake: FakeControl, directory: Path) -> str:
    path = directory / "ca.pem"
    path.write_bytes(fake.ca_pem or b"")
    return str(path)


def log_in(wap: Wap, fake: FakeControl, directory: Path, password: str = "password") -> Answer:
    arguments = ("login", "--endpoint", fake.endpoint, "--ca-file", ca_file(fake, directory), "--username", "admin")
    return wap(*arguments, "--password-stdin", stdin=f"{password}\n")


def test_login_keeps_a_token_and_no_password_in_a_private_file(
    stranger: Wap, fake: FakeControl, tmp_path: Path
) -> None:
    assert log_in(stranger, fake, tmp_path).exit_code == 0
    assert stat.S_IMODE(stranger.config_file.stat().st_mode) == 0o600
    stored = json.loads(stranger.config_file.read_text())
    assert stored["token"].startswith("waps_")
    assert "password" not in stranger.config_file.read_text()
    assert stranger.ok("whoami", "--json").json()["actor"] == "user:admin"


def test_a_wrong_password_is_denied_and_nothing_is_kept(stranger: Wap, fake: FakeControl, tmp_path: Path) -> None:
    answer = log_in(stranger, fake, tmp_path, "not this one")
    assert answer.exit_code == 4
    assert "User name or password is wrong." in answer.err
    assert "UNAUTHENTICATED" in answer.err
    assert "not this one" not in answer.out + answer.err
    assert not stranger.config_file.exists()


def test_a_password_cannot_be_given_on_the_command_line(stranger: Wap) -> None:
    for name in ("--password", "-P"):
        assert stranger("login", "--username", "admin", name, "secret").exit_code == 2


def test_without_a_terminal_or_stdin_nobody_is_asked(stranger: Wap, fake: FakeControl) -> None:
    answer = stranger("login", "--endpoint", fake.endpoint, "--username", "admin")
    assert answer.exit_code == 2
    assert "--password-stdin" in answer.err


def test_logout_ends_the_session_on_the_control_plane_too(wap: Wap) -> None:
    token = json.loads(wap.config_file.read_text())["token"]
    assert wap("whoami", WAP_TOKEN=token).exit_code == 0  # control: the token works until then
    wap.ok("logout")
    assert "token" not in json.loads(wap.config_file.read_text())
    assert wap("whoami", WAP_TOKEN=token).exit_code == 4
    assert wap("whoami").exit_code == 4


def test_changing_the_password(wap: Wap, fake: FakeControl, tmp_path: Path) -> None:
    short = wap("password", "--password-stdin", stdin="password\nshort\n")
    assert (short.exit_code, "12 to 128 characters" in short.err) == (2, True)
    wap.ok("password", "--password-stdin", stdin="password\na much longer one\n")
    assert log_in(wap, fake, tmp_path).exit_code == 4
    assert log_in(wap, fake, tmp_path, "a much longer one").exit_code == 0


def test_a_configuration_that_others_may_read_is_refused(wap: Wap) -> None:
    wap.ok("whoami")  # control
    wap.config_file.chmod(0o644)
    answer = wap("whoami")
    assert answer.exit_code == 2
    assert "chmod 600" in answer.err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        ('{"endpont": "a:1"}', "unknown key 'endpont'"),
        ('{"endpoint": 7}', "must be text, not int"),
    ],
)
def test_an_unusable_configuration_is_named(stranger: Wap, content: str, told: str) -> None:
    stranger.config_file.parent.mkdir()
    stranger.config_file.write_text(content)
    stranger.config_file.chmod(0o600)
    answer = stranger("whoami")
    assert answer.exit_code == 2
    assert told in answer.err
    assert str(stranger.config_file) in answer.err


def test_the_environment_wins_over_the_file(wap: Wap, fake: FakeControl, tmp_path: Path) -> None:
    assert wap("whoami", WAP_ENDPOINT="127.0.0.1:1").exit_code == 6
    assert wap("whoami", WAP_TOKEN="wap_wrong").exit_code == 4
    assert wap("cluster", "create", "one", "--plan", WAP_PROJECT="nowhere").exit_code == 3
    missing = wap("whoami", WAP_CA_FILE=str(tmp_path / "absent.pem"))
    assert (missing.exit_code, "cannot be read" in missing.err) == (2, True)


def test_without_any_configuration_the_next_step_is_told(stranger: Wap) -> None:
    answer = stranger("cluster", "list")
    assert answer.exit_code == 2
    assert "wap login" in answer.err
