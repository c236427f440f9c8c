"""The connection to the node's mongod: admin commands as typed functions. Figures are read over one of their own
(agent/telemetry/reading.py), so that neither waits for the other.

The agent is the set's internal user `__system`, whose password is the keyfile's content: so it needs no user of its own
and there is no moment before the first user in which somebody else could be first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient, errors
from pymongo import timeout as _timeout

from agent.failure import FailureCode, NodeFailure
from agent.mongod.settings import MongodSettings
from agent.mongod.view import MemberView, ReplicaSetView

# By this mongod's log and current operations tell the agent from users.
APPLICATION = "wap-agent"
CONNECT_MILLIS, ANSWER_MILLIS, SELECT_MILLIS = 2000, 10_000, 2000
# A reconfiguration with one voter frozen takes 12 s (measured); step-down waits for a secondary to catch up.
SLOW_SECONDS = 40.0
MAJORITY_MILLIS = 10_000

NOT_YET_INITIALIZED, ALREADY_INITIALIZED, USER_EXISTS, WRITE_CONCERN_TIMEOUT = 94, 23, 51003, 64
NOT_PRIMARY_CODES = frozenset({10107, 13435, 11602, 189, 11600, 91})
# More operations than that are not looked at.
MOST_OPERATIONS = 500
# The set is between two configurations: the same reconfiguration works in a moment.
CONFIG_BUSY_CODES = frozenset({109, 308, 310, 74, 103})


class MongodClient:
    """One mongod, asked directly, over TLS with the cluster's authority as the only one trusted."""

    def __init__(self, settings: MongodSettings, keyfile: Path, ca_file: Path) -> None:
        self.address = settings.address
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            **connection(settings, keyfile, ca_file), maxPoolSize=4
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def version(self) -> str:
        """The version; also the proof that mongod answers and accepts the keyfile."""
        return str((await self._admin({"buildInfo": 1}))["version"])

    async def view(self) -> ReplicaSetView | None:
        """The replica set as this member sees it; None before it is initiated. Raises MONGOD_UNREACHABLE."""
        try:
            status = await self._admin({"replSetGetStatus": 1})
            config = (await self._admin({"replSetGetConfig": 1}))["config"]
        except NodeFailure as failure:
            if _code_of(failure) == NOT_YET_INITIALIZED:
                return None
            raise
        votes = {member["host"]: int(member.get("votes", 1)) for member in config["members"]}
        members = tuple(_member(member, votes) for member in status["members"])
        return ReplicaSetView(status["set"], members, int(status.get("votingMembersCount", 0)))

    async def configuration(self) -> dict[str, Any]:
        """The set's configuration, as replSetReconfig takes it."""
        found: dict[str, Any] = (await self._admin({"replSetGetConfig": 1}))["config"]
        return found

    async def committed(self) -> bool:
        """Whether a majority has the configuration in force, so that the next one may come."""
        return bool((await self._admin({"replSetGetConfig": 1, "commitmentStatus": True}))["commitmentStatus"])

    async def is_writable_primary(self) -> bool:
        """Whether it takes writes now."""
        return bool((await self._admin({"hello": 1})).get("isWritablePrimary"))

    async def initiate(self, config: Mapping[str, Any]) -> None:
        """replSetInitiate; a set that is there already is left as it is."""
        try:
            await self._admin({"replSetInitiate": config}, slow=True)
        except NodeFailure as failure:
            if _code_of(failure) != ALREADY_INITIALIZED:
                raise

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """replSetReconfig, never with force."""
        await self._admin({"replSetReconfig": config, "maxTimeMS": int(SLOW_SECONDS * 1000)}, slow=True)

    async def step_down(self, seconds: int) -> None:
        """Not be primary for so many seconds; refused by MongoDB when no secondary has caught up."""
        await self._admin({"replSetStepDown": seconds, "secondaryCatchUpPeriodSecs": 10}, slow=True)

    async def write_with_majority(self) -> None:
        """Prove that the set accepts a majority write, without touching anybody's data. Primary only."""
        await self._admin({"appendOplogNote": 1, "data": {"msg": "wap: majority check"}, **_majority()})

    async def rotate_certificates(self) -> None:
        """Take the certificate files that are on disk now; the old ones stay in force where those are no good."""
        await self._admin({"rotateCertificates": 1})

    async def ensure_user(self, username: str, password: str, roles: Sequence[tuple[str, str]]) -> None:
        """A user of `admin` with exactly these (role, database) and this password. Primary only."""
        wanted = {
            "pwd": password,
            "roles": [{"role": role, "db": database} for role, database in roles],
            "mechanisms": ["SCRAM-SHA-256"],
            **_majority(),
        }
        try:
            await self._admin({"createUser": username, **wanted})
        except NodeFailure as failure:
            if _code_of(failure) != USER_EXISTS:
                raise
            await self._admin({"updateUser": username, **wanted})

    async def current_operations(self, *, min_seconds: float = 0, only: int | None = None) -> list[dict[str, Any]]:
        """Documents of $currentOp, the longest running first: what is under way, or this one operation."""
        match: dict[str, Any] = {"active": True}
        if min_seconds:
            match["microsecs_running"] = {"$gte": int(min_seconds * 1e6)}
        if only is not None:
            match["opid"] = only
        stages = [
            {"$currentOp": {"allUsers": True}},
            {"$match": match},
            {"$sort": {"microsecs_running": -1}},
            {"$limit": MOST_OPERATIONS},
        ]
        answer = await self._admin({"aggregate": 1, "pipeline": stages, "cursor": {"batchSize": MOST_OPERATIONS}})
        found: list[dict[str, Any]] = answer["cursor"]["firstBatch"]
        return found

    async def kill_operation(self, operation_id: int) -> None:
        """Tell mongod to end an operation; it does so at the operation's next point of interruption."""
        await self._admin({"killOp": 1, "op": operation_id})

    async def rotate_log(self) -> None:
        """mongod begins a new log file; the old one gets the time as an ending."""
        await self._admin({"logRotate": "server"})

    async def _admin(self, command: dict[str, Any], *, slow: bool = False) -> dict[str, Any]:
        """Run one admin command. What the failure says is MongoDB's own message, which holds no password."""
        name = next(iter(command))
        try:
            if not slow:
                return await self._client.admin.command(command)
            with _timeout(SLOW_SECONDS):
                return await self._client.admin.command(command)
        except errors.OperationFailure as error:
            raise _refused(name, error) from error
        except errors.PyMongoError as error:
            raise NodeFailure(
                FailureCode.MONGOD_UNREACHABLE,
                f"mongod on {self.address} does not answer {name} ({type(error).__name__})",
                retryable=True,
            ) from error


