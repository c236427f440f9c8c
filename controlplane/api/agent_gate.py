"""The gate of the agents' port: what gRPC itself would answer without a reason gets one.

Streams check their messages themselves; here are single requests that are no messages, and calls that do not exist.
"""

from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any

import grpc

from controlplane.api.errors import abort
from controlplane.api.requests import parse
from controlplane.domain import ids
from controlplane.domain.failure import FailureCode, Refused, WapFailure
from controlplane.fleet.listeners import MAX_MESSAGE

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class AgentGate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # generic in its stubs only
    """Wraps the handlers of the agents' port."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """The method's handler with the gate before it."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return grpc.stream_stream_rpc_method_handler(_unknown(str(handler_call_details.method)))
        if handler.request_streaming:
            return handler  # type: ignore[no-any-return]
        unary = _unary(handler.unary_unary, handler.request_deserializer)
        return grpc.unary_unary_rpc_method_handler(unary, response_serializer=handler.response_serializer)


def _unary(answer: Callable[..., Awaitable[Any]], decode: Callable[[bytes], Any]) -> Any:
    async def answered(raw: bytes, context: Any) -> Any:
        try:
            request = parse(raw, decode, MAX_MESSAGE)
        except WapFailure as failure:
            await abort(context, failure, ids.request_id())
        return await answer(request, context)

    return answered


def _unknown(method: str) -> Any:
    async def answered(requests: Any, context: Any) -> None:
        failure = Refused(
            FailureCode.UNSUPPORTED_COMMAND,
            f"this control plane (WAP {metadata.version('wap')}) does not know the call",
            field="method",
            given=method,
            allowed="a call of wap.agent.v1.AgentService",
        )
        await abort(context, failure, ids.request_id())

    return answered
