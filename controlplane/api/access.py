"""AccessService: people and programs log in here, and it says what they may do."""

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session
from wap.control.v1 import access_pb2 as pb
from wap.control.v1.access_pb2_grpc import AccessServiceServicer

from controlplane.api import calls
from controlplane.api.changes import change
from controlplane.api.logins import Logins
from controlplane.api.pages import Pages, page_size
from controlplane.api.requests import check_printable
from controlplane.api.services import Services
from controlplane.api.wire_access import (
    caller_to_wire,
    event_to_wire,
    grants_from_wire,
    grants_to_json,
    token_to_wire,
    user_to_wire,
)
from controlplane.domain.access import Caller, Grant, Role, check_password, check_username, covers, random_password
from controlplane.domain.failure import FailureCode, Refused, invalid, not_found
from controlplane.store import access, audit, projects
from controlplane.store.tables import Token, User

DEFAULT_PAGE = 100
EXPIRE_DAYS, MAX_EXPIRE_DAYS = 30, 90
MAX_TOKEN_NAME = 64


class Access(AccessServiceServicer):
    """Sessions, users, tokens and the audit."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._database, self._clock, self._passwords = services.database, services.clock, services.passwords
        self._logins = Logins(services)

    async def Login(self, request: pb.LoginRequest, context: Any) -> pb.LoginResponse:
        """A session for a name and its password."""
        token, caller = await self._logins.login(request.username, request.password)
        return pb.LoginResponse(session_token=token, caller=caller_to_wire(caller))

    async def Logout(self, request: pb.LogoutRequest, context: Any) -> pb.LogoutResponse:
        """The calling token is worth nothing from now on."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> None:
            access.revoke(tx, tx.get_one(Token, call.caller.token_id), now)
            call.record(tx, now, f"user/{call.caller.user_id}", before={"session": call.caller.token_id})

        await change(self._database, work)
        return pb.LogoutResponse()

    async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.GetCallerResponse:
        """Who calls."""
        return pb.GetCallerResponse(caller=caller_to_wire(calls.current().caller))

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Any) -> pb.ChangePasswordResponse:
        """Ends the caller's other sessions; tokens of programs stay."""
        check_password(request.new_password, "new_password")
        await self._logins.change_password(request.old_password, request.new_password)
        return pb.ChangePasswordResponse()

    async def CreateUser(self, request: pb.CreateUserRequest, context: Any) -> pb.CreateUserResponse:
        """A user with a given password, or with one that is made here and shown this once."""
        call, now = calls.current(), self._clock.now()
        check_username(request.username)
        initial = "" if request.password else random_password()
        password = check_password(request.password, "password") if request.password else initial
        grants = grants_from_wire(request.grants)
        hashed = await self._passwords.hash(password)

        def work(tx: Session) -> User:
            _check_grants(tx, call.caller, grants)
            user = access.insert_user(tx, request.username, hashed, grants, now)
            after = {"username": user.username, "grants": grants_to_json(grants)}
            call.record(tx, now, f"user/{user.id}", after=after)
            return user

        user = await change(self._database, work)
        return pb.CreateUserResponse(user=user_to_wire(user, grants), initial_password=initial)

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        """By name."""

        def work(tx: Session) -> list[pb.User]:
            users = access.list_users(tx)
            grants = access.grants_of_many(tx, "user", [user.id for user in users])
            return [user_to_wire(user, grants[user.id]) for user in users]

        return pb.ListUsersResponse(users=await self._database.read(work))

    async def SetUserDisabled(self, request: pb.SetUserDisabledRequest, context: Any) -> pb.SetUserDisabledResponse:
        """Nobody can lock themselves out, so that one administrator always remains."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> pb.User:
            user = tx.get(User, request.user_id)
            if user is None:
                raise not_found("user", request.user_id)
            if request.disabled and user.id == call.caller.user_id:
                raise invalid("user_id", user.id, "another user than the one who calls")
            before = {"username": user.username, "disabled": user.disabled}
            access.set_disabled(tx, user, request.disabled, now)
            after = {"username": user.username, "disabled": user.disabled}
            call.record(tx, now, f"user/{user.id}", before=before, after=after)
            return user_to_wire(user, access.grants_of(tx, "user", user.id))

        return pb.SetUserDisabledResponse(user=await change(self._database, work))

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        """With at most the rights of the caller, and no longer than a calling token lives."""
        call, now = calls.current(), self._clock.now()
        name = check_printable("name", request.name, MAX_TOKEN_NAME)
        grants = grants_from_wire(request.grants)
        if not grants:
            raise invalid("grants", "none", "at least one grant")
        life = _life(request.expire_days, call.caller, call.caller.expires_at - now)

        def work(tx: Session) -> tuple[Token, str]:
            _check_grants(tx, call.caller, grants)
            token, text = access.insert_token(
                tx,
                kind="api",
                name=name,
                user_id=call.caller.user_id,
                created_by=call.caller.actor,
                grants=grants,
                now=now,
                life=life,
            )
            after = {"name": name, "grants": grants_to_json(grants), "expires_at": token.expires_at.isoformat()}
            call.record(tx, now, f"token/{token.id}", after=after)
            return token, text

        token, text = await change(self._database, work)
        return pb.CreateTokenResponse(token=token_to_wire(token, grants), secret=text)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        """The caller's own, or all for an administrator of the installation."""
        owner = _owner(calls.current().caller)

        def work(tx: Session) -> list[pb.Token]:
            tokens = access.list_tokens(tx, owner)
            grants = access.grants_of_many(tx, "token", [token.id for token in tokens])
            return [token_to_wire(token, grants[token.id]) for token in tokens]

        return pb.ListTokensResponse(tokens=await self._database.read(work))

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        """One's own tokens, or any for an administrator of the installation. A second time changes nothing."""
        call, now = calls.current(), self._clock.now()
        owner = _owner(call.caller)

        def work(tx: Session) -> pb.Token:
            token = tx.get(Token, request.token_id)
            if token is None or token.kind != "api" or (owner is not None and token.user_id != owner):
                raise not_found("token", request.token_id)
            before = {"name": token.name, "revoked": token.revoked_at is not None}
            access.revoke(tx, token, now)
            call.record(tx, now, f"token/{token.id}", before=before, after={"name": token.name, "revoked": True})
            return token_to_wire(token, access.grants_of(tx, "token", token.id))

        return pb.RevokeTokenResponse(token=await change(self._database, work))

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Any) -> pb.ListAuditEventsResponse:
        """Newest first."""
        call, size = calls.current(), page_size(request.page_size, DEFAULT_PAGE)
        filters = (request.project_id, request.resource, request.actor)
        pages = Pages(self._services.vault, self._clock.now(), call.name, *filters)
        before = pages.begin(request.page_token)
        rows = await self._database.read(
            lambda tx: audit.list_page(
                tx,
                project_ids=call.projects(),
                resource=request.resource,
                actor=request.actor,
                before=before,
                limit=size + 1,
            )
        )
        following = pages.token(rows[size - 1].seq) if len(rows) > size else ""
        events = [event_to_wire(row) for row in rows[:size]]
        return pb.ListAuditEventsResponse(events=events, next_page_token=following)


