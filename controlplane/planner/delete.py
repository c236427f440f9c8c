"""The recipe for removing a cluster, in dependency order; also what undoes a create that was cancelled or had no capacity.

Each step asks the ledger and the cloud what there is, so the same recipe serves a cluster of which only half exists.
"""

from controlplane.domain.cluster import ClusterSpec
from controlplane.planner.plan import Plan, Stage, Step, StepKind
from controlplane.planner.topology import placements

DATA_LOSS = "the data of this member is gone for good"


def plan_delete(spec: ClusterSpec, *, undo: bool = False) -> Plan:
    """Stages that leave nothing of the cluster in the cloud: agents, instances, volumes, network."""
    members = placements(spec)
    risk = "" if undo else DATA_LOSS
    return Plan(
        (
            Stage(
                "Agents",
                tuple(
                    Step(
                        StepKind.RETIRE,
                        member.name,
                        f"End the agent of {member.name}",
                        "its certificate must not outlive its machine",
                        undo=undo,
                    )
                    for member in members
                ),
            ),
            Stage(
                "Machines",
                tuple(
                    Step(
                        StepKind.TERMINATE,
                        member.name,
                        f"Terminate the instance of {member.name}",
                        "it is billed until it is terminated",
                        waits_for="EC2 to terminate the instance",
                        undo=undo,
                    )
                    for member in members
                ),
            ),
            Stage(
                "Volumes",
                tuple(
                    Step(
                        StepKind.DELETE_VOLUME,
                        member.name,
                        f"Delete the volume of {member.name}",
                        "it is billed until it is deleted",
                        waits_for="EBS to delete the volume",
                        risk=risk,
                        undo=undo,
                    )
                    for member in members
                ),
            ),
            Stage(
                "Subnets and rules",
                (
                    _network("security-group", "the security group", undo),
                    _network("gateway", "the way out", undo),
                    *(_network(f"subnet:{zone}", f"the subnet in {zone}", undo) for zone in spec.zones),
                ),
            ),
            Stage("Network", (_network("vpc", "the network", undo),)),
        )
    )


def _network(resource: str, what: str, undo: bool) -> Step:
    return Step(
        StepKind.DELETE_NETWORK,
        resource,
        f"Delete {what}",
        "nothing of the cluster may stay behind",
        waits_for="EC2 to let go of it",
        undo=undo,
    )
