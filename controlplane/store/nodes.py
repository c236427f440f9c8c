"""Nodes as their agents make them: join tokens, certificates, sessions, reports.

What thousands of agents do at once (open a session, beat) is written many rows to a transaction; rows are always
touched in the order of their ids, so that two control planes never wait for each other in a circle.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import and_, bindparam, delete, or_, select, update
from sqlalchemy.orm import Session

from controlplane.domain.failure import FailureCode
from controlplane.domain.node import AgentState
from controlplane.store.bus import publish
from controlplane.store.tables import Cluster, Command, Node

JOIN_LIFE = timedelta(minutes=10)
MAX_NAME = 255
# Values in one IN (...) list, well below what SQLite takes.
CHUNK = 500
T = TypeVar("T")


def chunks(items: Collection[T]) -> Iterator[list[T]]:
    """The items in lists that fit an IN (...)."""
    ordered = list(items)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]


def digest(token: str) -> str:
    """How a token is kept: SHA-256 is enough for 256 random bits."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def expect_join(tx: Session, node_id: str, token: str, now: datetime) -> None:
    """Let this token enrol this node once within ten minutes. A token that was spent stays spent, a ban stays a ban."""
    node = tx.get_one(Node, node_id)
    if node.banned_at is not None or node.join_token_hash.startswith(digest(token) + ":"):
        return
    node.join_token_hash, node.join_expires_at = digest(token), now + JOIN_LIFE


def spend_join(tx: Session, node_id: str, token: str, key: str, now: datetime) -> str | None:
    """None when the token was good and is spent by this very call; otherwise why not, for the audit only.

    The decision is one UPDATE: of a hundred calls at once it changes a row for one. A spent token remembers the
    fingerprint of the `key` that it was spent for: an agent that never got our answer asks again with the same key, and
    may, for as long as the token would have lived.
    """
    fresh = digest(token)
    spent = f"{fresh}:{key}"
    done = tx.execute(
        update(Node)
        .where(Node.id == node_id, Node.join_token_hash.in_((fresh, spent)), Node.join_expires_at > now)
        .where(Node.removed_at.is_(None), Node.banned_at.is_(None))
        .values(join_token_hash=spent)
        .returning(Node.id)
    )
    return None if done.scalar() is not None else _why_refused(tx, node_id, fresh)


def _why_refused(tx: Session, node_id: str, fresh: str) -> str:
    node = tx.get(Node, node_id)
    if node is None:
        return "no such node"
    if node.banned_at is not None or node.removed_at is not None:
        return "the node is banned or removed"
    if node.join_token_hash.startswith(fresh + ":"):
        return "the token was used before"
    if node.join_token_hash == fresh:
        return "the token has expired"
    other = tx.scalar(select(Node.id).where(Node.join_token_hash.startswith(fresh), Node.id != node_id).limit(1))
    return "the token is another node's" if other is not None else "the token is not known"


def set_certificate(tx: Session, node_id: str, serial: str, expires: datetime) -> None:
    """Accept this certificate from now on; one that is in use already stays good too, until the new one is used."""
    node = tx.get_one(Node, node_id)
    if node.certificate_serial:
        node.next_certificate_serial = serial
    else:
        node.certificate_serial, node.next_certificate_serial = serial, ""
    node.certificate_expires_at = expires
    publish(tx, f"session/{node_id}")


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database says about the right of a node's agent to speak."""

    node_id: str
    name: str
    cluster_id: str
    serial: str
    next_serial: str
    banned: bool
    removed: bool
    epoch: int

    def refusal(self, serial: str) -> FailureCode | None:
        """Why an agent with this certificate may not speak, or None when it may."""
        if self.banned:
            return FailureCode.AGENT_BANNED
        if self.removed or not serial or serial not in (self.serial, self.next_serial):
            return FailureCode.CERTIFICATE_NOT_ACTIVE
        return None


_STANDING = (
    Node.id,
    Node.name,
    Node.cluster_id,
    Node.certificate_serial,
    Node.next_certificate_serial,
    Node.banned_at,
    Node.removed_at,
    Node.session_epoch,
)


def standings(tx: Session, node_ids: Iterable[str], *, lock: bool = False) -> dict[str, Standing]:
    """Standing of each node that exists; with `lock` nobody else changes these rows before the transaction ends."""
    found: dict[str, Standing] = {}
    for chunk in chunks(sorted(set(node_ids))):
        query = select(*_STANDING).where(Node.id.in_(chunk)).order_by(Node.id)
        for row in tx.execute(query.with_for_update() if lock else query):
            banned, removed = row[5] is not None, row[6] is not None
            found[row[0]] = Standing(row[0], row[1], row[2], row[3], row[4], banned, removed, row[7])
    return found


