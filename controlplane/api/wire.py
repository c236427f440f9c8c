"""Domain values and rows <-> proto: enums, times, failures, specs, plans and operations. Both directions side by side.

Enum names are the domain's names behind a prefix; a test holds the lists together.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from wap.control.v1 import operation_pb2
from wap.type.v1 import cluster_pb2, failure_pb2

from controlplane.domain.catalog import COST_NOTE, CostLine
from controlplane.domain.cluster import (
    ClusterSpec,
    NodeSize,
    ReplicaSetRole,
    ReplicaSetSpec,
    RouterSpec,
    Topology,
)
from controlplane.domain.failure import FailureDetails, invalid
from controlplane.domain.operation import StepState
from controlplane.planner.plan import Plan, Stage, Step
from controlplane.store.operations import failure_from_json
from controlplane.store.tables import Operation, OperationStep

DONE = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})
Enum = TypeVar("Enum", bound=str)


def enum_to_wire(wrapper: Any, prefix: str, name: str) -> Any:
    """The enum's number: "CREATING" -> CLUSTER_STATE_CREATING."""
    return wrapper.Value(f"{prefix}_{name}")


def enum_from_wire(wrapper: Any, prefix: str, number: int, kind: type[Enum], path: str) -> Enum:
    """The domain's value; a number without a name, and UNSPECIFIED, are refused."""
    names = {value: name.removeprefix(f"{prefix}_") for name, value in wrapper.items()}
    allowed = [name for value, name in names.items() if value]
    if not number or number not in names:
        given = f"{prefix}_{names[number]}" if number in names else number
        raise invalid(path, given, ", ".join(f"{prefix}_{name}" for name in allowed))
    return kind(names[number])


