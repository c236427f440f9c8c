"""All agents whose streams this control plane holds: heartbeats in memory, changes in the database, commands out.

A heartbeat costs no query. Every `flush_seconds` one transaction says who was heard and writes the reports that are
worth it; a change of state goes at once. Bans, newer sessions and retired certificates arrive by the bus, and by a look
at the database every `check_seconds` in case a call was lost.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session as Transaction
from wap.agent.v1 import report_pb2, stream_pb2

from controlplane.domain.clock import Clock
from controlplane.domain.failure import AgentFailure, FailureCode, WapFailure
from controlplane.domain.node import AgentState
from controlplane.fleet.batches import Batch
from controlplane.fleet.deliveries import Deliveries
from controlplane.fleet.reports import as_json, bound, essence, plain
from controlplane.fleet.session import (
    OPENING_COST,
    Identity,
    Peer,
    Session,
    Stream,
    Write,
    expiry,
    refusal,
    refused,
    superseded,
)
from controlplane.fleet.wakeups import Wakeups
from controlplane.store import commands, nodes
from controlplane.store.database import Database
from controlplane.store.nodes import Observation, Opening, Standing
from controlplane.store.vault import Vault

log = structlog.get_logger(__name__)
# How long streams may take to end when the control plane stops.
CLOSE_SECONDS = 2.0


@dataclass(frozen=True)
class Pace:
    """How often things happen, in seconds."""

    heartbeat_seconds: float = 5.0
    # Three missed heartbeats.
    silent_seconds: float = 15.0
    flush_seconds: float = 2.0
    # After a change: what changes now is often followed by more.
    urgent_seconds: float = 0.1
    # Figures that always change are written this often.
    noise_seconds: float = 10.0
    check_seconds: float = 3.0
    sweep_seconds: float = 1.0
    # A control plane that was frozen hears nobody for a moment; that says nothing about the agents.
    late_seconds: float = 5.0
    # A row may lag behind its session by a flush and more; only a control plane that is gone lets it lag this long.
    dead_seconds: float = 25.0


class Sessions:
    """Live streams by node; the newest of a node counts. `owner` is this control plane's executor id."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, owner: str, pace: Pace = Pace()) -> None:
        self._database, self._clock, self._owner, self.pace = database, clock, owner, pace
        self._live: dict[str, Session] = {}
        self._peers: dict[str, Peer] = {}
        # Sessions with something to write and whether it is urgent, and what closed ones leave to be written, by node.
        self._heard: dict[Session, bool] = {}
        self._last_words: dict[str, Observation] = {}
        self._urgent = asyncio.Event()
        self._flushed_at = time.monotonic()
        self._closing, self._emptied = False, asyncio.Event()
        self._opens: Batch[Opening, Standing | FailureCode] = Batch(database, nodes.open_sessions)
        self._admissions: Batch[Identity, Standing | None] = Batch(database, _admit)
        self.answers: Batch[commands.Answer, str] = Batch(database, commands.answer)
        self._deliveries = Deliveries(database, vault, owner, self._live)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to flush, to check and to deliver."""
        loop = asyncio.get_running_loop()
        passes = (self._flush_pass, self._watch_pass, self._sweep_pass, self._deliveries.run_pass)
        self._tasks = [loop.create_task(_forever(work)) for work in passes]

    async def close(self) -> None:
        """End all streams in order, write what is left, and stop."""
        self._closing = True
        self._emptied.clear()
        for peer in self._peers.values():
            for stream in tuple(peer.streams):
                stream.end(None)
        if self._live:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._emptied.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self._flush()

    def __len__(self) -> int:
        return len(self._live)

    async def authenticate(self, identity: Identity) -> Peer:
        """The agent behind this certificate, if it may be used now; using a renewed one retires the one before."""
        self._check(identity)
        peer = self._peers.get(identity.node_id)
        if peer is None or identity.serial != peer.standing.serial:
            standing = await self._admissions.submit(identity)
            if (failure := refusal(identity, standing)) is not None:
                raise failure
            assert standing is not None
            peer = self._peer(standing)
        if (failure := refusal(identity, peer.standing)) is not None:
            raise failure
        return peer

    async def open(self, identity: Identity, hello: stream_pb2.Hello, write: Write) -> Session:
        """The node's new session; an older one here or elsewhere ends. Call in the task that serves the stream."""
        self._check(identity)
        opening = Opening(
            identity.node_id,
            identity.serial,
            self._owner,
            plain(hello.agent_version),
            plain(hello.host_name),
            self._clock.now(),
        )
        standing = await self._opens.submit(opening)
        if isinstance(standing, FailureCode):
            raise refused(identity, standing)
        self._check_open()
        peer = self._peer(standing)
        if peer.standing.epoch > standing.epoch:
            raise superseded(peer.standing.epoch)
        older = self._live.get(identity.node_id)
        if older is not None:
            older.end(superseded(standing.epoch))
        session = Session(identity, peer, self._clock, write, self._deliveries.wake)
        peer.streams.add(session)
        self._live[identity.node_id] = session
        log.info("agent connected", node=identity.node_id, session=session.epoch)
        return session

    def ready(self, session: Session) -> None:
        """The agent was welcomed: commands that it owes an answer to may follow."""
        self._deliveries.wake(session.node_id)

    def _check(self, identity: Identity) -> None:
        """What is known without a look at the database."""
        self._check_open()
        if (expired := expiry(identity, self._clock.now())) is not None:
            raise expired
        peer = self._peers.get(identity.node_id)
        if peer is not None:
            peer.spend(OPENING_COST)

    def _check_open(self) -> None:
        if self._closing:
            raise AgentFailure(FailureCode.UNAVAILABLE, "the control plane is stopping", retryable=True)

    def _peer(self, standing: Standing) -> Peer:
        peer = self._peers.get(standing.node_id)
        if peer is None:
            peer = self._peers[standing.node_id] = Peer(standing)
        elif standing.epoch >= peer.standing.epoch:
            peer.standing = standing
        return peer

    def attach(self, stream: Stream) -> None:
        """Keep an eye on a stream beside the session. One is enough: a newer ends the older."""
        for other in tuple(stream.peer.streams):
            if not isinstance(other, Session):
                other.end(AgentFailure(FailureCode.SESSION_SUPERSEDED, "superseded by a newer stream of the same node"))
        stream.peer.streams.add(stream)

    def detach(self, stream: Stream) -> None:
        """The stream is over. What its agent has spent is remembered for a while."""
        stream.close()
        stream.peer.streams.discard(stream)

    def closed(self, session: Session) -> None:
        """The command stream is over."""
        self.detach(session)
        self._heard.pop(session, None)
        if self._live.get(session.node_id) is session:
            del self._live[session.node_id]
            self._last_words[session.node_id] = self._observe(session, AgentState.SILENT, changed=True)
            self._urgent.set()
            if not self._live:
                self._emptied.set()
            log.info("agent disconnected", node=session.node_id, session=session.epoch)

    def heartbeat(self, session: Session, heartbeat: stream_pb2.Heartbeat) -> None:
        """The agent lives; take its report, if there is one."""
        session.heard()
        changed, session.silent = session.silent, False
        if heartbeat.HasField("report"):
            changed = self._take(session, heartbeat.report) or changed
        self._heard[session] = changed or self._heard.get(session, False)
        if changed:
            self._urgent.set()

    def _take(self, session: Session, report: report_pb2.NodeReport) -> bool:
        """Keep the report; whether more than noise has changed."""
        bound(report, session.heard_time)
        session.report, before = report, session.essence
        session.essence = essence(report)
        return session.essence != before

    async def _flush_pass(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.pace.flush_seconds):
                await self._urgent.wait()
            await asyncio.sleep(self.pace.urgent_seconds)
        self._urgent.clear()
        await self._flush()

    async def _flush(self) -> None:
        heard, self._heard = self._heard, {}
        last_words, self._last_words = self._last_words, {}
        try:
            observations = [
                self._observe(session, AgentState.SILENT if session.silent else AgentState.CONNECTED, changed=changed)
                for session, changed in heard.items()
            ]
            if observations or last_words:
                everything = [*observations, *last_words.values()]
                await self._database.ensure(lambda tx: nodes.record(tx, everything))
        except Exception:
            self._last_words = {**last_words, **self._last_words}
            again = {session: changed for session, changed in heard.items() if not session.over}
            self._heard = {**again, **self._heard}
            raise
        self._flushed_at = time.monotonic()

    def _observe(self, session: Session, state: AgentState, *, changed: bool) -> Observation:
        now = time.monotonic()
        report = None
        if session.report is not None and (changed or now - session.written_at >= self.pace.noise_seconds):
            report = as_json(session.report)
            session.written_at = now
        return Observation(
            session.node_id, session.cluster_id, session.epoch, session.heard_time, state, report, changed
        )

    async def _watch_pass(self) -> None:
        """Look at the database whenever standings change, and from time to time."""
        with self._database.bus.subscribe("session/") as subscription:
            changes = Wakeups(subscription, self.pace.check_seconds)
            while True:
                names = await changes.next()
                await self._look(tuple(self._peers) if names is None else names & self._peers.keys())

    async def _look(self, node_ids: Collection[str]) -> None:
        if not node_ids:
            return
        found = await self._database.read(lambda tx: nodes.standings(tx, node_ids))
        now = self._clock.now()
        for node_id in node_ids:
            peer = self._peers.get(node_id)
            if peer is None:
                continue
            standing = found.get(node_id)
            if standing is None:
                standing = replace(peer.standing, removed=True)
            if standing.epoch >= peer.standing.epoch:
                peer.standing = standing
            _end_refused(peer, now)

    async def _sweep_pass(self) -> None:
        """Notice expired certificates and silence, here and among the agents of control planes that are gone."""
        pace, began, dead_at = self.pace, time.monotonic(), 0.0
        while True:
            await asyncio.sleep(pace.sweep_seconds)
            now = time.monotonic()
            late, began = now - began > pace.late_seconds, now
            if not late:
                self._sweep(now)
            if now - dead_at >= pace.check_seconds and now - self._flushed_at < pace.late_seconds:
                dead_at = now
                await self._database.ensure(self._silence)

    def _silence(self, tx: Transaction) -> int:
        now, pace = self._clock.now(), self.pace
        dead, silent = timedelta(seconds=pace.dead_seconds), timedelta(seconds=pace.silent_seconds)
        return nodes.silence_of_the_dead(tx, now - dead, self._owner, now - silent)

    def _sweep(self, now: float) -> None:
        today = self._clock.now()
        for node_id, peer in tuple(self._peers.items()):
            if peer.is_at_rest(now):
                del self._peers[node_id]
            else:
                _end_refused(peer, today)
        for session in self._live.values():
            if not session.silent and now - session.heard_at >= self.pace.silent_seconds:
                session.silent = True
                self._heard[session] = True
                self._urgent.set()


def _end_refused(peer: Peer, now: datetime) -> None:
    for stream in tuple(peer.streams):
        failure: WapFailure | None = stream.standing_failure(now)
        if failure is not None:
            stream.end(failure)


def _admit(tx: Transaction, identities: Sequence[Identity]) -> list[Standing | None]:
    found = nodes.standings(tx, {identity.node_id for identity in identities}, lock=True)
    for identity in identities:
        standing = found.get(identity.node_id)
        if standing is not None and standing.refusal(identity.serial) is None and identity.serial != standing.serial:
            nodes.activate_certificate(tx, identity.node_id, identity.serial)
            found.update(nodes.standings(tx, [identity.node_id]))
    return [found.get(identity.node_id) for identity in identities]


async def _forever(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("a pass over the agents failed", what=getattr(work, "__name__", ""))
            await asyncio.sleep(0.5)
