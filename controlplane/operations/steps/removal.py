"""Taking a cluster away, in dependency order; also how a create is undone.

What is deleted is what the ledger names and what the cloud finds by our tags, so that a resource whose reply was lost
goes too. Deleting what is gone already is done already.
"""

from sqlalchemy.orm import Session

from controlplane.operations.execution import StepRun
from controlplane.operations.ledgered import id_of, owner
from controlplane.store import ledger, nodes
from controlplane.store.tables import Node


async def retire(run: StepRun) -> str:
    """The agent's certificates and join token are worth nothing from now on, and its session ends."""
    node = await run.execution.node(run.step.subject)
    await run.execution.write(lambda tx: nodes.retire(tx, node.id, run.tools.clock.now()))
    return f"agent of {node.name} is refused from now on"


async def terminate(run: StepRun) -> str:
    """No instance of the slot is left."""
    gone = await _remove(run, f"instance:{run.step.subject}")
    await _forget(run, instance_id="", private_ip="", zone="")
    return gone


async def delete_volume(run: StepRun) -> str:
    """No volume of the slot is left."""
    gone = await _remove(run, f"volume:{run.step.subject}")
    await _forget(run, volume_id="")
    return gone


async def delete_network(run: StepRun) -> str:
    """Nothing of the network resource is left."""
    return await _remove(run, run.step.subject)


async def _remove(run: StepRun, resource: str) -> str:
    execution = run.execution
    cloud = run.tools.cloud(execution.spec.region)
    kind = resource.partition(":")[0]
    found = {item.id for item in await cloud.find(owner(execution, resource))}
    known = await id_of(execution, resource)
    targets = sorted(found | ({known} if known else set()))
    await execution.hold()  # a leftover run must not delete what a later one makes
    for target in targets:
        await cloud.delete(kind, target, progress=run.waiting)

    def gone(tx: Session) -> None:
        ledger.deleted(tx, cluster_id=execution.cluster_id, resource=resource, now=run.tools.clock.now())

    await execution.write(gone)
    return f"deleted {', '.join(targets)}" if targets else "there was none"


async def _forget(run: StepRun, **values: str) -> None:
    node = await run.execution.node(run.step.subject)

    def work(tx: Session) -> None:
        row = tx.get_one(Node, node.id)
        for name, value in values.items():
            setattr(row, name, value)

    await run.execution.write(work)
