"""Leases: work that one control plane at a time does, by the database's clock, which all of them share.

A lease is looked at in the transaction that does the work: who froze and lost it finds out before anything is written.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.store.alert_tables import Lease
from controlplane.store.database import take_turns


def hold(tx: Session, name: str, holder: str, life: timedelta) -> bool:
    """Take the lease, or renew it, until `life` from now; False while another one has it."""
    take_turns(tx, f"lease/{name}")
    now, lease = _now(tx), tx.get(Lease, name)
    if lease is None:
        tx.add(Lease(name=name, holder=holder, until=now + life))
        tx.flush()
        return True
    if lease.holder != holder and lease.until > now:
        return False
    lease.holder, lease.until = holder, now + life
    return True


def release(tx: Session, name: str, holder: str) -> None:
    """Let another one take it at once."""
    lease = tx.get(Lease, name)
    if lease is not None and lease.holder == holder:
        tx.delete(lease)


def _now(tx: Session) -> datetime:
    """PostgreSQL's clock. SQLite has one process, and its clock is the machine's."""
    if tx.get_bind().dialect.name == "postgresql":
        moment: datetime = tx.execute(select(func.clock_timestamp())).scalar_one()
        return moment
    return datetime.now(UTC)
