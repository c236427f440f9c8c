"""The boot script, really run by bash: what goes in comes out as the agent's file, whatever it is."""

import json
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.cloud.userdata import MAX_BYTES, default_boot_command, render
from controlplane.domain.failure import CloudFailure, FailureCode

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
NASTY = "'; touch owned; echo \"$(id)\" `id` \\ ${HOME} %s %n\n'\x00EOF\n"


def boot(script: str, root: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-s"],
        input=script.encode(),
        env={"PATH": "/usr/bin:/bin", "WAP_ROOT": str(root), **environment},
        cwd=root,
        capture_output=True,
        timeout=20,
    )


def script(boot_command: str = "true", **values: str) -> str:
    fields = {"node_id": "nd-1", "enroll_endpoint": "127.0.0.1:7443", "ca_pem": "PEM", "join_token": "wapjoin_x"}
    return render(**fields | values, boot_command=boot_command)


def written(root: Path) -> dict[str, str]:
    return dict(json.loads((root / "etc/wap/agent.json").read_text()))


@settings(max_examples=40, deadline=None)
@given(node_id=ANY_TEXT, endpoint=ANY_TEXT, ca_pem=ANY_TEXT, token=ANY_TEXT)
def test_any_value_arrives_as_it_is(node_id: str, endpoint: str, ca_pem: str, token: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        done = boot(script(node_id=node_id, enroll_endpoint=endpoint, ca_pem=ca_pem, join_token=token), root)
        assert done.returncode == 0, done.stderr
        assert written(root) == {
            "node_id": node_id,
            "enroll_endpoint": endpoint,
            "ca_pem": ca_pem,
            "join_token": token,
        }
        assert {path.name for path in root.iterdir()} == {"etc"}


def test_nothing_in_a_value_is_run(tmp_path: Path) -> None:
    done = boot(script(node_id=NASTY, ca_pem=NASTY, join_token=NASTY), tmp_path)
    assert done.returncode == 0
    assert done.stdout == b""
    assert written(tmp_path)["join_token"] == NASTY
    assert not (tmp_path / "owned").exists()


def test_the_same_value_unquoted_would_be_run(tmp_path: Path) -> None:
    boot(f"true '{NASTY}'".replace("\x00", ""), tmp_path)
    assert (tmp_path / "owned").exists()


def test_only_the_owner_can_read_the_token(tmp_path: Path) -> None:
    boot(script(), tmp_path)
    assert stat.S_IMODE((tmp_path / "etc/wap/agent.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("environment", [{}, {"WAP_BOOT": "again"}])
def test_a_later_boot_leaves_the_file_alone_and_starts_the_agent(tmp_path: Path, environment: dict[str, str]) -> None:
    boot(script(), tmp_path)
    (tmp_path / "etc/wap/agent.json").write_text('{"node_id": "enrolled"}')
    done = boot(script('echo "started in $WAP_ROOT"'), tmp_path, **environment)
    assert done.stdout.decode().strip() == f"started in {tmp_path}"
    assert written(tmp_path) == {"node_id": "enrolled"}


def test_a_boot_again_never_writes_the_token(tmp_path: Path) -> None:
    boot(script(), tmp_path, WAP_BOOT="again")
    assert not (tmp_path / "etc/wap/agent.json").exists()


def test_too_long_for_ec2_is_refused() -> None:
    assert len(script(ca_pem="x" * (MAX_BYTES - 2000)).encode()) <= MAX_BYTES
    with pytest.raises(CloudFailure, match=str(MAX_BYTES)) as refused:
        script(ca_pem="x" * MAX_BYTES)
    assert refused.value.code is FailureCode.CLOUD_INVALID


def test_the_boot_command_for_aws_is_bash_and_quotes_the_package() -> None:
    command = default_boot_command("https://example.com/wap.whl?a=1&b='2'")
    subprocess.run(["bash", "-n"], input=script(command).encode(), check=True)
    assert """'https://example.com/wap.whl?a=1&b='"'"'2'"'"''""" in command
    assert "Restart=always" in command
