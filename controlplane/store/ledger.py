"""The ledger: what was asked of AWS, written before the call. Only what stands here may ever be deleted by the sweep."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from controlplane.store.tables import CloudResource


def intend(
    tx: Session,
    *,
    cluster_id: str,
    operation_id: str,
    region: str,
    kind: str,
    resource: str,
    client_token: str,
    zone: str,
    now: datetime,
) -> None:
    """Write down that this resource is about to be asked for; asking twice with the same token is one entry."""
    query = select(CloudResource).where(
        CloudResource.cluster_id == cluster_id,
        CloudResource.resource == resource,
        CloudResource.client_token == client_token,
    )
    entry = tx.scalar(query)
    if entry is None:
        tx.add(
            CloudResource(
                cluster_id=cluster_id,
                operation_id=operation_id,
                region=region,
                kind=kind,
                resource=resource,
                client_token=client_token,
                zone=zone,
                requested_at=now,
            )
        )
    elif entry.deleted_at is not None:
        entry.deleted_at, entry.cloud_id, entry.requested_at = None, "", now


def made(tx: Session, *, cluster_id: str, resource: str, client_token: str, cloud_id: str) -> None:
    """Write down what AWS called it."""
    tx.execute(
        update(CloudResource)
        .where(
            CloudResource.cluster_id == cluster_id,
            CloudResource.resource == resource,
            CloudResource.client_token == client_token,
        )
        .values(cloud_id=cloud_id)
    )


def deleted(tx: Session, *, cluster_id: str, resource: str, now: datetime) -> None:
    """Write down that nothing of this logical resource is left."""
    tx.execute(
        update(CloudResource)
        .where(
            CloudResource.cluster_id == cluster_id,
            CloudResource.resource == resource,
            CloudResource.deleted_at.is_(None),
        )
        .values(deleted_at=now)
    )


def cloud_id(tx: Session, cluster_id: str, resource: str) -> str:
    """AWS's id of the living logical resource, or "" if there is none."""
    query = (
        select(CloudResource.cloud_id)
        .where(
            CloudResource.cluster_id == cluster_id,
            CloudResource.resource == resource,
            CloudResource.deleted_at.is_(None),
            CloudResource.cloud_id != "",
        )
        .order_by(CloudResource.id.desc())
    )
    return tx.scalar(query.limit(1)) or ""


def living(tx: Session) -> Sequence[CloudResource]:
    """Every entry that is not known to be deleted."""
    return tx.scalars(select(CloudResource).where(CloudResource.deleted_at.is_(None))).all()


def all_entries(tx: Session) -> Sequence[CloudResource]:
    """Every entry that was ever made."""
    return tx.scalars(select(CloudResource)).all()
