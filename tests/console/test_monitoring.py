"""What people do when something is wrong: look at nodes, logs and slow queries, end an operation, take care of alerts."""

import pytest
from nicegui import ui
from wap.control.v1.access_pb2 import Grant
from wap.control.v1.alert_pb2 import ALERT_STATE_ACKNOWLEDGED, ALERT_STATE_FIRING, Alert
from wap.control.v1.cluster_pb2 import Cluster
from wap.control.v1.node_pb2 import AGENT_STATE_SILENT, Node
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_VIEWER

from console.fake import FakeControl
from console.fake.furnish import furnish
from console.pages.rule_editor import CONDITIONS
from controlplane.domain.alert import CONDITIONS as REAL_CONDITIONS
from tests.console.conftest import WITHIN, Console, Person
from tests.console.test_pages import make_cluster
from tests.console.test_security import ESCAPED, PAYLOAD, _html_elements
from tests.waiting import eventually


@pytest.fixture
async def cluster(console: Console) -> Cluster:
    return await make_cluster(console)


@pytest.fixture
async def person(console: Console) -> Person:
    return await console.person()


@pytest.fixture
async def viewer(console: Console) -> Person:
    """Somebody who may look and not touch."""
    project = next(iter(console.fake.world.projects))
    console.fake.world.add_user("eve", "password", [Grant(project_id=project, role=ACCESS_ROLE_VIEWER)])
    return await console.person("eve")


def first_node(fake: FakeControl) -> Node:
    return min(fake.world.nodes.values(), key=lambda node: node.name)


def fire(fake: FakeControl, rule: str = "CPU", value: float = 91) -> Alert:
    return fake.alerts.fire(first_node(fake), rule, value, ago=60)


# Nodes and what they do now ----------------------------------------------------------------------


async def test_a_node_tells_of_its_machine_and_its_collections(
    console: Console, cluster: Cluster, person: Person
) -> None:
    node = first_node(console.fake)
    await person.open(f"/nodes/{node.id}")
    await person.sees(node.name, "Connected", node.instance_id, "shop.orders", "41,200,000", "18.2 GiB")
    assert person.page.title == f"{node.name} · WAP"


async def test_an_operation_is_killed_after_a_question(console: Console, cluster: Cluster, person: Person) -> None:
    await person.open(f"/clusters/{cluster.id}/realtime")
    await person.sees("query on shop.orders", "COLLSCAN", "Waits for a lock")
    assert not person.offers("kill:4714")  # mongod's own
    await person.click("kill:4711")
    await person.is_asked("kill-dialog")
    assert not [event for event in console.fake.world.audit if event.action == "KillOperation"]
    await person.click("confirm-kill")
    await eventually(lambda: not person.offers("kill:4711"), within=WITHIN)
    assert [event.action for event in console.fake.world.audit][-1] == "KillOperation"


async def test_short_operations_can_be_left_out(console: Console, cluster: Cluster, person: Person) -> None:
    await person.open(f"/clusters/{cluster.id}/realtime")
    await person.sees("update on shop.carts")
    await person.click("least:1")
    await person.misses("update on shop.carts")
    await person.sees("query on shop.orders")


async def test_who_may_only_look_kills_nothing(console: Console, cluster: Cluster, viewer: Person) -> None:
    await viewer.open(f"/clusters/{cluster.id}/realtime")
    await viewer.sees("query on shop.orders")
    assert not viewer.offers("kill:4711")


async def test_a_node_whose_agent_is_away_says_so(console: Console, cluster: Cluster, person: Person) -> None:
    node = first_node(console.fake)
    console.fake.world.nodes[node.id].agent_state = AGENT_STATE_SILENT
    await person.open(f"/nodes/{node.id}/realtime")
    await person.sees("The operations of this member cannot be read", "AGENT_SILENT")


# Logs and slow queries ---------------------------------------------------------------------------


async def test_logs_are_searched_by_word_and_severity_and_page_by_page(cluster: Cluster, person: Person) -> None:
    await person.open(f"/logs?cluster={cluster.id}")
    await person.sees("Slow query", "Connection accepted", "100 lines, the newest of more")
    await person.click("older")
    await person.sees("200 lines")
    await person.type("text", "DuplicateKey")
    await person.click("search")
    await person.sees("User assertion")
    await person.misses("Connection accepted")
    await person.type("text", "")
    await person.click("severity:W")
    await person.sees("exceeded time limit")
    await person.misses("Slow query")


