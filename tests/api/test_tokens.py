"""Users and the tokens of programs: scoped, expiring, revocable, and never more than their maker has."""

from datetime import timedelta

import pytest
from wap.control.v1 import access_pb2 as pb
from wap.control.v1 import cluster_pb2, project_pb2
from wap.type.v1 import cluster_pb2 as type_pb2

from controlplane.domain.access import Grant, Role, is_token
from controlplane.store import access
from tests.api.world import START, World, a_wish

DAY = 24 * 3600
VIEWER, OPERATOR, ADMIN = type_pb2.ACCESS_ROLE_VIEWER, type_pb2.ACCESS_ROLE_OPERATOR, type_pb2.ACCESS_ROLE_ADMIN
WHO = "AccessService/GetCaller", pb.GetCallerRequest()


async def token(
    world: World,
    as_: str,
    role: type_pb2.AccessRole.ValueType,
    project: str = "aa",
    *,
    name: str = "ci",
    days: int = 0,
) -> pb.Token:
    """A token that is kept under its name."""
    project_id = world.ids[project] if project else ""
    request = pb.CreateTokenRequest(name=name, grants=[pb.Grant(project_id=project_id, role=role)], expire_days=days)
    reply = await world.call("AccessService/CreateToken", request, as_)
    assert is_token(reply.secret)
    world.tokens[name] = reply.secret
    made: pb.Token = reply.token
    return made


async def test_a_token_does_what_it_was_made_for_and_no_more(both: World) -> None:
    made = await token(both, "admin-a", OPERATOR)
    assert (made.created_by, made.revoked) == ("user:admin-a", False)
    reply = await both.call("ClusterService/CreateCluster", a_wish(both.ids["aa"]), "ci")
    assert reply.operation.actor == "token:ci"
    assert (await both.refusal("ClusterService/CreateCluster", a_wish(both.ids["bb"]), "ci")).reason == "NOT_FOUND"
    request = project_pb2.DeleteProjectRequest(project_id=both.ids["aa"])
    assert (await both.refusal("ProjectService/DeleteProject", request, "ci")).reason == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("as_", "project", "role", "reason"),
    [
        ("operator-a", "aa", ADMIN, "PERMISSION_DENIED"),
        ("operator-a", "", VIEWER, "PERMISSION_DENIED"),
        ("operator-a", "bb", VIEWER, "NOT_FOUND"),
        ("viewer-a", "aa", OPERATOR, "PERMISSION_DENIED"),
        ("operator-a", "aa", OPERATOR, ""),
        ("operator-a", "aa", VIEWER, ""),
        ("root", "", ADMIN, ""),
        ("root", "bb", ADMIN, ""),
    ],
)
async def test_nobody_gives_a_token_more_than_they_have(
    world: World, as_: str, project: str, role: type_pb2.AccessRole.ValueType, reason: str
) -> None:
    grants = [pb.Grant(project_id=world.ids[project] if project else "", role=role)]
    request = pb.CreateTokenRequest(name="ci", grants=grants)
    if reason:
        assert (await world.refusal("AccessService/CreateToken", request, as_)).reason == reason
    else:
        assert (await world.call("AccessService/CreateToken", request, as_)).secret


async def test_a_foreign_project_in_a_grant_is_as_missing_as_any(world: World) -> None:
    told = []
    for project_id in (world.ids["bb"], "pr-aaaaaaaaaaaaaaaa"):
        request = pb.CreateTokenRequest(name="ci", grants=[pb.Grant(project_id=project_id, role=VIEWER)])
        error = await world.refusal("AccessService/CreateToken", request, "viewer-a")
        told.append((error.code, error.reason, error.message, error.field, error.allowed))
    assert told[0] == told[1]


@pytest.mark.parametrize(("days", "life"), [(0, 30), (1, 1), (90, 90)])
async def test_a_token_ends_by_itself(world: World, days: int, life: int) -> None:
    made = await token(world, "admin-a", VIEWER, days=days)
    assert made.expire_time.ToDatetime(START.tzinfo) == START + timedelta(days=life)
    world.clock.advance(life * DAY - 1)
    assert (await world.call(*WHO, "ci")).caller.actor == "token:ci"
    world.clock.advance(1)
    assert (await world.refusal(*WHO, "ci")).reason == "UNAUTHENTICATED"


async def test_a_revoked_token_is_worth_nothing_and_may_be_revoked_again(both: World) -> None:
    made = await token(both, "admin-a", VIEWER)
    await both.call(*WHO, "ci")
    for _ in range(2):
        reply = await both.call("AccessService/RevokeToken", pb.RevokeTokenRequest(token_id=made.id), "admin-a")
        assert reply.token.revoked
    assert (await both.refusal(*WHO, "ci")).reason == "UNAUTHENTICATED"


async def test_a_token_loses_what_its_maker_loses(world: World) -> None:
    await token(world, "operator-a", OPERATOR)
    wish = a_wish(world.ids["aa"])
    wish.validate_only = True
    await world.call("ClusterService/CreateCluster", wish, "ci")
    less = [Grant(world.ids["aa"], Role.VIEWER)]
    await world.database.write(lambda tx: access.set_grants(tx, "user", world.ids["user:operator-a"], less))
    assert (await world.refusal("ClusterService/CreateCluster", wish, "ci")).reason == "NOT_FOUND"
    request = pb.SetUserDisabledRequest(user_id=world.ids["user:operator-a"], disabled=True)
    await world.call("AccessService/SetUserDisabled", request)
    assert (await world.refusal(*WHO, "ci")).reason == "UNAUTHENTICATED"


