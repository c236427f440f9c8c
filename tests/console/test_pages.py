"""What people do on the pages, from the first cluster to the last."""

import pytest
from wap.control.v1.access_pb2 import Grant
from wap.control.v1.cluster_pb2 import CLUSTER_HEALTH_UNAVAILABLE, Cluster
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_VIEWER

from console.client import AsyncClient
from tests.console.conftest import WITHIN, Console, Person


@pytest.fixture
async def person(console: Console) -> Person:
    return await console.person()


async def make_cluster(console: Console, name: str = "orders") -> Cluster:
    """A cluster that is ready, made by somebody else."""
    fake = console.fake
    async with AsyncClient(fake.endpoint, ca_pem=fake.ca_pem, token=fake.session()) as client:
        operation = await client.create_cluster("demo", name)
        await client.wait(operation.id, timeout=WITHIN)
        return await client.cluster("demo", name)


async def through_the_wizard(person: Person, name: str) -> None:
    """As far as the review."""
    await person.open("/clusters/new")
    await person.type("name", name)
    await person.click("next")
    await person.sees("Machines and storage")
    await person.click("next")
    await person.sees("Review the plan")


async def test_an_empty_list_invites_to_create(person: Person) -> None:
    await person.open("/clusters")
    await person.sees("No clusters yet", "Create cluster", "0 / 0")


async def test_a_cluster_appears_without_a_reload(console: Console, person: Person) -> None:
    await person.open("/clusters")
    await person.sees("No clusters yet")
    await make_cluster(console)
    await person.sees("orders", "Healthy", "3 / 3", "m6i.large", "$215.04", "MongoDB 6.0.5")
    await person.misses("No clusters yet")


async def test_the_wizard_shows_the_plan_and_creates(console: Console, person: Person) -> None:
    await through_the_wizard(person, "orders")
    await person.sees("Create VPC, subnets and security group", "Waits for agent of rs0-1", "$215.04")
    assert not console.fake.world.clusters  # nothing was made for the preview
    await person.click("create")
    await person.arrives("/operations/")
    await person.sees("Create cluster orders", "Succeeded", "14 / 14")
    assert [one.name for one in console.fake.world.clusters.values()] == ["orders"]


async def test_the_wizard_carries_every_choice(console: Console, person: Person) -> None:
    await person.open("/clusters/new")
    await person.type("name", "big")
    await person.click("members:5")
    await person.click("next")
    await person.click("type:r6i.large")
    await person.type("disk", "100")
    await person.click("zone:us-east-1b")
    await person.click("next")
    await person.sees("$499.90")
    await person.click("create")
    await person.arrives("/operations/")
    spec = next(iter(console.fake.world.clusters.values())).spec
    assert list(spec.zones) == ["us-east-1a", "us-east-1c"]
    assert (spec.replica_sets[0].members, spec.replica_sets[0].size.disk_gib) == (5, 100)
    assert spec.replica_sets[0].size.instance_type == "r6i.large"


async def test_a_bad_name_is_refused_with_field_and_what_is_allowed(person: Person) -> None:
    await person.open("/clusters/new")
    await person.type("name", "Bad Name")
    await person.click("next")
    await person.sees("The value of name is not allowed.", "INVALID_ARGUMENT", "Bad Name", "Request")
    assert not person.finds("Machines and storage")


async def test_a_disk_of_no_size_is_refused(person: Person) -> None:
    await person.open("/clusters/new")
    await person.type("name", "orders")
    await person.click("next")
    await person.type("disk", "0")
    await person.click("next")
    await person.sees("1 to 16384 GiB")


async def test_without_a_project_the_wizard_makes_one(console: Console, person: Person) -> None:
    console.fake.world.projects.clear()
    await person.open("/clusters/new")
    await person.type("new-project", "shop")
    await person.type("name", "orders")
    await person.click("next")
    await person.sees("Machines and storage")
    assert [project.name for project in console.fake.world.projects.values()] == ["shop"]


async def test_an_operation_is_watched_live(console: Console, person: Person) -> None:
    console.fake.engine.hold("agent:rs0-1")
    await through_the_wizard(person, "orders")
    await person.click("create")
    await person.arrives("/operations/")
    await person.sees("Waiting for agent of rs0-1", "Running", "Live")
    console.fake.engine.release()
    await person.sees("Succeeded", "14 / 14")


