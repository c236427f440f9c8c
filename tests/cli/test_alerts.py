"""`wap alerts`: what is wrong, who takes care, rules, silences and channels."""

import json

import pytest

from console.cli.main import app
from console.client.monitoring import span
from console.fake import FakeControl
from tests.cli.conftest import Wap, logged_in

DISK = "host.disk.used_percent"


@pytest.fixture
def cluster(wap: Wap) -> Wap:
    """Logged in, with a cluster of three nodes."""
    wap.ok("cluster", "create", "orders", "--yes")
    return wap


def fire(wap: Wap, fake: FakeControl, rule: str = "", value: float = 93.0) -> str:
    """An open alert on the first node; its id."""
    listed = wap.ok("node", "list", "--json").json()["nodes"]
    rules = [one["rule"] for one in wap.ok("alerts", "rule", "list", "--json").json()["rules"]]
    name = rule or next(one["name"] for one in rules if one["metric"] == DISK)

    def work() -> str:
        node = next(one for one in fake.world.nodes.values() if one.id == listed[0]["id"])
        return fake.alerts.fire(node, name, value).id

    return fake.call(work)


def test_without_a_command_the_open_ones_are_shown(cluster: Wap, fake: FakeControl) -> None:
    assert "No alerts." in cluster.ok("alerts").out
    alert = fire(cluster, fake)
    shown = cluster.ok("alerts").out
    assert alert in shown
    assert "firing" in shown
    assert "93 %" in shown
    assert [one["id"] for one in cluster.ok("alerts", "--json").json()["alerts"]] == [alert]
    assert [one["id"] for one in cluster.ok("alerts", "list", "-o", "json").json()["alerts"]] == [alert]
    assert "alerts" in cluster.ok("--help").out


def test_filters_and_one_alert_with_its_history(cluster: Wap, fake: FakeControl) -> None:
    alert = fire(cluster, fake)
    node = cluster.ok("node", "list", "--json").json()["nodes"][0]["name"]
    assert alert in cluster.ok("alerts", "list", "--cluster", "orders", "--node", node).out
    assert alert not in cluster.ok("alerts", "list", "--node", "orders-rs0-2").out
    shown = cluster.ok("alerts", "show", alert).out
    assert "fired" in shown
    assert "To do" in shown
    missing = cluster("alerts", "show", "al-none")
    assert missing.exit_code == 3


def test_acknowledge(cluster: Wap, fake: FakeControl) -> None:
    alert = fire(cluster, fake)
    assert "Acknowledged until" in cluster.ok("alerts", "acknowledge", alert, "--for", "4h", "--comment", "on it").out
    shown = cluster.ok("alerts", "show", alert).out
    assert "acknowledged" in shown
    assert "on it" in shown
    assert cluster("alerts", "acknowledge", alert, "--for", "soon").exit_code == 2
    assert cluster("alerts", "acknowledge", alert, "--for", "60d").exit_code == 2


def test_a_rule_is_overridden_and_holds_again(cluster: Wap) -> None:
    listed = cluster.ok("alerts", "rule", "list", "--json").json()["rules"]
    name = next(one["rule"]["name"] for one in listed if one["rule"]["metric"] == DISK)
    before = next(one["rule"] for one in listed if one["rule"]["name"] == name)
    made = cluster.ok("alerts", "rule", "set", name, "--above", "97.5", "--cluster", "orders", "--json").json()
    assert (made["threshold"], made["metric"], made["window"]) == (97.5, DISK, before["window"])
    cluster.ok("alerts", "rule", "set", name, "--off", "--severity", "info", "--cluster", "orders")

    def at_cluster() -> dict[str, object]:
        rules = cluster.ok("alerts", "rule", "list", "--cluster", "orders", "--json").json()["rules"]
        return dict(next(one["rule"] for one in rules if one["rule"]["name"] == name))

    now = at_cluster()
    assert (now["threshold"], now["disabled"], now["severity"]) == (97.5, True, "ALERT_SEVERITY_INFO")
    assert "off" in cluster.ok("alerts", "rule", "list", "--cluster", "orders").out
    cluster.ok("alerts", "rule", "delete", name, "--cluster", "orders", "--yes")
    assert at_cluster()["threshold"] == before["threshold"]
    assert cluster("alerts", "rule", "delete", name, "--cluster", "orders", "--yes").exit_code == 3


