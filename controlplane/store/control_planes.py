"""The control planes that run on this database."""

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from controlplane.store.tables import ControlPlane

_ALIVE = text("control_plane.heartbeat_at > now() - interval '15 seconds'")


def living_hosts(tx: Session) -> list[str]:
    """Host names of those with a heartbeat, by the database's clock. PostgreSQL only: elsewhere there is one."""
    return sorted(set(tx.scalars(select(ControlPlane.host_name).where(_ALIVE))))