def connection(settings: MongodSettings, keyfile: Path, ca_file: Path) -> dict[str, Any]:
    """What pymongo needs to know to connect as the set's internal user; OSError where the files are not there."""
    return {
        "host": settings.bind_ip,
        "port": settings.port,
        "username": "__system",
        "password": keyfile.read_text().strip(),
        "authSource": "local",
        "authMechanism": "SCRAM-SHA-256",
        "tls": True,
        "tlsCAFile": str(ca_file),
        "directConnection": True,
        "serverSelectionTimeoutMS": SELECT_MILLIS,
        "connectTimeoutMS": CONNECT_MILLIS,
        "timeoutMS": ANSWER_MILLIS,
        "serverMonitoringMode": "poll",
        "appname": APPLICATION,
    }


def is_not_primary(failure: NodeFailure) -> bool:
    """Whether MongoDB refused because another member is primary."""
    return _code_of(failure) in NOT_PRIMARY_CODES


def is_config_busy(failure: NodeFailure) -> bool:
    """Whether the same reconfiguration may work in a moment."""
    return _code_of(failure) in CONFIG_BUSY_CODES


def _majority() -> dict[str, Any]:
    return {"writeConcern": {"w": "majority", "wtimeout": MAJORITY_MILLIS}}


def _code_of(failure: NodeFailure) -> int:
    cause = failure.__cause__
    return (cause.code or 0) if isinstance(cause, errors.OperationFailure) else 0


def _refused(name: str, error: errors.OperationFailure) -> NodeFailure:
    details = error.details or {}
    code_name = details.get("codeName", "") or details.get("writeConcernError", {}).get("codeName", "")
    message = str(details.get("errmsg") or details.get("writeConcernError", {}).get("errmsg", ""))
    if error.code == WRITE_CONCERN_TIMEOUT:
        return NodeFailure(FailureCode.OUTCOME_UNKNOWN, f"{name}: no majority has confirmed it in time", retryable=True)
    return NodeFailure(
        FailureCode.MONGOD_COMMAND_FAILED,
        f"{name}: {message[:200]} ({error.code} {code_name})",
        retryable=error.code in NOT_PRIMARY_CODES | CONFIG_BUSY_CODES,
    )


def _member(status: Mapping[str, Any], votes: Mapping[str, int]) -> MemberView:
    optime = status.get("optimeDate")
    return MemberView(
        host=status["name"],
        state=status["stateStr"],
        votes=votes.get(status["name"], 0),
        up=bool(status.get("health")),
        itself=bool(status.get("self")),
        # A member that has nothing yet shows the beginning of the epoch.
        optime=optime if optime is not None and optime.timestamp() > 0 else None,
    )
