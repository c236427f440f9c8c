"""What step handlers work with, put together once by the composition root."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controlplane.cloud.port import Cloud
from controlplane.domain.clock import Clock
from controlplane.fleet.authority import Authority
from controlplane.fleet.port import Fleet
from controlplane.store.database import Database
from controlplane.store.vault import Vault


@dataclass(frozen=True)
class Distribution:
    """Where nodes find one MongoDB version: a directory on the node, or a .tgz and its SHA-256."""

    version: str
    directory: str = ""
    url: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Installation:
    """Facts of this installation that steps put into the cloud."""

    install_id: str
    # Key of client tokens and join tokens: only this installation can make them.
    install_key: bytes
    enroll_endpoint: str
    # PEM that agents pin as the control plane's authority.
    ca_pem: str
    boot_command: str
    image: str
    instance_profile: str
    kms_key: str
    network_pool: str
    distributions: Mapping[str, Distribution]
    # WiredTiger cache of each mongod in GiB; 0 leaves mongod's own default (half of the memory).
    cache_gib: float = 0.0
    oplog_mib: int = 0


@dataclass(frozen=True)
class Persistence:
    """How long, in seconds, a step keeps trying what may succeed later (throttling, a lost agent) before it fails."""

    total: float = 300.0
    first_pause: float = 0.5
    longest_pause: float = 15.0


@dataclass(frozen=True)
class Tools:
    """Database, cloud, agents and facts."""

    database: Database
    cloud: Callable[[str], Cloud]
    fleet: Fleet
    authority: Authority
    vault: Vault
    clock: Clock
    installation: Installation
    persistence: Persistence = Persistence()
    # Called at every boundary of every step with its name; the crash tests end the process there.
    boundary: Callable[[str], None] = lambda _name: None
