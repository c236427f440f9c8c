"""AccessService of the fake."""

import secrets
import zlib
from collections import Counter
from typing import Any

from google.protobuf.json_format import MessageToDict
from wap.control.v1 import access_pb2 as pb
from wap.control.v1.access_pb2_grpc import AccessServiceServicer
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_ADMIN
from wap.type.v1.failure_pb2 import (
    FAILURE_CODE_ALREADY_EXISTS,
    FAILURE_CODE_TOO_MANY_ATTEMPTS,
    FAILURE_CODE_UNAUTHENTICATED,
)

from console.fake.gate import actor
from console.fake.refusals import Refused, invalid, not_found
from console.fake.world import Actor, World, digest, now

ATTEMPTS = 5
"""Wrong passwords per user name before the fake answers TOO_MANY_ATTEMPTS."""


class AccessService(AccessServiceServicer):
    """Sessions, users, tokens and the audit log."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._wrong: Counter[str] = Counter()

    async def Login(self, request: pb.LoginRequest, context: Any) -> pb.LoginResponse:
        """The same refusal for an unknown user and a wrong password."""
        if self._wrong[request.username] >= ATTEMPTS:
            raise Refused(
                FAILURE_CODE_TOO_MANY_ATTEMPTS,
                "Too many wrong passwords for this user.",
                field="username",
                allowed="another try in 60 s",
            )
        user = next((u for u in self._world.users.values() if u.username == request.username), None)
        if user is None or user.disabled or self._world.password_digests[user.id] != digest(request.password):
            self._wrong[request.username] += 1
            raise Refused(FAILURE_CODE_UNAUTHENTICATED, "User name or password is wrong.", field="password")
        del self._wrong[request.username]
        secret = f"waps_{secrets.token_urlsafe(30)}"
        self._world.session_users[digest(secret)] = user.id
        user.last_login_time.CopyFrom(now())
        who = Actor(
            f"user:{user.username}", user.id, user.username, tuple(user.grants), actor().request_id, actor().peer
        )
        self._world.record(who, "Login", f"user/{user.id}")
        return pb.LoginResponse(session_token=secret, caller=who.caller())

    async def Logout(self, request: pb.LogoutRequest, context: Any) -> pb.LogoutResponse:
        """Ends a session; API tokens are not sessions and stay."""
        self._world.session_users.pop(actor().session, None)
        self._world.record(actor(), "Logout", f"user/{actor().user_id}")
        return pb.LogoutResponse()

    async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.GetCallerResponse:
        """Who calls."""
        return pb.GetCallerResponse(caller=actor().caller())

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Any) -> pb.ChangePasswordResponse:
        """Ends the user's other sessions."""
        who = actor()
        if self._world.password_digests.get(who.user_id) != digest(request.old_password):
            raise Refused(FAILURE_CODE_UNAUTHENTICATED, "The old password is wrong.", field="old_password")
        if not 12 <= len(request.new_password) <= 128:
            raise invalid("new_password", f"{len(request.new_password)} characters", "12 to 128 characters")
        self._world.password_digests[who.user_id] = digest(request.new_password)
        others = [s for s, u in self._world.session_users.items() if u == who.user_id and s != who.session]
        for session in others:
            del self._world.session_users[session]
        self._world.record(who, "ChangePassword", f"user/{who.user_id}")
        return pb.ChangePasswordResponse()

    async def CreateUser(self, request: pb.CreateUserRequest, context: Any) -> pb.CreateUserResponse:
        """Makes a password where none is given."""
        actor().require("", ACCESS_ROLE_ADMIN)
        if not request.username:
            raise invalid("username", "", "1 to 64 characters")
        if any(user.username == request.username for user in self._world.users.values()):
            raise Refused(
                FAILURE_CODE_ALREADY_EXISTS, "There is a user of this name.", field="username", given=request.username
            )
        if request.password and not 12 <= len(request.password) <= 128:
            raise invalid("password", f"{len(request.password)} characters", "12 to 128 characters")
        initial = "" if request.password else secrets.token_urlsafe(15)
        user = self._world.add_user(request.username, request.password or initial, request.grants)
        self._world.record(actor(), "CreateUser", f"user/{user.id}", after={"username": user.username})
        return pb.CreateUserResponse(user=user, initial_password=initial)

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        """By name."""
        actor().require("", ACCESS_ROLE_ADMIN)
        return pb.ListUsersResponse(users=sorted(self._world.users.values(), key=lambda user: user.username))

    async def SetUserDisabled(self, request: pb.SetUserDisabledRequest, context: Any) -> pb.SetUserDisabledResponse:
        """At once."""
        actor().require("", ACCESS_ROLE_ADMIN)
        user = self._world.users.get(request.user_id)
        if user is None:
            raise not_found("user", request.user_id)
        before = user.disabled
        user.disabled = request.disabled
        after = {"disabled": user.disabled}
        self._world.record(actor(), "SetUserDisabled", f"user/{user.id}", before={"disabled": before}, after=after)
        return pb.SetUserDisabledResponse(user=user)

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        """Grants no more than the caller has."""
        if not request.name:
            raise invalid("name", "", "1 to 64 characters")
        if request.expire_days > 90:
            raise invalid("expire_days", request.expire_days, "1 to 90")
        for grant in request.grants:
            actor().require(grant.project_id, grant.role)
        token = pb.Token(
            id=self._world.new_id("tk"),
            name=request.name,
            grants=request.grants or actor().grants,
            create_time=now(),
            expire_time=now(),
            created_by=actor().name,
        )
        token.expire_time.seconds += 86400 * (request.expire_days or 30)
        body = f"wap_{token.id.removeprefix('tk-')}_{secrets.token_hex(16)}"
        secret = f"{body}_{zlib.crc32(body.encode()):08x}"
        self._world.tokens[token.id] = token
        self._world.token_ids[digest(secret)] = token.id
        self._world.record(actor(), "CreateToken", f"token/{token.id}", after=MessageToDict(token))
        return pb.CreateTokenResponse(token=token, secret=secret)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        """Newest first."""
        return pb.ListTokensResponse(tokens=reversed(self._world.tokens.values()))

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        """At once; a second time changes nothing."""
        token = self._world.tokens.get(request.token_id)
        if token is None:
            raise not_found("token", request.token_id)
        token.revoked = True
        self._world.record(actor(), "RevokeToken", f"token/{token.id}")
        return pb.RevokeTokenResponse(token=token)

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Any) -> pb.ListAuditEventsResponse:
        """Newest first; the page token is the number of events that were shown."""
        who = actor()
        events = [
            event
            for event in reversed(self._world.audit)
            if who.sees(event.project_id)
            and request.project_id in ("", event.project_id)
            and request.resource in ("", event.resource)
            and request.actor in ("", event.actor)
        ]
        page, following = self._world.page(events, request.page_size or 100, request.page_token)
        return pb.ListAuditEventsResponse(events=page, next_page_token=following)
