"""Sending one command to one agent as part of a step."""

from datetime import timedelta

from google.protobuf import timestamp_pb2
from wap.agent.v1 import command_pb2

from controlplane.operations.execution import StepRun


async def order(
    run: StepRun, node_id: str, command: command_pb2.Command, *, within: float
) -> command_pb2.CommandResult:
    """The command's result. Its id is the same after a crash, and another after a failure that is tried again.

    `within` seconds from now is the deadline that both sides keep. Raises AgentFailure.
    """
    execution = run.execution
    body = command.WhichOneof("body")
    tries = f"#{run.tries}" if run.tries > 1 else ""
    command.id = f"{execution.operation_id}.{execution.attempt}/{run.step.name}/{body}{tries}"
    command.epoch = execution.epoch
    deadline = timestamp_pb2.Timestamp()
    deadline.FromDatetime(run.tools.clock.now() + timedelta(seconds=within))
    command.deadline.CopyFrom(deadline)
    return await run.tools.fleet.call(node_id, command, operation_id=execution.operation_id, on_waiting=run.waiting)
