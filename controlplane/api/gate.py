"""The gate that every call on the public port goes through: size, form, who calls, what they may, how a failure leaves.

Servicers behind it raise failures and know nothing of gRPC statuses. While a stream is open its caller is looked at
again and again, so that a revoked token or a disabled user sees nothing new after five seconds.
"""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from importlib import metadata
from typing import Any, NoReturn, cast

import grpc
import structlog
from sqlalchemy.orm import Session

from controlplane.api import calls
from controlplane.api.calls import Call
from controlplane.api.errors import abort
from controlplane.api.permissions import RULES, authorise
from controlplane.api.refusals import Refusals
from controlplane.api.requests import check_text, parse
from controlplane.api.services import Services
from controlplane.domain.access import Caller, is_token
from controlplane.domain.failure import FailureCode, Refused, WapFailure
from controlplane.store import access

SCHEME = "Bearer "
# A change of users or tokens is told by the bus at once; this is for lost calls and for tokens that expire.
RECHECK_SECONDS = 3.0
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]
log = structlog.get_logger(__name__)


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # generic in its stubs only
    """Wraps the handler of every method; `limit` is the most bytes that a request may have."""

    def __init__(self, services: Services, limit: int, recheck_seconds: float) -> None:
        self._services, self._limit, self._recheck_seconds = services, limit, recheck_seconds
        self._refusals = Refusals(services.database, services.clock)
        self._stopping = asyncio.Event()

    def close(self) -> None:
        """End the open streams: the server is about to stop."""
        self._stopping.set()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """The method's handler with the gate before it."""
        method = str(handler_call_details.method)
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return grpc.stream_stream_rpc_method_handler(self._unknown(method))
        writes_itself = handler.response_streaming and not inspect.isasyncgenfunction(handler.unary_stream)
        if (handler.request_streaming or writes_itself) and not _is_public(method):
            # Only reflection and health are of these forms; whatever else was would pass unseen.
            return grpc.stream_stream_rpc_method_handler(_closed(method))
        if handler.request_streaming:
            return cast("grpc.RpcMethodHandler[Any, Any]", handler)
        decode, encode = handler.request_deserializer, handler.response_serializer
        if writes_itself:
            written = self._unary(method, self._until_stop(handler.unary_stream), decode)
            return grpc.unary_stream_rpc_method_handler(written, response_serializer=encode)
        if handler.response_streaming:
            stream = self._stream(method, handler.unary_stream, decode)
            return grpc.unary_stream_rpc_method_handler(stream, response_serializer=encode)
        unary = self._unary(method, handler.unary_unary, decode)
        return grpc.unary_unary_rpc_method_handler(unary, response_serializer=encode)

    def _unary(self, method: str, answer: Callable[..., Awaitable[Any]], decode: Callable[[bytes], Any]) -> Any:
        async def answered(raw: bytes, context: Any) -> Any:
            call = _enter(method, context)
            try:
                request = parse(raw, decode, self._limit)
                await self._admit(call, request, context)
                return await answer(request, context)
            except grpc.aio.AbortError:
                raise  # said by the servicer itself
            except Exception as error:  # noqa: BLE001 - the edge: the peer gets a code, the log the rest
                await self._refuse(call, error, context)

        return answered

    def _stream(self, method: str, answer: Callable[..., AsyncIterator[Any]], decode: Callable[[bytes], Any]) -> Any:
        async def answered(raw: bytes, context: Any) -> AsyncIterator[Any]:
            call = _enter(method, context)
            try:
                request = parse(raw, decode, self._limit)
                await self._admit(call, request, context)
                async with contextlib.aclosing(self._guarded(call, request, context, answer)) as replies:
                    async for reply in replies:
                        yield reply
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the edge of the call
                await self._refuse(call, error, context)

        return answered

    async def _guarded(
        self, call: Call, request: Any, context: Any, answer: Callable[..., AsyncIterator[Any]]
    ) -> AsyncGenerator[Any]:
        """The replies, until they end, the server stops, or the caller loses the right to them."""
        replies = answer(request, context)
        guard = asyncio.ensure_future(self._watch_caller(call, request, context))
        stopping = asyncio.ensure_future(self._stopping.wait())
        coming: asyncio.Future[Any] | None = None
        try:
            while True:
                coming = asyncio.ensure_future(anext(replies, None))
                await asyncio.wait({coming, guard, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    raise _is_stopping()
                if guard.done():
                    guard.result()
                if (reply := await coming) is None:
                    return
                yield reply
        finally:
            for task in (coming, guard, stopping):
                await _ended(task)
            await cast(Any, replies).aclose()

    def _until_stop(self, answer: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def answered(request: Any, context: Any) -> Any:
            work = asyncio.ensure_future(answer(request, context))
            stopping = asyncio.ensure_future(self._stopping.wait())
            try:
                await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise _is_stopping()
                return await work
            finally:
                await _ended(work)
                await _ended(stopping)

        return answered

    async def _watch_caller(self, call: Call, request: Any, context: Any) -> NoReturn:
        if _is_public(call.method):
            await asyncio.Event().wait()
        with self._services.database.bus.subscribe("access") as changes:
            while True:
                await changes.wait(self._recheck_seconds)
                await self._admit(call, request, context)

    async def _admit(self, call: Call, request: Any, context: Any) -> None:
        """Find out who calls and whether they may; what is found stands in `call`."""
        if _is_public(call.method):
            check_text(request)
            return
        text = calls.metadata(context, "authorization")
        now = self._services.clock.now()

        def work(tx: Session) -> tuple[Caller, str]:
            caller = access.authenticate(tx, _token(text), now)
            if caller is None:
                raise _unauthenticated("a session or token that is not expired and not revoked")
            call.caller = caller
            check_text(request)  # only now: strangers learn nothing about requests
            return caller, authorise(tx, call.method, caller, request)

        call.caller, call.project_id = await self._services.database.ensure(work)

    async def _refuse(self, call: Call, error: Exception, context: Any) -> NoReturn:
        if isinstance(error, WapFailure):
            log.debug("call refused", method=call.name, request_id=call.request_id, reason=error.code)
            if calls.metadata(context, "authorization"):
                await self._refusals.note(call, error)
        await abort(context, error, call.request_id)

    def _unknown(self, method: str) -> Any:
        async def answered(requests: Any, context: Any) -> AsyncIterator[Any]:
            call = _enter(method, context)
            failure = Refused(
                FailureCode.UNSUPPORTED_COMMAND,
                f"this control plane (WAP {metadata.version('wap')}) does not know the call",
                field="method",
                given=method,
                allowed="a call that server reflection lists",
            )
            await abort(context, failure, call.request_id)
            yield

        return answered


def _is_public(method: str) -> bool:
    rule = RULES.get(method)
    return rule is not None and rule.public


def _enter(method: str, context: Any) -> Call:
    call = calls.enter(method, context)
    context.set_trailing_metadata(((calls.REQUEST_ID_KEY, call.request_id),))
    return call


def _closed(method: str) -> Any:
    async def answered(requests: Any, context: Any) -> AsyncIterator[Any]:
        call = _enter(method, context)
        failure = Refused(FailureCode.PERMISSION_DENIED, "this call is not open", field="method", given=method)
        await abort(context, failure, call.request_id)
        yield

    return answered


def _token(text: str) -> str:
    token = text.removeprefix(SCHEME)
    if not text:
        raise _unauthenticated('metadata "authorization: Bearer <session or API token>"', "no session or token given")
    if token == text or not is_token(token):
        raise _unauthenticated('"Bearer " and a token as it was given out')
    return token


def _unauthenticated(allowed: str, message: str = "the session or token is not valid") -> Refused:
    return Refused(FailureCode.UNAUTHENTICATED, message, field="authorization", allowed=allowed)


def _is_stopping() -> WapFailure:
    return WapFailure(FailureCode.UNAVAILABLE, "the control plane is stopping", retryable=True)


async def _ended(task: "asyncio.Future[Any] | None") -> None:
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
