"""The data volume."""

from wap.agent.v1 import command_pb2

from agent.mongod.settings import check_volume_id
from agent.node import Node, Progress
from agent.volume import ensure_volume


async def prepare(
    node: Node, order: command_pb2.PrepareVolume, result: command_pb2.CommandResult, progress: Progress
) -> None:
    """Mount the volume, with a new file system where it is blank and has never been this node's data."""
    check_volume_id(order.volume_id)
    goal = node.mongod.goal
    holds_data = goal is not None and goal.settings.volume_id == order.volume_id
    volume = await ensure_volume(node.paths, order.volume_id, progress, may_format=not holds_data)
    result.detail = f"{order.volume_id} is mounted" + (", newly formatted" if volume.formatted else "")
    result.prepare_volume.CopyFrom(
        command_pb2.PrepareVolumeResult(
            mount_path=str(volume.path),
            total_bytes=volume.total_bytes,
            free_bytes=volume.free_bytes,
            formatted=volume.formatted,
        )
    )