async def test_a_search_without_a_match_says_so(cluster: Cluster, person: Person) -> None:
    await person.open("/logs?text=no-such-words")
    await person.sees("No lines")


async def test_a_tail_brings_lines_as_they_come(console: Console, cluster: Cluster, person: Person) -> None:
    await person.open("/logs")
    await person.sees("100 lines")
    session = console.sessions.owner_of(person.page.id)
    assert session is not None
    before = len(session.feeds)
    await person.click("follow")
    await person.sees("Following: 1 line")
    assert len(session.feeds) == before + 1
    await person.sees("Following: 3 lines")
    await person.click("search")
    await person.sees("100 lines")
    assert len(session.feeds) == before


async def test_slow_queries_come_with_the_index_that_helps(cluster: Cluster, person: Person) -> None:
    await person.open(f"/slow-queries?cluster={cluster.id}")
    await person.sees("shop.orders", "1,284", "2.4 s", "An index would help.", "Equality on status first")
    await person.sees("createIndex({&quot;status&quot;: 1, &quot;created&quot;: -1, &quot;total&quot;: 1})")
    await person.type("namespace", "shop.carts")
    await person.click("refresh")
    await person.misses("An index would help.")


async def test_without_clusters_there_are_no_slow_queries(person: Person) -> None:
    await person.open("/slow-queries")
    await person.sees("No clusters yet")


# Alerts ------------------------------------------------------------------------------------------


async def test_an_alert_appears_is_acknowledged_and_resolves_without_a_reload(
    console: Console, cluster: Cluster, person: Person
) -> None:
    await person.open("/alerts")
    await person.sees("Nothing is wrong")
    alert = fire(console.fake)
    await person.sees("CPU on orders-rs0-0: 91 %", "Critical", "Firing", "1 alert firing")
    await person.click(f"acknowledge:{alert.id}")
    await person.is_asked("acknowledge-dialog")
    await person.type("comment", "I look at it")
    await person.click("confirm-acknowledge")
    await person.sees("Acknowledged", "By admin, until")
    assert alert.state == ALERT_STATE_ACKNOWLEDGED
    await person.misses("1 alert firing")
    await person.open(f"/alerts/{alert.id}")
    await person.sees("I look at it", "Fired", "choose a larger instance type")
    await person.open("/alerts")
    console.fake.alerts.resolve(alert)
    await person.sees("Nothing is wrong")
    await person.click("which:history")
    await person.sees("CPU on orders-rs0-0: 91 %", "Resolved")


async def test_a_silence_keeps_an_alert_and_ends(console: Console, cluster: Cluster, person: Person) -> None:
    alert = fire(console.fake)
    await person.open("/alerts")
    await person.click(f"silence:{alert.id}")
    await person.is_asked("silence-dialog")
    await person.click("scope:cluster")
    await person.type("reason", "We are at it")
    await person.click("confirm-silence")
    await person.sees("Silenced", "We are at it", "All alerts")
    assert (alert.state, alert.silenced) == (ALERT_STATE_FIRING, True)
    silence = next(iter(console.fake.world.silences))
    await person.click(f"end:{silence}")
    await person.sees("No silences")
    assert not alert.silenced


async def test_who_may_only_look_acknowledges_nothing(console: Console, cluster: Cluster, viewer: Person) -> None:
    alert = fire(console.fake)
    await viewer.open("/alerts")
    await viewer.sees("CPU on orders-rs0-0: 91 %")
    assert not viewer.offers(f"acknowledge:{alert.id}")


async def test_a_cluster_shows_its_own_alerts_only(console: Console, cluster: Cluster, person: Person) -> None:
    fire(console.fake)
    other = await make_cluster(console, "other")
    await person.open(f"/alerts?cluster={other.id}")
    await person.sees("Nothing is wrong", "1 alert firing")


