"""The steps of a create and of a delete, and what a cluster costs, as the real planner would list them."""

from wap.control.v1.operation_pb2 import CostLine, Plan, PlannedStep
from wap.type.v1.cluster_pb2 import ClusterSpec

from console.fake.catalog import OPTIONS

COST_NOTE = "Invented prices of the fake control plane; nothing is billed."


def create_plan(spec: ClusterSpec) -> Plan:
    """Network, then per member an instance, its agent and its mongod, then the replica set: 3 n + 5 steps."""
    wanted = spec.replica_sets[0]
    names = member_names(spec)
    zones = {name: spec.zones[index % len(spec.zones)] for index, name in enumerate(names)}
    steps = [_step(1, "Network", "network", "Create VPC, subnets and security group", "members need private addresses")]
    for name in names:
        title = f"Launch instance for {name} in {zones[name]}"
        steps.append(_step(2, "Machines", f"instance:{name}", title, "one machine per member", "instance to run"))
        title = f"Connect agent of {name}"
        steps.append(_step(3, "Agents", f"agent:{name}", title, "only an agent reaches mongod", f"agent of {name}"))
        title = f"Start mongod on {name}"
        steps.append(_step(4, "MongoDB", f"mongod:{name}", title, "every member runs one mongod", "mongod to answer"))
    steps += [
        _step(
            5, "Replica set", f"initiate:{wanted.name}", f"Initiate {wanted.name}", "a set begins with one", "primary"
        ),
        _step(6, "Members", f"members:{wanted.name}", "Add the other members", "data on every machine", "initial sync"),
        _step(7, "Users", "user:admin", "Create the database administrator", "no access without a user"),
        _step(8, "Health", f"healthy:{wanted.name}", "Wait for all voters", "ready means ready", "healthy voters"),
    ]
    steps.sort(key=lambda step: step.stage)
    lines = cost_lines(spec)
    return Plan(steps=steps, cost_lines=lines, usd_per_month=_total(lines), cost_note=COST_NOTE)


def delete_plan(spec: ClusterSpec) -> Plan:
    """Stop, terminate, remove the network: 2 n + 1 steps."""
    steps = []
    for name in member_names(spec):
        stop = _step(1, "MongoDB", f"stop:{name}", f"Stop mongod on {name}", "the cluster is deleted", "mongod to exit")
        stop.risk = "The data of this member becomes unreachable."
        steps.append(stop)
        title = f"Terminate instance and delete volume of {name}"
        steps.append(_step(2, "Machines", f"terminate:{name}", title, "nothing billable stays", "instance to end"))
    steps.append(_step(3, "Network", "network:delete", "Delete security group, subnets and VPC", "nothing stays"))
    steps.sort(key=lambda step: step.stage)
    return Plan(steps=steps, cost_note=COST_NOTE)


def member_names(spec: ClusterSpec) -> list[str]:
    """ "rs0-0", "rs0-1", ..."""
    wanted = spec.replica_sets[0]
    return [f"{wanted.name}-{index}" for index in range(wanted.members)]


def cost_lines(spec: ClusterSpec) -> list[CostLine]:
    """Instances and volumes, in USD per month."""
    wanted = spec.replica_sets[0]
    size, count = wanted.size, wanted.members
    price = next(i.usd_per_month for i in OPTIONS.instance_types if i.name == size.instance_type)
    disks = count * size.disk_gib * OPTIONS.disk_usd_per_gib_month
    return [
        CostLine(title=f"{count} x {size.instance_type}", usd_per_month=round(count * price, 2)),
        CostLine(title=f"{count} x {size.disk_gib} GiB gp3", usd_per_month=round(disks, 2)),
    ]


def _total(lines: list[CostLine]) -> float:
    return round(sum(line.usd_per_month for line in lines), 2)


def _step(stage: int, stage_title: str, name: str, title: str, reason: str, waits_for: str = "") -> PlannedStep:
    return PlannedStep(name=name, title=title, reason=reason, waits_for=waits_for, stage=stage, stage_title=stage_title)
