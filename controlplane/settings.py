"""Settings of `wap server`: flags win over environment (WAP_...) over file; nothing else reads the environment.

What is wrong with them is said in one sentence that names the setting and where it was given, and repeats no password.
"""

import difflib
import ipaddress
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from controlplane.domain.failure import FailureCode, WapFailure

API_PORT, AGENT_PORT, CONSOLE_PORT = 7443, 7444, 7481
DEFAULT_STATE = Path("~/.local/state/wap").expanduser()
# Amazon Linux 2023, by the public parameter that always names its newest image.
DEFAULT_IMAGE = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
# What CloudWatch takes as the name of a log group.
LOG_GROUP = re.compile(r"cloudwatch:[A-Za-z0-9_./#-]{1,512}")
# Values that are not repeated when they are not acceptable.
MAY_HOLD_PASSWORDS = frozenset({"db", "metrics_store", "metrics_read_url", "otlp_logs_url"})


class MongodbDistribution(BaseModel):
    """Where nodes find one version: `directory` on the node, or `url` of a .tgz and its `sha256`."""

    model_config = ConfigDict(extra="forbid")
    directory: str = ""
    url: str = ""
    sha256: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> "MongodbDistribution":
        if bool(self.directory) == bool(self.url) or bool(self.url) != bool(self.sha256):
            raise ValueError("give either directory, or url and sha256")
        return self