async def test_a_rule_is_overridden_changed_and_deleted(console: Console, cluster: Cluster, person: Person) -> None:
    await person.open(f"/alert-rules?cluster={cluster.id}")
    await person.sees("host.cpu.used_percent", "Inherited from WAP", "more than")
    assert not person.offers("edit:CPU")
    await person.click("override:CPU")
    await person.is_asked("rule-dialog")
    await person.type("threshold", "95")
    await person.click("save-rule")
    await person.sees("95 %")
    rule = next(one for one in console.fake.world.alert_rules.values() if one.cluster_id)
    assert (rule.name, rule.threshold, rule.built_in) == ("CPU", 95, False)
    await person.click("edit:CPU")
    await person.is_asked("rule-dialog")
    await person.click("rule-severity:3")
    await person.click("active:off")
    await person.click("save-rule")
    await eventually(lambda: console.fake.world.alert_rules[rule.id].disabled, within=WITHIN)
    assert console.fake.world.alert_rules[rule.id].severity == 3
    await person.click("delete:CPU")
    await person.click("confirm-delete-rule")
    await person.misses("95 %")
    await person.sees("80 %")


async def test_a_rule_that_is_not_allowed_is_refused_in_its_dialog(cluster: Cluster, person: Person) -> None:
    await person.open("/alert-rules")
    await person.click("new-rule")
    await person.is_asked("rule-dialog")
    await person.click("save-rule")
    await person.sees("The value of rule.name is not allowed.", "1 to 64 characters")
    assert person.asks("rule-dialog")
    await person.type("rule-name", "Slow disk")
    await person.type("rule-metric", "host.disk.write_latency_milliseconds")
    await person.click("save-rule")
    await person.sees("Slow disk", "host.disk.write_latency_milliseconds")


async def test_a_channel_is_added_tested_and_deleted(console: Console, cluster: Cluster, person: Person) -> None:
    await person.open("/alert-rules")
    await person.click("new-channel")
    await person.is_asked("channel-dialog")
    await person.type("channel-name", "broken hook")
    await person.click("kind:webhook")
    await person.type("webhook-url", "https://hooks.example.com/wap")
    await person.click("add-channel")
    await person.is_asked("secret-dialog")
    await person.click("secret-done")
    await person.click("test:broken-hook")
    await person.sees("did not take the test message: connection refused", "2 messages waiting")
    await person.click("delete-channel:broken-hook")
    await person.click("confirm-delete-channel")
    await person.sees("No channels")
    assert not console.fake.world.alert_channels


async def test_who_may_only_look_changes_no_rule_and_no_channel(
    console: Console, cluster: Cluster, viewer: Person
) -> None:
    await viewer.open("/alert-rules")
    await viewer.sees("Replication lag")
    assert not viewer.offers("new-rule") or not _visible(viewer, "new-rule")
    assert not viewer.offers("new-channel")


def _visible(person: Person, mark: str) -> bool:
    element: ui.element = next(iter(person.user.find(marker=mark).elements))
    return bool(element.visible)


def test_the_editor_knows_the_conditions_of_the_control_plane() -> None:
    assert {name: unit for name, (_, unit) in CONDITIONS.items()} == {
        name: condition.unit for name, condition in REAL_CONDITIONS.items()
    }


# The fleet ---------------------------------------------------------------------------------------


async def test_the_fleet_shows_what_needs_somebody_first(console: Console, person: Person) -> None:
    await furnish(console.fake)
    await person.open("/fleet")
    await person.sees("4 / 5", "15 / 15", "Busiest", "payments-prod-rs0-0", "Disk full soon on search-staging-rs0-0")
    text = " ".join(element.content for element in _html_elements(person))
    assert text.index('row-name">search-staging') < text.index('row-name">orders-prod')


async def test_hostile_names_are_text_on_the_pages_of_monitoring(console: Console, cluster: Cluster) -> None:
    fake = console.fake
    alert = fire(fake)
    alert.summary = alert.advice = alert.rule_name = alert.node_name = alert.cluster_name = PAYLOAD
    for node in fake.world.nodes.values():
        node.name = node.cluster_name = PAYLOAD
    fake.world.clusters[cluster.id].name = PAYLOAD
    next(iter(fake.world.alert_rules.values())).advice = PAYLOAD
    person = await console.person()
    node_id = first_node(fake).id
    places = ("/fleet", "/logs", f"/nodes/{node_id}", f"/nodes/{node_id}/realtime", "/alerts", f"/alerts/{alert.id}")
    for path in (*places, "/alert-rules", f"/slow-queries?cluster={cluster.id}", f"/clusters/{cluster.id}/metrics"):
        await person.open(path)
        await person.sees(ESCAPED)
        contents = [element.content for element in _html_elements(person)]
        assert not [content for content in contents if "<img" in content or "<script" in content]
