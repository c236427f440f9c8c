"""Where the command line and scripts find the control plane: a private file, and environment variables that win over it.

File: $WAP_CONFIG, else $XDG_CONFIG_HOME/wap/config.json, else ~/.config/wap/config.json; JSON with "endpoint", "ca_pem"
(PEM text, or the path of a file with it), "token" and "project". It holds a token, so it must be readable by its owner only.
Environment: WAP_ENDPOINT, WAP_CA_FILE, WAP_TOKEN, WAP_PROJECT.
"""

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

PEM_MARK = "-----BEGIN"


class ConfigError(Exception):
    """The configuration cannot be used; the message says where, why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a client; empty means not set. `ca_pem` is PEM text or a path."""

    endpoint: str = ""
    ca_pem: str = ""
    token: str = ""
    project: str = ""

    def __repr__(self) -> str:
        token = "set" if self.token else "not set"
        return f"Config(endpoint={self.endpoint!r}, project={self.project!r}, token {token})"

    def ca_bytes(self) -> bytes | None:
        """The certificate authority to trust, None for the well known ones; ConfigError where the file is unusable."""
        if not self.ca_pem or self.ca_pem.startswith(PEM_MARK):
            return self.ca_pem.encode() or None
        return read_ca(Path(self.ca_pem))


def read_ca(path: Path) -> bytes:
    """The PEM in a CA file; ConfigError where there is none."""
    try:
        content = path.expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"The CA file {path} cannot be read: {error.strerror}.") from None
    if PEM_MARK.encode() not in content:
        raise ConfigError(f"The CA file {path} holds no PEM certificate.")
    return content


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The file in use, whether it exists or not."""
    if environ.get("WAP_CONFIG"):
        return Path(environ["WAP_CONFIG"]).expanduser()
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "wap" / "config.json"


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """File and environment together; ConfigError where either is unusable."""
    config = load_file(config_path(environ))
    changes = {
        "endpoint": environ.get("WAP_ENDPOINT", ""),
        "ca_pem": environ.get("WAP_CA_FILE", ""),
        "token": environ.get("WAP_TOKEN", ""),
        "project": environ.get("WAP_PROJECT", ""),
    }
    return replace(config, **{name: value for name, value in changes.items() if value})


def load_file(path: Path) -> Config:
    """The file alone; an absent file is an empty configuration."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    if mode & 0o077:
        raise ConfigError(f"{path} holds a token and others may read it (mode {mode:04o}). Run: chmod 600 '{path}'")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg}.") from None
    return _checked(path, values)


def save(config: Config, path: Path) -> None:
    """Replace the file in one step; it is never readable by others, not even for a moment."""
    values = {name: value for name, value in vars(config).items() if value}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file with mode 0600.
        handle, temporary = tempfile.mkstemp(prefix=".config-", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(values, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None


def _checked(path: Path, values: object) -> Config:
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object.")
    known = set(Config.__dataclass_fields__)
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{path}: unknown key {name!r}; known are {', '.join(sorted(known))}.")
        if not isinstance(value, str):
            raise ConfigError(f"{path}: {name!r} must be text, not {type(value).__name__}.")
    return Config(**values)
