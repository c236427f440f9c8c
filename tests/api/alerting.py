"""What the API's tests about alerts begin with: one alert, rule, silence and channel, and good requests."""

from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.orm import Session
from wap.control.v1 import alert_pb2 as pb

from controlplane.alerting.built_in import BUILT_IN
from controlplane.alerting.channels import ChannelKind
from controlplane.domain.alert import Place, Rule, Severity, Silence
from controlplane.store import alert_channels, alerts
from controlplane.store.alert_channels import NewChannel
from controlplane.store.alert_tables import Alert
from controlplane.store.alerts import Firing, Subject
from tests.api.world import World

SECRET = "whsec_Y2FuYXJ5LWNoYW5uZWwtc2VjcmV0"
DISK = next(rule for rule in BUILT_IN if rule.name == "Disk nearly full")


async def fire(world: World, rule: Rule = DISK, node: str = "orders-rs0-0", value: float = 93.0) -> str:
    """An open alert about a node; its id."""
    project = await world.project_of(node.partition("-")[0])
    cluster = node.partition("-")[0]

    def work(tx: Session) -> list[Alert]:
        place = Place(project, world.ids[cluster], world.ids[node])
        firing = Firing(rule, Subject(place, cluster, node), value)
        return alerts.fire(tx, [firing], world.clock.now())

    (alert,) = await world.database.write(work)
    return alert.id


async def resolve(world: World, alert_id: str) -> None:
    """The alert is over."""
    await world.database.write(
        lambda tx: alerts.resolve(tx, tx.get_one(Alert, alert_id), "the value is good again", world.clock.now())
    )


async def furnish(world: World) -> None:
    """An alert, a rule, a silence and a channel of project A, with their ids in the world."""
    world.ids["alert"] = await fire(world)
    place = Place(world.ids["aa"])

    def work(tx: Session) -> None:
        now = world.clock.now()
        rule = Rule(
            "", "Mine", place, DISK.metric, DISK.comparison, 80.0, timedelta(minutes=1), 3, Severity.WARNING, 0.1
        )
        world.ids["rule"] = alerts.insert_rule(tx, rule, now).id
        silence = Silence(place, "", now, now + timedelta(days=1))
        world.ids["silence"] = alerts.insert_silence(tx, silence, "", "user:root").id
        new = NewChannel(
            "ops",
            place.project_id,
            Severity.INFO,
            ChannelKind.WEBHOOK,
            # Nobody listens there, and nothing is sent there: it is not a public address.
            {"url": "https://127.0.0.1:1/hook"},
            SECRET,
        )
        world.ids["channel"] = alert_channels.insert(tx, world.services.vault, new, now).id

    await world.database.write(work)


def a_rule(**changes: Any) -> pb.AlertRule:
    """A good rule."""
    fields: dict[str, Any] = {
        "name": "Disk at 60",
        "metric": "host.disk.used_percent",
        "comparison": pb.ALERT_COMPARISON_ABOVE,
        "threshold": 60.0,
        "window": Duration(seconds=60),
        "hits": 3,
        "severity": pb.ALERT_SEVERITY_WARNING,
        "hysteresis": 0.05,
    }
    return pb.AlertRule(**{**fields, **changes})


def a_channel(**changes: Any) -> pb.AlertChannel:
    """A good channel: e-mail."""
    mail: dict[str, Any] = {"host": "mail.example.com", "to": ["dba@example.com"], "from": "wap@example.com"}
    fields: dict[str, Any] = {"name": "dba"}
    if not {"webhook", "slack", "email"} & set(changes):
        fields["email"] = pb.EmailChannel(**mail)
    return pb.AlertChannel(**{**fields, **changes})


def later(world: World, **span: float) -> Timestamp:
    """A moment that far from the world's now."""
    stamp = Timestamp()
    stamp.FromDatetime(world.clock.now() + timedelta(**span))
    return stamp