def activate_certificate(tx: Session, node_id: str, serial: str) -> None:
    """The renewed certificate was used: the old one is worth nothing now."""
    tx.execute(
        update(Node)
        .where(Node.id == node_id, Node.next_certificate_serial == serial)
        .values(certificate_serial=serial, next_certificate_serial="")
    )
    publish(tx, f"session/{node_id}")


@dataclass(frozen=True, slots=True)
class Opening:
    """A wish to open a session, with the certificate it was made with."""

    node_id: str
    serial: str
    owner: str
    agent_version: str
    host_name: str
    now: datetime


_OPEN = (
    update(Node.__table__)  # type: ignore[arg-type]
    .where(Node.__table__.c.id == bindparam("b_id"))
    .values(
        session_epoch=bindparam("b_epoch"),
        session_owner=bindparam("b_owner"),
        agent_version=bindparam("b_version"),
        host_name=bindparam("b_host"),
        agent_state=AgentState.CONNECTED,
        last_seen_at=bindparam("b_now"),
        certificate_serial=bindparam("b_serial"),
        next_certificate_serial=bindparam("b_next"),
    )
)


def open_sessions(tx: Session, openings: Sequence[Opening]) -> list[Standing | FailureCode]:
    """For each wish the standing with its new session epoch, or why it is refused.

    The newest session of a node is the only one that counts. A certificate that was renewed is activated by its first
    use.
    """
    known = standings(tx, {opening.node_id for opening in openings}, lock=True)
    answers: list[Standing | FailureCode] = []
    rows: dict[str, dict[str, Any]] = {}
    for opening in openings:
        now = known.get(opening.node_id)
        refusal = now.refusal(opening.serial) if now else FailureCode.CERTIFICATE_NOT_ACTIVE
        if now is None or refusal is not None:
            answers.append(refusal or FailureCode.CERTIFICATE_NOT_ACTIVE)
            continue
        next_serial = "" if opening.serial == now.next_serial else now.next_serial
        opened = Standing(
            now.node_id, now.name, now.cluster_id, opening.serial, next_serial, False, False, now.epoch + 1
        )
        known[opening.node_id] = opened
        rows[opening.node_id] = _open_row(opening, opened)
        answers.append(opened)
        publish(tx, f"node/{now.node_id}", f"session/{now.node_id}", f"cluster/{now.cluster_id}")
    if rows:
        tx.execute(_OPEN, [rows[node_id] for node_id in sorted(rows)])
    return answers


def _open_row(opening: Opening, opened: Standing) -> dict[str, Any]:
    return {
        "b_id": opening.node_id,
        "b_epoch": opened.epoch,
        "b_owner": opening.owner,
        "b_version": opening.agent_version[:MAX_NAME],
        "b_host": opening.host_name[:MAX_NAME],
        "b_now": opening.now,
        "b_serial": opened.serial,
        "b_next": opened.next_serial,
    }


@dataclass(frozen=True, slots=True)
class Observation:
    """What a session has seen of its agent since the last time it was written."""

    node_id: str
    cluster_id: str
    epoch: int
    seen: datetime
    state: AgentState
    # None when nothing worth a write has changed in the agent's report.
    report: Mapping[str, Any] | None
    # Whether watchers are to be woken.
    changed: bool


_TABLE = Node.__table__
_SEEN = (
    update(_TABLE)  # type: ignore[arg-type]
    .where(
        _TABLE.c.id == bindparam("b_id"),
        _TABLE.c.session_epoch == bindparam("b_epoch"),
        # No IN (...): its list cannot be expanded for many rows at once.
        or_(_TABLE.c.agent_state == AgentState.CONNECTED, _TABLE.c.agent_state == AgentState.SILENT),
    )
    .values(last_seen_at=bindparam("b_seen"), agent_state=bindparam("b_state"))
)
_REPORTED = _SEEN.values(report=bindparam("b_report"))


