"""Settings: flags over environment over file; whatever is wrong is named, with where it was given, in one sentence."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.failure import WapFailure
from controlplane.settings import Settings, load

CANARY = "hunter2-canary"


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("WAP_"):
            monkeypatch.delenv(name)


def written(directory: Path, text: str, name: str = "wap.toml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def refusal(flags: dict[str, Any] | None = None, file: Path | None = None) -> WapFailure:
    with pytest.raises(WapFailure) as failure:
        load(flags or {}, file)
    assert "\n" not in str(failure.value)
    return failure.value


def test_without_any_setting_all_is_below_the_state_directory(tmp_path: Path) -> None:
    settings = load({"state_dir": tmp_path})
    assert settings.db == f"sqlite:///{tmp_path}/wap.db"
    assert settings.master_key_file == str(tmp_path / "master.key")
    assert (settings.advertise, settings.regions) == ("127.0.0.1", ["us-east-1"])


def test_flags_win_over_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, 'api_port = 1\nagent_port = 1\nconsole_port = 1\nregion = "eu-west-1"\n')
    monkeypatch.setenv("WAP_API_PORT", "2")
    monkeypatch.setenv("WAP_AGENT_PORT", "2")
    settings = load({"api_port": 3, "agent_port": None}, file)
    assert (settings.api_port, settings.agent_port, settings.console_port) == (3, 2, 1)
    assert settings.region == "eu-west-1"
    assert load({}).region == "us-east-1"  # the file of one load is not the file of the next


def test_json_does_as_well_as_toml(tmp_path: Path) -> None:
    values = {"region": "eu-west-1", "mongodb": {"7.0.14": {"url": "https://example.org/m.tgz", "sha256": "0" * 64}}}
    settings = load({}, written(tmp_path, json.dumps(values), "wap.json"))
    assert (settings.region, settings.mongodb["7.0.14"].sha256) == ("eu-west-1", "0" * 64)


def test_lists_are_given_with_commas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WAP_REGIONS", "us-east-1, eu-west-1")
    assert load({}).regions == ["us-east-1", "eu-west-1"]
    monkeypatch.delenv("WAP_REGIONS")
    assert load({}, written(tmp_path, 'regions = ["us-east-1"]\n')).regions == ["us-east-1"]


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("api_prot = 1\n", "api_prot", "setting api_prot is unknown; did you mean api_port?"),
        ("colour = 1\n", "colour", "setting colour is unknown"),
        ('api_port = "many"\n', "api_port", "setting api_port is not acceptable: Input should be a valid integer"),
        ("api_port = 65536\n", "api_port", "less than or equal to 65535"),
        ("api_port = -1\n", "api_port", "greater than or equal to 0"),
        ('console = "perhaps"\n', "console", "setting console is not acceptable"),
        ('log_level = "LOUD"\n', "log_level", "setting log_level is not acceptable"),
        ('network_pool = "10.0.0.0/8"\n', "network_pool", "must be a /16"),
        ('network_pool = "everywhere"\n', "network_pool", "setting network_pool is not acceptable"),
        ('db = "mysql://a/b"\n', "db", "must name a SQLite file or a PostgreSQL database"),
        ('db = "sqlite://"\n', "db", "must name a SQLite file or a PostgreSQL database"),
        ('db = "nonsense"\n', "db", "is not a database URL"),
        ("[mongodb.'7.0']\nurl = 'x'\n", "mongodb.7.0", "give either directory, or url and sha256"),
        ("[mongodb.'7.0']\nuri = 'x'\n", "mongodb.7.0.uri", "setting mongodb.7.0.uri is not acceptable"),
        ('region = "a"\nregions = ["b"]\n', "settings", "region a is not one of regions"),
        ("sweep_minutes = -1\n", "sweep_minutes", "greater than or equal to 0"),
        ("max_clusters_per_project = 0\n", "max_clusters_per_project", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, field: str, says: str) -> None:
    file = written(tmp_path, text)
    failure = refusal(file=file)
    assert says in str(failure)
    assert str(failure).startswith(str(file))
    assert failure.details.field == field


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("api_port = \n", "wap.toml", "line 1"),
        ("api_port = 1\napi_port = 2\n", "wap.toml", "line 2"),
        ('{"api_port": 1,}', "wap.json", "line 1"),
        ('{"api_port": 1, "api_port": 2}', "wap.json", "the key api_port stands there twice"),
        ("[1, 2]", "wap.json", "must hold one object"),
        ("null", "wap.json", "must hold one object"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path: Path, text: str, name: str, says: str) -> None:
    failure = refusal(file=written(tmp_path, text, name))
    assert says in str(failure)
    assert name in str(failure)
    assert failure.details.field == "config"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert str(refusal(file=missing)) == f"cannot read {missing}: No such file or directory"
    assert str(refusal(file=tmp_path)) == f"cannot read {tmp_path}: Is a directory"
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert str(binary) in str(refusal(file=binary))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_one_may_not_read_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, "")
    file.chmod(0)
    assert str(refusal(file=file)) == f"cannot read {file}: Permission denied"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("API_PORT", "many", "environment variable WAP_API_PORT: setting api_port is not acceptable"),
        ("MONGODB", "not json", "environment variable WAP_MONGODB: setting mongodb is not JSON"),
        ("CONSOLE", "perhaps", "environment variable WAP_CONSOLE: setting console is not acceptable"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"WAP_{name}", value)
    assert str(refusal()).startswith(says)


def test_what_is_wrong_in_a_flag_is_named() -> None:
    failure = refusal({"api_port": 70000})
    assert str(failure).startswith("flag --api-port: setting api_port is not acceptable")
    assert (failure.details.given, failure.details.allowed) == ("70000", Settings.model_fields["api_port"].description)


@pytest.mark.parametrize(
    "values",
    [
        {"db": f"mysql://admin:{CANARY}@host/name"},
        {"db": f"postgresql://admin:{CANARY}@host"},
        {"db": f"postgresql://admin:{CANARY}@host/name", "region": "a", "regions": ["b"]},
    ],
)
def test_a_password_in_the_database_url_is_not_repeated(values: dict[str, Any]) -> None:
    failure = refusal(values)
    assert CANARY not in f"{failure} {failure.details}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metrics_store", "prometheus"),
        ("metrics_store", "ftp://host/write"),
        ("metrics_store", f"postgres://user:{CANARY}@host/"),
        ("metrics_read_url", f"user:{CANARY}@host"),
        ("otlp_logs_url", f"grpc://user:{CANARY}@host:4317"),
        ("logs_store", "cloudwatch"),
        ("logs_store", "cloudwatch:"),
        ("logs_store", "cloudwatch:two words"),
        ("logs_store", "s3:bucket"),
        ("logs_days", 0),
        ("logs_gib", 0.01),
    ],
)
def test_a_store_that_is_none_is_named(name: str, value: Any, tmp_path: Path) -> None:
    failure = refusal({"state_dir": tmp_path, name: value})
    assert failure.details.field == name
    assert CANARY not in repr(failure.details)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metrics_store", "duckdb"),
        ("metrics_store", "https://host:8428/api/v1/write"),
        ("logs_store", "cloudwatch:/wap/Fleet_1.eu#a-b"),
        ("otlp_logs_url", "http://collector:4318/v1/logs"),
    ],
)
def test_control_a_store_that_is_one_is_taken(name: str, value: str, tmp_path: Path) -> None:
    assert getattr(load({"state_dir": tmp_path, name: value}), name) == value
