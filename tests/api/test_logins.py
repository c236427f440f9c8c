"""Logging in, and what guessing costs."""

import asyncio
import time
from datetime import timedelta

import grpc
import pytest
from sqlalchemy import func, select
from wap.control.v1 import access_pb2 as pb

from console.client import WapError
from controlplane.api.passwords import MOST_WAITING, Passwords
from controlplane.api.service import ensure_admin
from controlplane.domain.access import Grant, Role, is_token
from controlplane.domain.clock import FakeClock
from controlplane.domain.failure import FailureCode, Refused
from controlplane.store.access import ATTEMPTS_FORGOTTEN, FREE_ADDRESS_FAILURES, SESSION_LIFE
from controlplane.store.database import Database
from controlplane.store.tables import AuditEvent, LoginAttempts, Token, User
from tests.api.world import PASSWORDS, START, World, running

PASSWORD, OTHER_PASSWORD = "correct horse battery", "another long password"


async def ada(world: World) -> str:
    """A user who can log in; the id."""
    return await world.person("ada", Grant("", Role.VIEWER), password_hash=await PASSWORDS.hash(PASSWORD))


async def login(world: World, password: str = PASSWORD, username: str = "ada") -> pb.LoginResponse:
    reply: pb.LoginResponse = await world.call(
        "AccessService/Login", pb.LoginRequest(username=username, password=password), None
    )
    return reply


async def refused(world: World, password: str = "wrong", username: str = "ada") -> WapError:
    return await world.refusal("AccessService/Login", pb.LoginRequest(username=username, password=password), None)


async def caller(world: World, as_: str) -> pb.Caller:
    found: pb.Caller = (await world.call("AccessService/GetCaller", pb.GetCallerRequest(), as_)).caller
    return found


async def test_a_login_gives_a_session_that_works_until_logout(both: World) -> None:
    user_id = await ada(both)
    reply = await login(both)
    assert is_token(reply.session_token)
    assert (reply.caller.actor, reply.caller.user_id) == ("user:ada", user_id)
    assert reply.caller.expire_time.ToDatetime(START.tzinfo) == START + SESSION_LIFE
    both.tokens["new"] = reply.session_token
    assert await caller(both, "new") == reply.caller
    await both.call("AccessService/Logout", pb.LogoutRequest(), "new")
    error = await both.refusal("AccessService/GetCaller", pb.GetCallerRequest(), "new")
    assert error.reason == "UNAUTHENTICATED"
    await caller(both, "ada")  # the other session goes on


async def test_only_hashes_are_kept(world: World) -> None:
    await ada(world)
    reply = await login(world)
    stored = str(await world.dump())
    assert PASSWORD not in stored
    assert reply.session_token not in stored


async def test_an_unknown_user_and_a_wrong_password_look_the_same(world: World) -> None:
    await ada(world)
    wrong, unknown = await refused(world), await refused(world, username="nobody")
    for error in (wrong, unknown):
        assert (error.code, error.reason, error.field) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "UNAUTHENTICATED",
            "password",
        )
    assert (wrong.message, wrong.allowed, wrong.given) == (unknown.message, unknown.allowed, unknown.given)


async def test_an_unknown_user_costs_as_much_time_as_a_wrong_password(sqlite: Database) -> None:
    passwords, fastest = Passwords(), {"ada": 99.0, "nobody": 99.0}
    async with running(sqlite, passwords=passwords) as world:
        await world.person("ada", password_hash=await passwords.hash(PASSWORD))
        for username in ("ada", "nobody") * 4:
            begin = time.perf_counter()
            await refused(world, username=username)
            fastest[username] = min(fastest[username], time.perf_counter() - begin)
            world.clock.advance(3600)
    assert fastest["nobody"] > 0.4 * fastest["ada"], "without a hash to compare it would take a tenth"


