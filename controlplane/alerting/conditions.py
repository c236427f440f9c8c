"""The conditions: what is known of nodes and clusters without a metric, as a value that a rule can be held against.

They are read from what agents left in the database, so they hold also where no samples come any more.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from controlplane.alerting.snapshot import ClusterFacts, NodeFacts
from controlplane.domain.health import FRESH
from controlplane.domain.node import AgentState
from controlplane.store.alert_tables import Alert

_EXPECTED = frozenset({AgentState.CONNECTED, AgentState.SILENT})
_DOWN = frozenset({"MONGOD_STATE_FAILED", "MONGOD_STATE_RESTARTING", "MONGOD_STATE_UNRESPONSIVE"})


@dataclass(frozen=True, slots=True)
class Known:
    """The value of a condition. `witnessed`: as much of it as this control plane has itself looked on.

    A control plane that was away knows of old times, but not that they were bad: only what it has witnessed makes an
    alert fire, and the whole value decides whether an open one resolves.
    """

    value: float
    witnessed: float


class Conditions:
    """Remembers since when things have been bad. `certificate_life`: for how long agents' certificates are made."""

    def __init__(self, certificate_life: timedelta) -> None:
        self._certificate_life = certificate_life
        self._watching_since: datetime | None = None
        self._last_round = datetime.min.replace(tzinfo=UTC)
        # When each cluster's replica sets last had a primary, and each node's mongod was last up.
        self._well_at: dict[str, datetime] = {}

    def begin(self, now: datetime, gap: timedelta) -> None:
        """Begin a round. After a longer gap (database away, another one looked) we were blind, and count from now on."""
        if self._watching_since is None or now - self._last_round > gap:
            self._watching_since = now
            self._well_at.clear()
        self._last_round = now

    def of_node(self, condition: str, node: NodeFacts, now: datetime, alert: Alert | None) -> Known | None:
        """The value; None where the condition makes no sense for this node now."""
        if condition == "certificate_expiry":
            return self._certificate(node, now)
        if node.agent_state not in _EXPECTED or node.last_seen_at is None:
            return None
        if condition == "agent_silent":
            return self._since(node.last_seen_at, now)
        key = f"mongod/{node.subject.place.node_id}"
        if not _is_fresh(node, now):  # silent: that is another alert; what was known stays
            return self._since(self._well(key, alert), now) if alert is not None else None
        if node.report.get("mongod_state") not in _DOWN:
            self._well_at[key] = now
        return self._since(self._well(key, alert), now)

    def of_cluster(self, condition: str, cluster: ClusterFacts, now: datetime, alert: Alert | None) -> Known | None:
        """The value for the replica set that is worst off; None while no member was ever heard."""
        heard = [node for node in cluster.nodes if node.agent_state in _EXPECTED]
        if not heard:
            return None
        worst: Known | None = None
        for name in sorted({node.replica_set for node in heard}):
            key = f"{condition}/{cluster.subject.place.cluster_id}/{name}"
            if _has_primary((node for node in heard if node.replica_set == name), now):
                self._well_at[key] = now
            known = self._since(self._well(key, alert), now)
            if worst is None or known.value > worst.value:
                worst = known
        return worst

    def _well(self, key: str, alert: Alert | None) -> datetime:
        """When it was last well, as far as is known; an open alert began when it had been bad for its threshold."""
        assert self._watching_since is not None
        known = self._well_at.get(key)
        if known is not None:
            return known
        if alert is None:
            return self._watching_since
        return min(self._watching_since, alert.started_at - timedelta(seconds=alert.threshold))

    def _since(self, moment: datetime, now: datetime) -> Known:
        assert self._watching_since is not None
        value = max(0.0, (now - moment).total_seconds())
        return Known(value, min(value, (now - self._watching_since).total_seconds()))

    def _certificate(self, node: NodeFacts, now: datetime) -> Known | None:
        if node.certificate_expires_at is None or node.agent_state not in _EXPECTED:
            return None
        percent = 100.0 * ((node.certificate_expires_at - now) / self._certificate_life)
        return Known(percent, percent)


def _has_primary(nodes: Iterable[NodeFacts], now: datetime) -> bool:
    return any(node.report.get("member_state") == "PRIMARY" and _is_fresh(node, now) for node in nodes)


def _is_fresh(node: NodeFacts, now: datetime) -> bool:
    return node.last_seen_at is not None and now - node.last_seen_at <= FRESH