def record(tx: Session, observations: Sequence[Observation]) -> None:
    """Write many observations at once. Leftovers of an older session, and banned or removed nodes, change nothing."""
    seen, reported = [], []
    for one in sorted(observations, key=lambda observation: observation.node_id):
        row: dict[str, Any] = {"b_id": one.node_id, "b_epoch": one.epoch, "b_seen": one.seen, "b_state": one.state}
        if one.report is None:
            seen.append(row)
        else:
            reported.append({**row, "b_report": dict(one.report)})
        if one.changed:
            publish(tx, f"node/{one.node_id}", f"cluster/{one.cluster_id}")
    if reported:
        tx.execute(_REPORTED, reported)
    if seen:
        tx.execute(_SEEN, seen)


def silence_of_the_dead(tx: Session, before: datetime, owner: str, own_before: datetime) -> int:
    """Mark agents SILENT that no control plane has heard since `before`: their control plane may have died.

    For rows that `owner` itself holds `own_before` counts: it writes them all the time, so a late one was left by an
    earlier life of it.
    """
    mine = and_(Node.session_owner == owner, Node.last_seen_at < own_before)
    silent = tx.execute(
        update(Node)
        .where(Node.agent_state == AgentState.CONNECTED, or_(Node.last_seen_at < before, mine))
        .values(agent_state=AgentState.SILENT)
        .returning(Node.id, Node.cluster_id)
    ).all()
    for node_id, cluster_id in silent:
        publish(tx, f"node/{node_id}", f"cluster/{cluster_id}")
    return len(silent)


def ban(tx: Session, node_id: str, now: datetime) -> Node:
    """End the agent's session and refuse its certificates from now on."""
    node = tx.get_one(Node, node_id)
    node.banned_at = now
    node.agent_state = AgentState.BANNED
    node.join_token_hash = ""
    publish(tx, f"session/{node_id}", f"node/{node_id}", f"cluster/{node.cluster_id}")
    return node


def retire(tx: Session, node_id: str, now: datetime) -> None:
    """Before the machine goes: sessions end, certificates and join token are worth nothing. A new join starts afresh.

    What the agent still owed an answer to is forgotten, with the secrets in it.
    """
    node = tx.get_one(Node, node_id)
    node.certificate_serial = node.next_certificate_serial = node.join_token_hash = ""
    node.certificate_expires_at = node.join_expires_at = None
    node.session_epoch += 1
    node.session_owner = ""
    node.banned_at = None
    node.agent_state = AgentState.WAITING
    node.report = None
    node.last_seen_at = now
    tx.execute(delete(Command).where(Command.node_id == node_id, Command.done_at.is_(None)))
    publish(tx, f"session/{node_id}", f"node/{node_id}", f"cluster/{node.cluster_id}")


def get(tx: Session, node_id: str) -> Node | None:
    """The node."""
    return tx.get(Node, node_id)


def list_nodes(
    tx: Session, *, project_ids: Collection[str] | None, cluster_id: str, include_removed: bool
) -> Sequence[tuple[Node, Cluster]]:
    """Nodes with their clusters, by cluster and slot."""
    query = select(Node, Cluster).join(Cluster, Cluster.id == Node.cluster_id)
    if project_ids is not None:
        query = query.where(Cluster.project_id.in_(project_ids))
    if cluster_id:
        query = query.where(Node.cluster_id == cluster_id)
    if not include_removed:
        query = query.where(Node.removed_at.is_(None))
    return [(node, cluster) for node, cluster in tx.execute(query.order_by(Cluster.name, Node.name)).all()]


@dataclass(frozen=True, slots=True)
class NodeName:
    """What names a node, without all that is known of it. `name` is that of its cluster and of its slot: "orders-rs0-1"."""

    id: str
    name: str
    cluster_id: str
    project_id: str


def names(
    tx: Session, *, project_ids: Collection[str] | None, cluster_id: str = "", node_id: str = ""
) -> dict[str, NodeName]:
    """Nodes by id, also those that are gone: what they measured and logged is still there. "" does not filter."""
    query = select(Node.id, Cluster.name + "-" + Node.name, Node.cluster_id, Cluster.project_id)
    query = query.join(Cluster, Cluster.id == Node.cluster_id)
    if project_ids is not None:
        query = query.where(Cluster.project_id.in_(project_ids))
    if cluster_id:
        query = query.where(Node.cluster_id == cluster_id)
    if node_id:
        query = query.where(Node.id == node_id)
    return {row[0]: NodeName(*row) for row in tx.execute(query.order_by(Cluster.name, Node.name, Node.id))}


def living(tx: Session) -> list[str]:
    """Ids of all nodes that are not removed."""
    return list(tx.scalars(select(Node.id).where(Node.removed_at.is_(None)).order_by(Node.id)))
