"""Looking for cloud resources that no living cluster owns.

The cloud is listed first and our records read second: a resource that is made in between is then in the records, so it
cannot look ownerless. Reported by default; deleted only when asked to, and only what the ledger proves is ours (an
entry with this very id, or for an instance this very client token: tags alone can be edited by others).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.cloud.port import TAG_CLUSTER, Cloud, CloudResource
from controlplane.domain.cluster import ClusterState
from controlplane.domain.failure import CloudFailure
from controlplane.store import ledger
from controlplane.store.database import Database
from controlplane.store.tables import Cluster

log = structlog.get_logger(__name__)
# Removal order: what depends on something goes before it.
ORDER = ("instance", "volume", "security-group", "gateway", "subnet", "vpc")


@dataclass(frozen=True)
class Orphan:
    """A resource with our installation's tag that no living cluster owns."""

    resource: CloudResource
    # True when the ledger proves that this installation made it.
    proved: bool


async def find_orphans(database: Database, cloud: Cloud, install_id: str) -> Sequence[Orphan]:
    """What is there and belongs to nobody, in removal order."""
    listed = await cloud.inventory(install_id)

    def records(tx: Session) -> tuple[set[str], set[str], set[str]]:
        alive = set(tx.scalars(select(Cluster.id).where(Cluster.state != ClusterState.DELETED)))
        entries = ledger.all_entries(tx)
        return (
            alive,
            {entry.cloud_id for entry in entries if entry.cloud_id},
            {entry.client_token for entry in entries},
        )

    alive, known_ids, known_tokens = await database.read(records)
    orphans = [
        Orphan(item, item.id in known_ids or (bool(item.client_token) and item.client_token in known_tokens))
        for item in listed
        if item.tags.get(TAG_CLUSTER) not in alive
    ]
    return sorted(orphans, key=lambda orphan: ORDER.index(orphan.resource.kind))


async def remove_orphans(cloud: Cloud, orphans: Sequence[Orphan]) -> list[str]:
    """Delete what the ledger proves is ours; ids of what is gone. What AWS does not let go stays for the next look."""
    removed = []
    for orphan in orphans:
        if not orphan.proved:
            continue
        try:
            await cloud.delete(orphan.resource.kind, orphan.resource.id)
        except CloudFailure as failure:
            log.warning("not swept", id=orphan.resource.id, reason=str(failure))
        else:
            removed.append(orphan.resource.id)
    return removed
