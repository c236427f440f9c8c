"""Which handler makes which kind of step true. A test holds the table total."""

from collections.abc import Awaitable, Callable, Mapping

from controlplane.operations.execution import StepRun
from controlplane.operations.steps import machines, mongodb, network, removal
from controlplane.planner.plan import StepKind

HANDLERS: Mapping[StepKind, Callable[[StepRun], Awaitable[str]]] = {
    StepKind.VPC: network.vpc,
    StepKind.GATEWAY: network.gateway,
    StepKind.SUBNET: network.subnet,
    StepKind.SECURITY_GROUP: network.security_group,
    StepKind.INSTANCE: machines.instance,
    StepKind.VOLUME: machines.volume,
    StepKind.AGENT: machines.agent,
    StepKind.MONGOD: mongodb.mongod,
    StepKind.INITIATE: mongodb.initiate,
    StepKind.MEMBERS: mongodb.members,
    StepKind.HEALTHY: mongodb.healthy,
    StepKind.USER: mongodb.user,
    StepKind.SETTLE: mongodb.settle,
    StepKind.RETIRE: removal.retire,
    StepKind.TERMINATE: removal.terminate,
    StepKind.DELETE_VOLUME: removal.delete_volume,
    StepKind.DELETE_NETWORK: removal.delete_network,
}

# Steps that only wait for an agent: dropping the wait leaves nothing behind that the undo would not find. A call to AWS
# is never dropped half way, since its effect could come after the undo has looked.
INTERRUPTIBLE = frozenset(
    {
        StepKind.AGENT,
        StepKind.MONGOD,
        StepKind.INITIATE,
        StepKind.MEMBERS,
        StepKind.HEALTHY,
        StepKind.USER,
        StepKind.SETTLE,
    }
)