async def test_a_failure_says_why_and_a_retry_carries_on(console: Console, person: Person) -> None:
    console.fake.engine.fail("instance:rs0-1")
    await through_the_wizard(person, "orders")
    await person.click("create")
    await person.arrives("/operations/")
    await person.sees(
        "AWS has no capacity for this instance type in any zone.", "CLOUD_CAPACITY", "another instance type"
    )
    await person.click("retry")
    await person.sees("Succeeded", "attempt 2")


async def test_a_failed_operation_can_be_abandoned(console: Console, person: Person) -> None:
    console.fake.engine.fail("instance:rs0-1")
    await through_the_wizard(person, "orders")
    await person.click("create")
    await person.arrives("/operations/")
    await person.click("abandon")
    await person.click("confirm-abandon")
    await person.sees("Abandoned")


async def test_a_running_operation_is_cancelled_and_undone(console: Console, person: Person) -> None:
    console.fake.engine.hold("mongod:rs0-0")
    await through_the_wizard(person, "orders")
    await person.click("create")
    await person.arrives("/operations/")
    await person.sees("Waiting for mongod to answer")
    await person.click("cancel")
    await person.click("confirm-cancel")
    await person.sees("Cancelled", "Undo: Machines")


async def test_the_cluster_page_shows_members_and_configuration(console: Console, person: Person) -> None:
    cluster = await make_cluster(console)
    await person.open(f"/clusters/{cluster.id}")
    await person.sees("orders-rs0-0", "Primary · us-east-1a", "Secondary · us-east-1b", "127.77.1.5:27017")
    await person.sees("Agent connected", "Takes writes", "3 members in 3 zones", "Create cluster orders", "Memory")


async def test_trouble_of_a_cluster_is_seen_without_a_reload(console: Console, person: Person) -> None:
    cluster = await make_cluster(console)
    await person.open(f"/clusters/{cluster.id}")
    await person.sees("Healthy")
    row = console.fake.world.clusters[cluster.id]
    row.health, row.health_reason = CLUSTER_HEALTH_UNAVAILABLE, "No primary: 2 of 3 members do not answer"
    console.fake.world.touch()
    await person.sees("Unavailable", "No primary: 2 of 3 members do not answer")


async def test_the_password_is_hidden_until_asked_for_and_asking_is_audited(console: Console, person: Person) -> None:
    cluster = await make_cluster(console)
    await person.open(f"/clusters/{cluster.id}")
    await person.sees("Show connection strings")
    assert not [event for event in console.fake.world.audit if event.action == "GetConnection"]
    await person.click("connect")
    await person.sees("mongodb://wap-admin:****@127.77.1.5", "MongoClient(", "mongosh")
    assert not person.finds("fake-database-password")
    await person.click("show-password")
    await person.sees("wap-admin:fake-database-password@")
    await person.click("hide-password")
    await person.misses("fake-database-password")
    assert len([event for event in console.fake.world.audit if event.action == "GetConnection"]) == 1


async def test_the_ca_file_is_downloaded(console: Console, person: Person) -> None:
    cluster = await make_cluster(console)
    await person.open(f"/clusters/{cluster.id}")
    await person.click("connect")
    await person.click("ca")
    answer = await person.user.download.next(timeout=WITHIN)
    assert b"BEGIN CERTIFICATE" in answer.content


async def test_a_delete_needs_the_name(console: Console, person: Person) -> None:
    cluster = await make_cluster(console)
    await person.open(f"/clusters/{cluster.id}")
    await person.click("delete")
    await person.sees("Delete orders?", "Ends a cost of about")
    await person.type("confirm-name", "order")
    await person.click("confirm-delete")
    await person.sees("NAME_NOT_CONFIRMED")
    await person.type("confirm-name", "orders")
    await person.click("confirm-delete")
    await person.arrives("/operations/")
    await person.sees("Delete cluster orders", "Succeeded")
    await person.open("/clusters")
    await person.sees("No clusters yet")


async def test_a_busy_cluster_says_which_operation_runs(console: Console, person: Person) -> None:
    console.fake.engine.hold("mongod:rs0-0")
    await through_the_wizard(person, "orders")
    await person.click("create")
    await person.arrives("/operations/")
    cluster = next(iter(console.fake.world.clusters.values()))
    await person.open(f"/clusters/{cluster.id}")
    await person.sees("Create cluster orders is running: step", "View operation", "Connection strings appear here when")
    await person.click("delete")
    await person.sees("An operation is running on the cluster.")


