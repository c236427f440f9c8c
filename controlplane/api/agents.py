"""AgentService on the mutual TLS port: takes the identity from the certificate and hands streams to fleet.sessions."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog
from cryptography import x509
from google.protobuf.message import DecodeError
from wap.agent.v1 import stream_pb2, stream_pb2_grpc, telemetry_pb2

from controlplane.api.agent_refusals import AgentRefusals
from controlplane.api.errors import abort, details_of
from controlplane.domain import ids
from controlplane.domain.clock import Clock
from controlplane.domain.failure import AgentFailure, FailureCode, WapFailure, invalid
from controlplane.fleet.authority import Authority
from controlplane.fleet.reports import plain
from controlplane.fleet.session import Identity, Session, Stream
from controlplane.fleet.sessions import Sessions
from controlplane.store import commands, nodes
from controlplane.store.database import Database
from controlplane.telemetry.ingest import Ingest

PROTOCOL = 1
HELLO_SECONDS = 10.0
# Answers of one agent that may be on their way into the database before its stream is held up.
UNANSWERED_LIMIT = 64
# How long a peer may take to read why its stream ends.
FAREWELL_SECONDS = 2.0
MAX_ID = 255
log = structlog.get_logger(__name__)


class AgentService(stream_pb2_grpc.AgentServiceServicer):
    """Streams of enrolled agents."""

    def __init__(
        self, database: Database, clock: Clock, authority: Authority, sessions: Sessions, ingest: Ingest
    ) -> None:
        self._database, self._clock, self._authority = database, clock, authority
        self._sessions, self._ingest = sessions, ingest
        self._refusals = AgentRefusals(database, clock)

    async def Connect(  # type: ignore[override] # writes by the context, so that several tasks can
        self, request_iterator: AsyncIterator[stream_pb2.ConnectRequest], context: Any
    ) -> None:
        """Hello, Welcome, then commands down and heartbeats and results up, until one side ends."""
        session: Session | None = None
        try:
            try:
                identity = identity_of(context, self._authority)
                hello = _hello(await _first(request_iterator))
                session = await self._sessions.open(identity, hello, context.write)
                # Before anything else can be sent: nothing else has run since the session is known.
                session.send(self._welcome(session))
                self._sessions.ready(session)
                await self._read(session, request_iterator)
            finally:
                if session is not None:
                    self._sessions.closed(session)
        except asyncio.CancelledError:
            if session is None or not _was_ended(session):
                raise
            await self._farewell(session.failure, context, session)
        except Exception as error:  # noqa: BLE001 - the edge: the peer gets a code, the log the rest
            await self._farewell(error, context, session)

    def _welcome(self, session: Session) -> stream_pb2.ConnectResponse:
        welcome = stream_pb2.Welcome(
            session_epoch=session.epoch, heartbeat_seconds=self._sessions.pace.heartbeat_seconds
        )
        welcome.server_time.FromDatetime(self._clock.now())
        return stream_pb2.ConnectResponse(welcome=welcome)

    async def _read(self, session: Session, requests: AsyncIterator[stream_pb2.ConnectRequest]) -> None:
        """Take messages until the agent ends."""
        async for request in requests:
            session.check_message()
            match request.WhichOneof("body"):
                case "heartbeat":
                    self._sessions.heartbeat(session, request.heartbeat)
                case "command_accepted":
                    await self._answer(session, request.command_accepted.command_id)
                case "command_progress":
                    progress = request.command_progress
                    await self._answer(session, progress.command_id, waiting_for=plain(progress.waiting_for))
                case "command_result":
                    result = request.command_result
                    await self._answer(session, result.command_id, result=result.SerializeToString())
                case "goodbye":
                    log.info("agent says goodbye", node=session.node_id, reason=request.goodbye.reason[:200])
                    return
                case "hello":
                    raise _unexpected("hello", "heartbeat, command_accepted, command_progress, command_result, goodbye")
                case None:
                    raise invalid("body", "an unknown message", "a message of this version of the protocol")

    async def _answer(
        self, session: Session, command_id: str, *, waiting_for: str | None = None, result: bytes | None = None
    ) -> None:
        """Hand the answer to the database without holding up heartbeats, unless too many are on their way."""
        session.heard()
        if plain(command_id, MAX_ID) != command_id:
            raise invalid("command_id", command_id, f"at most {MAX_ID} characters, none of them NUL")
        session.peer.spend(len(result or b"") // 65536)
        answer = commands.Answer(command_id, session.node_id, self._clock.now(), waiting_for, result)
        noted = self._sessions.answers.submit(answer)
        session.unanswered += 1
        noted.add_done_callback(lambda future: _noted(session, answer, future))
        if session.unanswered >= UNANSWERED_LIMIT:
            await asyncio.wait({noted})

    async def Report(  # type: ignore[override]
        self, request_iterator: AsyncIterator[telemetry_pb2.ReportRequest], context: Any
    ) -> None:
        """Telemetry: each message is acknowledged."""
        stream: Stream | None = None
        try:
            try:
                identity = identity_of(context, self._authority)
                stream = Stream(identity, await self._sessions.authenticate(identity), self._clock)
                self._sessions.attach(stream)
                intake = self._ingest.open(identity.node_id, stream.peer.standing.cluster_id)
                async for request in request_iterator:
                    stream.check_message(request.ByteSize())
                    await context.write(intake.take(request))
            finally:
                if stream is not None:
                    self._sessions.detach(stream)
        except asyncio.CancelledError:
            if stream is None or not _was_ended(stream):
                raise
            await self._farewell(stream.failure, context)
        except Exception as error:  # noqa: BLE001 - the edge
            await self._farewell(error, context)

    async def RenewCertificate(
        self, request: stream_pb2.RenewCertificateRequest, context: Any
    ) -> stream_pb2.RenewCertificateResponse:
        """A new certificate for the calling identity; the old one is good until the new one is used."""
        try:
            identity = identity_of(context, self._authority)
            await self._sessions.authenticate(identity)
            leaf = self._authority.issue_agent(identity.node_id, request.csr_pem)
            await self._database.write(
                lambda tx: nodes.set_certificate(tx, identity.node_id, leaf.serial, leaf.expires)
            )
        except Exception as error:  # noqa: BLE001 - the edge
            await self._farewell(error, context)
        return stream_pb2.RenewCertificateResponse(certificate_pem=leaf.pem, ca_pem=self._authority.ca_pem)

    async def _farewell(self, error: BaseException | None, context: Any, session: Session | None = None) -> None:
        """End the call: in order, or with the failure's status, which is audited if it is one of rights."""
        if error is None:
            return
        request_id = ids.request_id()
        if isinstance(error, DecodeError):
            error = invalid("message", "bytes that cannot be decoded", "a message as in the proto files")
        failure = details_of(error, request_id)
        if isinstance(error, WapFailure):
            await self._refusals.note(_subject(context), error, peer=context.peer(), request_id=request_id)
            log.info("agent refused", subject=_subject(context), reason=failure.code, request_id=request_id)
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                if session is not None:
                    await session.quiet()
                await abort(context, error, request_id)
        except (TimeoutError, grpc.aio.InternalError):
            # It reads nothing, not even this. Cancelled, the call is reset.
            log.warning("an agent did not hear why its stream ended", subject=_subject(context), reason=failure.code)
            raise asyncio.CancelledError from None


