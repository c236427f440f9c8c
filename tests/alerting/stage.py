"""A cluster whose nodes report and are sampled as a test wants, and an evaluator that looks when it is told to."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from controlplane.alerting.channels import ChannelKind
from controlplane.alerting.evaluate import Evaluator
from controlplane.domain.alert import Place, Rule, Severity, Silence
from controlplane.domain.clock import FakeClock
from controlplane.domain.cluster import ClusterState
from controlplane.domain.node import AgentState
from controlplane.store import alert_channels, alerts, clusters, projects
from controlplane.store.alert_channels import NewChannel
from controlplane.store.alert_tables import Alert, AlertChannel, AlertDelivery, AlertEvent
from controlplane.store.database import Database
from controlplane.store.tables import Cluster, Node
from controlplane.store.vault import KEY_BYTES, Vault
from controlplane.telemetry.hot import HotHour
from controlplane.telemetry.port import Frame
from tests.store.rows import SPEC

START = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)
ROUND = 10.0
LIFE = timedelta(hours=24)
DISK = "host.disk.used_percent"
LAG = "replica_set.lag_seconds"


class Stage:
    """One control plane's view of one cluster of three nodes: `nodes` are their ids, the first is primary."""

    def __init__(self, database: Database, clock: FakeClock | None = None, holder: str = "one") -> None:
        self.database, self.clock, self.vault = database, clock or FakeClock(START), Vault(bytes(KEY_BYTES))
        self.hot = HotHour(self.clock)
        self.evaluator = self.new_evaluator(holder)
        self.project = self.cluster = ""
        self.nodes: list[str] = []
        # Whose agents are heard, and what they say.
        self.heard: set[str] = set()
        self.reports: dict[str, dict[str, Any]] = {}

    def new_evaluator(self, holder: str = "one") -> Evaluator:
        """As after a restart."""
        return Evaluator(
            self.database,
            self.vault,
            self.clock,
            self.hot,
            holder=holder,
            certificate_life=LIFE,
            every_seconds=ROUND,
        )

    async def set(self) -> "Stage":
        """Make the cluster."""

        def work(tx: Session) -> None:
            self.project = projects.insert(tx, "shop", START).id
            row = clusters.insert(tx, project_id=self.project, name="orders", spec=SPEC, usd_per_month=1.0, now=START)
            row.state, self.cluster = ClusterState.AVAILABLE, row.id
            for node in clusters.nodes_of(tx, [row.id]):
                self.nodes.append(node.id)
                node.agent_state, node.certificate_expires_at = AgentState.CONNECTED, START + LIFE

        await self.database.write(work)
        self.heard = set(self.nodes)
        for number, node_id in enumerate(self.nodes):
            state = "PRIMARY" if number == 0 else "SECONDARY"
            self.reports[node_id] = {"member_state": state, "mongod_state": "MONGOD_STATE_RUNNING"}
        await self.beat()
        return self

    def other(self, holder: str) -> "Stage":
        """The same cluster as another control plane sees it, which hears no agents."""
        stage = Stage(self.database, self.clock, holder)
        stage.project, stage.cluster, stage.nodes = self.project, self.cluster, self.nodes
        return stage

    def place(self, node: int | None = None) -> Place:
        """The cluster's place, or a node's."""
        return Place(self.project, self.cluster, "" if node is None else self.nodes[node])

    async def beat(self) -> None:
        """Agents that are heard are written down as heard now."""
        now, heard, reports = self.clock.now(), self.heard, self.reports

        def work(tx: Session) -> None:
            for node_id in heard:
                node = tx.get_one(Node, node_id)
                node.last_seen_at, node.report = now, dict(reports[node_id])

        await self.database.write(work)

    async def tick(self, samples: Mapping[int, Mapping[str, float]] | None = None, *, rounds: int = 1) -> None:
        """Ten seconds pass: agents beat, samples by node number come in, and everything is looked at."""
        for _ in range(rounds):
            self.clock.advance(ROUND)
            await self.beat()
            for number, values in (samples or {}).items():
                self.hot.take([Frame(self.nodes[number], self.cluster, "", self.clock.now(), values)])
            await self.evaluator.round()

    async def move(self, state: ClusterState) -> None:
        """The cluster is in another state."""

        def work(tx: Session) -> None:
            tx.get_one(Cluster, self.cluster).state = state

        await self.database.write(work)

    async def change(self, node: int, **values: Any) -> None:
        """Change columns of a node."""

        def work(tx: Session) -> None:
            for name, value in values.items():
                setattr(tx.get_one(Node, self.nodes[node]), name, value)

        await self.database.write(work)

    async def rule(self, rule: Rule) -> None:
        """Add a rule of one's own."""
        await self.database.write(lambda tx: alerts.insert_rule(tx, rule, self.clock.now()))

    async def silence(self, place: Place, seconds: float, rule_name: str = "") -> None:
        """Silence a place from now on."""
        now = self.clock.now()
        silence = Silence(place, rule_name, now, now + timedelta(seconds=seconds))
        await self.database.write(lambda tx: alerts.insert_silence(tx, silence, "", "user:root"))

    async def channel(
        self,
        name: str = "ops",
        *,
        kind: ChannelKind = ChannelKind.WEBHOOK,
        settings: Mapping[str, Any] | None = None,
        secret: str = "whsec_c2VjcmV0",
        project: str | None = None,
        severity: Severity = Severity.INFO,
    ) -> str:
        """A channel; its id."""
        new = NewChannel(
            name,
            self.project if project is None else project,
            severity,
            kind,
            settings or {"url": "https://hooks.example.com/wap"},
            secret,
        )
        row = await self.database.write(lambda tx: alert_channels.insert(tx, self.vault, new, self.clock.now()))
        return row.id

    async def open(self) -> dict[tuple[str, str], Alert]:
        """Open alerts by rule name and node name."""
        rows = await self.database.read(alerts.list_open)
        return {(row.rule_name, row.node_name): row for row in rows}

    async def every(self) -> list[Alert]:
        """All alerts there ever were, oldest first."""
        rows = await self.database.read(lambda tx: tx.query(Alert).order_by(Alert.started_at, Alert.id).all())
        return list(rows)

    async def history(self, alert_id: str) -> list[AlertEvent]:
        """What has happened to an alert."""
        return list(await self.database.read(lambda tx: alerts.history(tx, alert_id)))

    async def told(self) -> list[tuple[str, str]]:
        """What waits to be sent: event and rule, oldest first."""
        rows = await self.database.read(lambda tx: tx.query(AlertDelivery).order_by(AlertDelivery.id).all())
        return [(row.kind, row.notice["rule"]) for row in rows]

    async def channel_row(self, channel_id: str) -> AlertChannel:
        """The channel as it is now."""
        return await self.database.read(lambda tx: tx.get_one(AlertChannel, channel_id))