def _owner(caller: Caller) -> str | None:
    return None if caller.may(Role.ADMIN, "") else caller.user_id


def _check_grants(tx: Session, caller: Caller, grants: tuple[Grant, ...]) -> None:
    """Nobody gives more than they have; a project that the caller cannot see is as missing as one that is not there."""
    for index, grant in enumerate(grants):
        if grant.project_id and (
            not caller.may(Role.VIEWER, grant.project_id) or projects.get(tx, grant.project_id) is None
        ):
            raise not_found("project", grant.project_id)
        if not covers(caller.grants, grant):
            raise Refused(
                FailureCode.PERMISSION_DENIED,
                "a grant can hold only what the caller has too",
                field=f"grants[{index}]",
                given=f"{grant.role} in {grant.project_id or 'all projects'}",
                allowed="a role that the caller has",
            )


def _life(days: int, caller: Caller, left: timedelta) -> timedelta:
    """How long a new token lives. One made by a token ends with it at the latest: else a leaked one would live forever."""
    if days > MAX_EXPIRE_DAYS:
        raise invalid("expire_days", days, f"1 to {MAX_EXPIRE_DAYS}, or 0 for {EXPIRE_DAYS}")
    life = timedelta(days=days or EXPIRE_DAYS)
    if caller.is_session or life <= left:
        return life
    if days:
        raise invalid("expire_days", days, f"at most {left.days}: the calling token itself expires then")
    return left