def time_to_wire(moment: datetime | None) -> Timestamp | None:
    """A Timestamp, or None, which leaves a message field unset."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def failure_to_wire(failure: FailureDetails) -> failure_pb2.Failure:
    """The failure as steps and operations show it."""
    return failure_pb2.Failure(
        code=enum_to_wire(failure_pb2.FailureCode, "FAILURE_CODE", failure.code),
        message=failure.message,
        field=failure.field,
        given=failure.given,
        allowed=failure.allowed,
        retryable=failure.retryable,
    )


def _stored_failure(value: dict[str, Any] | None) -> failure_pb2.Failure | None:
    return failure_to_wire(failure_from_json(value)) if value else None


def spec_from_wire(spec: cluster_pb2.ClusterSpec) -> ClusterSpec:
    """The wish, unchecked but for its enums. A replica set without a role holds data."""
    return ClusterSpec(
        topology=enum_from_wire(cluster_pb2.Topology, "TOPOLOGY", spec.topology, Topology, "spec.topology"),
        mongodb_version=spec.mongodb_version,
        region=spec.region,
        zones=tuple(spec.zones),
        replica_sets=tuple(_replica_set_from_wire(rs, index) for index, rs in enumerate(spec.replica_sets)),
        routers=RouterSpec(spec.routers.count, _size_from_wire(spec.routers.size))
        if spec.HasField("routers")
        else None,
        deletion_protection=spec.deletion_protection,
        allow_unsafe=spec.allow_unsafe,
    )


def spec_to_wire(spec: ClusterSpec) -> cluster_pb2.ClusterSpec:
    """The wish as the server keeps it."""
    routers = spec.routers
    return cluster_pb2.ClusterSpec(
        topology=enum_to_wire(cluster_pb2.Topology, "TOPOLOGY", spec.topology),
        mongodb_version=spec.mongodb_version,
        region=spec.region,
        zones=spec.zones,
        replica_sets=[_replica_set_to_wire(rs) for rs in spec.replica_sets],
        routers=cluster_pb2.RouterSpec(count=routers.count, size=_size_to_wire(routers.size)) if routers else None,
        deletion_protection=spec.deletion_protection,
        allow_unsafe=spec.allow_unsafe,
    )


def _replica_set_from_wire(rs: cluster_pb2.ReplicaSetSpec, index: int) -> ReplicaSetSpec:
    number = rs.role or cluster_pb2.REPLICA_SET_ROLE_DATA
    path = f"spec.replica_sets[{index}].role"
    role = enum_from_wire(cluster_pb2.ReplicaSetRole, "REPLICA_SET_ROLE", number, ReplicaSetRole, path)
    return ReplicaSetSpec(rs.name, role, rs.members, _size_from_wire(rs.size))


def _replica_set_to_wire(rs: ReplicaSetSpec) -> cluster_pb2.ReplicaSetSpec:
    role = enum_to_wire(cluster_pb2.ReplicaSetRole, "REPLICA_SET_ROLE", rs.role)
    return cluster_pb2.ReplicaSetSpec(name=rs.name, role=role, members=rs.members, size=_size_to_wire(rs.size))


def _size_from_wire(size: cluster_pb2.NodeSize) -> NodeSize:
    return NodeSize(size.instance_type, size.disk_gib, size.disk_iops, size.disk_throughput_mibps)


def _size_to_wire(size: NodeSize) -> cluster_pb2.NodeSize:
    return cluster_pb2.NodeSize(
        instance_type=size.instance_type,
        disk_gib=size.disk_gib,
        disk_iops=size.disk_iops,
        disk_throughput_mibps=size.disk_throughput_mibps,
    )


def plan_to_wire(plan: Plan, cost: Sequence[CostLine] = ()) -> operation_pb2.Plan:
    """The plan with what its result costs; stages count from 1 for people."""
    return operation_pb2.Plan(
        steps=[_planned_step(number, stage, step) for number, stage, step in plan.steps()],
        cost_lines=[operation_pb2.CostLine(title=line.title, usd_per_month=line.usd_per_month) for line in cost],
        usd_per_month=sum(line.usd_per_month for line in cost),
        cost_note=COST_NOTE if cost else "",
    )


def _planned_step(number: int, stage: Stage, step: Step) -> operation_pb2.PlannedStep:
    return operation_pb2.PlannedStep(
        name=step.name,
        title=step.title,
        reason=step.reason,
        waits_for=step.waits_for,
        risk=step.risk,
        stage=number + 1,
        stage_title=stage.title,
    )


def operation_to_wire(operation: Operation, steps: Sequence[OperationStep]) -> operation_pb2.Operation:
    """The operation with its steps."""
    forward = [step for step in steps if not step.undo]
    done = sum(step.state in DONE for step in forward)
    message = operation_headline(operation, (done, len(forward)))
    message.steps.extend(_step_to_wire(step) for step in steps)
    return message


def operation_headline(operation: Operation, counts: tuple[int, int]) -> operation_pb2.Operation:
    """The operation without its steps; `counts` are (done, total)."""
    return operation_pb2.Operation(
        id=operation.id,
        project_id=operation.project_id,
        cluster_id=operation.cluster_id,
        cluster_name=operation.cluster_name,
        kind=enum_to_wire(operation_pb2.OperationKind, "OPERATION_KIND", operation.kind),
        state=enum_to_wire(operation_pb2.OperationState, "OPERATION_STATE", operation.state),
        actor=operation.actor,
        create_time=time_to_wire(operation.created_at),
        start_time=time_to_wire(operation.started_at),
        end_time=time_to_wire(operation.ended_at),
        failure=_stored_failure(operation.failure),
        summary=operation.summary,
        steps_done=counts[0],
        steps_total=counts[1],
        attempt=operation.attempt,
        cancel_requested=operation.cancel_requested,
    )


def _step_to_wire(step: OperationStep) -> operation_pb2.Step:
    return operation_pb2.Step(
        plan=operation_pb2.PlannedStep(
            name=step.name,
            title=step.title,
            reason=step.reason,
            waits_for=step.waits_for,
            risk=step.risk,
            stage=step.stage + 1,
            stage_title=step.stage_title,
        ),
        state=enum_to_wire(operation_pb2.StepState, "STEP_STATE", step.state),
        detail=step.detail,
        waiting_for=step.waiting_for,
        attempt=step.attempt,
        start_time=time_to_wire(step.started_at),
        end_time=time_to_wire(step.ended_at),
        failure=_stored_failure(step.failure),
        undo=step.undo,
    )
