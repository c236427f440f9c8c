"""Machines: an instance that boots into an agent, its data volume, and the agent's first call."""

import hashlib
import hmac
from collections.abc import Sequence

from sqlalchemy.orm import Session

from controlplane.cloud.port import CloudResource, InstanceRequest, VolumeRequest
from controlplane.cloud.userdata import render
from controlplane.domain.failure import CloudFailure, FailureCode
from controlplane.operations.execution import Execution, StepRun
from controlplane.operations.ledgered import ensure, id_of, owner
from controlplane.store import nodes
from controlplane.store.tables import Node

# From RunInstances to the agent's first message: EC2 boots in about a minute; cloud-init installs the agent.
AGENT_SECONDS = 600.0
# A client token answers for its instance even when that was terminated under us; another one is asked with then.
MOST_LAUNCHES = 3


async def instance(run: StepRun) -> str:
    """A running instance for the slot; where its zone has no capacity, in another zone of the cluster."""
    node = await run.execution.node(run.step.subject)
    full: list[str] = []
    for zone in _zones(node.zone_wish, run.execution.spec.zones):
        try:
            made = await _launched(run, node, zone)
        except CloudFailure as failure:
            if failure.code is not FailureCode.CLOUD_CAPACITY:
                raise
            full.append(zone)
            await run.waiting(f"no capacity for {node.instance_type} in {zone}; trying another zone")
            continue
        moved = f"; {', '.join(full)} had no capacity for {node.instance_type}" if full else ""
        return f"{made.id} with {made.private_ip} in {made.zone}{moved}"
    raise CloudFailure(
        FailureCode.CLOUD_CAPACITY,
        f"no zone of the cluster has capacity for {node.instance_type}: {', '.join(full)}",
        aws_code="InsufficientInstanceCapacity",
    )


def _zones(wish: str, zones: Sequence[str]) -> list[str]:
    return [wish, *(zone for zone in zones if zone != wish)]


async def _launched(run: StepRun, node: Node, zone: str) -> CloudResource:
    for launch in range(1, MOST_LAUNCHES):
        try:
            return await _launch(run, node, zone, launch)
        except CloudFailure as failure:
            if failure.aws_code != "IdempotentInstanceTerminated":
                raise
    return await _launch(run, node, zone, MOST_LAUNCHES)


async def _launch(run: StepRun, node: Node, zone: str, launch: int) -> CloudResource:
    execution, installation = run.execution, run.tools.installation
    cloud = run.tools.cloud(execution.spec.region)
    resource = f"instance:{node.name}"
    subnet_id = await id_of(execution, f"subnet:{zone}")
    group_id = await id_of(execution, "security-group")
    image = await cloud.image_id(installation.image)
    user_data = await _user_data(run, node)
    found: list[CloudResource] = []

    async def call(token: str) -> str:
        request = InstanceRequest(
            instance_type=node.instance_type,
            image_id=image,
            zone=zone,
            subnet_id=subnet_id,
            security_group_id=group_id,
            user_data=user_data,
            client_token=token,
            instance_profile=installation.instance_profile,
        )
        found.append(await cloud.ensure_instance(owner(execution, resource), request, progress=run.waiting))
        return found[-1].id

    variant = node.instance_type if launch == 1 else f"{node.instance_type}#{launch}"
    await ensure(run, "instance", resource, call, zone=zone, variant=variant)
    made = found[-1]

    def record(tx: Session) -> None:
        row = tx.get_one(Node, node.id)
        row.instance_id, row.private_ip, row.zone = made.id, made.private_ip, made.zone

    await execution.write(record)
    return made


async def _user_data(run: StepRun, node: Node) -> str:
    """The same text for the same attempt, however often the step runs: EC2 compares it under one client token."""
    token = join_token(run.execution, node.id)
    installation = run.tools.installation
    await run.execution.write(lambda tx: nodes.expect_join(tx, node.id, token, run.tools.clock.now()))
    return render(
        node_id=node.id,
        enroll_endpoint=installation.enroll_endpoint,
        ca_pem=installation.ca_pem,
        join_token=token,
        boot_command=installation.boot_command,
    )


def join_token(execution: Execution, node_id: str) -> str:
    """The node's one-time token in this attempt: only this installation can make it, and it makes the same again."""
    message = "\0".join(["join", execution.operation_id, str(execution.attempt), node_id]).encode()
    return f"wapjoin_{hmac.new(execution.tools.installation.install_key, message, hashlib.sha256).hexdigest()}"


async def volume(run: StepRun) -> str:
    """An encrypted gp3 volume in the instance's zone, attached to it."""
    execution = run.execution
    cloud = run.tools.cloud(execution.spec.region)
    node = await execution.node(run.step.subject)
    size = next(rs.size for rs in execution.spec.replica_sets if rs.name == node.replica_set)
    resource = f"volume:{node.name}"

    async def call(token: str) -> str:
        request = VolumeRequest(
            zone=node.zone,
            size_gib=size.disk_gib,
            iops=size.disk_iops,
            throughput=size.disk_throughput_mibps,
            kms_key=run.tools.installation.kms_key,
            client_token=token,
        )
        return (await cloud.ensure_volume(owner(execution, resource), request, progress=run.waiting)).id

    made = await ensure(run, "volume", resource, call, zone=node.zone, variant=str(size.disk_gib))
    await cloud.attach_volume(made, node.instance_id, progress=run.waiting)

    def record(tx: Session) -> None:
        tx.get_one(Node, node.id).volume_id = made

    await execution.write(record)
    return f"{made} attached to {node.instance_id}"


async def agent(run: StepRun) -> str:
    """The agent of the slot is connected."""
    node = await run.execution.node(run.step.subject)
    await run.waiting(f"agent of {node.name} to enrol and connect")

    def still_expected(tx: Session) -> None:  # also by a retry that comes after the token's life
        row = tx.get_one(Node, node.id)
        if row.join_token_hash:
            row.join_expires_at = run.tools.clock.now() + nodes.JOIN_LIFE

    await run.execution.write(still_expected)
    await run.tools.fleet.await_agent(node.id, within=AGENT_SECONDS, on_waiting=run.waiting)
    return f"agent of {node.name} is connected"
