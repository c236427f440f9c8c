"""Database users."""

import re

from wap.agent.v1 import command_pb2

from agent.failure import refused
from agent.mongod.replica_set import require_primary
from agent.node import Node, Progress

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
MIN_PASSWORD, MAX_PASSWORD = 8, 1024
MAX_ROLES = 64


async def ensure(
    node: Node, order: command_pb2.EnsureUser, result: command_pb2.CommandResult, progress: Progress
) -> None:
    """The user exists with this password and exactly these roles."""
    roles = _checked(order)
    client = node.mongod.client()
    await require_primary(client)
    progress("a majority to confirm the user")
    await client.ensure_user(order.username, order.password, roles)
    result.detail = f"user {order.username} has {len(roles)} roles"


def _checked(order: command_pb2.EnsureUser) -> list[tuple[str, str]]:
    if not USERNAME.fullmatch(order.username):
        raise refused("username", order.username, "1 to 128 letters, digits, '_', '.', '@' and '-'")
    password = order.password
    if not (MIN_PASSWORD <= len(password) <= MAX_PASSWORD and password.isprintable()):
        allowed = f"{MIN_PASSWORD} to {MAX_PASSWORD} printable characters"
        raise refused("password", f"{len(password)} characters", allowed)
    if len(order.roles) > MAX_ROLES:
        raise refused("roles", f"{len(order.roles)} roles", f"at most {MAX_ROLES}")
    for index, role in enumerate(order.roles):
        for field, value in (("role", role.role), ("database", role.database)):
            if not NAME.fullmatch(value):
                raise refused(f"roles[{index}].{field}", value, "1 to 64 letters, digits, '_' and '-'")
    return [(role.role, role.database) for role in order.roles]
