"""The door of the fake: who calls, and how a refusal leaves. Servicers below it just raise `Refused`."""

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
import grpc.aio
from wap.control.v1.access_pb2 import User
from wap.type.v1.failure_pb2 import FAILURE_CODE_UNAUTHENTICATED

from console.fake.refusals import STATUS, Refused
from console.fake.world import Actor, World, digest

OPEN_METHODS = frozenset({"Login"})
"""Calls that need no token."""

_actor: contextvars.ContextVar[Actor] = contextvars.ContextVar("actor")


def actor() -> Actor:
    """Who made the call that is being answered."""
    return _actor.get()


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Authenticates each call and turns `Refused` into a gRPC status with its details."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any]"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """Wrap the method's handler."""
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method.rsplit("/", 1)[-1]
        if handler is None:
            return cast("grpc.RpcMethodHandler[Any, Any]", handler)  # gRPC answers UNIMPLEMENTED
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream), **coders)
        return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), **coders)

    def _unary(self, method: str, answer: Callable[..., Awaitable[Any]]) -> Any:
        async def answered(request: Any, context: Any) -> Any:
            request_id = _request_id(context)
            try:
                _actor.set(self._authenticate(method, context, request_id))
                return await answer(request, context)
            except Refused as refused:
                await _refuse(context, refused, request_id)

        return answered

    def _stream(self, method: str, answer: Callable[..., AsyncIterator[Any]]) -> Any:
        async def answered(request: Any, context: Any) -> AsyncIterator[Any]:
            request_id = _request_id(context)
            try:
                _actor.set(self._authenticate(method, context, request_id))
                async for reply in answer(request, context):
                    self._authenticate(method, context, request_id)  # a watch ends with its session
                    yield reply
            except Refused as refused:
                await _refuse(context, refused, request_id)

        return answered

    def _authenticate(self, method: str, context: Any, request_id: str) -> Actor:
        peer = context.peer()
        if method in OPEN_METHODS:
            return Actor("anonymous", "", "", (), request_id, peer)
        given = dict(context.invocation_metadata()).get("authorization", "")
        secret = digest(given.removeprefix("Bearer "))
        user = self._world.users.get(self._world.session_users.get(secret, ""))
        if user is not None and not user.disabled:
            return _as_actor(user, request_id, peer, secret)
        token = self._world.tokens.get(self._world.token_ids.get(secret, ""))
        if token is not None and not token.revoked:
            return Actor(f"token:{token.name}", "", token.name, tuple(token.grants), request_id, peer)
        raise Refused(
            FAILURE_CODE_UNAUTHENTICATED,
            "You are not logged in, or your session or token is no longer valid.",
            field="authorization",
            allowed="a session token from Login, or an API token",
        )


def _as_actor(user: User, request_id: str, peer: str, session: str) -> Actor:
    return Actor(f"user:{user.username}", user.id, user.username, tuple(user.grants), request_id, peer, session)


def _request_id(context: Any) -> str:
    return str(dict(context.invocation_metadata()).get("x-request-id", ""))


async def _refuse(context: Any, refused: Refused, request_id: str) -> None:
    await context.abort(STATUS[refused.code], refused.message, refused.trailing_metadata(request_id))