async def test_a_disabled_users_sessions_stay_ended_when_the_user_is_let_in_again(world: World) -> None:
    await token(world, "operator-a", OPERATOR)
    for disabled in (True, False):
        request = pb.SetUserDisabledRequest(user_id=world.ids["user:operator-a"], disabled=disabled)
        assert (await world.call("AccessService/SetUserDisabled", request)).user.disabled is disabled
    assert (await world.refusal(*WHO, "operator-a")).reason == "UNAUTHENTICATED"
    assert (await world.call(*WHO, "ci")).caller.actor == "token:ci"


async def test_a_token_makes_no_token_that_outlives_it(world: World) -> None:
    """A leaked token that could renew itself would never end."""
    await token(world, "admin-a", OPERATOR, days=10)
    longer = pb.CreateTokenRequest(
        name="longer", grants=[pb.Grant(project_id=world.ids["aa"], role=VIEWER)], expire_days=11
    )
    error = await world.refusal("AccessService/CreateToken", longer, "ci")
    assert (error.field, error.given) == ("expire_days", "11")
    assert "at most 10" in error.allowed
    child = await token(world, "ci", VIEWER, name="child")
    assert child.expire_time.ToDatetime(START.tzinfo) == START + timedelta(days=10)
    control = await token(world, "admin-a", VIEWER, name="control", days=90)  # a session may
    assert control.expire_time.ToDatetime(START.tzinfo) == START + timedelta(days=90)


async def test_a_token_changes_no_password(world: World) -> None:
    await token(world, "admin-a", ADMIN)
    request = pb.ChangePasswordRequest(old_password="x", new_password="y" * 12)
    error = await world.refusal("AccessService/ChangePassword", request, "ci")
    assert (error.reason, error.allowed) == ("PERMISSION_DENIED", "a session from Login")


async def test_people_see_and_revoke_their_own_tokens_and_the_administrator_all(world: World) -> None:
    own, others = (
        await token(world, "viewer-a", VIEWER, name="own"),
        await token(world, "admin-a", VIEWER, name="others"),
    )

    async def listed(as_: str) -> set[str]:
        return {one.name for one in (await world.call("AccessService/ListTokens", pb.ListTokensRequest(), as_)).tokens}

    assert await listed("viewer-a") == {"own"}
    assert await listed("root") == {"own", "others"}
    foreign = await world.refusal("AccessService/RevokeToken", pb.RevokeTokenRequest(token_id=others.id), "viewer-a")
    missing = await world.refusal("AccessService/RevokeToken", pb.RevokeTokenRequest(token_id="tk-no"), "viewer-a")
    assert (foreign.reason, foreign.message, foreign.field) == (missing.reason, missing.message, missing.field)
    await world.call("AccessService/RevokeToken", pb.RevokeTokenRequest(token_id=own.id), "viewer-a")
    await world.call("AccessService/RevokeToken", pb.RevokeTokenRequest(token_id=others.id), "root")


async def test_the_text_of_a_token_is_shown_once_and_kept_nowhere(world: World) -> None:
    await token(world, "viewer-a", VIEWER)
    assert world.tokens["ci"] not in str(await world.dump())
    reply = await world.call("AccessService/ListTokens", pb.ListTokensRequest(), "viewer-a")
    assert world.tokens["ci"] not in str(reply)
    assert world.tokens["ci"] not in str(await world.events())


async def test_the_last_use_of_a_token_is_known_to_the_minute(world: World) -> None:
    await token(world, "viewer-a", VIEWER)
    world.clock.advance(120)
    await world.call(*WHO, "ci")
    (listed,) = (await world.call("AccessService/ListTokens", pb.ListTokensRequest(), "viewer-a")).tokens
    assert listed.last_used_time.ToDatetime(START.tzinfo) == START + timedelta(seconds=120)


async def test_a_new_user_can_do_what_was_granted(both: World) -> None:
    grants = [pb.Grant(project_id=both.ids["aa"], role=OPERATOR)]
    reply = await both.call("AccessService/CreateUser", pb.CreateUserRequest(username="grace", grants=grants))
    assert len(reply.initial_password) >= 12
    login = await both.call(
        "AccessService/Login", pb.LoginRequest(username="grace", password=reply.initial_password), None
    )
    both.tokens["grace"] = login.session_token
    assert list(login.caller.grants) == grants
    request = cluster_pb2.GetClusterRequest(cluster_id=both.ids["orders"])
    await both.call("ClusterService/GetCluster", request, "grace")
    users = (await both.call("AccessService/ListUsers", pb.ListUsersRequest())).users
    found = next(user for user in users if user.username == "grace")
    assert (found.id, list(found.grants), found.disabled) == (reply.user.id, grants, False)
    assert found.last_login_time.ToDatetime(START.tzinfo) == START
    assert [user.username for user in users] == sorted(user.username for user in users)


async def test_a_password_that_was_given_is_not_shown_again(world: World) -> None:
    request = pb.CreateUserRequest(username="grace", password="a given password")
    reply = await world.call("AccessService/CreateUser", request)
    assert reply.initial_password == ""
    assert "a given password" not in str(await world.dump())


async def test_the_roles_in_a_project_go_with_it(world: World) -> None:
    project_id = (
        await world.call("ProjectService/CreateProject", project_pb2.CreateProjectRequest(name="cc"))
    ).project.id
    await world.person("guest", Grant(project_id, Role.ADMIN))
    await world.call("ProjectService/DeleteProject", project_pb2.DeleteProjectRequest(project_id=project_id), "guest")
    assert not (await world.call(*WHO, "guest")).caller.grants
    request = project_pb2.GetProjectRequest(project_id=project_id)
    assert (await world.refusal("ProjectService/GetProject", request)).reason == "NOT_FOUND"
