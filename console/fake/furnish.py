"""A small fleet with troubles, for whoever wants to look at the console rather than at an empty list."""

from wap.control.v1 import alert_pb2 as al
from wap.control.v1.cluster_pb2 import CLUSTER_HEALTH_DEGRADED

from console.client import AsyncClient
from console.client.monitoring import span, stamp
from console.fake.control import FakeControl
from console.fake.world import now

GIB = 2**30
CLUSTERS = (
    ("orders-prod", "m6i.large", 200, (41, 58)),
    ("payments-prod", "m6i.xlarge", 400, (55, 31)),
    ("catalog-prod", "r6i.large", 100, (62, 83)),
    ("sessions-prod", "r6i.large", 80, (66, 47)),
    ("search-staging", "t3.medium", 40, (13, 92)),
)
"""Name, instance type, disk in GiB, and CPU and disk in per cent."""


async def furnish(fake: FakeControl) -> None:
    """Make the clusters (at once, whatever the fake's speed), then their figures, alerts, a silence and channels."""
    speed, fake.engine.step_seconds = fake.engine.step_seconds, 0.0
    async with AsyncClient(fake.endpoint, ca_pem=fake.ca_pem, token=fake.session()) as client:
        for name, instance_type, disk, _ in CLUSTERS:
            operation = await client.create_cluster("demo", name, instance_type=instance_type, disk_gib=disk)
            await client.wait(operation.id)
    fake.engine.step_seconds = speed
    for cluster in fake.world.clusters.values():
        cpu, full = next(figures for name, _, _, figures in CLUSTERS if name == cluster.name)
        for place, member in enumerate(cluster.members):
            node = fake.world.nodes[member.node_id]
            node.cpu_percent = cpu - 9 * place
            node.memory_used_bytes = (5 - place) * GIB
            node.member_state = member.state
            node.disk_used_bytes = member.disk_used_bytes = int(node.disk_total_bytes * (full - 2 * place) / 100)
    _trouble(fake)
    fake.world.touch()


def _trouble(fake: FakeControl) -> None:
    by_name = {node.name: node for node in fake.world.nodes.values()}
    sick = next(one for one in fake.world.clusters.values() if one.name == "search-staging")
    sick.health, sick.health_reason = CLUSTER_HEALTH_DEGRADED, "2 of 3 members healthy"
    sick.members[2].healthy, sick.members[2].problem = False, "mongod does not answer"
    fake.alerts.fire(by_name["search-staging-rs0-0"], "Disk full soon", 92.4, ago=780)
    lag = fake.alerts.fire(by_name["catalog-prod-rs0-1"], "Replication lag", 84, ago=2300)
    lag.state, lag.acknowledged_by = al.ALERT_STATE_ACKNOWLEDGED, "user:admin"
    lag.acknowledged_until_time.CopyFrom(stamp(now().seconds + 7200))
    fake.alerts.note(lag, "acknowledged", "The nightly import; ends by itself.", "user:admin")
    fake.alerts.fire(by_name["catalog-prod-rs0-0"], "Disk nearly full", 83.1, ago=5400)
    fake.alerts.resolve(fake.alerts.fire(by_name["orders-prod-rs0-0"], "CPU", 88.2, ago=90_000))
    silence = al.Silence(
        id="si-demo",
        cluster_id=sick.id,
        rule_name="Agent silent",
        start_time=now(),
        end_time=stamp(now().seconds + 5400),
        comment="Machines are being replaced",
        created_by="user:admin",
    )
    fake.world.silences[silence.id] = silence
    rule = al.AlertRule(
        id="ar-demo",
        name="CPU",
        cluster_id=sick.id,
        metric="host.cpu.used_percent",
        comparison=al.ALERT_COMPARISON_ABOVE,
        threshold=95,
        window=span(900),
        hits=60,
        severity=al.ALERT_SEVERITY_INFO,
        hysteresis=0.05,
        advice="Staging may be busy.",
        create_time=now(),
    )
    fake.world.alert_rules[rule.id] = rule
    mail = al.EmailChannel(host="smtp.example.com", port=587, to=["on-call@example.com"])
    setattr(mail, "from", "wap@example.com")
    fake.world.alert_channels["ac-1"] = al.AlertChannel(
        id="ac-1", name="On call", minimum_severity=al.ALERT_SEVERITY_CRITICAL, email=mail, last_success_time=now()
    )
    hook = al.WebhookChannel(url="https://hooks.example.com/wap")
    fake.world.alert_channels["ac-2"] = al.AlertChannel(
        id="ac-2",
        name="Incident tool",
        minimum_severity=al.ALERT_SEVERITY_WARNING,
        webhook=hook,
        last_failure_time=now(),
        last_failure="connection refused",
        waiting=2,
    )
