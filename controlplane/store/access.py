"""Users, tokens, roles and failed logins."""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.domain import access, ids
from controlplane.domain.access import Caller, Role
from controlplane.domain.failure import FailureCode, Refused
from controlplane.store.bus import publish
from controlplane.store.database import take_turns
from controlplane.store.tables import Grant, LoginAttempts, Token, User

SESSION_LIFE, SESSION_IDLE = timedelta(hours=12), timedelta(minutes=30)
# last_used_at is written at most this often.
USE_RESOLUTION = timedelta(minutes=1)
FREE_FAILURES = 5
# An address may be a console or an office with many people behind it: they must not lock each other out by typing errors.
FREE_ADDRESS_FAILURES = 30
ADDRESS = "address:"
MAX_DELAY = timedelta(minutes=15)
ATTEMPTS_FORGOTTEN = timedelta(hours=1)


def digest(token: str) -> str:
    """How a token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def user_by_name(tx: Session, username: str) -> User | None:
    """The user of that name."""
    return tx.scalar(select(User).where(User.username == username))


def insert_user(
    tx: Session, username: str, password_hash: str, grants: Collection[access.Grant], now: datetime
) -> User:
    """A new user; ALREADY_EXISTS for a taken name."""
    take_turns(tx, "users")
    if user_by_name(tx, username) is not None:
        raise Refused(
            FailureCode.ALREADY_EXISTS,
            f"there is already a user {username}",
            field="username",
            given=username,
            allowed="a name that no user has",
        )
    user = User(id=ids.user_id(), username=username, password_hash=password_hash, disabled=False, created_at=now)
    tx.add(user)
    set_grants(tx, "user", user.id, grants)
    tx.flush()
    return user


def list_users(tx: Session) -> Sequence[User]:
    """Users by name."""
    return tx.scalars(select(User).order_by(User.username)).all()


def has_users(tx: Session) -> bool:
    """Whether anyone can log in yet."""
    return tx.scalar(select(User.id).limit(1)) is not None


def set_disabled(tx: Session, user: User, disabled: bool, now: datetime) -> None:
    """Lock the user out, ending all sessions, or let the user in again; API tokens sleep meanwhile."""
    user.disabled = disabled
    if disabled:
        end_sessions(tx, user.id, now)
    publish(tx, "access")


def set_grants(tx: Session, kind: str, subject_id: str, grants: Collection[access.Grant]) -> None:
    """Replace the roles of a user or token."""
    tx.execute(delete(Grant).where(Grant.subject_kind == kind, Grant.subject_id == subject_id))
    tx.add_all(
        Grant(subject_kind=kind, subject_id=subject_id, project_id=grant.project_id, role=grant.role)
        for grant in grants
    )
    publish(tx, "access")


def grants_of_many(tx: Session, kind: str, subject_ids: Collection[str]) -> dict[str, tuple[access.Grant, ...]]:
    """Roles of many users or tokens, by their id."""
    found: dict[str, tuple[access.Grant, ...]] = dict.fromkeys(subject_ids, ())
    for row in tx.scalars(select(Grant).where(Grant.subject_kind == kind).order_by(Grant.id)):
        if row.subject_id in found:
            found[row.subject_id] += (access.Grant(row.project_id, Role(row.role)),)
    return found


def grants_of(tx: Session, kind: str, subject_id: str) -> tuple[access.Grant, ...]:
    """Roles of a user or token."""
    query = select(Grant).where(Grant.subject_kind == kind, Grant.subject_id == subject_id).order_by(Grant.id)
    return tuple(access.Grant(row.project_id, Role(row.role)) for row in tx.scalars(query))


def insert_token(
    tx: Session,
    *,
    kind: str,
    name: str,
    user_id: str,
    created_by: str,
    grants: Collection[access.Grant],
    now: datetime,
    life: timedelta,
) -> tuple[Token, str]:
    """A new session or API token and its text, which is not kept."""
    text = access.new_token("waps" if kind == "session" else "wap_api")
    token = Token(
        id=ids.token_id(),
        kind=kind,
        name=name,
        user_id=user_id,
        secret_hash=digest(text),
        created_at=now,
        created_by=created_by,
        expires_at=now + life,
        last_used_at=now,
        revoked_at=None,
    )
    tx.add(token)
    set_grants(tx, "token", token.id, grants)
    return token, text


def list_tokens(tx: Session, user_id: str | None) -> Sequence[Token]:
    """API tokens of a user, or of all where None, newest first."""
    query = select(Token).where(Token.kind == "api").order_by(Token.created_at.desc(), Token.id)
    return tx.scalars(query if user_id is None else query.where(Token.user_id == user_id)).all()


def revoke(tx: Session, token: Token, now: datetime) -> None:
    """The token is worth nothing from now on."""
    token.revoked_at = token.revoked_at or now
    publish(tx, "access")


def end_sessions(tx: Session, user_id: str, now: datetime, *, keep: str = "") -> None:
    """End the user's sessions, except one."""
    query = select(Token).where(Token.user_id == user_id, Token.kind == "session", Token.revoked_at.is_(None))
    for token in tx.scalars(query):
        if token.id != keep:
            token.revoked_at = now
    publish(tx, "access")


