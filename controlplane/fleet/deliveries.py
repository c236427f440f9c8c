"""Commands from the database to the sessions that this control plane holds; the same way whoever stored them.

A pass reads what all woken nodes owe in one query. Each session sends a command once per epoch; after a reconnect it is
sent again, and the agent's journal answers.
"""

from collections.abc import Iterable, Mapping

import structlog
from google.protobuf import timestamp_pb2
from wap.agent.v1 import command_pb2, stream_pb2

from controlplane.domain.failure import WapFailure
from controlplane.fleet.session import Session
from controlplane.fleet.wakeups import Wakeups
from controlplane.store import commands
from controlplane.store.commands import Pending
from controlplane.store.database import Database
from controlplane.store.vault import Vault

log = structlog.get_logger(__name__)
# A look at everything, in case a wake-up call was lost.
POLL_SECONDS = 5.0


class Deliveries:
    """Sends pending commands to `live` sessions, by node id."""

    def __init__(self, database: Database, vault: Vault, owner: str, live: Mapping[str, Session]) -> None:
        self._database, self._vault, self._owner, self._live = database, vault, owner, live
        self._orders = database.bus.subscribe("command/")

    def wake(self, node_id: str) -> None:
        """Look for commands of this node."""
        self._orders.wake(f"command/{node_id}")

    async def run_pass(self) -> None:
        """Deliver until an error ends the pass."""
        with self._orders as subscription:
            orders = Wakeups(subscription, POLL_SECONDS)
            while True:
                names = await orders.next()
                wanted = None if names is None else names & self._live.keys()
                if self._live and (wanted is None or wanted):
                    await self._deliver(wanted)

    async def _deliver(self, node_ids: set[str] | None) -> None:
        looked_at = self._live.keys() if node_ids is None else node_ids
        # Settled before this look, so it does not find them. What is settled while it runs it may well have found: that
        # must still be known as sent.
        over = [(session, len(session.settled)) for session in map(self._live.__getitem__, looked_at)]
        owing = await self._database.read(lambda tx: commands.pending(tx, self._owner, node_ids))
        for session, count in over:
            session.forget_settled(count)
        self._send(owing)

    def _send(self, owing: Iterable[Pending]) -> None:
        for owed in owing:
            session = self._live.get(owed.node_id)
            if session is None or session.sent.get(owed.id) == owed.epoch:
                continue
            if not session.has_room:
                session.starved = True  # it calls again as soon as it has
                continue
            try:
                command = self._unseal(owed)
            except WapFailure as failure:  # a wrong master key must not stop everybody else's commands
                log.error("a command cannot be opened", command=owed.id, reason=str(failure))
                continue
            session.sent[owed.id] = owed.epoch
            session.send(stream_pb2.ConnectResponse(command=command))

    def _unseal(self, owed: Pending) -> command_pb2.Command:
        command = command_pb2.Command.FromString(self._vault.open(owed.body, f"command/{owed.id}"))
        # The row's: a repeat after a take-over has a newer epoch and a later deadline than the sealed body.
        command.epoch = owed.epoch
        deadline = timestamp_pb2.Timestamp()
        deadline.FromDatetime(owed.deadline)
        command.deadline.CopyFrom(deadline)
        return command
