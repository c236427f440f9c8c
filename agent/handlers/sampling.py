"""How often the node is sampled while somebody looks at it."""

from wap.agent.v1 import command_pb2

from agent.failure import refused
from agent.node import Node
from agent.telemetry.pace import MAX_FOR_SECONDS, MAX_SECONDS, MIN_SECONDS


def set_sampling(node: Node, order: command_pb2.SetSampling, result: command_pb2.CommandResult) -> None:
    """Samples come this often for so long; then as usual again, so nobody has to take it back."""
    if not MIN_SECONDS <= order.interval_seconds <= MAX_SECONDS:
        raise refused("interval_seconds", order.interval_seconds, f"{MIN_SECONDS} to {MAX_SECONDS}")
    if not 1 <= order.for_seconds <= MAX_FOR_SECONDS:
        raise refused("for_seconds", order.for_seconds, f"1 to {MAX_FOR_SECONDS}")
    node.pace.hurry(order.interval_seconds, order.for_seconds)
    result.detail = f"a sample every {order.interval_seconds} s for {order.for_seconds} s"