async def test_a_disabled_user_learns_nothing_from_the_right_password(world: World) -> None:
    user_id = await ada(world)
    wrong = await refused(world)
    await world.call("AccessService/SetUserDisabled", pb.SetUserDisabledRequest(user_id=user_id, disabled=True))
    right = await refused(world, PASSWORD)
    assert (right.reason, right.message) == (wrong.reason, wrong.message)


async def test_five_failures_delay_the_account_even_for_the_right_password(both: World) -> None:
    await ada(both)
    for _ in range(5):
        assert (await refused(both)).reason == "UNAUTHENTICATED"
    blocked = await refused(both, PASSWORD)
    assert (blocked.code, blocked.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS")
    assert blocked.allowed.startswith("after ")
    both.clock.advance(2)
    assert (await refused(both)).reason == "UNAUTHENTICATED"
    both.clock.advance(1)
    assert (await refused(both)).reason == "TOO_MANY_ATTEMPTS", "each failure doubles the delay"
    both.clock.advance(2)
    assert (await login(both)).session_token
    assert (await refused(both)).reason == "UNAUTHENTICATED", "a login forgets the failures"


async def test_the_address_is_delayed_too_whatever_names_it_tries(world: World) -> None:
    await ada(world)
    for number in range(FREE_ADDRESS_FAILURES - 1):
        await refused(world, username=f"guess-{number}")
    assert (await login(world)).session_token, "people behind one address do not lock each other out"
    await refused(world, username="one-more")
    assert (await refused(world, PASSWORD)).reason == "TOO_MANY_ATTEMPTS"


async def test_control_without_failures_nobody_waits(world: World) -> None:
    await ada(world)
    for _ in range(7):
        assert (await login(world)).session_token
    for _ in range(4):
        await refused(world)
    assert (await login(world)).session_token


async def test_the_delay_has_an_end_and_old_failures_are_forgotten(world: World) -> None:
    await ada(world)
    for _ in range(17):
        await refused(world)
        world.clock.advance(901)
    assert (await login(world)).session_token
    for _ in range(4):
        await refused(world)
    world.clock.advance(ATTEMPTS_FORGOTTEN.total_seconds() + 1)
    for _ in range(4):
        assert (await refused(world)).reason == "UNAUTHENTICATED"
    assert (await login(world)).session_token


async def test_guesses_made_at_the_same_moment_count_one_by_one(both: World) -> None:
    """All of them are let in before the first has failed; they must not all be judged."""
    await ada(both)
    errors = await asyncio.gather(*(refused(both, f"guess {number}") for number in range(12)))
    judged = [error for error in errors if error.reason == "UNAUTHENTICATED"]
    assert len(judged) == 5
    assert {error.reason for error in errors} == {"UNAUTHENTICATED", "TOO_MANY_ATTEMPTS"}
    rows = await both.database.read(lambda tx: {row.key: row.failures for row in tx.scalars(select(LoginAttempts))})
    assert rows["account:ada"] == 5


async def test_failed_logins_are_audited_without_what_may_be_a_password(world: World) -> None:
    user_id = await ada(world)
    await refused(world)
    await refused(world, username="nobody")
    await refused(world, username="My Secret Passphrase!")
    await login(world)
    events = [event for event in await world.events() if event.action == "Login"]
    told = [(event.actor, event.resource, event.outcome) for event in reversed(events)]
    assert told == [
        ("user:ada", f"user/{user_id}", "UNAUTHENTICATED"),
        ("user:nobody", "", "UNAUTHENTICATED"),
        ("user:?", "", "UNAUTHENTICATED"),
        ("user:ada", f"user/{user_id}", "ok"),
    ]
    assert "Passphrase" not in str(events)
    assert "wrong password" in events[-1].after_json
    assert all(event.peer.startswith("ipv4:127.0.0.1:") and event.request_id for event in events)


async def test_a_changed_password_ends_the_other_sessions_but_not_this_one(both: World) -> None:
    await ada(both)
    both.tokens["desk"], both.tokens["phone"] = [(await login(both)).session_token for _ in range(2)]
    request = pb.ChangePasswordRequest(old_password="not it at all", new_password=OTHER_PASSWORD)
    error = await both.refusal("AccessService/ChangePassword", request, "desk")
    assert (error.reason, error.field) == ("UNAUTHENTICATED", "old_password")
    await caller(both, "phone")
    request.old_password = PASSWORD
    await both.call("AccessService/ChangePassword", request, "desk")
    await caller(both, "desk")
    assert (await both.refusal("AccessService/GetCaller", pb.GetCallerRequest(), "phone")).reason == "UNAUTHENTICATED"
    assert (await refused(both, PASSWORD)).reason == "UNAUTHENTICATED"
    assert (await login(both, OTHER_PASSWORD)).session_token
    assert OTHER_PASSWORD not in str(await both.dump())


async def test_the_old_password_is_not_guessed_faster_here(world: World) -> None:
    await ada(world)
    request = pb.ChangePasswordRequest(old_password="guess", new_password=OTHER_PASSWORD)
    reasons = [(await world.refusal("AccessService/ChangePassword", request, "ada")).reason for _ in range(6)]
    assert reasons == ["UNAUTHENTICATED"] * 5 + ["TOO_MANY_ATTEMPTS"]


@pytest.mark.parametrize("most", [MOST_WAITING, MOST_WAITING + 1])
async def test_more_passwords_than_can_be_judged_at_once_are_sent_away(most: int) -> None:
    """A flood of logins must not pile up without end."""
    answers = await asyncio.gather(*(PASSWORDS.verify("x", None) for _ in range(most)), return_exceptions=True)
    refusals = [answer for answer in answers if isinstance(answer, Refused)]
    assert len(refusals) == most - MOST_WAITING
    assert all(refusal.code is FailureCode.TOO_MANY_ATTEMPTS and refusal.details.retryable for refusal in refusals)
    assert await PASSWORDS.verify("x", None) is False, "and afterwards there is room again"


async def test_a_session_that_nobody_uses_ends(world: World) -> None:
    await ada(world)
    world.tokens["new"] = (await login(world)).session_token
    for _ in range(3):
        world.clock.advance(29 * 60)
        await caller(world, "new")  # use keeps it alive
    world.clock.advance(31 * 60)
    assert (await world.refusal("AccessService/GetCaller", pb.GetCallerRequest(), "new")).reason == "UNAUTHENTICATED"


async def test_the_first_start_makes_one_administrator_however_many_start(database: Database) -> None:
    others = [Database(database.url) for _ in range(2)]
    try:
        clock = FakeClock(START)
        stores = [database, *others, database, *others]
        passwords = await asyncio.gather(*(ensure_admin(store, clock) for store in stores))
        (password,) = [text for text in passwords if text]
        assert await ensure_admin(database, clock) is None, "and never again"
        assert await database.read(lambda tx: tx.scalar(select(func.count()).select_from(User))) == 1
        assert await database.read(lambda tx: tx.scalar(select(func.count()).select_from(AuditEvent))) == 1
        async with running(database) as world:
            reply = await login(world, password, "admin")
            assert [(grant.project_id, grant.role) for grant in reply.caller.grants] == [("", 3)]
            assert password not in str(await world.dump())
    finally:
        for store in others:
            await store.close()


async def test_sessions_last_twelve_hours_however_busy(world: World) -> None:
    await ada(world)
    world.tokens["new"] = (await login(world)).session_token
    for _ in range(25):
        world.clock.advance(timedelta(minutes=28).total_seconds())
        await caller(world, "new")
    world.clock.advance(timedelta(minutes=20).total_seconds())
    assert (await world.refusal("AccessService/GetCaller", pb.GetCallerRequest(), "new")).reason == "UNAUTHENTICATED"
    assert await world.database.read(lambda tx: tx.scalar(select(func.count()).select_from(Token)))