def identity_of(context: Any, authority: Authority) -> Identity:
    """The node, serial and end of life in the peer's certificate. The handshake has checked its signature."""
    certificate = _certificate(context)
    if certificate is None:
        raise AgentFailure(FailureCode.UNAUTHENTICATED, "a client certificate is needed")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    for uri in uris:
        node_id = authority.node_of(uri)
        if node_id is not None:
            return Identity(node_id, f"{certificate.serial_number:x}", certificate.not_valid_after_utc)
    raise AgentFailure(
        FailureCode.PERMISSION_DENIED,
        "the certificate is no agent's of this installation",
        field="certificate",
        given=", ".join(uris) or certificate.subject.rfc4514_string(),
    )


def _certificate(context: Any) -> x509.Certificate | None:
    found = context.auth_context().get("x509_pem_cert")
    return x509.load_pem_x509_certificate(found[0]) if found else None


def _subject(context: Any) -> str:
    """Whom an audit event is about: the node, or the certificate where it is no node's."""
    certificate = _certificate(context)
    if certificate is None:
        return "unknown"
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return plain(str(names[0].value), 64) if names else f"certificate {certificate.serial_number:x}"


def _was_ended(stream: Stream) -> bool:
    """Whether we cancelled the task to end the stream, and not gRPC because the peer has gone."""
    task = asyncio.current_task()
    return stream.cut and task is not None and task.uncancel() == 0


def _noted(session: Session, answer: commands.Answer, future: "asyncio.Future[str]") -> None:
    session.unanswered -= 1
    if future.cancelled():
        return
    if (error := future.exception()) is not None:
        # The agent's journal has the answer: it comes again when the command is sent again in the next session.
        log.error("an answer was not stored", node=session.node_id, command=answer.command_id, exc_info=error)
        session.end(AgentFailure(FailureCode.UNAVAILABLE, "the answer could not be stored", retryable=True))
    elif future.result() == commands.SETTLED:
        session.settled.append(answer.command_id)
    elif future.result() == commands.UNKNOWN:
        log.warning("answer to a command that was never sent", node=session.node_id, command=answer.command_id)
    elif future.result() == commands.FOREIGN:
        session.end(
            AgentFailure(
                FailureCode.PERMISSION_DENIED,
                "an answer to another node's command",
                field="command_id",
                given=answer.command_id,
            )
        )


async def _first(requests: AsyncIterator[stream_pb2.ConnectRequest]) -> stream_pb2.ConnectRequest | None:
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            return await anext(requests, None)
    except TimeoutError:
        return None


def _hello(first: stream_pb2.ConnectRequest | None) -> stream_pb2.Hello:
    body = first.WhichOneof("body") if first is not None else None
    if first is None or body != "hello":
        raise _unexpected(body or "nothing", "hello")
    if first.hello.protocol != PROTOCOL:
        raise AgentFailure(
            FailureCode.PROTOCOL_VERSION,
            f"the agent speaks version {first.hello.protocol} of the protocol, this control plane speaks {PROTOCOL}",
            field="hello.protocol",
            given=first.hello.protocol,
            allowed=str(PROTOCOL),
        )
    return first.hello


def _unexpected(given: str, allowed: str) -> AgentFailure:
    return AgentFailure(
        FailureCode.PROTOCOL_VIOLATION,
        f"{given} is not expected here but {allowed}",
        field="body",
        given=given,
        allowed=allowed,
    )