def test_a_new_rule(cluster: Wap) -> None:
    arguments = ["--metric", "host.cpu.used_percent", "--above", "50", "--window", "5m", "--hits", "3"]
    made = cluster.ok("alerts", "rule", "set", "CPU at half", *arguments, "--json").json()
    assert (made["threshold"], made["hits"], made["window"]) == (50.0, 3, f"{span(300).seconds}s")
    assert "host.cpu.used_percent above 50, 3 times in 5 min" in cluster.ok("alerts", "rule", "list").out
    assert cluster("alerts", "rule", "set", "X", "--above", "1", "--below", "2").exit_code == 2
    assert cluster("alerts", "rule", "set", "X", "--everywhere", "--cluster", "orders").exit_code == 2


def test_silences(cluster: Wap, fake: FakeControl) -> None:
    fire(cluster, fake)
    cluster.ok("alerts", "silence", "create", "--for", "2h", "--cluster", "orders", "--comment", "maintenance")
    assert "(silenced)" in cluster.ok("alerts").out
    listed = cluster.ok("alerts", "silence", "list", "--json").json()["silences"]
    assert [one["comment"] for one in listed] == ["maintenance"]
    cluster.ok("alerts", "silence", "end", listed[0]["id"])
    assert "(silenced)" not in cluster.ok("alerts").out
    assert "No silences." in cluster.ok("alerts", "silence", "list").out


def test_channels(wap: Wap) -> None:
    mail = ["--host", "mail.example.com", "--from", "w@example.com", "--to", "a@example.com"]
    wap.ok("alerts", "channel", "add-email", "dba", *mail)
    made = wap.ok("alerts", "channel", "add-webhook", "hook", "--url", "https://example.com/hook").out
    assert "shown this once" in made
    secret = made.rpartition(": ")[2].strip()
    wap.ok("alerts", "channel", "add-slack", "chat", "--password-stdin", stdin="https://hooks.example.com/canary\n")
    wap.ok("alerts", "channel", "add-slack", "broken chat", "--password-stdin", stdin="https://hooks.example.com/x\n")
    shown = wap.ok("alerts", "channel", "list").out
    for word in ("dba", "hook", "chat", "a@example.com", "https://example.com/hook"):
        assert word in shown
    assert secret not in shown
    assert "canary" not in shown
    assert "Delivered" in wap.ok("alerts", "channel", "test", "dba").out
    failed = wap("alerts", "channel", "test", "broken chat")
    assert (failed.exit_code, "connection refused" in failed.err) == (1, True)
    shown = wap.ok("alerts", "channel", "list").out
    assert "connection refused" in shown
    wap.ok("alerts", "channel", "delete", "dba", "--yes")
    assert wap("alerts", "channel", "test", "dba").exit_code == 3


def test_a_viewer_sees_and_changes_nothing(cluster: Wap, fake: FakeControl) -> None:
    alert = fire(cluster, fake)
    cluster.ok("user", "create", "vera", "--role", "viewer", "--project", "demo")
    vera = logged_in(fake, cluster, "vera")
    assert alert in vera.ok("alerts").out
    assert vera("alerts", "acknowledge", alert).exit_code == 4
    assert vera("alerts", "silence", "create", "--for", "1h").exit_code == 4


def test_a_hostile_name_drives_no_terminal(cluster: Wap, fake: FakeControl) -> None:
    alert = fire(cluster, fake)

    def work() -> None:
        fake.world.alerts[alert].summary = "\x1b[2J\u202ehidden"

    fake.call(work)
    assert "\x1b[2J" not in cluster.ok("alerts").out
    assert "\u202e" not in cluster.ok("alerts", "show", alert).out


def test_every_command_has_help_and_json(cluster: Wap) -> None:
    group = next(one for one in app.registered_groups if one.name == "alerts")
    assert group.typer_instance is not None
    for command in ("list", "rule list", "silence list", "channel list"):
        assert json.loads(cluster.ok("alerts", *command.split(" "), "--json").out)
