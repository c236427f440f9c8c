"""Commands: delivered at least once, settled exactly once. Every function takes many, since many agents answer at once."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Row, Table, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from controlplane.store.bus import publish
from controlplane.store.nodes import chunks
from controlplane.store.tables import Cluster, Command, Node

QUEUED, ACCEPTED, DONE = "queued", "accepted", "done"
_TABLE = cast(Table, Command.__table__)


@dataclass(frozen=True, slots=True)
class NewCommand:
    """A command to store; `body` is sealed."""

    id: str
    node_id: str
    operation_id: str
    kind: str
    epoch: int
    deadline: datetime
    body: bytes
    now: datetime


@dataclass(frozen=True, slots=True)
class Fact:
    """How a command stands, and what is known of the agent that has to carry it out."""

    id: str
    state: str
    waiting_for: str
    result: bytes | None
    node_name: str
    agent_state: str
    last_seen_at: datetime | None


def facts(tx: Session, command_ids: Iterable[str]) -> dict[str, Fact]:
    """Fact of each command that exists."""
    found: dict[str, Fact] = {}
    for chunk in chunks(set(command_ids)):
        query = (
            select(
                Command.id,
                Command.state,
                Command.waiting_for,
                Command.result,
                Node.name,
                Node.agent_state,
                Node.last_seen_at,
            )
            .join(Node, Node.id == Command.node_id)
            .where(Command.id.in_(chunk))
        )
        found.update({row[0]: Fact(*row) for row in tx.execute(query)})
    return found


_RENEW = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("b_id"), _TABLE.c.state != DONE)
    .values(epoch=bindparam("b_epoch"), deadline=bindparam("b_deadline"))
)


def put(tx: Session, wishes: Sequence[NewCommand]) -> list[Fact | None]:
    """Store commands; where one of that id is there already it counts, with its body and its result.

    A repeat after a crash comes with a higher epoch and a later deadline; an unsettled command takes them over, or the
    agent would refuse it as a leftover. None where there is no such node.
    """
    known = facts(tx, [wish.id for wish in wishes])
    there = _nodes_there(tx, wishes)
    fresh = {wish.id: wish for wish in wishes if wish.id not in known and wish.node_id in there}
    if fresh:
        _insert(tx, [fresh[command_id] for command_id in sorted(fresh)])
    renewed = [
        {"b_id": wish.id, "b_epoch": wish.epoch, "b_deadline": wish.deadline} for wish in wishes if wish.id in known
    ]
    if renewed:
        tx.execute(_RENEW, sorted(renewed, key=lambda row: str(row["b_id"])))
    known.update(facts(tx, fresh))
    for wish in wishes:
        fact = known.get(wish.id)
        if fact is not None and fact.state != DONE:
            publish(tx, f"command/{wish.node_id}")
    return [known.get(wish.id) for wish in wishes]


def _nodes_there(tx: Session, wishes: Sequence[NewCommand]) -> set[str]:
    wanted = {wish.node_id for wish in wishes}
    return {row for chunk in chunks(wanted) for row in tx.scalars(select(Node.id).where(Node.id.in_(chunk)))}


def _insert(tx: Session, wishes: Sequence[NewCommand]) -> None:
    dialect = postgresql if tx.get_bind().dialect.name == "postgresql" else sqlite
    rows: list[dict[str, Any]] = [
        {
            "id": wish.id,
            "node_id": wish.node_id,
            "operation_id": wish.operation_id,
            "kind": wish.kind,
            "epoch": wish.epoch,
            "deadline": wish.deadline,
            "body": wish.body,
            "state": QUEUED,
            "waiting_for": "",
            "created_at": wish.now,
        }
        for wish in wishes
    ]
    # Two control planes may come with the same command when one of them was frozen: the first one counts.
    tx.execute(dialect.insert(_TABLE).on_conflict_do_nothing(), rows)


@dataclass(frozen=True, slots=True)
class Pending:
    """A command that its node still owes an answer to."""

    id: str
    node_id: str
    epoch: int
    deadline: datetime
    body: bytes


def pending(tx: Session, owner: str, node_ids: Collection[str] | None = None) -> list[Pending]:
    """Unsettled commands of nodes whose session `owner` holds (of all of them, or of these), oldest first.

    A command of a run that was taken over since (its epoch is lower than the cluster's) is left out: if it is still
    wanted, the run that took over asks for it again under its own epoch.
    """
    query = (
        select(Command.id, Command.node_id, Command.epoch, Command.deadline, Command.body)
        .join(Node, Node.id == Command.node_id)
        .join(Cluster, Cluster.id == Node.cluster_id)
        .where(Command.state.in_((QUEUED, ACCEPTED)), Node.session_owner == owner, Command.epoch >= Cluster.epoch)
        .where(Command.body.is_not(None))
        .order_by(Command.created_at, Command.id)
    )
    if node_ids is None:
        return [_pending(row) for row in tx.execute(query)]
    queries = [query.where(Command.node_id.in_(chunk)) for chunk in chunks(node_ids)]
    return [_pending(row) for each in queries for row in tx.execute(each)]


def _pending(row: Row[str, str, int, datetime, bytes | None]) -> Pending:
    command_id, node_id, epoch, deadline, body = row
    assert body is not None  # the query leaves rows without one out
    return Pending(command_id, node_id, epoch, deadline, body)


@dataclass(frozen=True, slots=True)
class Answer:
    """Something an agent said about a command: accepted, what it waits for, or its result."""

    command_id: str
    node_id: str
    now: datetime
    waiting_for: str | None = None
    result: bytes | None = None


SETTLED, NOTED, AGAIN, UNKNOWN, FOREIGN = "settled", "noted", "again", "unknown", "foreign"


@dataclass(frozen=True, slots=True)
class _Row:
    node_id: str
    state: str
    waiting_for: str


_NOTE = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("b_id"))
    .values(state=bindparam("b_state"), waiting_for=bindparam("b_waiting"))
)
_SETTLE = _NOTE.values(result=bindparam("b_result"), done_at=bindparam("b_done"), body=None)


def answer(tx: Session, answers: Sequence[Answer]) -> list[str]:
    """Note answers in their order. For each: SETTLED, NOTED, AGAIN (a repeat of what is settled), UNKNOWN, or FOREIGN
    for a command of another node. A settled command keeps its result and loses its body.
    """
    rows = _rows(tx, [one.command_id for one in answers])
    verdicts: list[str] = []
    noted: dict[str, dict[str, Any]] = {}
    settled: dict[str, dict[str, Any]] = {}
    for one in answers:
        row = rows.get(one.command_id)
        verdict = _verdict(row, one)
        verdicts.append(verdict)
        if row is None or verdict not in (SETTLED, NOTED):
            continue
        change = {"b_id": one.command_id}
        if one.result is not None:
            noted.pop(one.command_id, None)
            settled[one.command_id] = {
                **change,
                "b_state": DONE,
                "b_waiting": "",
                "b_result": one.result,
                "b_done": one.now,
            }
            rows[one.command_id] = replace(row, state=DONE)
        else:
            waiting = row.waiting_for if one.waiting_for is None else one.waiting_for
            noted[one.command_id] = {**change, "b_state": ACCEPTED, "b_waiting": waiting}
            rows[one.command_id] = replace(row, state=ACCEPTED, waiting_for=waiting)
        # That a command was accepted is news to nobody who waits: it would be a look at the database for each.
        if one.result is not None or rows[one.command_id].waiting_for != row.waiting_for:
            publish(tx, f"result/{one.command_id}")
    for statement, changes in ((_NOTE, noted), (_SETTLE, settled)):
        if changes:
            tx.execute(statement, [changes[key] for key in sorted(changes)])
    return verdicts


def forget(tx: Session, operation_id: str, before: datetime) -> int:
    """Drop the commands of this operation that were made before; how many there were."""
    return len(
        tx.execute(
            delete(_TABLE)
            .where(_TABLE.c.operation_id == operation_id, _TABLE.c.created_at < before)
            .returning(_TABLE.c.id)
        ).all()
    )


def _rows(tx: Session, command_ids: Iterable[str]) -> dict[str, _Row]:
    found: dict[str, _Row] = {}
    for chunk in chunks(sorted(set(command_ids))):
        query = select(Command.id, Command.node_id, Command.state, Command.waiting_for).where(Command.id.in_(chunk))
        found.update({row[0]: _Row(*row[1:]) for row in tx.execute(query.order_by(Command.id).with_for_update())})
    return found


def _verdict(row: _Row | None, one: Answer) -> str:
    if row is None:
        return UNKNOWN
    if row.node_id != one.node_id:
        return FOREIGN
    if row.state == DONE:
        return AGAIN
    return SETTLED if one.result is not None else NOTED
