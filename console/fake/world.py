"""Everything the fake remembers, as the messages it answers with, and the one signal that something changed."""

import asyncio
import hashlib
import itertools
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from wap.control.v1.access_pb2 import AuditEvent, Caller, Grant, Token, User
from wap.control.v1.alert_pb2 import Alert, AlertChannel, AlertEvent, AlertRule, Silence
from wap.control.v1.cluster_pb2 import CLUSTER_STATE_DELETED, Cluster
from wap.control.v1.node_pb2 import Node
from wap.control.v1.operation_pb2 import Operation
from wap.control.v1.project_pb2 import Project
from wap.type.v1.cluster_pb2 import ACCESS_ROLE_ADMIN, ACCESS_ROLE_UNSPECIFIED, ACCESS_ROLE_VIEWER, AccessRole
from wap.type.v1.failure_pb2 import FAILURE_CODE_PERMISSION_DENIED

from console.fake.refusals import Refused, invalid, not_found

T = TypeVar("T")


def now() -> Timestamp:
    """The present moment."""
    moment = Timestamp()
    moment.GetCurrentTime()
    return moment


def digest(secret: str) -> str:
    """Secrets are kept as hashes even here, so that a dump of the fake shows none."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True)
class Actor:
    """Who calls, from where, with which request; `grants` are read anew for every call."""

    name: str
    user_id: str
    display_name: str
    grants: tuple[Grant, ...]
    request_id: str
    peer: str
    session: str = ""

    def role_in(self, project_id: str) -> AccessRole.ValueType:
        """The highest role in this project; a grant without project counts everywhere."""
        return max(
            (grant.role for grant in self.grants if grant.project_id in ("", project_id)),
            default=ACCESS_ROLE_UNSPECIFIED,
        )

    def sees(self, project_id: str) -> bool:
        """True when the caller may know that this project exists."""
        return self.role_in(project_id) >= ACCESS_ROLE_VIEWER

    def require(self, project_id: str, role: AccessRole.ValueType) -> None:
        """Refuse a caller whose role in the project is lower; the project must be known to be visible."""
        if self.role_in(project_id) < role:
            needed = AccessRole.Name(role).removeprefix("ACCESS_ROLE_").lower()
            raise Refused(
                FAILURE_CODE_PERMISSION_DENIED,
                "Your role does not allow this.",
                field="project_id" if project_id else "grants",
                given=AccessRole.Name(self.role_in(project_id)).removeprefix("ACCESS_ROLE_").lower(),
                allowed=f"{needed} or higher",
            )

    def caller(self) -> Caller:
        """The same as a message."""
        return Caller(actor=self.name, user_id=self.user_id, display_name=self.display_name, grants=self.grants)


@dataclass
class World:
    """The tables: message by id."""

    projects: dict[str, Project] = field(default_factory=dict)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    password_digests: dict[str, str] = field(default_factory=dict)
    """User id -> digest."""
    session_users: dict[str, str] = field(default_factory=dict)
    """Digest of a session token -> user id."""
    token_ids: dict[str, str] = field(default_factory=dict)
    """Digest of an API token -> token id."""
    audit: list[AuditEvent] = field(default_factory=list)
    """Oldest first."""
    alert_rules: dict[str, AlertRule] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    alert_history: dict[str, list[AlertEvent]] = field(default_factory=dict)
    """Alert id -> oldest first."""
    silences: dict[str, Silence] = field(default_factory=dict)
    alert_channels: dict[str, AlertChannel] = field(default_factory=dict)
    answered: dict[tuple[str, str], tuple[bytes, str]] = field(default_factory=dict)
    """(project id, idempotency key) -> (request body, operation id)."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def new_id(self, prefix: str) -> str:
        """An id such as "cl-0000f3a9c2d1": ids made later sort later."""
        return f"{prefix}-{next(self._numbers):04d}{secrets.token_hex(4)}"

    def touch(self) -> None:
        """Wake every watch."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait for the next touch."""
        await self._changed.wait()

    def add_user(self, username: str, password: str, grants: Iterable[Grant]) -> User:
        """A user who can log in with this password."""
        user = User(id=self.new_id("us"), username=username, grants=grants, create_time=now())
        self.users[user.id] = user
        self.password_digests[user.id] = digest(password)
        return user

    def add_project(self, name: str) -> Project:
        """A project without clusters."""
        project = Project(id=self.new_id("pr"), name=name, create_time=now())
        self.projects[project.id] = project
        return project

    def page(self, rows: Sequence[T], size: int, page_token: str) -> tuple[Sequence[T], str]:
        """The page that the token (a row number) asks for, and the token of the next one."""
        if size > 500:
            raise invalid("page_size", size, "1 to 500")
        if page_token and not page_token.isdigit():
            raise invalid("page_token", page_token, "the next_page_token of the answer before")
        start = int(page_token or 0)
        end = start + size
        return rows[start:end], str(end) if end < len(rows) else ""

    def record(self, actor: Actor, action: str, resource: str, *, project_id: str = "", **values: object) -> None:
        """One audit event; `before=` and `after=` are put down as JSON, `outcome=` replaces "ok"."""
        event = AuditEvent(
            id=self.new_id("ev"),
            time=now(),
            actor=actor.name,
            action=action,
            project_id=project_id,
            resource=resource,
            before_json=json.dumps(values["before"]) if "before" in values else "",
            after_json=json.dumps(values["after"]) if "after" in values else "",
            request_id=actor.request_id,
            peer=actor.peer,
            outcome=str(values.get("outcome", "ok")),
        )
        self.audit.append(event)
        self.touch()

    def project_by(self, actor: Actor, *, project_id: str = "", name: str = "") -> Project:
        """The project with this id or name that the actor can see."""

        def wanted(project: Project) -> bool:
            return project.id == project_id if project_id else project.name == name

        return _only(self.projects.values(), lambda p: wanted(p) and actor.sees(p.id), "project", project_id or name)

    def live_clusters(self, project_id: str) -> list[Cluster]:
        """Clusters of a project that are not deleted."""
        every = self.clusters.values()
        return [one for one in every if one.project_id == project_id and one.state != CLUSTER_STATE_DELETED]

    def cluster_by(self, actor: Actor, cluster_id: str) -> Cluster:
        """The cluster with this id that the actor can see, deleted or not."""
        return _only(
            self.clusters.values(), lambda c: c.id == cluster_id and actor.sees(c.project_id), "cluster", cluster_id
        )

    def operation_by(self, actor: Actor, operation_id: str) -> Operation:
        """The operation with this id that the actor can see."""
        return _only(
            self.operations.values(),
            lambda o: o.id == operation_id and actor.sees(o.project_id),
            "operation",
            operation_id,
        )

    def node_by(self, actor: Actor, node_id: str) -> Node:
        """The node with this id that the actor can see."""
        return _only(self.nodes.values(), lambda n: n.id == node_id and actor.sees(n.project_id), "node", node_id)


def admin_grants() -> list[Grant]:
    """Everything, everywhere."""
    return [Grant(role=ACCESS_ROLE_ADMIN)]


def _only(rows: Iterable[T], wanted: Callable[[T], bool], kind: str, given: str) -> T:
    for row in rows:
        if wanted(row):
            return row
    raise not_found(kind, given)
