"""Asking AWS for a resource with the ledger around it: written down before the call, its id after it."""

from collections.abc import Awaitable, Callable

from sqlalchemy.orm import Session

from controlplane.cloud.port import Owner, client_token
from controlplane.operations.execution import Execution, StepRun
from controlplane.store import ledger


def owner(execution: Execution, resource: str) -> Owner:
    """Who the resource belongs to: becomes its tags."""
    return Owner(
        install_id=execution.tools.installation.install_id,
        project_id=execution.project_id,
        cluster_id=execution.cluster_id,
        cluster_name=execution.cluster_name,
        resource=resource,
    )


def token(execution: Execution, resource: str, *variant: str) -> str:
    """The client token of this resource in this attempt of this operation: the same after any crash.

    What may differ between two requests (zone, type) is part of the token, so EC2 never sees one token with two
    meanings; a new attempt of the operation may follow an undo and must not be answered with what was terminated.
    """
    key = execution.tools.installation.install_key
    return client_token(key, execution.operation_id, str(execution.attempt), resource, *variant)


async def ensure(
    run: StepRun, kind: str, resource: str, call: Callable[[str], Awaitable[str]], *, zone: str = "", variant: str = ""
) -> str:
    """AWS's id of the resource: the ledger is written, `call(client_token)` made, and its id written to the ledger."""
    execution = run.execution
    request = token(execution, resource, zone, variant)

    def intend(tx: Session) -> None:
        ledger.intend(
            tx,
            cluster_id=execution.cluster_id,
            operation_id=execution.operation_id,
            region=execution.spec.region,
            kind=kind,
            resource=resource,
            client_token=request,
            zone=zone,
            now=run.tools.clock.now(),
        )

    await execution.write(intend)
    cloud_id = await call(request)

    def made(tx: Session) -> None:
        ledger.made(tx, cluster_id=execution.cluster_id, resource=resource, client_token=request, cloud_id=cloud_id)

    await execution.write(made)
    return cloud_id


async def id_of(execution: Execution, resource: str) -> str:
    """AWS's id of a resource that an earlier step made; "" if there is none."""
    return await execution.read(lambda tx: ledger.cloud_id(tx, execution.cluster_id, resource))
