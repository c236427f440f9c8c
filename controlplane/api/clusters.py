"""ClusterService: intent about clusters is written down and enqueued in one transaction; what is there is shown."""

import contextlib
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Collection
from typing import Any

from sqlalchemy.orm import Session
from wap.control.v1 import cluster_pb2 as pb
from wap.control.v1.cluster_pb2_grpc import ClusterServiceServicer

from controlplane.api import calls
from controlplane.api.calls import Call
from controlplane.api.changes import change
from controlplane.api.connection import connection
from controlplane.api.pages import Pages, page_size
from controlplane.api.permissions import find_cluster
from controlplane.api.requests import check_printable
from controlplane.api.services import Services
from controlplane.api.watching import watch
from controlplane.api.wire import operation_to_wire, plan_to_wire, spec_from_wire
from controlplane.api.wire_clusters import cluster_to_wire
from controlplane.domain.catalog import GIB_MONTH, INSTANCE_TYPES, estimate
from controlplane.domain.cluster import (
    DISK_GIB,
    Choices,
    ClusterSpec,
    ClusterState,
    check_deletable,
    check_name,
    check_spec,
)
from controlplane.domain.failure import FailureCode, Refused, invalid, not_found
from controlplane.domain.operation import OperationKind
from controlplane.planner.create import ADMIN_USER, plan_create
from controlplane.planner.delete import plan_delete
from controlplane.store import clusters, operations, projects
from controlplane.store.specs import spec_from_json, spec_to_json
from controlplane.store.tables import Cluster, Operation

DEFAULT_PAGE = 100
MAX_KEY = 64


