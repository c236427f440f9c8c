"""The tables of alerts: rules, alerts and their history, silences, channels and what waits for them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Float, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.store.tables import Base, BigKey


class AlertRule(Base):
    """A rule of one level; those that come with WAP are not stored. Durations in seconds."""

    __tablename__ = "alert_rule"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    # A cluster's project and a node's cluster are filled in; all empty: the whole installation.
    project_id: Mapped[str] = mapped_column(default="")
    cluster_id: Mapped[str] = mapped_column(default="")
    node_id: Mapped[str] = mapped_column(default="")
    metric: Mapped[str]
    comparison: Mapped[str] = mapped_column(String(16))
    threshold: Mapped[float] = mapped_column(Float)
    window_seconds: Mapped[float] = mapped_column(Float)
    hits: Mapped[int]
    severity: Mapped[str] = mapped_column(String(16))
    hysteresis: Mapped[float] = mapped_column(Float)
    repeat_seconds: Mapped[float | None] = mapped_column(Float)
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    advice: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("project_id", "cluster_id", "node_id", "name"),)


class Alert(Base):
    """A rule that was met, with names as they were: an alert can still be read when its node is gone."""

    __tablename__ = "alert"
    id: Mapped[str] = mapped_column(primary_key=True)
    # Rule name, cluster and node while it is open, else NULL: one open alert for each.
    open_key: Mapped[str | None] = mapped_column(String(512), unique=True)
    rule_id: Mapped[str]
    rule_name: Mapped[str]
    project_id: Mapped[str] = mapped_column(index=True)
    cluster_id: Mapped[str] = mapped_column(index=True)
    cluster_name: Mapped[str]
    node_id: Mapped[str] = mapped_column(default="", index=True)
    node_name: Mapped[str] = mapped_column(default="")
    metric: Mapped[str]
    comparison: Mapped[str] = mapped_column(String(16))
    threshold: Mapped[float] = mapped_column(Float)
    value: Mapped[float] = mapped_column(Float)
    severity: Mapped[str] = mapped_column(String(16))
    advice: Mapped[str] = mapped_column(Text, default="")
    state: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime] = mapped_column(index=True)
    resolved_at: Mapped[datetime | None]
    acknowledged_until: Mapped[datetime | None]
    acknowledged_by: Mapped[str] = mapped_column(default="")
    last_sent_at: Mapped[datetime | None]


class AlertEvent(Base):
    """One entry of an alert's history."""

    __tablename__ = "alert_event"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    alert_id: Mapped[str] = mapped_column(index=True)
    time: Mapped[datetime]
    what: Mapped[str]
    detail: Mapped[str] = mapped_column(Text, default="")
    actor: Mapped[str] = mapped_column(default="")


class AlertSilence(Base):
    """Alerts of a place that are not sent for a while."""

    __tablename__ = "alert_silence"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(default="")
    cluster_id: Mapped[str] = mapped_column(default="")
    node_id: Mapped[str] = mapped_column(default="")
    rule_name: Mapped[str] = mapped_column(default="")
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime] = mapped_column(index=True)
    comment: Mapped[str] = mapped_column(Text, default="")
    created_by: Mapped[str]


class AlertChannel(Base):
    """A way in which alerts reach people; its secret is in the vault."""

    __tablename__ = "alert_channel"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    project_id: Mapped[str] = mapped_column(default="")
    minimum_severity: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(16))
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    last_success_at: Mapped[datetime | None]
    last_failure_at: Mapped[datetime | None]
    last_failure: Mapped[str] = mapped_column(Text, default="")
    # Failures since the last success, and when it is tried again; a control plane that sends holds it until then.
    failures: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None]
    __table_args__ = (UniqueConstraint("project_id", "name"),)


class AlertDelivery(Base):
    """One alert's message that waits for one channel; gone when it was delivered."""

    __tablename__ = "alert_delivery"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    channel_id: Mapped[str] = mapped_column(index=True)
    alert_id: Mapped[str] = mapped_column(index=True)
    # What is told: "fired", "repeated" or "resolved"; and the alert as it was then.
    kind: Mapped[str] = mapped_column(String(16))
    notice: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    failed: Mapped[bool] = mapped_column(Boolean, default=False)


class Lease(Base):
    """Work that one control plane at a time does: who, and until when by the database's clock."""

    __tablename__ = "lease"
    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    until: Mapped[datetime]
