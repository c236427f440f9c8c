"""Where everything of the agent lies, and what the boot script told it."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from agent.failure import FailureCode, NodeFailure, printable
from agent.files import write_private


@dataclass(frozen=True)
class NodePaths:
    """Every path that the agent uses, below `root` ("/" on a machine of its own)."""

    root: Path

    @property
    def config(self) -> Path:
        """What the boot script wrote."""
        return self.root / "etc/wap/agent.json"

    @property
    def state(self) -> Path:
        """The agent's own directory, mode 0700."""
        return self.root / "var/lib/wap"

    @property
    def identity(self) -> Path:
        """Key, certificate and trusted authorities."""
        return self.state / "identity.json"

    @property
    def journal(self) -> Path:
        """Outcomes of commands."""
        return self.state / "journal.db"

    @property
    def telemetry(self) -> Path:
        """Samples and log lines that the control plane does not have yet."""
        return self.state / "telemetry.db"

    @property
    def goal(self) -> Path:
        """What must run on this node."""
        return self.state / "goal.json"

    @property
    def epoch(self) -> Path:
        """The highest fencing number seen."""
        return self.state / "epoch"

    @property
    def lock(self) -> Path:
        """Held by the one agent of this node."""
        return self.state / "agent.lock"

    @property
    def member_key(self) -> Path:
        """The member's private key; it never leaves the node."""
        return self.state / "tls/member.key"

    @property
    def mongod(self) -> Path:
        """Configuration, keyfile, certificates and pid of mongod."""
        return self.state / "mongod"

    @property
    def mongod_config(self) -> Path:
        """mongod.conf."""
        return self.mongod / "mongod.conf"

    @property
    def keyfile(self) -> Path:
        """The secret that the members of the set share."""
        return self.mongod / "keyfile"

    @property
    def member_pem(self) -> Path:
        """Certificate and key in one file, as mongod wants them."""
        return self.mongod / "member.pem"

    @property
    def cluster_ca(self) -> Path:
        """The authority of the cluster's members."""
        return self.mongod / "ca.pem"

    @property
    def mongod_pid(self) -> Path:
        """Pid and start time of the running mongod."""
        return self.mongod / "mongod.pid"

    @property
    def distributions(self) -> Path:
        """Fetched MongoDB distributions by version."""
        return self.state / "distributions"

    @property
    def logs(self) -> Path:
        """Logs of agent and mongod."""
        return self.root / "var/log/wap"

    @property
    def agent_log(self) -> Path:
        """The agent's log, one JSON object per line."""
        return self.logs / "agent.log"

    @property
    def mongod_log(self) -> Path:
        """mongod's own log."""
        return self.logs / "mongod.log"

    @property
    def mongod_output(self) -> Path:
        """What mongod prints before its log is open."""
        return self.logs / "mongod.out"

    def volume(self, volume_id: str) -> Path:
        """Where a data volume is mounted."""
        return self.state / "volumes" / volume_id

    def device(self, volume_id: str) -> Path:
        """The link that udev makes for an EBS volume on Nitro instances."""
        name = f"nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
        return self.root / "dev/disk/by-id" / name


@dataclass(frozen=True, repr=False)
class AgentConfig:
    """agent.json. The join token is there until the agent has enrolled."""

    node_id: str
    enroll_endpoint: str
    ca_pem: str
    join_token: str = ""


# What each field must look like, and that in words.
FIELDS: dict[str, tuple[re.Pattern[str], str]] = {
    "node_id": (re.compile(r"[A-Za-z0-9_-]{1,64}"), "1 to 64 letters, digits, '_' and '-'"),
    "enroll_endpoint": (re.compile(r"[^\s/]{1,255}:\d{1,5}"), "host:port"),
    "ca_pem": (re.compile(r"-----BEGIN CERTIFICATE-----.{1,65536}", re.DOTALL), "PEM certificates"),
    "join_token": (re.compile(r"\S{0,1024}"), "the token of the boot script, or nothing"),
}


def load_config(path: Path) -> AgentConfig:
    """Read agent.json; NodeFailure INVALID_ARGUMENT names the field that is wrong."""
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise _bad_config(path, f"cannot be read: {os.strerror(error.errno or 0)}") from None
    except ValueError:
        raise _bad_config(path, "is not JSON") from None
    if not isinstance(values, dict):
        raise _bad_config(path, "is not a JSON object")
    unknown = next((str(name) for name in values if name not in FIELDS), None)
    if unknown is not None:
        raise _bad_config(path, f"has an unknown field {printable(unknown)[:64]}")
    for name, (pattern, allowed) in FIELDS.items():
        value = values.get(name, "")
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _bad_config(path, f"has a bad field {name}", field=name, allowed=allowed)
    return AgentConfig(**values)


def spend_token(path: Path, config: AgentConfig) -> None:
    """Forget the join token: it is used, and must not lie around."""
    kept = {"node_id": config.node_id, "enroll_endpoint": config.enroll_endpoint, "ca_pem": config.ca_pem}
    write_private(path, json.dumps(kept, indent=2))


def _bad_config(path: Path, what: str, *, field: str = "config", allowed: str = "") -> NodeFailure:
    allowed = allowed or "a JSON object with node_id, enroll_endpoint (host:port), ca_pem and join_token"
    return NodeFailure(FailureCode.INVALID_ARGUMENT, f"{path} {what}", field=field, allowed=allowed)
