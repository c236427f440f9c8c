"""What servicers work with, put together once by the composition root."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from controlplane.alerting.channels import Channels
from controlplane.api.monitoring import Monitoring
from controlplane.api.passwords import Passwords
from controlplane.domain.clock import Clock
from controlplane.domain.cluster import Choices
from controlplane.store.database import Database
from controlplane.store.operations import OperationQueue
from controlplane.store.vault import Vault


@dataclass(frozen=True)
class Services:
    """Store, queue and facts of this installation."""

    database: Database
    vault: Vault
    clock: Clock
    queue: OperationQueue
    # Regions, zones of the given region, MongoDB versions. Instance types are the catalogue's.
    choices: Callable[[str], Awaitable[Choices]]
    default_region: str
    monitoring: Monitoring
    max_clusters_per_project: int = 100
    passwords: Passwords = field(default_factory=Passwords)
    # What alert channels are tried with.
    channels: Channels = field(default_factory=Channels)
