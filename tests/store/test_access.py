"""Users and tokens: kept as hashes, good only as long and as far as they should be; guessing is slowed down."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.orm import Session

from controlplane.domain.access import Caller, Grant, Role, is_token
from controlplane.domain.failure import FailureCode, Refused
from controlplane.store import access
from controlplane.store.database import Database
from controlplane.store.tables import LoginAttempts, Token, User
from tests.store.rows import NOW, all_at_once

EVERYWHERE = Grant("", Role.ADMIN)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def ann(database: Database) -> User:
    return await database.write(lambda tx: access.insert_user(tx, "ann", "argon2-hash", [EVERYWHERE], NOW))


async def token(database: Database, user: User, kind: str = "session", **changes: Any) -> tuple[Token, str]:
    wish: dict[str, Any] = {
        "name": "t",
        "created_by": "user:ann",
        "grants": [],
        "now": NOW,
        "life": access.SESSION_LIFE,
    } | changes
    return await database.write(lambda tx: access.insert_token(tx, kind=kind, user_id=user.id, **wish))


async def who(database: Database, secret: str, after: timedelta = timedelta()) -> Caller | None:
    return await database.write(lambda tx: access.authenticate(tx, secret, NOW + after))


async def test_ten_users_of_one_name_at_once_are_one(database: Database) -> None:
    add = partial(access.insert_user, username="ann", password_hash="h", grants=[], now=NOW)
    outcomes = await all_at_once(database, [add] * 10)
    assert [one.code for one in outcomes if isinstance(one, Refused)] == [FailureCode.ALREADY_EXISTS] * 9


async def test_a_token_stands_for_its_user_and_is_nowhere_in_the_database(database: Database, ann: User) -> None:
    _, session = await token(database, ann)
    _, api = await token(database, ann, "api", grants=[EVERYWHERE])
    for secret, prefix in ((session, "waps_"), (api, "wap_api_")):
        assert secret.startswith(prefix)
        assert is_token(secret)
        caller = await who(database, secret)
        assert caller is not None
        assert caller.user_id == ann.id
    everything = await database.read(_all_text)
    assert session not in everything
    assert api not in everything
    assert access.digest(session) in everything  # so the look was thorough


def _all_text(tx: Session) -> str:
    tables = inspect(tx.connection()).get_table_names()
    return "".join(str(tx.execute(text(f'select * from "{name}"')).all()) for name in tables)


async def test_what_is_no_token_is_nobody(database: Database, ann: User) -> None:
    _, secret = await token(database, ann)
    for spoiled in ("", "x", "waps_nonsense", secret[:-1], secret.swapcase()):
        assert await who(database, spoiled) is None
    assert await who(database, access.digest(secret)) is None  # a stolen database opens no door


async def test_a_session_ends_when_idle_and_lives_while_it_is_used(database: Database, ann: User) -> None:
    _, used = await token(database, ann)
    _, idle = await token(database, ann)
    for minutes in range(20, 201, 20):
        assert await who(database, used, minutes * MINUTE) is not None
    assert await who(database, idle, access.SESSION_IDLE) is not None
    _, idle = await token(database, ann)
    assert await who(database, idle, access.SESSION_IDLE + MINUTE) is None


async def test_no_session_outlives_its_day_however_busy(database: Database, ann: User) -> None:
    _, secret = await token(database, ann)
    minutes = int(access.SESSION_LIFE / MINUTE)
    for minute in range(10, minutes, 10):
        assert await who(database, secret, minute * MINUTE) is not None
    assert await who(database, secret, access.SESSION_LIFE) is None


async def test_an_api_token_may_be_idle_but_expires(database: Database, ann: User) -> None:
    _, secret = await token(database, ann, "api", grants=[EVERYWHERE], life=timedelta(days=30))
    assert await who(database, secret, timedelta(days=29)) is not None
    assert await who(database, secret, timedelta(days=30)) is None


@pytest.mark.parametrize("kind", ["session", "api"])
async def test_a_revoked_token_is_worth_nothing_at_once(database: Database, ann: User, kind: str) -> None:
    row, secret = await token(database, ann, kind)
    other, kept = await token(database, ann, kind)
    for moment in (NOW, NOW + MINUTE):
        await database.write(partial(_revoke, id=row.id, now=moment))
    assert await who(database, secret) is None
    assert await who(database, kept) is not None
    assert (await database.read(lambda tx: tx.get_one(Token, row.id))).revoked_at == NOW  # the first time counts
    assert other.revoked_at is None


def _revoke(tx: Session, id: str, now: Any) -> None:
    access.revoke(tx, tx.get_one(Token, id), now)


async def test_ending_sessions_spares_the_one_in_use_and_programs(database: Database, ann: User) -> None:
    bob = await database.write(lambda tx: access.insert_user(tx, "bob", "h", [], NOW))
    mine, kept = await token(database, ann)
    _, ended = await token(database, ann)
    _, program = await token(database, ann, "api")
    _, other = await token(database, bob)
    await database.write(lambda tx: access.end_sessions(tx, ann.id, NOW, keep=mine.id))
    good = [await who(database, secret) is not None for secret in (kept, ended, program, other)]
    assert good == [True, False, True, True]


async def test_a_disabled_user_is_nobody_with_any_token(database: Database, ann: User) -> None:
    secrets = [(await token(database, ann, kind))[1] for kind in ("session", "api")]
    for disabled in (True, False):

        def work(tx: Session, disabled: bool = disabled) -> None:
            tx.get_one(User, ann.id).disabled = disabled

        await database.write(work)
        assert [await who(database, secret) is None for secret in secrets] == [disabled, disabled]


async def test_an_api_token_never_has_more_than_its_user_has_now(database: Database) -> None:
    granted = [Grant("pr-1", Role.ADMIN), Grant("pr-2", Role.VIEWER)]
    user = await database.write(lambda tx: access.insert_user(tx, "ann", "h", granted, NOW))
    _, secret = await token(database, user, "api", grants=[Grant("pr-1", Role.ADMIN), Grant("pr-2", Role.VIEWER)])

    async def rights() -> dict[str, bool]:
        caller = await who(database, secret)
        assert caller is not None
        return {project: caller.may(Role.OPERATOR, project) for project in ("pr-1", "pr-2", "")}

    assert await rights() == {"pr-1": True, "pr-2": False, "": False}
    await database.write(lambda tx: access.set_grants(tx, "user", user.id, [Grant("pr-1", Role.VIEWER)]))
    assert await rights() == {"pr-1": False, "pr-2": False, "": False}


async def test_use_is_noted_once_a_minute(database: Database, ann: User) -> None:
    row, secret = await token(database, ann)

    async def used() -> object:
        return (await database.read(lambda tx: tx.get_one(Token, row.id))).last_used_at

    await who(database, secret, timedelta(seconds=59))
    assert await used() == NOW
    await who(database, secret, timedelta(seconds=61))
    assert await used() == NOW + timedelta(seconds=61)


async def blocked(database: Database, keys: list[str], after: timedelta = timedelta()) -> bool:
    try:
        await database.read(lambda tx: access.check_attempts(tx, keys, NOW + after))
    except Refused as refusal:
        return refusal.code is FailureCode.TOO_MANY_ATTEMPTS and refusal.details.retryable
    return False


async def fail(database: Database, keys: list[str], times: int, after: timedelta = timedelta()) -> None:
    for _ in range(times):
        await database.write(lambda tx: access.note_failure(tx, keys, NOW + after))


async def wait_of(database: Database, key: str) -> timedelta:
    row = await database.read(lambda tx: tx.get_one(LoginAttempts, key))
    assert row.blocked_until is not None
    return row.blocked_until - row.updated_at


async def test_from_the_fifth_failure_on_each_doubles_the_wait(database: Database) -> None:
    await fail(database, ["ann"], access.FREE_FAILURES - 1)
    assert not await blocked(database, ["ann"])
    waits = []
    for _ in range(14):
        await fail(database, ["ann"], 1)
        waits.append(await wait_of(database, "ann"))
    assert waits == [min(access.MAX_DELAY, timedelta(seconds=2**number)) for number in range(14)]
    assert await blocked(database, ["ann"])
    assert await blocked(database, ["bob", "ann"])
    assert not await blocked(database, ["bob"])
    assert not await blocked(database, ["ann"], access.MAX_DELAY)


async def test_success_and_an_hour_forget_the_failures(database: Database) -> None:
    await fail(database, ["ann", "127.0.0.1"], access.FREE_FAILURES)
    await database.write(lambda tx: access.note_success(tx, ["ann"]))
    assert not await blocked(database, ["ann"])
    assert await blocked(database, ["127.0.0.1"])
    later = access.ATTEMPTS_FORGOTTEN + MINUTE
    await fail(database, ["127.0.0.1"], 1, later)
    assert not await blocked(database, ["127.0.0.1"], later)


async def test_failures_at_once_are_all_counted(database: Database) -> None:
    note = partial(access.note_failure, keys=["ann", "127.0.0.1"], now=NOW)
    backwards = partial(access.note_failure, keys=["127.0.0.1", "ann"], now=NOW)
    await all_at_once(database, [note, backwards] * 5)
    counts = await database.read(lambda tx: tx.scalars(select(LoginAttempts.failures)).all())
    assert counts == [10, 10]
