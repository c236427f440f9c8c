"""The network of a cluster: VPC, a subnet per zone, a way out, and a security group that lets members in only."""

from controlplane.domain.cluster import MONGODB_PORT
from controlplane.operations.execution import StepRun
from controlplane.operations.ledgered import ensure, id_of, owner
from controlplane.planner.topology import network_of, subnet_of


async def vpc(run: StepRun) -> str:
    """The cluster's own VPC."""
    execution = run.execution
    cloud = run.tools.cloud(execution.spec.region)
    cidr = network_of(run.tools.installation.network_pool, execution.network_slot)
    made = await ensure(run, "vpc", "vpc", lambda _token: cloud.ensure_vpc(owner(execution, "vpc"), cidr))
    return f"{made} with {cidr}"


async def subnet(run: StepRun) -> str:
    """A subnet in the zone that is the step's subject."""
    execution, zone = run.execution, run.step.subject
    cloud = run.tools.cloud(execution.spec.region)
    network = network_of(run.tools.installation.network_pool, execution.network_slot)
    cidr = subnet_of(network, execution.spec.zones, zone)
    vpc_id, resource = await id_of(execution, "vpc"), f"subnet:{zone}"
    made = await ensure(
        run,
        "subnet",
        resource,
        lambda _token: cloud.ensure_subnet(owner(execution, resource), vpc_id, zone, cidr),
        zone=zone,
    )
    return f"{made} with {cidr}"


async def gateway(run: StepRun) -> str:
    """Internet gateway and default route: outgoing only, since the security group lets nothing in."""
    execution = run.execution
    cloud = run.tools.cloud(execution.spec.region)
    vpc_id = await id_of(execution, "vpc")
    return await ensure(
        run, "gateway", "gateway", lambda _token: cloud.ensure_gateway(owner(execution, "gateway"), vpc_id)
    )


async def security_group(run: StepRun) -> str:
    """Members may reach each other on MongoDB's port; nothing else may reach anything."""
    execution = run.execution
    cloud = run.tools.cloud(execution.spec.region)
    vpc_id = await id_of(execution, "vpc")
    made = await ensure(
        run,
        "security-group",
        "security-group",
        lambda _token: cloud.ensure_security_group(owner(execution, "security-group"), vpc_id, MONGODB_PORT),
    )
    return f"{made}: members only, port {MONGODB_PORT}"