class Settings(BaseSettings):
    """One value per setting; see the descriptions."""

    model_config = SettingsConfigDict(env_prefix="WAP_", env_nested_delimiter="__", extra="forbid")

    state_dir: Annotated[Path, Field(description="directory of the embedded database, master key and lock")] = (
        DEFAULT_STATE
    )
    db: Annotated[
        str, Field(description="sqlite:///path or postgresql://...; default: SQLite in the state directory")
    ] = ""
    db_wait_seconds: Annotated[
        float, Field(ge=0, le=3600, description="how long to wait at the start for a database that does not answer")
    ] = 60.0
    listen: Annotated[str, Field(description="address that the API and the agent port bind")] = "127.0.0.1"
    advertise: Annotated[str, Field(description="host name or address by which agents reach us; default: listen")] = ""
    api_port: Annotated[int, Field(ge=0, le=65535, description="port of the public API and of enrolment")] = API_PORT
    agent_port: Annotated[int, Field(ge=0, le=65535, description="port of enrolled agents (mutual TLS)")] = AGENT_PORT
    console: Annotated[bool, Field(description="serve the web console from this process too")] = False
    console_port: Annotated[int, Field(ge=0, le=65535, description="port of the web console")] = CONSOLE_PORT
    region: Annotated[str, Field(description="default AWS region")] = "us-east-1"
    regions: Annotated[
        list[str], NoDecode, Field(description="AWS regions offered, with commas; default: only the default region")
    ] = []
    network_pool: Annotated[str, Field(description="/16 from which each cluster gets a /24")] = "10.77.0.0/16"
    image: Annotated[str, Field(description="AMI id, or SSM parameter that names one")] = DEFAULT_IMAGE
    instance_profile: Annotated[str, Field(description="IAM instance profile of the nodes")] = ""
    kms_key: Annotated[str, Field(description="KMS key of data volumes; default: the account's EBS key")] = ""
    boot_command: Annotated[
        str, Field(description="last line of user data; default: install agent_package and start it")
    ] = ""
    agent_package: Annotated[str, Field(description="what pip installs on a node to get the agent")] = "wap"
    mongodb: Annotated[
        dict[str, MongodbDistribution], Field(description="MongoDB versions offered and where nodes find them")
    ] = {}
    mongodb_dir: Annotated[
        str, Field(description="a distribution's directory; its version is asked from bin/mongod")
    ] = ""
    cache_gib: Annotated[float, Field(ge=0, description="WiredTiger cache per mongod; 0: mongod's own default")] = 0.0
    oplog_mib: Annotated[int, Field(ge=0, description="oplog size; 0: mongod's own default")] = 0
    master_key_file: Annotated[
        str, Field(description="32 byte key of the vault, mode 0600; default: in the state directory")
    ] = ""
    master_key_kms: Annotated[str, Field(description="KMS key that wraps the vault's key, instead of the file")] = ""
    max_clusters_per_project: Annotated[int, Field(ge=1, description="quota")] = 100
    agent_certificate_hours: Annotated[float, Field(gt=0, description="life of agent certificates")] = 24.0
    log_format: Annotated[str, Field(pattern="^(console|json)$", description="console or json")] = "console"
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    metrics_port: Annotated[
        int, Field(ge=0, le=65535, description="HTTP: our own health on /metrics, all control planes on /sd; 0: off")
    ] = 0
    metrics_store: Annotated[
        str, Field(description="where metrics are kept: duckdb (a file), or the URL of a Prometheus remote write")
    ] = "duckdb"
    metrics_read_url: Annotated[
        str, Field(description="URL before /api/v1/query_range; default: the one that metrics_store begins with")
    ] = ""
    logs_store: Annotated[str, Field(description="where logs are kept: duckdb (a file), or cloudwatch:LOG_GROUP")] = (
        "duckdb"
    )
    otlp_logs_url: Annotated[str, Field(description="URL to which log lines are exported too, OTLP over HTTP")] = ""
    logs_days: Annotated[float, Field(gt=0, description="days that the embedded store keeps log lines")] = 30.0
    logs_gib: Annotated[float, Field(ge=0.1, description="GiB that log lines take at most in the embedded store")] = 5.0
    allow_private_webhooks: Annotated[
        bool, Field(description="alert webhooks may go to private and loopback addresses, and by plain http")
    ] = False
    sweep_minutes: Annotated[
        float, Field(ge=0, description="minutes between looks for ownerless cloud resources; 0: never")
    ] = 10.0
    crash_at: Annotated[str, Field(description="for crash tests: end the process at this boundary")] = ""

    @field_validator("db")
    @classmethod
    def _database(cls, value: str) -> str:
        if not value:
            return value
        try:
            url = make_url(value)
        except ArgumentError:
            raise ValueError("is not a database URL") from None
        if url.get_backend_name() not in {"sqlite", "postgresql"} or not url.database or url.database == ":memory:":
            raise ValueError("must name a SQLite file or a PostgreSQL database")
        return value

    @field_validator("metrics_store")
    @classmethod
    def _metrics_store(cls, value: str) -> str:
        return value if value == "duckdb" else _http_url(value, "duckdb")

    @field_validator("metrics_read_url", "otlp_logs_url")
    @classmethod
    def _url(cls, value: str) -> str:
        return _http_url(value, "nothing") if value else value

    @field_validator("logs_store")
    @classmethod
    def _logs_store(cls, value: str) -> str:
        if value != "duckdb" and not LOG_GROUP.fullmatch(value):
            raise ValueError("must be duckdb, or cloudwatch: and the name of a log group")
        return value

    @field_validator("regions", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("network_pool")
    @classmethod
    def _pool(cls, value: str) -> str:
        if ipaddress.ip_network(value).prefixlen != 16:
            raise ValueError("must be a /16")
        return value

    @model_validator(mode="after")
    def _defaults(self) -> "Settings":
        self.state_dir = self.state_dir.expanduser().absolute()
        self.db = self.db or f"sqlite:///{self.state_dir / 'wap.db'}"
        self.advertise = self.advertise or self.listen
        self.regions = self.regions or [self.region]
        self.master_key_file = self.master_key_file or str(self.state_dir / "master.key")
        if self.region not in self.regions:
            raise ValueError(f"region {self.region} is not one of regions")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment; the file is merged by `load`."""
        return init_settings, env_settings, _FileSource(settings_cls)


class _FileSource(PydanticBaseSettingsSource):
    """The TOML or JSON file that `load` was given."""

    values: dict[str, Any] = {}  # noqa: RUF012 - set by load for the one Settings it builds

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """The file's value of one field."""
        return self.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All values of the file."""
        return self.values


def load(flags: dict[str, Any], file: Path | None = None) -> Settings:
    """Settings from flags (None means not given), environment and file. Raises WapFailure naming the setting."""
    _FileSource.values = _read(file) if file else {}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise _named(error, given, file) from None
    except SettingsError as error:  # an environment variable that should hold JSON and does not
        name = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "settings")
        raise _wrong(name, "is not JSON", f"environment variable WAP_{name.upper()}") from None


def _http_url(value: str, instead: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"must be {instead}, or a URL that begins with http:// or https://")
    return value


def _named(error: ValidationError, flags: dict[str, Any], file: Path | None) -> WapFailure:
    """The first thing that is wrong, and where it was given."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name = path[0] if path else ""
    if name in flags:
        source = f"flag --{name.replace('_', '-')}"
    elif f"WAP_{name.upper()}" in os.environ:
        source = f"environment variable WAP_{name.upper()}"
    else:
        source = str(file or "")
    if first["type"] == "extra_forbidden" and len(path) == 1:
        similar = difflib.get_close_matches(name, Settings.model_fields, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        return _wrong(name, f"is unknown{hint}", source)
    said = first["msg"].removeprefix("Value error, ")
    # Of what may hold a password, and of whole groups of settings, nothing is repeated.
    value = first.get("input")
    given = value if name not in MAY_HOLD_PASSWORDS and isinstance(value, str | int | float) else ""
    return _wrong(".".join(path) or "settings", f"is not acceptable: {said}", source, given)


def _wrong(name: str, what: str, source: str, given: object = "") -> WapFailure:
    field = Settings.model_fields.get(name.partition(".")[0])
    return WapFailure(
        FailureCode.INVALID_ARGUMENT,
        f"{source}: setting {name} {what}" if source else f"setting {name} {what}",
        field=name,
        given=given,
        allowed=(field.description or "") if field is not None else "",
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
        value = json.loads(text, object_pairs_hook=_once) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise WapFailure(
            FailureCode.INVALID_ARGUMENT, f"cannot read {file}: {error.strerror}", field="config", given=file
        ) from None
    except ValueError as error:  # both parsers say line and column
        raise WapFailure(FailureCode.INVALID_ARGUMENT, f"{file}: {error}", field="config", given=file) from None
    if not isinstance(value, dict):
        text = f"{file}: must hold one object, with a key for each setting"
        raise WapFailure(FailureCode.INVALID_ARGUMENT, text, field="config", given=file)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a key stand twice, and one of the values would be dropped."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)} stands there twice")
    return value