async def test_an_agent_is_banned_with_a_reason(console: Console, person: Person) -> None:
    await make_cluster(console)
    await person.open("/nodes")
    await person.sees("orders-rs0-2", "Connected", "i-00000000000000003", "vol-00000000000000003", "Version 0.1.0")
    await person.click("ban:orders-rs0-2")
    await person.sees("Ban this agent?")
    await person.click("confirm-ban")
    await person.sees("one sentence")  # a reason is needed
    await person.type("ban-reason", "its key was copied")
    await person.click("confirm-ban")
    await person.sees("Banned", "2 / 3")


async def test_the_audit_log_shows_who_did_what(console: Console, person: Person) -> None:
    cluster = await make_cluster(console)
    await person.open("/audit")
    await person.sees("CreateCluster", f"cluster/{cluster.id}", "Login")
    await person.type("resource", f"cluster/{cluster.id}")
    await person.click("search")
    await person.misses("Login")
    await person.sees("CreateCluster")


async def test_a_token_is_shown_once_and_revoked(console: Console, person: Person) -> None:
    await person.open("/access")
    await person.click("create-token")
    await person.type("token-name", "ci")
    await person.click("token-role:Operator")
    await person.click("confirm-token")
    await person.sees("it is not shown again", "wap_", "Operator in all projects")
    await person.click("secret-done")
    await person.misses("wap_0")
    await person.click("revoke:ci")
    await person.click("confirm-revoke")
    await person.sees("No tokens")
    assert all(token.revoked for token in console.fake.world.tokens.values())


async def test_a_user_is_added_and_locked_out(console: Console, person: Person) -> None:
    await person.open("/access")
    await person.click("add-user")
    await person.type("user-name", "eve")
    await person.click("confirm-user")
    await person.sees("The first password", "Viewer in all projects")
    await person.click("secret-done")
    await person.click("lock:eve")
    await person.sees("Disabled", "Let in")


async def test_a_password_is_changed(console: Console, person: Person) -> None:
    await person.open("/access")
    await person.type("old-password", "wrong")
    await person.type("new-password", "a much longer one")
    await person.type("again-password", "a much longer one")
    await person.click("change-password")
    await person.sees("The old password is wrong.")
    assert person.path == "/access"  # a wrong password does not end the session
    await person.type("old-password", "password")
    await person.click("change-password")
    await person.sees("The password is changed")
    assert (await console.person("admin", "a much longer one")).user


async def test_a_viewer_sees_but_is_offered_nothing_to_change(console: Console) -> None:
    cluster = await make_cluster(console)
    console.fake.world.add_user("vera", "password-of-vera", [Grant(role=ACCESS_ROLE_VIEWER)])
    person = await console.person("vera", "password-of-vera")
    await person.open(f"/clusters/{cluster.id}")
    await person.sees("orders-rs0-0", "Your role in this project does not include")
    assert not person.offers("delete")
    assert not person.offers("connect")
    await person.open("/nodes")
    await person.sees("orders-rs0-0")
    assert not person.offers("ban:orders-rs0-0")


async def test_a_thing_that_does_not_exist_says_so(person: Person) -> None:
    await person.open("/clusters/cl-nothing")
    await person.sees("This page cannot be shown", "There is no such cluster", "NOT_FOUND")


async def test_a_lost_control_plane_is_told_and_found_again(console: Console, person: Person) -> None:
    await person.open("/clusters")
    await person.sees("No clusters yet", "Live")
    await console.fake.stop()
    await person.sees("Reconnecting")
    await console.fake.start()
    await person.sees("Live")
    await make_cluster(console)
    await person.sees("orders")


async def test_pages_share_one_stream_and_leave_none_behind(console: Console, person: Person) -> None:
    await person.open("/clusters")
    await person.sees("No clusters yet")
    first = person.page
    await person.open("/clusters")
    await person.sees("No clusters yet")
    session = console.sessions.owner_of(person.page.id)
    assert session is not None
    assert len(session.feeds) == 3  # the clusters, their last hour, and the alerts that every page tells of
    first.delete()
    assert len(session.feeds) == 3
    person.page.delete()
    assert len(session.feeds) == 0
    assert not session.pages


async def test_a_login_page_is_the_end_of_a_session_that_the_control_plane_ended(
    console: Console, person: Person
) -> None:
    await person.open("/access")
    await person.sees("No tokens")
    console.fake.world.session_users.clear()
    await person.click("create-token")
    await person.type("token-name", "ci")
    await person.click("confirm-token")
    await person.is_sent_to("/login?next=/access")
    assert (await person.user.http_client.get("/clusters")).status_code == 303
