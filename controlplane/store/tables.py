"""All tables in one place. Times are aware UTC; JSON columns hold plain values, never pickles."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

BigKey = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts only INTEGER keys by itself


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time on both databases: SQLite drops the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times instead of guessing their zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError("naive time")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware UTC."""
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class Base(DeclarativeBase):
    """Parent of all rows; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a class attribute
        datetime: UtcTime,
        dict[str, Any]: JSON,
        str: String(255),
        bytes: LargeBinary,
    }


class Installation(Base):
    """What this installation is: one row per fact (install id, encrypted data key, ...)."""

    __tablename__ = "installation"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Project(Base):
    """A group of clusters and of permissions."""

    __tablename__ = "project"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]


class User(Base):
    """A person; only the argon2id hash of the password is kept."""

    __tablename__ = "wap_user"
    id: Mapped[str] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[datetime]
    last_login_at: Mapped[datetime | None]


class Token(Base):
    """A bearer token: a session of a person (kind "session") or of a program (kind "api"). Only SHA-256 is kept."""

    __tablename__ = "token"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str]
    user_id: Mapped[str | None] = mapped_column(index=True)
    secret_hash: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Grant(Base):
    """A role of a user or token in one project, or in all where project_id is empty."""

    __tablename__ = "access_grant"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    subject_kind: Mapped[str] = mapped_column(String(8))
    subject_id: Mapped[str] = mapped_column(index=True)
    project_id: Mapped[str] = mapped_column(default="")
    role: Mapped[str] = mapped_column(String(16))
    __table_args__ = (UniqueConstraint("subject_kind", "subject_id", "project_id"),)


class LoginAttempts(Base):
    """Failed logins per account and per address, for growing delays."""

    __tablename__ = "login_attempts"
    key: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int]
    blocked_until: Mapped[datetime | None]
    updated_at: Mapped[datetime]


class AuditEvent(Base):
    """One state change or audited refusal, written in the transaction that made it."""

    __tablename__ = "audit_event"
    seq: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    time: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    project_id: Mapped[str] = mapped_column(default="", index=True)
    resource: Mapped[str] = mapped_column(default="", index=True)
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
    request_id: Mapped[str] = mapped_column(default="")
    peer: Mapped[str] = mapped_column(default="")
    outcome: Mapped[str] = mapped_column(default="ok")


class Cluster(Base):
    """Desired state of one cluster, its guard (active_operation_id) and its fencing number (epoch)."""

    __tablename__ = "cluster"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    # Equals name while the cluster lives; name and id afterwards, so that a name can be used again.
    name_key: Mapped[str]
    spec: Mapped[dict[str, Any]]
    generation: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    # Number of the /24 network carved from the installation's pool; freed when the cluster is deleted.
    network_slot: Mapped[int | None] = mapped_column(unique=True)
    usd_per_month: Mapped[float] = mapped_column(Float)
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    active_operation_id: Mapped[str | None]
    epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    __table_args__ = (UniqueConstraint("project_id", "name_key"),)


class Node(Base):
    """One machine: its slot in the cluster, what it became in AWS, its agent's identity and last report."""

    __tablename__ = "node"
    id: Mapped[str] = mapped_column(primary_key=True)
    cluster_id: Mapped[str] = mapped_column(index=True)
    # Slot name, unique in the cluster: "rs0-1".
    name: Mapped[str]
    replica_set: Mapped[str]
    ordinal: Mapped[int]
    zone_wish: Mapped[str]
    zone: Mapped[str] = mapped_column(default="")
    instance_type: Mapped[str]
    disk_gib: Mapped[int]
    instance_id: Mapped[str] = mapped_column(default="")
    volume_id: Mapped[str] = mapped_column(default="")
    private_ip: Mapped[str] = mapped_column(default="")
    agent_state: Mapped[str] = mapped_column(String(16))
    agent_version: Mapped[str] = mapped_column(default="")
    host_name: Mapped[str] = mapped_column(default="")
    session_epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    # Executor id of the control plane that holds the stream.
    session_owner: Mapped[str] = mapped_column(default="")
    last_seen_at: Mapped[datetime | None]
    # Lower-case hex serials of the certificates that may be used: the current one, and the renewed one until it is used.
    certificate_serial: Mapped[str] = mapped_column(default="")
    next_certificate_serial: Mapped[str] = mapped_column(default="")
    certificate_expires_at: Mapped[datetime | None]
    banned_at: Mapped[datetime | None]
    join_token_hash: Mapped[str] = mapped_column(default="", index=True)
    join_expires_at: Mapped[datetime | None]
    # Last NodeReport as JSON with proto field names.
    report: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]
    __table_args__ = (UniqueConstraint("cluster_id", "name"),)


