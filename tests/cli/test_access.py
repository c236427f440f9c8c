"""Projects, users, tokens, nodes, audit."""

from console.fake import FakeControl
from tests.cli.conftest import Wap, logged_in


def test_projects(wap: Wap) -> None:
    wap.ok("project", "create", "sales")
    assert wap("project", "create", "sales").exit_code == 5
    wap.ok("project", "use", "sales")
    assert any(line.startswith("*  sales") for line in wap.ok("project", "list").out.splitlines())
    wap.ok("cluster", "create", "orders", "--yes")
    busy = wap("project", "delete", "sales", "--confirm", "sales")
    assert (busy.exit_code, "PROJECT_NOT_EMPTY" in busy.err) == (5, True)
    wap.ok("cluster", "delete", "orders", "--confirm", "orders")
    assert wap("project", "delete", "sales").exit_code == 2
    wap.ok("project", "delete", "sales", "--confirm", "sales")
    assert [one["name"] for one in wap.ok("project", "list", "--json").json()["projects"]] == ["demo"]


def test_a_token_works_until_it_is_revoked(wap: Wap) -> None:
    made = wap.ok("token", "create", "ci", "--role", "viewer", "--project", "demo", "--json").json()
    secret = made["secret"]
    assert secret.startswith("wap_")
    assert wap("cluster", "list", WAP_TOKEN=secret).exit_code == 0
    assert wap("cluster", "create", "orders", "--yes", WAP_TOKEN=secret).exit_code == 4
    listed = wap.ok("token", "list")
    assert "viewer in demo" in listed.out
    assert secret not in listed.out
    wap.ok("token", "revoke", "ci", "--yes")
    assert wap("cluster", "list", WAP_TOKEN=secret).exit_code == 4
    assert wap("token", "revoke", "ci", "--yes").exit_code == 3


def test_it_must_be_said_where_a_role_counts(wap: Wap) -> None:
    assert wap("token", "create", "ci").exit_code == 2
    assert wap("user", "create", "eve", "--everywhere", "--project", "demo").exit_code == 2


def test_a_disabled_user_is_out_until_enabled_again(wap: Wap, fake: FakeControl, stranger: Wap) -> None:
    made = wap.ok("user", "create", "vera", "--role", "viewer", "--everywhere", "--json").json()
    assert len(made["initial_password"]) >= 12
    token = fake.call(lambda: fake.session("vera"))
    assert wap("cluster", "list", WAP_TOKEN=token).exit_code == 0
    wap.ok("user", "disable", "vera")
    assert "disabled" in wap.ok("user", "list").out
    assert wap("cluster", "list", WAP_TOKEN=token).exit_code == 4
    wap.ok("user", "enable", "vera")
    assert wap("cluster", "list", WAP_TOKEN=token).exit_code == 0
    assert wap("user", "disable", "nobody").exit_code == 3


def test_nodes_and_a_ban(wap: Wap) -> None:
    wap.ok("cluster", "create", "orders", "--yes")
    listed = wap.ok("node", "list", "--cluster", "orders").out
    assert listed.count("connected") == 3
    assert wap("node", "ban", "orders-rs0-1", "--yes").exit_code == 2  # no reason
    wap.ok("node", "ban", "orders-rs0-1", "--reason", "stolen key", "--yes")
    assert "banned" in wap.ok("node", "show", "orders-rs0-1").out
    assert wap("node", "show", "orders-rs0-9").exit_code == 3


def test_audit_tells_who_changed_what_with_the_request_that_the_caller_saw(wap: Wap) -> None:
    wap.ok("cluster", "create", "orders", "--yes")
    wap.ok("cluster", "connect", "orders")
    events = wap.ok("audit", "list", "--json").json()["events"]
    assert [event["action"] for event in events[:2]] == ["GetConnection", "CreateCluster"]
    assert all(event["actor"] == "user:admin" and len(event["request_id"]) == 32 for event in events)
    assert "CreateCluster" in wap.ok("audit", "list", "--project", "demo").out


def test_another_users_project_does_not_exist(wap: Wap, fake: FakeControl) -> None:
    wap.ok("project", "create", "secret-plans")
    wap.ok("user", "create", "vera", "--role", "admin", "--project", "demo")
    vera = logged_in(fake, wap, "vera")
    answer = vera("cluster", "list", "--project", "secret-plans")
    same = vera("cluster", "list", "--project", "no-such-plans")
    assert answer.exit_code == same.exit_code == 3
    assert answer.err.splitlines()[0] == same.err.splitlines()[0]