def authenticate(tx: Session, text: str, now: datetime) -> Caller | None:
    """Who the token stands for, if it is good now; a token has at most the rights its user has now."""
    token = tx.scalar(select(Token).where(Token.secret_hash == digest(text)))
    if token is None or token.revoked_at is not None or token.expires_at <= now or token.user_id is None:
        return None
    user = tx.get(User, token.user_id)
    used = token.last_used_at or token.created_at
    if user is None or user.disabled or (token.kind == "session" and now - used > SESSION_IDLE):
        return None
    if now - used > USE_RESOLUTION:
        token.last_used_at = now
    rights = grants_of(tx, "user", user.id)
    if token.kind == "session":
        return Caller(f"user:{user.username}", user.id, user.username, rights, token.id, True, token.expires_at)
    limited = access.cut(grants_of(tx, "token", token.id), rights)
    return Caller(f"token:{token.name}", user.id, token.name, limited, token.id, False, token.expires_at)


def check_attempts(tx: Session, keys: Collection[str], now: datetime) -> None:
    """Refuse while one of the keys (account, address) is blocked."""
    for _, row in _attempts(tx, keys):
        if row is not None and row.blocked_until is not None and row.blocked_until > now:
            seconds = int((row.blocked_until - now).total_seconds()) + 1
            raise Refused(
                FailureCode.TOO_MANY_ATTEMPTS,
                f"too many failed logins; try again in {seconds} s",
                field="username",
                allowed=f"after {seconds} s",
                retryable=True,
            )


def note_failure(tx: Session, keys: Collection[str], now: datetime) -> None:
    """Count a failed login; from the fifth of an account or the thirtieth of an address on, each doubles the wait."""
    for key, row in _attempts(tx, keys):
        if row is None:
            row = LoginAttempts(key=key, failures=0, blocked_until=None, updated_at=now)
            tx.add(row)
        elif now - row.updated_at > ATTEMPTS_FORGOTTEN:
            row.failures = 0
        row.failures, row.updated_at = row.failures + 1, now
        free = FREE_ADDRESS_FAILURES if key.startswith(ADDRESS) else FREE_FAILURES
        if row.failures >= free:
            row.blocked_until = now + min(MAX_DELAY, timedelta(seconds=2 ** (row.failures - free)))


def _attempts(tx: Session, keys: Collection[str]) -> list[tuple[str, LoginAttempts | None]]:
    """The rows of the keys, locked, also those that are not there yet; in one order, so that no two callers each wait
    for the other."""
    for key in sorted(keys):
        take_turns(tx, f"login/{key}")
    return [(key, tx.get(LoginAttempts, key, with_for_update=True)) for key in sorted(keys)]


def note_success(tx: Session, keys: Collection[str]) -> None:
    """Forget the failures of these keys."""
    tx.execute(delete(LoginAttempts).where(LoginAttempts.key.in_(keys)))
