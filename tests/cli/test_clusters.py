"""Clusters from the command line."""

from pathlib import Path

import pytest

from console.fake import FakeControl
from console.fake.clusters import DATABASE_PASSWORD
from tests.cli.conftest import Wap, logged_in


def test_the_plan_shows_steps_and_cost_and_changes_nothing(wap: Wap) -> None:
    answer = wap.ok("cluster", "create", "orders", "--plan")
    assert "Launch instance for rs0-1 in us-east-1b" in answer.out
    assert "$215.04" in answer.out
    assert wap.ok("cluster", "list", "--json").json()["clusters"] == []


def test_create_waits_and_the_cluster_is_listed(wap: Wap) -> None:
    answer = wap.ok("cluster", "create", "orders", "--yes", "--disk-gib", "50", "--zone", "us-east-1a")
    assert "succeeded" in answer.out
    assert "[14/14]" in answer.err
    row = next(line for line in wap.ok("cluster", "list").out.splitlines() if line.startswith("orders"))
    for text in ("demo", "available", "healthy", "3/3", "6.0.5", "m6i.large", "50 GiB"):
        assert text in row
    shown = wap.ok("cluster", "show", "orders").out
    assert "orders-rs0-2" in shown
    assert "PRIMARY" in shown


def test_json_has_the_names_of_the_contract(wap: Wap) -> None:
    operation = wap.ok("cluster", "create", "orders", "--yes", "-o", "json").json()
    assert operation["state"] == "OPERATION_STATE_SUCCEEDED"
    assert operation["steps_done"] == 14
    cluster = wap.ok("cluster", "show", "orders", "--json").json()
    assert cluster["spec"]["replica_sets"][0]["size"]["disk_gib"] == 20
    assert wap.ok("cluster", "show", cluster["id"], "--json").json()["name"] == "orders"


def test_nothing_is_created_without_a_yes_where_nobody_can_be_asked(wap: Wap) -> None:
    answer = wap("cluster", "create", "orders")
    assert (answer.exit_code, "--yes" in answer.err) == (2, True)
    assert wap.ok("cluster", "list", "--json").json()["clusters"] == []


@pytest.mark.parametrize(
    ("arguments", "field", "allowed"),
    [
        (("Orders",), "name", "a letter, then a-z"),
        (("../x",), "name", "a letter, then a-z"),
        (("оrders",), "name", "a letter, then a-z"),
        (("orders", "--members", "4"), "spec.replica_sets[0].members", "3, 5 or 7"),
        (("orders", "--instance-type", "t9.huge"), "spec.replica_sets[0].size.instance_type", "m6i.large"),
        (("orders", "--disk-gib", "99999"), "spec.replica_sets[0].size.disk_gib", "1 to 16384"),
        (("orders", "--zone", "mars-1a"), "spec.zones[0]", "us-east-1a"),
        (("orders", "--version", "3.2"), "spec.mongodb_version", "6.0.5"),
    ],
)
def test_a_refused_value_is_named_with_what_is_allowed(
    wap: Wap, arguments: tuple[str, ...], field: str, allowed: str
) -> None:
    answer = wap("cluster", "create", *arguments, "--yes")
    assert answer.exit_code == 2
    for text in ("INVALID_ARGUMENT", f"field: {field}", "given: ", "allowed: ", allowed, "request: "):
        assert text in answer.err
    assert len(answer.err.splitlines()) == 2
    error = wap("cluster", "create", *arguments, "--yes", "--json").error()
    assert (error["reason"], error["field"]) == ("INVALID_ARGUMENT", field)
    assert wap.ok("cluster", "list", "--json").json()["clusters"] == []


def test_exit_codes_tell_what_kind_of_failure_it_was(wap: Wap, fake: FakeControl) -> None:
    wap.ok("cluster", "create", "orders", "--yes")
    assert wap("cluster", "create", "orders", "--yes").exit_code == 5
    assert wap("cluster", "show", "nothing").exit_code == 3
    assert wap("operation", "show", "op-nothing").exit_code == 3
    assert wap("cluster", "show").exit_code == 2
    assert wap("cluster", "list", "--project", "nowhere").exit_code == 3
    wap.ok("user", "create", "vera", "--role", "viewer", "--everywhere")
    viewer = logged_in(fake, wap, "vera")
    assert viewer("cluster", "create", "other", "--yes").exit_code == 4
    assert viewer("cluster", "list").exit_code == 0


def test_the_password_is_shown_only_when_asked_for(wap: Wap, tmp_path: Path) -> None:
    wap.ok("cluster", "create", "orders", "--yes")
    for form in ((), ("--json",), ("--uri-only",)):
        hidden = wap.ok("cluster", "connect", "orders", *form)
        assert DATABASE_PASSWORD not in hidden.out + hidden.err
        assert DATABASE_PASSWORD in wap.ok("cluster", "connect", "orders", "--show-password", *form).out
    ca_file = tmp_path / "cluster-ca.pem"
    wap.ok("cluster", "connect", "orders", "--ca-out", str(ca_file))
    assert ca_file.read_text().startswith("-----BEGIN CERTIFICATE-----")
    unwritable = wap("cluster", "connect", "orders", "--ca-out", str(tmp_path / "no" / "where.pem"))
    assert (unwritable.exit_code, "cannot be written" in unwritable.err) == (2, True)


def test_the_uri_stands_alone_on_one_line(wap: Wap) -> None:
    wap.ok("cluster", "create", "orders", "--yes", "--members", "7")
    answer = wap.ok("cluster", "connect", "orders", "--uri-only")
    assert answer.out.startswith("mongodb://")
    assert answer.out.count("\n") == 1


def test_delete_needs_the_name_once_more(wap: Wap) -> None:
    wap.ok("cluster", "create", "orders", "--yes")
    assert wap("cluster", "delete", "orders").exit_code == 2
    assert wap("cluster", "delete", "orders", "--confirm", "order").exit_code == 2
    assert "Terminate instance" in wap.ok("cluster", "delete", "orders", "--plan").out
    assert wap.ok("cluster", "show", "orders", "--json").json()["state"] == "CLUSTER_STATE_AVAILABLE"
    wap.ok("cluster", "delete", "orders", "--confirm", "orders")
    assert wap("cluster", "show", "orders").exit_code == 3


def test_delete_of_a_protected_cluster_is_refused(wap: Wap) -> None:
    wap.ok("cluster", "create", "orders", "--yes", "--deletion-protection")
    answer = wap("cluster", "delete", "orders", "--confirm", "orders")
    assert (answer.exit_code, "DELETION_PROTECTED" in answer.err) == (5, True)


def test_what_a_server_says_cannot_drive_the_terminal(wap: Wap, fake: FakeControl) -> None:
    wap.ok("cluster", "create", "orders", "--yes")

    def spoil() -> None:
        cluster = next(iter(fake.world.clusters.values()))
        cluster.members[0].problem = "\x1b]0;owned\x07[bold red]x[/] \u202eevil"

    fake.call(spoil)
    shown = wap.ok("cluster", "show", "orders").out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "[bold red]x[/]" in shown
