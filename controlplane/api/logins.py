"""Passwords are judged here: the same words and the same time for an unknown user as for a wrong password.

After five failures of an account, or thirty of an address, each further one doubles a delay. Failures are counted and
audited in one transaction, and a blocked guess is refused there even when it is right: many guesses at once gain nothing.
"""

from datetime import datetime
from typing import TypeVar

from sqlalchemy.orm import Session

from controlplane.api import calls
from controlplane.api.calls import Call
from controlplane.api.changes import change
from controlplane.api.services import Services
from controlplane.domain.access import USERNAME, Caller
from controlplane.domain.failure import FailureCode, Refused, WapFailure
from controlplane.store import access
from controlplane.store.access import SESSION_LIFE
from controlplane.store.tables import User

T = TypeVar("T")
MAX_KEY = 200


class Logins:
    """Logs in and changes passwords."""

    def __init__(self, services: Services) -> None:
        self._database, self._clock, self._passwords = services.database, services.clock, services.passwords

    async def login(self, username: str, password: str) -> tuple[str, Caller]:
        """The text of a new session token and who it stands for."""
        call, keys = calls.current(), _keys(username, calls.current())
        stored = await self._password_hash(username, keys)
        fits = await self._passwords.verify(password, stored)

        def work(tx: Session) -> tuple[str, Caller] | WapFailure:
            now = self._clock.now()
            access.check_attempts(tx, keys, now)
            user = access.user_by_name(tx, username)
            if not fits or user is None or user.disabled:
                return _failed(tx, call, keys, now, username, user, "password")
            # Not of the address: whoever has one account there would else guess at the others for ever.
            access.note_success(tx, keys[:1])
            return _opened(tx, call, user, now)

        return _raised(await change(self._database, work))

    async def _password_hash(self, username: str, keys: tuple[str, str]) -> str | None:
        def work(tx: Session) -> str | None:
            access.check_attempts(tx, keys, self._clock.now())
            user = access.user_by_name(tx, username)
            return user.password_hash if user is not None else None

        return await self._database.read(work)

    async def change_password(self, old: str, new: str) -> None:
        """Replace the caller's password; the old one is guessed no faster here than at a login."""
        call = calls.current()
        caller = call.caller
        if not caller.is_session:
            raise Refused(
                FailureCode.PERMISSION_DENIED,
                "an API token cannot change a password",
                field="authorization",
                given=caller.actor,
                allowed="a session from Login",
            )
        username = caller.display_name
        keys = _keys(username, call)
        fits = await self._passwords.verify(old, await self._password_hash(username, keys))
        hashed = await self._passwords.hash(new)

        def work(tx: Session) -> WapFailure | None:
            now = self._clock.now()
            access.check_attempts(tx, keys, now)
            user = tx.get_one(User, caller.user_id)
            if not fits:
                return _failed(tx, call, keys, now, username, user, "old_password")
            access.note_success(tx, keys[:1])
            user.password_hash = hashed
            access.end_sessions(tx, user.id, now, keep=caller.token_id)
            call.record(tx, now, f"user/{user.id}", after={"other_sessions": "ended"})
            return None

        _raised(await change(self._database, work))


def _keys(username: str, call: Call) -> tuple[str, str]:
    return f"account:{username}"[:MAX_KEY], f"{access.ADDRESS}{call.address}"[:MAX_KEY]


def _failed(
    tx: Session, call: Call, keys: tuple[str, str], now: datetime, username: str, user: User | None, field: str
) -> WapFailure:
    """Count and audit; returned, not raised, so that the transaction commits."""
    access.note_failure(tx, keys, now)
    # What is no user name may be a password in the wrong field.
    shown = username if USERNAME.fullmatch(username) else "?"
    reason = "disabled" if user is not None and user.disabled else "wrong password" if user is not None else "unknown"
    call.record(
        tx,
        now,
        f"user/{user.id}" if user is not None else "",
        after={"reason": reason},
        actor=f"user:{shown}",
        outcome=FailureCode.UNAUTHENTICATED,
    )
    return Refused(FailureCode.UNAUTHENTICATED, "user name or password is wrong", field=field)


def _opened(tx: Session, call: Call, user: User, now: datetime) -> tuple[str, Caller]:
    actor = f"user:{user.username}"
    grants = access.grants_of(tx, "user", user.id)
    token, text = access.insert_token(
        tx,
        kind="session",
        name=user.username,
        user_id=user.id,
        created_by=actor,
        grants=(),
        now=now,
        life=SESSION_LIFE,
    )
    user.last_login_at = now
    call.record(tx, now, f"user/{user.id}", after={"session": token.id}, actor=actor)
    return text, Caller(actor, user.id, user.username, grants, token.id, True, token.expires_at)


def _raised(value: T | WapFailure) -> T:
    if isinstance(value, WapFailure):
        raise value
    return value