class Clusters(ClusterServiceServicer):
    """Clusters."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._database, self._clock = services.database, services.clock

    async def CreateCluster(self, request: pb.CreateClusterRequest, context: Any) -> pb.CreateClusterResponse:
        """The wish, its operation and the audit event are one transaction; validate_only looks and writes nothing."""
        call = calls.current()
        key = check_printable("idempotency_key", request.idempotency_key, MAX_KEY, least=0)
        spec = await self._checked(check_name(request.name), spec_from_wire(request.spec))
        plan = plan_to_wire(plan_create(request.name, spec), estimate(spec))
        if request.validate_only:
            await self._database.read(lambda tx: self._check_room(tx, request))
            return pb.CreateClusterResponse(plan=plan)
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        # By user, not by token: a program that logs in again may still repeat itself.
        stored_key = f"{call.caller.user_id} {key}" if key else None

        def work(tx: Session) -> pb.CreateClusterResponse:
            operation = _repeated(tx, stored_key, digest, key)
            if operation is None:
                operation = self._open_create(tx, call, request, spec, stored_key, digest)
            cluster = tx.get_one(Cluster, operation.cluster_id)
            return pb.CreateClusterResponse(
                cluster=self._shown(tx, [cluster])[0],
                operation=operation_to_wire(operation, operations.steps_of(tx, operation.id)),
                plan=plan,
            )

        return await change(self._database, work)

    async def _checked(self, name: str, spec: ClusterSpec) -> ClusterSpec:
        """The wish with its defaults, or the first thing that is wrong with it; AWS is asked only about a good one."""
        spec = dataclasses.replace(spec, region=spec.region or self._services.default_region)
        known = await self._choices("")
        check_spec(spec, dataclasses.replace(known, zones=tuple(dict.fromkeys(spec.zones))))
        return check_spec(spec, await self._choices(spec.region))

    async def _choices(self, region: str) -> Choices:
        return dataclasses.replace(await self._services.choices(region), instance_types=tuple(INSTANCE_TYPES))

    def _check_room(self, tx: Session, request: pb.CreateClusterRequest) -> None:
        """The project is there, has room for one more cluster, and none of that name."""
        if projects.lock(tx, request.project_id) is None:
            raise not_found("project", request.project_id)
        clusters.check_name_free(tx, request.project_id, request.name)
        living, most = clusters.count_living(tx, request.project_id), self._services.max_clusters_per_project
        if living >= most:
            raise Refused(
                FailureCode.QUOTA_EXCEEDED,
                f"the project has {living} of {most} clusters",
                field="project_id",
                given=living,
                allowed=f"at most {most} clusters in a project",
            )

    def _open_create(
        self,
        tx: Session,
        call: Call,
        request: pb.CreateClusterRequest,
        spec: ClusterSpec,
        stored_key: str | None,
        digest: str,
    ) -> Operation:
        self._check_room(tx, request)
        now = self._clock.now()
        usd = sum(line.usd_per_month for line in estimate(spec))
        cluster = clusters.insert(
            tx, project_id=request.project_id, name=request.name, spec=spec, usd_per_month=usd, now=now
        )
        operation = operations.open_operation(
            tx,
            self._services.queue,
            cluster=cluster,
            kind=OperationKind.CREATE_CLUSTER,
            plan=plan_create(cluster.name, spec),
            actor=call.caller.actor,
            request_id=call.request_id,
            now=now,
            idempotency_key=stored_key,
            request_digest=digest,
        )
        after = {"name": cluster.name, "spec": spec_to_json(spec), "operation": operation.id}
        call.record(tx, now, f"cluster/{cluster.id}", after=after)
        tx.flush()
        tx.refresh(cluster)  # the guard was taken behind the session's back
        return operation

    async def GetCluster(self, request: pb.GetClusterRequest, context: Any) -> pb.GetClusterResponse:
        """By id, deleted or not, or by project and name among those not deleted."""
        found = await self._database.read(lambda tx: self._shown(tx, [find_cluster(tx, request)]))
        return pb.GetClusterResponse(cluster=found[0])

    async def ListClusters(self, request: pb.ListClustersRequest, context: Any) -> pb.ListClustersResponse:
        """By name."""
        call, size = calls.current(), page_size(request.page_size, DEFAULT_PAGE)
        filters = (request.project_id, request.include_deleted)
        pages = Pages(self._services.vault, self._clock.now(), call.name, *filters)
        cursor = pages.begin(request.page_token)
        after = (cursor[0], cursor[1]) if cursor else None

        def work(tx: Session) -> list[pb.Cluster]:
            rows = clusters.list_page(
                tx,
                project_ids=call.projects(),
                include_deleted=request.include_deleted,
                after=after,
                limit=size + 1,
            )
            return self._shown(tx, rows)

        found = await self._database.read(work)
        following = pages.token([found[size - 1].name, found[size - 1].id]) if len(found) > size else ""
        return pb.ListClustersResponse(clusters=found[:size], next_page_token=following)

    async def WatchClusters(
        self, request: pb.WatchClustersRequest, context: Any
    ) -> AsyncIterator[pb.WatchClustersResponse]:
        """All that match, at once and whenever one of them changes."""
        call = calls.current()

        def visible(tx: Session) -> list[pb.Cluster]:
            if request.cluster_id:
                found = clusters.get(tx, request.cluster_id)
                wanted = found is not None and request.project_id in ("", found.project_id)
                return self._shown(tx, [found]) if found is not None and wanted else []
            rows = clusters.list_page(tx, project_ids=call.projects(), include_deleted=False, after=None, limit=None)
            return self._shown(tx, rows)

        async def look() -> pb.WatchClustersResponse:
            return pb.WatchClustersResponse(clusters=await self._database.read(visible))

        topics = (f"cluster/{request.cluster_id}",)
        async with contextlib.aclosing(watch(self._database.bus, topics, look)) as states:
            async for state in states:
                yield state

    async def GetConnection(self, request: pb.GetConnectionRequest, context: Any) -> pb.GetConnectionResponse:
        """Gives the database administrator's password away, therefore audited although it changes nothing."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> pb.GetConnectionResponse:
            cluster = find_cluster(tx, request)
            reply = connection(tx, self._services.vault, cluster)
            call.record(tx, now, f"cluster/{cluster.id}", after={"username": ADMIN_USER})
            return reply

        return await change(self._database, work)

    async def DeleteCluster(self, request: pb.DeleteClusterRequest, context: Any) -> pb.DeleteClusterResponse:
        """Needs the typed name; a plan can be looked at without it."""
        call, now = calls.current(), self._clock.now()

        def work(tx: Session) -> pb.DeleteClusterResponse:
            cluster = find_cluster(tx, request)
            spec = spec_from_json(cluster.spec)
            operations.check_free(tx, cluster)
            if cluster.state == ClusterState.DELETED:
                raise _already_deleted(cluster)
            unnamed = request.validate_only and not request.confirm_name
            check_deletable(cluster.name, cluster.name if unnamed else request.confirm_name, spec)
            plan = plan_delete(spec)
            if request.validate_only:
                return pb.DeleteClusterResponse(plan=plan_to_wire(plan))
            operation = operations.open_operation(
                tx,
                self._services.queue,
                cluster=cluster,
                kind=OperationKind.DELETE_CLUSTER,
                plan=plan,
                actor=call.caller.actor,
                request_id=call.request_id,
                now=now,
            )
            before = {"name": cluster.name, "state": str(cluster.state), "spec": spec_to_json(spec)}
            call.record(tx, now, f"cluster/{cluster.id}", before=before, after={"operation": operation.id})
            tx.flush()
            shown = operation_to_wire(operation, operations.steps_of(tx, operation.id))
            return pb.DeleteClusterResponse(operation=shown, plan=plan_to_wire(plan))

        return await change(self._database, work)

    async def ListCreateOptions(
        self, request: pb.ListCreateOptionsRequest, context: Any
    ) -> pb.ListCreateOptionsResponse:
        """What CreateCluster accepts in one region."""
        region = request.region or self._services.default_region
        known = await self._choices("")
        if region not in known.regions:
            raise invalid("region", region, ", ".join(sorted(known.regions)))
        offered = await self._choices(region)
        return pb.ListCreateOptionsResponse(
            region=region,
            regions=sorted(offered.regions),
            zones=offered.zones,
            mongodb_versions=sorted(offered.mongodb_versions),
            instance_types=[
                pb.InstanceTypeOption(
                    name=one.name, vcpus=one.vcpus, memory_gib=one.memory_gib, usd_per_month=one.usd_per_month
                )
                for one in INSTANCE_TYPES.values()
            ],
            disk_gib_min=DISK_GIB[0],
            disk_gib_max=DISK_GIB[1],
            disk_usd_per_gib_month=GIB_MONTH,
        )

    def _shown(self, tx: Session, rows: Collection[Cluster]) -> list[pb.Cluster]:
        names = {one.id: one.name for one in projects.list_all(tx, {row.project_id for row in rows})}
        nodes = clusters.nodes_by_cluster(tx, [row.id for row in rows])
        now = self._clock.now()
        return [cluster_to_wire(row, names.get(row.project_id, ""), nodes[row.id], now) for row in rows]


def _repeated(tx: Session, stored_key: str | None, digest: str, key: str) -> Operation | None:
    """The operation that this very request has opened before."""
    operation = operations.by_idempotency_key(tx, stored_key) if stored_key else None
    if operation is not None and operation.request_digest != digest:
        raise Refused(
            FailureCode.IDEMPOTENCY_CONFLICT,
            "this idempotency key was used for another request",
            field="idempotency_key",
            given=key,
            allowed="a new key, or the same request again",
        )
    return operation


def _already_deleted(cluster: Cluster) -> Refused:
    return Refused(
        FailureCode.CLUSTER_STATE,
        f"cluster {cluster.name} is deleted",
        field="cluster_id",
        given=cluster.id,
        allowed="a cluster that is not deleted",
    )