class Operation(Base):
    """One durable change of one cluster."""

    __tablename__ = "operation"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(index=True)
    cluster_id: Mapped[str] = mapped_column(index=True)
    cluster_name: Mapped[str]
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16), index=True)
    actor: Mapped[str]
    request_id: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(index=True)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(default=1)
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)
    failure: Mapped[dict[str, Any] | None]
    summary: Mapped[str] = mapped_column(Text, default="")
    # actor + idempotency key of the request, unique where given, and the digest of what was asked.
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    request_digest: Mapped[str] = mapped_column(default="")
    __table_args__ = (Index("ix_operation_listing", "project_id", "created_at", "id"),)


class OperationStep(Base):
    """One planned step with what has happened to it: the truth for console and command line."""

    __tablename__ = "operation_step"
    operation_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    stage: Mapped[int]
    stage_title: Mapped[str]
    title: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    waits_for: Mapped[str] = mapped_column(Text, default="")
    risk: Mapped[str] = mapped_column(Text, default="")
    undo: Mapped[bool] = mapped_column(Boolean, default=False)
    state: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(Text, default="")
    waiting_for: Mapped[str] = mapped_column(Text, default="")
    attempt: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    failure: Mapped[dict[str, Any] | None]


class CloudResource(Base):
    """The ledger: every AWS resource that was asked for, written before the call, and what came of it."""

    __tablename__ = "cloud_resource"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    cluster_id: Mapped[str] = mapped_column(index=True)
    operation_id: Mapped[str]
    region: Mapped[str]
    kind: Mapped[str] = mapped_column(String(32))
    # Logical name in the cluster: "vpc", "instance:rs0-1".
    resource: Mapped[str]
    client_token: Mapped[str]
    zone: Mapped[str] = mapped_column(default="")
    cloud_id: Mapped[str] = mapped_column(default="", index=True)
    requested_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    __table_args__ = (UniqueConstraint("cluster_id", "resource", "client_token"),)


class Command(Base):
    """One order to one agent: delivered at least once, settled exactly once. The body is encrypted and dropped when done."""

    __tablename__ = "command"
    id: Mapped[str] = mapped_column(primary_key=True)
    node_id: Mapped[str] = mapped_column(index=True)
    operation_id: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    epoch: Mapped[int] = mapped_column(BigInteger)
    deadline: Mapped[datetime]
    body: Mapped[bytes | None]
    # "queued", "accepted", "done"
    state: Mapped[str] = mapped_column(String(16), index=True)
    waiting_for: Mapped[str] = mapped_column(Text, default="")
    # Serialized CommandResult, which carries no secret.
    result: Mapped[bytes | None]
    created_at: Mapped[datetime]
    done_at: Mapped[datetime | None]


class Secret(Base):
    """A secret, encrypted with AES-GCM; the row's identity is the associated data, so rows cannot be swapped."""

    __tablename__ = "secret"
    scope: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    ciphertext: Mapped[bytes]
    created_at: Mapped[datetime]


class ControlPlane(Base):
    """A running `wap server`: its heartbeat, by the database's clock, tells others that it lives."""

    __tablename__ = "control_plane"
    executor_id: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    host_name: Mapped[str] = mapped_column(default="")
