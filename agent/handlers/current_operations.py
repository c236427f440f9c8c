"""What mongod is doing now, and ending one of it."""

import json
from collections.abc import Mapping
from typing import Any

from bson import json_util
from wap.agent.v1 import command_pb2

from agent.failure import FailureCode, NodeFailure, printable, refused
from agent.mongod.client import APPLICATION
from agent.node import Node
from collector import redaction

MOST_OPERATIONS, MOST_CHARACTERS = 200, 2048
# What drivers add to each command, and says nothing about it.
ENVELOPE = frozenset(
    {"$db", "$clusterTime", "$readPreference", "lsid", "signature", "apiVersion", "$configServerState"}
)
# Drivers and members wait in these for news; they are no work.
WAITING = frozenset({"hello", "isMaster", "ismaster"})
INTERNAL_USER = "__system"


async def list_longest(node: Node, order: command_pb2.ListCurrentOperations, result: command_pb2.CommandResult) -> None:
    """The longest running operations first, without their literals."""
    if not 1 <= order.limit <= MOST_OPERATIONS:
        raise refused("limit", order.limit, f"1 to {MOST_OPERATIONS}")
    found = await node.mongod.client().current_operations(min_seconds=order.min_seconds)
    shown = [_told(operation) for operation in found if not _is_waiting(operation)]
    result.list_current_operations.operations.extend(shown[: order.limit])
    result.detail = f"{len(shown)} operations are under way"


async def kill(node: Node, order: command_pb2.KillOperation, result: command_pb2.CommandResult) -> None:
    """mongod is told to end the operation. Only those of clients: the set's own work must not be hurt."""
    client = node.mongod.client()
    found = await client.current_operations(only=order.id)
    if not found:
        raise refused("id", order.id, "an operation that is under way")
    if not _is_killable(found[0]):
        raise NodeFailure(
            FailureCode.INVALID_ARGUMENT,
            "the operation is mongod's or the agent's own",
            field="id",
            given=order.id,
            allowed="an operation of a client",
        )
    await client.kill_operation(order.id)
    result.detail = f"mongod was told to end operation {order.id}"


def _told(operation: Mapping[str, Any]) -> command_pb2.CurrentOperation:
    return command_pb2.CurrentOperation(
        id=_number(operation.get("opid")),
        operation=_text(operation.get("op")),
        namespace=_text(operation.get("ns")),
        command_shape=_shape(operation.get("command")),
        client=_text(operation.get("client")),
        application=_text(operation.get("appName")),
        plan_summary=_text(operation.get("planSummary")),
        running_seconds=_number(operation.get("microsecs_running")) / 1e6,
        waiting_for_lock=bool(operation.get("waitingForLock")),
        description=_text(operation.get("msg") or operation.get("desc")),
        killable=_is_killable(operation),
    )


def _is_killable(operation: Mapping[str, Any]) -> bool:
    users = operation.get("effectiveUsers") or ()
    internal = any(user.get("user") == INTERNAL_USER for user in users)
    # Members, the agent and routers come as the internal user; mongod's own threads come from no client.
    return bool(operation.get("client")) and not internal and operation.get("appName") != APPLICATION


def _is_waiting(operation: Mapping[str, Any]) -> bool:
    command = operation.get("command") or {}
    if operation.get("appName") == APPLICATION and "pipeline" in command and command.get("aggregate") == 1:
        return True  # the question itself
    return not WAITING.isdisjoint(command)


def _shape(command: object) -> str:
    if not isinstance(command, Mapping):
        return ""
    plain = {name: value for name, value in command.items() if name not in ENVELOPE}
    shape = redaction.redact(
        json.loads(json_util.dumps({"command": plain}, json_options=json_util.RELAXED_JSON_OPTIONS))
    )
    return _text(json.dumps(shape.get("command", {}), separators=(",", ":")), MOST_CHARACTERS)


def _text(value: object, most: int = 512) -> str:
    return printable(str(value or ""))[:most]


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0
